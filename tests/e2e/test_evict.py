"""Mounts of a store some packs of which are at a URL only, by the kernel and the command line."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.store import store as store_module
from tests.e2e.commands import refused, well
from tests.e2e.mounts import missing
from tests.e2e.unpacking import unpack
from tests.support.backups import FILES, MORE, WANTED, fill_store
from tests.support.buckets import BUCKET, server, use_endpoint
from tests.support.encoding import Inline
from tests.support.evicting import packs_here
from tests.support.proxy import Proxy, proxy

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]


@pytest.fixture(name="network")
def proxy_to_moto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    with server("moto", tmp_path / "moto") as port, proxy(port) as running:
        use_endpoint(monkeypatch, running.port)
        yield running


def contents(place: Path) -> dict[bytes, bytes]:
    return {os.fsencode(path.name): path.read_bytes() for path in place.iterdir()}


def test_a_small_disk(
    root: Path,
    place: Path,
    network: Proxy,
    tmp_path: Path,
    small_limits: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pictures are taken while the network is lost; all bytes are there when it is back."""
    with monkeypatch.context() as here:
        here.setattr(store_module, "Workers", Inline)
        fill_store(root, here)
    url = f"s3://{BUCKET}/small"
    well("push", "-q", root, url)
    well("mount", "-o", "ro", root, place)
    assert "umount" in refused(11, "evict", "--keep", "2K", root, url)
    well("umount", place)
    well("evict", "--keep", "2K", root, url)
    assert len(packs_here(root)) == 1
    result = unpack(root, tmp_path / "unpacked")
    assert any(url in line and "00000001.zip" in line for line in result.lines)
    assert result.code == 1

    # Nothing answers from before the mount on.
    network.plan = lambda method, path: "cut"
    network.seen.clear()
    well("mount", "-o", "timeout=4,cache=64M,repack,text", root, place)
    for name, data in MORE.items():
        (place / os.fsdecode(name)).write_bytes(data)
    (place / "again.png").write_bytes(FILES[b"00.png"])
    _wait_until_encoded(place)
    assert network.seen == []
    new = {**MORE, b"again.png": FILES[b"00.png"]}
    assert {name: (place / os.fsdecode(name)).read_bytes() for name in new} == new
    with pytest.raises(OSError, match="Input/output error"):
        (place / "00.png").read_bytes()
    assert (place / "00.png").stat().st_size == len(FILES[b"00.png"])
    network.plan = lambda method, path: ""
    assert contents(place) == WANTED | new
    (place / "01.png").unlink()
    well("umount", place)
    left = {name: data for name, data in (WANTED | new).items() if name != b"01.png"}

    # The new pictures are sent to where the old ones are, which the prune keeps.
    well("push", "-q", root, url, "--prune", "--keep-states", "1")
    well("check", url)
    well("mount", "-o", "ro", root, place)
    assert contents(place) == left
    well("umount", place)
    well("evict", "-q", "--keep", "all", root)
    network.plan = lambda method, path: "cut"
    well("check", root, "--full")
    well("mount", root, place)
    assert contents(place) == left
    well("umount", place)


def _wait_until_encoded(place: Path) -> None:
    end = time.monotonic() + 60
    while os.getxattr(place, "user.fsmount.staged") != b"0":
        assert time.monotonic() < end
        time.sleep(0.05)
