"""Reclaim on a full disk: deleted files give their space back, needed files keep their bytes."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from fsmount.store.disk.reserve import RESERVE_BYTES, Reserve
from fsmount.store.frames import jobs
from fsmount.store.index import ROOT
from fsmount.store.layout import Layout
from fsmount.store.maintenance import free_space, reclaim
from fsmount.store.maintenance.repack import Repacker
from fsmount.store.packs import pack
from fsmount.store.packs.writer import Writer
from tests.support.encoding import Inline, deaths, put
from tests.support.frames import FlakyDisk, png, screens
from tests.support.repacking import (
    delete,
    facts,
    fill,
    opening,
    opening_to_read,
    packed,
    pictures,
    reading,
    run,
    stored_as,
    whole,
)

ALL = 1 << 60
SIZE = 3000
# Bytes of an entry in addition to the bytes of its file.
MORE = 300


@pytest.fixture(autouse=True)
def limits(inline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make packs small, and move a few entries at a time."""
    monkeypatch.setattr(pack, "SEAL_BYTES", 30_000)
    monkeypatch.setattr(reclaim, "_FIRST_BYTES", 7000)
    monkeypatch.setattr(reclaim, "_MOST_BYTES", 14_000)
    monkeypatch.setattr(reclaim, "_MORE_BYTES", SIZE)


def noise(*numbers: int, size: int = SIZE) -> dict[bytes, bytes]:
    return {b"%02d.bin" % n: random.Random(n).randbytes(size) for n in numbers}


def has_free(monkeypatch: pytest.MonkeyPatch, free: Callable[[], int]) -> None:
    monkeypatch.setattr(Reserve, "free", lambda self: free())


async def reclaimed(root: Path, enough: int = ALL, disk: FlakyDisk | None = None) -> None:
    with opening(root, disk) as opened:
        async with opened.running(count=1) as store:
            await store.reclaim(enough)


async def half(root: Path, count: int = 24) -> dict[bytes, bytes]:
    """Make a store of noise, and delete every second file. Returns the files that are left."""
    await fill(root, noise(*range(count)))
    await delete(root, *noise(*range(0, count, 2)))
    return noise(*range(1, count, 2))


async def test_what_was_deleted_gives_its_room_back(root: Path) -> None:
    files = await half(root)
    kept = {found for found, facts_ in facts(root).items() if facts_[1] and found % 2 == 0}
    objects = facts(root)
    before = packed(root)
    await reclaimed(root)
    assert before > 24 * SIZE
    assert packed(root) < 13 * (SIZE + MORE)
    assert facts(root) == {number: objects[number] for number in kept}
    with opening_to_read(root) as store:
        assert all(sealed for _, sealed in store.index.packs().values())
    await whole(root, files)
    after = packed(root)
    await reclaimed(root)
    assert packed(root) == after
    await run(root)
    await whole(root, files)


class TightDisk(FlakyDisk):
    """A disk on which packs take at most `size` bytes together."""

    def __init__(self, root: Path, size: int) -> None:
        super().__init__()
        self.root = root
        self.size = size
        self.refused = 0

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        if packed(self.root) + len(data) > self.size:
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().pwrite(fd, data, offset)


async def test_with_room_for_one_entry_all_comes_back(root: Path) -> None:
    files = await half(root)
    disk = TightDisk(root, packed(root) + SIZE + MORE)
    await reclaimed(root, disk=disk)
    assert disk.refused
    assert packed(root) < 13 * (SIZE + MORE)
    await whole(root, files)


async def test_an_entry_that_has_no_room_stays_and_others_go(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = {b"large.bin": random.Random(99).randbytes(3 * SIZE)}
    await fill(root, noise(1, 2) | large | noise(3, 4))
    await delete(root, b"01.bin", b"03.bin")
    before = packed(root)
    disk = TightDisk(root, before + SIZE + MORE)
    has_free(monkeypatch, lambda: disk.size - packed(root))
    with opening(root, disk) as opened:
        async with opened.running(count=1) as store:
            await store.reclaim(ALL)
            # The space of 3, behind the large file, came back. That of 1, before it, did not.
            assert before - SIZE - MORE < packed(root) < before - SIZE + MORE
            refused = disk.refused
            await store.reclaim(ALL)
            assert disk.refused == refused
            disk.size += 2 * SIZE
            await store.reclaim(ALL)
            assert packed(root) < before - 2 * SIZE + MORE
    await whole(root, noise(2, 4) | large)


async def test_repack_on_a_full_disk_makes_room_first(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = await half(root)
    disk = TightDisk(root, packed(root) + SIZE + MORE)
    has_free(monkeypatch, lambda: disk.size - packed(root))
    summary = await run(root, disk)
    assert (summary.dropped, summary.moved) == (12, 0)
    assert packed(root) < 13 * (SIZE + MORE)
    await whole(root, files)


async def test_it_ends_when_there_is_enough(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = await half(root)
    full = packed(root)
    has_free(monkeypatch, lambda: full - packed(root))
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            await store.reclaim(2 * SIZE)
            assert 2 * SIZE <= full - packed(root) < 6 * SIZE
            # The rest comes back on request.
            await store.reclaim(ALL)
            assert packed(root) < 13 * (SIZE + MORE)
    await whole(root, files)


async def test_pixels_that_others_need_stay(root: Path) -> None:
    files = pictures(12) | {b"note": b"no picture"}
    await fill(root, files)
    gone = list(files)[:6]
    await delete(root, *gone)
    await reclaimed(root)
    await whole(root, {name: data for name, data in files.items() if name not in gone})


async def test_a_damaged_entry_keeps_its_pack_only(root: Path) -> None:
    files = await half(root)
    found, path = stored_as(root, b"09.bin")
    data = bytearray(path.read_bytes())
    data[found.offset + found.length - 5] ^= 1
    path.write_bytes(data)
    await reclaimed(root)
    with opening_to_read(root) as store:
        assert store.index.object(found.id) == found
    data[found.offset + found.length - 5] ^= 1
    path.write_bytes(bytes(data)[: path.stat().st_size])
    assert packed(root) < 18 * (SIZE + MORE)
    await whole(root, files)


async def test_a_pack_is_not_cut_while_somebody_reads_from_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pictures(4)
    await fill(root, files | noise(1, 2))
    await delete(root, *noise(1, 2))
    data: list[bytes] = []
    with opening(root) as opened:
        async with opened.running(count=1) as store, trio.open_nursery() as nursery:
            gate = await reading(store, b"03.png", data, nursery, monkeypatch)
            path = Path(gate.args[0].pack)
            number, size = int(path.stem), path.stat().st_size
            nursery.start_soon(store.reclaim, ALL)
            with trio.fail_after(30):
                while store.index.packs()[number][0] == size:
                    await trio.sleep(0.01)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert path.stat().st_size >= size
            gate.open.set()
    assert data == [files[b"03.png"]]
    assert Layout(root).pack(number).stat().st_size < size - 2 * SIZE + MORE
    await whole(root, files)


async def test_what_is_under_way_begins_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame is planned on an object that reclaim drops, and another file waits for its commit."""
    before = pictures(8)
    await fill(root, before)
    later = {b"late.png": png(screens(9, height=64)[8])} | noise(3)
    go, planned = trio.Event(), trio.Event()

    async def late(function: Callable[..., Any]) -> None:
        if function is jobs.encode and not planned.is_set():
            planned.set()
            await go.wait()

    monkeypatch.setattr(Inline, "before", staticmethod(late))
    with opening(root) as opened:
        async with opened.running(count=1) as store, trio.open_nursery() as nursery:
            for name, data in later.items():
                put(store, name, data)
            await planned.wait()
            for name in before:
                store.index.purge(store.index.unlink(ROOT, name, 1).ino)
            nursery.start_soon(store.reclaim, ALL)
            await trio.testing.wait_all_tasks_blocked(0.01)
            go.set()
            await store.drain()
            assert store.index.unneeded_objects() == []
            assert len(list(store.index.all_objects())) == len(later)
    await whole(root, later)


async def test_death_at_any_system_call_loses_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = await half(root, 14)
    disk = FlakyDisk()
    with opening(root, disk) as opened:
        async with opened.running(count=1) as store:
            copies = deaths(disk, root, tmp_path, monkeypatch)
            await store.reclaim(ALL)
            disk.hook = lambda call, what: 0
    assert {"create", "pwrite", "fsync", "ftruncate"} <= {call for call, _ in disk.calls}
    assert len(copies) > 12
    for dead in copies:
        await whole(dead, files)
        await reclaimed(dead)
        assert packed(dead) < 8 * (SIZE + MORE)
        await whole(dead, files)


@pytest.mark.parametrize("call", ["create", "pwrite", "fsync", "ftruncate"])
async def test_an_error_of_the_disk_changes_nothing(root: Path, call: str) -> None:
    files = await half(root, 14)
    for skip in range(4):
        disk = FlakyDisk()
        with opening(root, disk) as opened:
            async with opened.running(count=1) as store:
                disk.fail_once(call, errno.ENOSPC, skip=skip)
                await store.reclaim(ALL)
                disk.hook = lambda call, what: 0
                for name, data in noise(50 + skip).items():
                    put(store, name, data)
                    files[name] = data
                await store.drain()
        await whole(root, files)
    await reclaimed(root)
    assert packed(root) < 12 * (SIZE + MORE)
    await whole(root, files)


def refuse(reserve: Reserve) -> bool:
    return False


async def test_a_write_waits_for_room(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write reclaims only if a file was deleted since the last reclaim that freed nothing."""
    files = await half(root)
    full = packed(root)
    looks: list[Repacker] = []
    drop = Repacker.drop_unneeded

    async def look(self: Repacker, needed: Any = None) -> None:
        looks.append(self)
        await drop(self, needed)

    monkeypatch.setattr(Repacker, "drop_unneeded", look)
    monkeypatch.setattr(Reserve, "fill", lambda self: packed(root) < 0.7 * full)
    has_free(monkeypatch, lambda: RESERVE_BYTES - 1)
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            await store.need_space()
            await store.need_space()
            assert len(looks) == 1
            monkeypatch.setattr(Reserve, "fill", refuse)
            for _ in range(3):
                with pytest.raises(OSError, match="No space left"):
                    await store.need_space()
            assert len(looks) == 1
            store.index.purge(store.index.unlink(ROOT, b"01.bin", 1).ino)
            del files[b"01.bin"]
            with pytest.raises(OSError, match="No space left"):
                await store.need_space()
            assert len(looks) == 2
            has_free(monkeypatch, lambda: RESERVE_BYTES)
            monkeypatch.setattr(Reserve, "fill", lambda self: True)
            store.index.purge(store.index.unlink(ROOT, b"03.bin", 1).ino)
            del files[b"03.bin"]
            await store.need_space()
            assert len(looks) == 2
    await whole(root, files)


async def test_nobody_need_write_for_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await half(root)
    monkeypatch.setattr(free_space, "LOOK_SECONDS", 0.01)
    has_free(monkeypatch, lambda: 0)
    before = packed(root)
    with opening(root) as opened:
        async with opened.running(count=1):
            with trio.fail_after(30):
                while packed(root) > 0.7 * before:
                    await trio.sleep(0.01)


async def test_ended_in_the_middle_it_is_whole(root: Path) -> None:
    files = await half(root)
    for seconds in (0.001, 0.003, 0.01):
        with opening(root) as opened:
            async with opened.running(count=1) as store:
                with trio.move_on_after(seconds):
                    await store.reclaim(ALL)
        await whole(root, files)


def test_a_new_store_has_nothing_to_give(root: Path) -> None:
    async def fresh() -> None:
        with opening(root) as opened:
            async with opened.running(count=1) as store:
                await store.reclaim(ALL)

    trio.run(fresh)


async def test_nothing_is_encoded_while_the_encoder_is_halted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The halt holds at every stage of a file, even if the file was let through just before."""
    appended: list[int] = []
    append = Writer.append

    def note(self: Writer, entry: Any, about: Any, **more: Any) -> Any:
        appended.append(about.id)
        return append(self, entry, about, **more)

    monkeypatch.setattr(Writer, "append", note)
    files = noise(*range(60), size=200)
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            encoder = store._encoder
            for number, (name, data) in enumerate(files.items()):
                put(store, name, data)
                for _ in range(number % 6):
                    await trio.lowlevel.checkpoint()
                async with encoder.halted():
                    before = len(appended)
                    await trio.sleep(0.02)
                    assert len(appended) == before
            await store.drain()
    assert len(appended) >= len(files)
    await whole(root, files)
