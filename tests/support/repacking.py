"""Scenes of the tests that move entries of a store: repack, background repack and reclaim."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

from fsmount.codec.delta.payload import Own, Payload
from fsmount.codec.images import webp
from fsmount.codec.images.webp import Effort
from fsmount.codec.zstd import Dictionary
from fsmount.store.frames import jobs
from fsmount.store.index import ROOT, Object
from fsmount.store.layout import Layout
from fsmount.store.maintenance import repack
from fsmount.store.maintenance.repack import RepackSummary
from fsmount.store.packs.entries import DICTIONARY
from fsmount.store.recovery.check import check_contents, check_relations
from fsmount.store.store import OpenedReadStore, OpenedStore, open_read_store, open_store
from fsmount.store.writable_store import WritableStore
from tests.support.encoding import Gate, forget_caches, get, ino_of, put
from tests.support.frames import FlakyDisk, png, screens
from tests.support.packs import unzipped


def poor(own: Own, dictionary: Dictionary | None = None, *, fast: bool = True) -> Payload:
    """Encode with little effort, so that more effort gains space."""
    return Payload(".webp", webp.encode(own.image(), Effort(0, 0))) if len(own.tiles) else Payload()


def always_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a repack move the objects of every pack, also if nothing gets smaller."""
    monkeypatch.setattr(repack, "_LEAST_GAIN", -(1 << 60))


def opening(root: Path, disk: FlakyDisk | None = None) -> OpenedStore:
    """Open a store as a new process does."""
    forget_caches()
    return open_store(root, disk=disk)


def opening_to_read(root: Path) -> OpenedReadStore:
    """Open a store for reading as a new process does."""
    forget_caches()
    return open_read_store(root)


async def fill(root: Path, files: dict[bytes, bytes]) -> None:
    """Store files; each is encoded before the next one comes."""
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            for name, data in files.items():
                put(store, name, data)
                await store.drain()


async def delete(root: Path, *names: bytes) -> None:
    """Delete files; their objects stay until something drops them."""
    with opening(root) as store:
        for name in names:
            store.index.purge(store.index.unlink(ROOT, name, 1).ino)


def pictures(count: int = 6) -> dict[bytes, bytes]:
    """Screenshots, each like the one before, by name."""
    return {b"%02d.png" % i: png(frame) for i, frame in enumerate(screens(count, height=64))}


def stored_as(root: Path, name: bytes) -> tuple[Object, Path]:
    """The object of an encoded file, and the path of its pack."""
    with opening_to_read(root) as store:
        object_id = store.index.inode(ino_of(store, name)).object_id
        assert object_id is not None
        found = store.index.object(object_id)
        return found, Layout(root).pack(found.pack)


async def run(
    root: Path, disk: FlakyDisk | None = None, progress: Callable[[int], None] = lambda count: None
) -> RepackSummary:
    """Repack the store as the command does."""
    with opening(root, disk) as opened:
        async with opened.running(count=1) as store:
            return await store.repack(progress)


async def whole(root: Path, files: dict[bytes, bytes]) -> None:
    """Check that every name shows its bytes, check finds nothing, and any unzip opens the packs."""
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            for name, data in files.items():
                assert await get(store, ino_of(store, name)) == data, name
            report = check_relations(store)
            await check_contents(store, report, lambda count: None)
            assert report.findings == []
        known = {Layout(root).pack(number) for number in opened.index.packs()}
    left = {path for path in (root / "packs").glob("*.zip") if path.stat().st_size}
    assert left == known
    for path in known:
        unzipped(path)


def packed(root: Path) -> int:
    """Bytes of the files in ``packs/`` and ``raw/``."""
    bodies = [*(root / "packs").glob("*.zip"), *(root / "raw").iterdir()]
    return sum(path.stat().st_size for path in bodies)


def facts(root: Path) -> dict[int, Any]:
    """The facts that must not change: the identity of each object, and what its render touches."""
    with opening_to_read(root) as store:
        return {
            found.id: (found.kind, found.size, found.sha256, found.depth, found.needs, found.layer)
            for found in store.index.all_objects()
            # A repack drops a dictionary that nothing needs.
            if found.kind != DICTIONARY
        }


async def reading(
    store: WritableStore,
    name: bytes,
    data: list[bytes],
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> Gate:
    """Begin to read a file; its bytes go to `data`. Its render waits at the gate."""
    gate = Gate(monkeypatch, jobs.render)

    async def read() -> None:
        data.append(await get(store, ino_of(store, name)))

    nursery.start_soon(read)
    await trio.testing.wait_all_tasks_blocked(0.01)
    return gate


def noise(count: int, size: int = 2000) -> dict[bytes, bytes]:
    """Files that nothing makes smaller, by name."""
    source = np.random.default_rng(3)
    return {b"note%03d" % number: source.bytes(size) for number in range(count)}
