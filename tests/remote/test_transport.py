"""What each transport does, and what it says when a server or a network fails."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from fsmount.errors import RemoteFailed, RemoteMissing, RemoteNeedsExtra, RemoteRefused, UsageError
from fsmount.remote import s3
from fsmount.remote.folder import FolderTransport
from fsmount.remote.transport import transport_to
from tests.support.buckets import BUCKET, free_port, use_endpoint
from tests.support.frames import FlakyDisk
from tests.support.proxy import proxy

DATA = bytes(range(256)) * 40


def test_objects(url: str) -> None:
    at = transport_to(url)
    assert list(at.list("packs")) == []
    assert at.size("packs/a") is None
    assert at.put("packs/a", DATA)
    assert at.put("packs/b", b"")
    assert at.put("state/1", b"x")
    assert at.get("packs/a") == DATA
    assert at.get("packs/b") == b""
    assert at.get_range("packs/a", 250, 10) == DATA[250:260]
    assert at.get_range("packs/a", len(DATA) - 4, 10) == DATA[-4:]
    assert at.size("packs/a") == len(DATA)
    assert list(at.list("packs")) == [("packs/a", len(DATA)), ("packs/b", 0)]
    at.delete("packs/a")
    at.delete("packs/a")
    assert at.size("packs/a") is None
    with pytest.raises(RemoteMissing, match="packs/a"):
        at.get("packs/a")


def test_a_folder_in_a_folder_that_is_missing(url: str) -> None:
    """The first pack that is sealed comes after a prune: nothing is in packs/ yet."""
    remote = transport_to(url)
    assert remote.put("packs/1/ab", b"one")
    assert remote.get("packs/1/ab") == b"one"


def test_an_object_is_made_once(url: str) -> None:
    at = transport_to(url)
    assert at.put("state/1", b"first")
    assert not at.put("state/1", b"second")
    assert at.get("state/1") == b"first"


def test_a_file_that_is_being_written_is_no_object(tmp_path: Path) -> None:
    at = transport_to(f"file://{tmp_path}/remote")
    at.put("packs/a", DATA)
    (tmp_path / "remote/packs/b.0123456789abcdef.new").write_bytes(b"half")
    assert list(at.list("packs")) == [("packs/a", len(DATA))]


def test_a_filesystem_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    at = transport_to(f"file://{tmp_path}/remote")
    assert at.put("state/1", b"first")
    assert not at.put("state/1", b"second")
    assert at.get("state/1") == b"first"
    assert os.listdir(tmp_path / "remote/state") == ["1"]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    disk = FlakyDisk()
    at = FolderTransport("file:///x", str(tmp_path / "remote"), disk)
    at.put("packs/a", DATA)
    for call in ("pwrite", "fsync"):
        disk.fail_once(call, errno.ENOSPC)
        with pytest.raises(RemoteFailed, match=f"packs/b failed: told to fail in {call}"):
            at.put("packs/b", DATA)
        assert os.listdir(tmp_path / "remote/packs") == ["a"]


def test_a_disk_that_is_not_mounted(tmp_path: Path) -> None:
    at = transport_to(f"file://{tmp_path}/disk/remote")
    with pytest.raises(RemoteFailed, match="mount the disk"):
        at.put("packs/a", DATA)
    assert list(tmp_path.iterdir()) == []


def test_a_name_with_spaces_and_bytes(tmp_path: Path) -> None:
    at = transport_to(f"file://{tmp_path}/my%20disk%ff")
    at.put("packs/a", DATA)
    assert (tmp_path / "my disk\udcff/packs/a").read_bytes() == DATA


@pytest.mark.parametrize(
    "url", ["ftp://host/x", "s3://", "file://host/x", "file://", "s3://b/?x=1"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="s3://BUCKET/PREFIX or file:///FOLDER"):
        transport_to(url)


@pytest.mark.parametrize("action", ["cut", "lost", "truncate", "503", "delay"])
def test_a_fault_that_passes(moto: int, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    with proxy(moto) as between:
        use_endpoint(monkeypatch, between.port)
        at = transport_to(f"s3://{BUCKET}/passing-{action}")
        between.plan = lambda method, path: action if len(between.seen) % 2 else ""
        # If only the answer was lost, the second try finds what the first one made.
        made = at.put("packs/a", DATA)
        assert made or action in ("lost", "truncate")
        assert at.get("packs/a") == DATA
        assert at.size("packs/a") == len(DATA)


def test_a_server_that_refuses(moto: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy(moto, lambda method, path: "403") as between:
        use_endpoint(monkeypatch, between.port)
        at = transport_to(f"s3://{BUCKET}/refused")
        with pytest.raises(RemoteRefused, match=r"refused/packs/a is refused.*AWS_ACCESS_KEY_ID"):
            at.put("packs/a", DATA)
        with pytest.raises(RemoteRefused):
            at.get("packs/a")


def test_a_condition_that_fails(moto: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy(moto, lambda method, path: "412") as between:
        use_endpoint(monkeypatch, between.port)
        assert not transport_to(f"s3://{BUCKET}/x").put("state/1", DATA)


def test_a_network_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "RETRY_S", 1)
    use_endpoint(monkeypatch, free_port())
    at = transport_to(f"s3://{BUCKET}/x")
    with pytest.raises(RemoteFailed, match="Check AWS_ENDPOINT_URL and the network"):
        at.put("packs/a", DATA)


def test_a_bucket_that_is_missing(moto: int, monkeypatch: pytest.MonkeyPatch) -> None:
    use_endpoint(monkeypatch, moto)
    with pytest.raises(RemoteFailed, match="no such bucket"):
        transport_to("s3://no-bucket-there/x").put("packs/a", DATA)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "fsmount.remote.s3")
    with pytest.raises(RemoteNeedsExtra, match=r"pip install 'fsmount\[s3\]'"):
        transport_to("s3://bucket/x")
