"""The trash of an open store: what leaves it, and when."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from fsmount.store import config
from fsmount.store.disk.reserve import Reserve
from fsmount.store.index import ROOT, Inode
from fsmount.store.maintenance import reclaim
from fsmount.store.retention.limits import TrashLimits
from fsmount.store.retention.trash import Name
from fsmount.store.writable_store import WritableStore
from tests.support.encoding import ino_of
from tests.support.repacking import fill, opening, packed, whole

pytestmark = pytest.mark.usefixtures("inline")

SIZE = 3000
NAMES = [b"%02d.bin" % number for number in range(8)]
FILES = {name: random.Random(name).randbytes(SIZE) for name in NAMES}
ALL = 1 << 60


async def prune(store: WritableStore, *names: bytes) -> None:
    wanted = [Name(ROOT, name, name, ino_of(store, name)) for name in names]
    assert await store.prune(wanted) == len(names)


def in_trash(store: WritableStore) -> list[bytes]:
    return [entry.path for entry, _ in store.index.in_trash()]


async def test_a_full_disk_takes_the_oldest_first(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(root, FILES)
    monkeypatch.setattr(reclaim, "_MORE_BYTES", SIZE)
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            for name in reversed(NAMES[:6]):
                await prune(store, name)
            full = packed(root)
            monkeypatch.setattr(Reserve, "free", lambda self: full - packed(root))
            await store.reclaim(enough=2 * SIZE)
            # Two files of some 3.3 KB each have more than the 6,000 bytes that are missing.
            assert in_trash(store) == NAMES[3::-1]
            await store.reclaim(enough=SIZE)
            assert in_trash(store) == NAMES[3::-1]
            await store.reclaim(enough=ALL)
            assert in_trash(store) == []
    await whole(root, {name: FILES[name] for name in NAMES[6:]})
    assert packed(root) < 2 * (SIZE + 500)


async def test_names_leave_by_the_limits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(root, FILES)
    day_ns = 86400 * 10**9
    now_ns = time.time_ns()
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            for days, name in ((31, NAMES[0]), (29, NAMES[1]), (0, NAMES[2])):
                monkeypatch.setattr(time, "time_ns", lambda days=days: now_ns - days * day_ns)
                await prune(store, name)
            monkeypatch.setattr(time, "time_ns", lambda: now_ns)
            assert await store.let_expire() == 1
            assert in_trash(store) == NAMES[1:3]
            limits = TrashLimits(days=None, most_bytes=SIZE + 500)
            config.change(store.layout, store.disk, trash=limits.value())
            assert await store.let_expire() == 1
            assert in_trash(store) == NAMES[2:3]
            assert await store.let_expire() == 0
            await store.give_back()
    await whole(root, {name: FILES[name] for name in NAMES[3:]})
    assert packed(root) < 6 * (SIZE + 500)


async def test_a_file_that_is_open_stays_until_it_is_closed(root: Path) -> None:
    """A mount takes care of inodes without a name."""
    await fill(root, FILES)
    nameless: list[Inode] = []
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            store.trash.nameless = nameless.append
            await prune(store, NAMES[0])
            await store.trash.remove([entry.name for entry, _ in store.index.in_trash()])
            assert [node.nlink for node in nameless] == [0]
            assert store.index.inode(nameless[0].ino).object_id is not None


async def test_what_changed_since_the_plan_stays(root: Path) -> None:
    await fill(root, {name: FILES[name] for name in NAMES[:4]})
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            names = [Name(ROOT, name, name, ino_of(store, name)) for name in NAMES[:4]]
            # One is gone, another file has the name of one, and one is written to.
            store.index.purge(store.index.unlink(ROOT, NAMES[0], 1).ino)
            store.index.rename(ROOT, NAMES[1], ROOT, NAMES[2], 1)
            store.index.stage(ino_of(store, NAMES[3]), 77, 1)
            names.append(Name(ROOT, NAMES[2], NAMES[2], names[1].ino))
            moved: list[bytes] = []
            assert await store.prune(names, lambda folder, name: moved.append(name)) == 1
            assert moved == [NAMES[2]]
            assert store.index.lookup(ROOT, NAMES[3]) is not None


async def test_a_second_name_keeps_the_file(root: Path) -> None:
    await fill(root, {NAMES[0]: FILES[NAMES[0]]})
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            store.index.link(ROOT, b"other", ino_of(store, NAMES[0]), 1)
            await prune(store, NAMES[0])
            await store.trash.remove([entry.name for entry, _ in store.index.in_trash()])
            await store.give_back()
    await whole(root, {b"other": FILES[NAMES[0]]})
