"""Stores to back up, what a store shows, and what a check finds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import trio

from fsmount.store.disk.disk import Disk
from fsmount.store.packs import pack
from fsmount.store.recovery.check import check_contents, check_relations
from fsmount.store.store import open_read_store, open_store
from fsmount.store.transfer.backup import BackupSummary, back_up
from tests.support.encoding import forget_caches, get, put
from tests.support.frames import png, screens
from tests.support.repacking import fill, pictures

FILES = pictures(6)
MORE = {b"more %d.png" % i: png(frame) for i, frame in enumerate(screens(4, seed=9, height=64))}
LARGE = {b"large": bytes(range(256)) * 40}
WANTED = {**FILES, **LARGE, b"staged": b"not encoded yet"}


def shown(root: Path) -> dict[bytes, bytes]:
    """All files of a store by path, as a reader gets them."""
    forget_caches()

    async def read() -> dict[bytes, bytes]:
        with open_read_store(root) as opened:
            async with opened.running(count=1) as store:
                found = {}
                for path, node in store.index.walk():
                    if node.object_id is not None or node.staged is not None:
                        found[path] = await get(store, node.ino)
                return found

    return trio.run(read)


def faults(root: Path) -> list[tuple[str, str]]:
    """What `check --full` finds."""
    forget_caches()

    async def look() -> list[tuple[str, str]]:
        with open_read_store(root) as opened:
            report = check_relations(opened)
            async with opened.running(count=1) as store:
                await check_contents(store, report, lambda count: None)
        return [(f.what, f.why) for f in report.findings]

    return trio.run(look)


def saved(
    root: Path, dest: Path, *, disk: Disk | None = None, reread: bool = False
) -> BackupSummary:
    """Back a store up to `dest`. Opens the store for reading."""
    with open_read_store(root) as store:
        return back_up(store, dest, disk=disk, reread=reread)


def fill_store(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill a store with sealed packs, an open one, a large file and a staged one: WANTED."""
    monkeypatch.setattr(pack, "SEAL_BYTES", 12_000)
    trio.run(fill, root, FILES | LARGE)
    with open_store(root) as store:
        put(store, b"staged", b"not encoded yet")


def other_past(filled: Path, tmp_path: Path) -> dict[bytes, bytes]:
    """Back a store up, put it back as it was before, and let it go on in another way.

    The backup is ``tmp_path / "b"``. Returns the files that only the store has.
    """
    shutil.copytree(filled, tmp_path / "old")
    trio.run(fill, filled, MORE)
    saved(filled, tmp_path / "b")
    shutil.rmtree(filled)
    (tmp_path / "old").rename(filled)
    others = {b"other %d" % i: os.urandom(2000) for i in range(9)}
    trio.run(fill, filled, others)
    return others
