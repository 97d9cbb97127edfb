"""A mount that repacks while no program uses it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from fsmount.mount.power_supply import on_mains
from fsmount.store.layout import Layout
from fsmount.store.recovery.check import check_contents, check_relations
from fsmount.store.store import open_read_store, open_store
from tests.e2e.mounts import SEAL_BYTES, Mount, missing
from tests.support.frames import png, screens

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
    pytest.mark.skipif(not on_mains(), reason="this machine runs on its battery"),
]


@pytest.fixture(name="mount")
def a_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mount]:
    """A new store with small packs, mounted with a repack after one idle second."""
    monkeypatch.setenv(SEAL_BYTES, "20000")
    made = Mount(tmp_path, "repack=1")
    made.start()
    yield made
    made.clean()


def pictures(count: int, seed: int) -> dict[str, bytes]:
    frames = screens(count, seed=seed, height=160, width=240)
    return {f"{seed}-{number:02d}.png": png(frame) for number, frame in enumerate(frames)}


def write(mount: Mount, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (mount.path / name).write_bytes(data)
    while os.getxattr(mount.path, "user.fsmount.staged") != b"0":
        time.sleep(0.05)


def sealed(mount: Mount) -> tuple[set[int], set[int]]:
    """Two sets: sealed packs that repack has not written, and all packs that it has written."""
    store = open_read_store(mount.store)
    try:
        written = store.index.repacked()
        packs = store.index.packs()
    finally:
        store.close()
    return {n for n, (_, full) in packs.items() if full and n not in written}, set(written)


def wait_until_repacked(mount: Mount, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while True:
        fresh, written = sealed(mount)
        if not fresh and written:
            return
        assert time.monotonic() < end, (fresh, written, mount.log.read_text())
        time.sleep(0.2)


def same(mount: Mount, files: dict[str, bytes]) -> None:
    assert {path.name: path.read_bytes() for path in mount.path.iterdir()} == files


def check(root: Path) -> None:
    """Check that the store has no damage, and no pack that the index does not list."""

    async def work() -> None:
        async with opened.running(count=1) as store:
            report = check_relations(store)
            await check_contents(store, report, lambda count: None)
            assert report.findings == []

    opened = open_store(root)
    try:
        trio.run(work)
        known = {Layout(root).pack(number) for number in opened.index.packs()}
        assert {path for path in (root / "packs").glob("*.zip") if path.stat().st_size} == known
    finally:
        opened.close()


def test_it_gets_smaller_by_itself_and_keeps_every_byte(mount: Mount) -> None:
    files = pictures(10, 1)
    write(mount, files)
    fresh, _ = sealed(mount)
    assert fresh
    wait_until_repacked(mount)
    same(mount, files)
    more = pictures(10, 2)
    write(mount, more)
    files |= more
    same(mount, files)
    wait_until_repacked(mount)
    # The check is repeated with empty caches.
    mount.stop()
    mount.start()
    same(mount, files)
    mount.stop()
    check(mount.store)
    assert "ERROR" not in mount.log.read_text()


@pytest.mark.parametrize("how", ["umount", "SIGTERM", "SIGKILL"])
def test_nobody_waits_for_it(mount: Mount, how: str) -> None:
    files = pictures(14, 3)
    write(mount, files)
    end = time.monotonic() + 60
    while "repacking" not in mount.log.read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    start = time.monotonic()
    if how == "umount":
        mount.stop()
    elif how == "SIGTERM":
        assert mount.signal(signal.SIGTERM) == 0
    else:
        mount.crash()
        mount.clear()
    assert time.monotonic() - start < 10
    check(mount.store)
    mount.start()
    wait_until_repacked(mount)
    same(mount, files)
    mount.stop()
    check(mount.store)


def test_off_unless_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SEAL_BYTES, "20000")
    made = Mount(tmp_path)
    made.start()
    try:
        write(made, pictures(10, 1))
        time.sleep(3)
        fresh, written = sealed(made)
        assert fresh
        assert not written
        made.stop()
    finally:
        made.clean()
