"""Repack beside readers and the encoder: every byte stays, and none is written again and again."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from fsmount.codec.delta import payload
from fsmount.store.frames import jobs
from fsmount.store.index import ROOT, Object
from fsmount.store.ingest import committer
from fsmount.store.maintenance import background, repack
from fsmount.store.maintenance.repack import always
from fsmount.store.packs import pack
from fsmount.store.packs.entries import FileFacts, raw_entry
from fsmount.store.packs.pack import Entry
from fsmount.store.packs.writer import Writer
from fsmount.store.store import open_store
from fsmount.store.writable_store import WritableStore
from tests.support.encoding import Gate, Inline, deaths, forget_caches, get, ino_of, put
from tests.support.frames import FlakyDisk, png, screens
from tests.support.repacking import (
    always_pays,
    delete,
    facts,
    fill,
    opening,
    opening_to_read,
    poor,
    reading,
    whole,
)

SEAL = 12_000


@pytest.fixture(autouse=True)
def limits(inline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make codes poor at ingest, make packs small, and look for garbage each time."""
    monkeypatch.setattr(background, "Workers", Inline)
    monkeypatch.setattr(background, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(committer, "_BATCH_SECONDS", 0.0)
    monkeypatch.setattr(payload, "encode", poor)
    monkeypatch.setattr(pack, "SEAL_BYTES", SEAL)


def pictures(count: int, seed: int = 0) -> dict[bytes, bytes]:
    frames = screens(count, seed=seed, height=64)
    return {b"%d-%03d.png" % (seed, i): png(frame) for i, frame in enumerate(frames)}


def noise(number: int, size: int = 3000) -> bytes:
    return random.Random(number).randbytes(size)


def state(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (root / "packs").glob("*.zip")}


async def in_background(root: Path, go_on: Callable[[], bool] = always) -> bool:
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            return await store.repack_in_background(go_on)


async def test_full_packs_are_moved_and_the_open_one_is_not(root: Path) -> None:
    files = pictures(20) | {b"note": b"some text"}
    await fill(root, files)
    objects = facts(root)
    with opening_to_read(root) as store:
        before = store.index.packs()
    fresh = {number for number, (_, sealed) in before.items() if sealed}
    assert len(fresh) >= 2
    assert await in_background(root)
    with opening_to_read(root) as store:
        after, written = store.index.packs(), store.index.repacked()
    assert after.keys() & before.keys() == before.keys() - fresh
    assert {number for number in after if number not in before} == set(written)
    assert all(written[number] == after[number][0] for number in written)
    assert sum(n for n, _ in after.values()) < sum(n for n, _ in before.values())
    assert facts(root) == objects
    await whole(root, files)
    packs = state(root)
    assert await in_background(root)
    assert state(root) == packs
    await whole(root, files)


async def test_it_stops_after_one_picture_and_goes_on(root: Path) -> None:
    files = pictures(16)
    await fill(root, files)
    seen: list[int] = []
    for turn in range(100):
        with opening(root) as opened:
            async with opened.running(count=1) as store:

                async def use(function: Callable[..., Any], store: WritableStore = store) -> None:
                    if function is repack.recode:
                        seen.append(turn)  # noqa: B023
                        ino = ino_of(store, b"0-000.png")
                        assert await get(store, ino) == files[b"0-000.png"]

                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(Inline, "before", staticmethod(use))
                    if await store.repack_in_background(always):
                        break
        await whole(root, files)
    assert turn >= 3
    assert len(seen) == len(set(seen)), "more than one picture after it was disturbed"
    packs = state(root)
    assert await in_background(root)
    assert state(root) == packs
    await whole(root, files)


async def test_what_counts_as_use(root: Path) -> None:
    files = pictures(1)
    await fill(root, files)
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            inode = store.index.lookup(ROOT, b"0-000.png")
            assert inode is not None
            await trio.sleep(0.1)
            assert store.unused_s() >= 0.1
            await get(store, inode.ino)
            assert store.unused_s() < 0.1

            async def write() -> None:
                await store.need_space()

            async def hold(use: Callable[[int], None]) -> None:
                use(9)

            for use in (partial(hold, store.hold), write, partial(hold, store.unhold)):
                await trio.sleep(0.1)
                assert store.unused_s() >= 0.1
                await use()
                assert store.unused_s() < 0.1
            await trio.sleep(0.1)
            put(store, b"new", noise(1))
            assert store.unused_s() == 0
            await store.drain()


async def test_not_begun_where_it_may_not(root: Path) -> None:
    await fill(root, pictures(16))
    packs = state(root)
    assert not await in_background(root, lambda: False)
    assert state(root) == packs


async def test_little_room_on_the_disk_is_left_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(root, pictures(16))
    packs = state(root)
    monkeypatch.setattr(background, "_FREE_PACKS", 1 << 50)
    assert await in_background(root)
    assert state(root) == packs


async def test_readers_and_the_encoder_beside_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each job waits after it got its places. Meanwhile entries move, and repack removes packs."""
    monkeypatch.setattr(repack, "_BATCH", 4)
    files = pictures(24)
    await fill(root, files)
    later = pictures(24, seed=1)
    chance = random.Random(3)
    reads = [0]
    ended = trio.Event()

    async def slow(function: Callable[..., Any]) -> None:
        forget_caches()
        if function in (jobs.render, jobs.encode):
            await trio.sleep(chance.random() * 0.05)

    monkeypatch.setattr(Inline, "before", staticmethod(slow))
    forget_caches()
    opened = open_store(root)
    try:
        async with (
            opened.running(count=1, cache_bytes=0) as store,
            trio.open_nursery() as nursery,
        ):

            async def read() -> None:
                while not ended.is_set():
                    name = chance.choice(list(files))
                    inode = store.index.lookup(ROOT, name)
                    assert inode is not None
                    assert await get(store, inode.ino) == files[name]
                    reads[0] += 1
                    await trio.lowlevel.checkpoint()

            async def write() -> None:
                for name, data in later.items():
                    put(store, name, data)
                    files[name] = data
                    await trio.sleep(0.02)
                await store.drain()

            for _ in range(3):
                nursery.start_soon(read)
            nursery.start_soon(write)
            # Act as if no program used the store. Another test covers the reasons to stop.
            await store.repack_in_background(lambda: False)
            for _ in range(6):
                await store._maintenance._background.work(always)
                await trio.sleep(0.1)
            await store.drain()
            await store._maintenance._background.work(always)
            ended.set()
    finally:
        opened.close()
    monkeypatch.undo()
    assert reads[0] > 30
    assert [record.message for record in caplog.records if record.levelname != "INFO"] == []
    with opening_to_read(root) as found:
        numbers = found.index.packs()
        assert 1 not in numbers
        assert len(found.index.repacked()) >= 2
    await whole(root, files)


async def test_a_pack_stays_while_somebody_reads_from_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pictures(16)
    await fill(root, files)
    data: list[bytes] = []
    with opening(root) as opened:
        async with opened.running(count=1) as store, trio.open_nursery() as nursery:
            await store.repack_in_background(lambda: False)
            gate = await reading(store, b"0-000.png", data, nursery, monkeypatch)
            nursery.start_soon(store._maintenance._background.work, always)
            with trio.move_on_after(30):
                while 1 in store.index.packs():
                    await trio.sleep(0.01)
            assert 1 not in store.index.packs()
            assert Path(gate.args[0].pack).exists()
            gate.open.set()
    assert data == [files[b"0-000.png"]]
    await whole(root, files)


async def test_what_is_encoded_meanwhile_finds_what_it_was_told(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the job reads its entries, they move, and repack would remove their pack."""
    files = pictures(17)
    *_, last = files
    await fill(root, {name: data for name, data in files.items() if name != last})
    go = trio.Event()
    paths: set[str] = set()

    async def late(function: Callable[..., Any]) -> None:
        if function is jobs.encode:
            paths.update(place.pack for place in Inline.args[0].places)
            await go.wait()
            forget_caches()

    with opening(root) as opened:
        async with opened.running(count=1) as store, trio.open_nursery() as nursery:
            await store.repack_in_background(lambda: False)
            monkeypatch.setattr(Inline, "before", staticmethod(late))
            ino = put(store, last, files[last])
            with trio.move_on_after(30):
                while not paths:
                    await trio.sleep(0.01)
            assert str(store.layout.pack(1)) in paths
            nursery.start_soon(store._maintenance._background.work, always)
            with trio.move_on_after(30):
                while 1 in store.index.packs():
                    await trio.sleep(0.01)
            go.set()
            await store.drain()
            found = store.index.inode(ino).object_id
            assert found is not None
            assert store.index.object(found).kind == "delta"
    assert "coded whole" not in caplog.text
    await whole(root, files)


async def test_what_is_appended_while_a_commit_waits_for_its_turn_does_not_count(
    root: Path,
) -> None:
    """No commit has read this entry back yet."""
    with opening(root) as store:
        writer = store._writers.new
        ends = []
        async with trio.open_nursery() as nursery, writer.packs.turn:
            for number in (1, 2):
                about = FileFacts(number, "a", 0, bytes(32), 1)
                new = await writer.append(raw_entry(about, "", b"x"), about, kind="raw")
                assert new is not None
                ends.append(new.offset + new.length)
                if number == 1:
                    nursery.start_soon(writer.commit, lambda: None)
                    await trio.testing.wait_all_tasks_blocked(0.01)
        assert store.index.packs() == {1: (ends[0], False)}


async def test_what_nothing_needs_is_dropped(root: Path) -> None:
    files = pictures(8) | {b"noise%d" % i: noise(i) for i in range(12)}
    await fill(root, files)
    await delete(root, *(name for name in files if name.startswith(b"noise")))
    files = {name: data for name, data in files.items() if name.startswith(b"0-")}
    assert await in_background(root)
    assert len(facts(root)) == 8
    await whole(root, files)
    # The next pictures are planned from the objects that are left.
    more = pictures(12)
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            for name, data in more.items():
                if name not in files:
                    put(store, name, data)
                    await store.drain()
            for name in list(files)[4:]:
                store.index.purge(store.index.unlink(ROOT, name, 1).ino)
                del more[name]
            assert await store.repack_in_background(always)
            for name, data in pictures(16).items():
                if name not in more:
                    more[name] = data
                    put(store, name, data)
            await store.drain()
    await whole(root, more)


async def test_nothing_is_dropped_while_something_is_encoded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(root, {b"noise%d" % i: noise(i) for i in range(12)})
    await delete(root, *(b"noise%d" % i for i in range(12)))
    with opening(root) as opened:
        async with opened.running(count=1) as store:
            gate = Gate(monkeypatch, jobs.look)
            put(store, b"again", noise(3))
            await gate.reached.wait()
            await store.repack_in_background(always)
            assert len(list(store.index.all_objects())) == 12
            gate.open.set()
            await store.drain()
            assert await store.repack_in_background(always)
    assert len(facts(root)) == 1
    await whole(root, {b"again": noise(3)})


async def test_an_object_that_cannot_be_proved_is_tried_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pictures(16)
    await fill(root, files)
    tried: list[int] = []

    def wrong(target: Any, *_: Any) -> Entry:
        tried.append(target.id)
        raise ValueError("a bug")

    with opening(root) as opened:
        async with opened.running(count=1) as store:
            with monkeypatch.context() as patch:
                patch.setattr(repack, "recode", wrong)
                assert await store.repack_in_background(always)
                assert tried
                assert await store.repack_in_background(always)
            assert len(tried) == len(set(tried))
    assert await in_background(root)
    await whole(root, files)


async def test_death_at_any_system_call_loses_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repack, "_BATCH", 3)
    files = pictures(10) | {b"noise%d" % i: noise(i) for i in range(8)}
    await fill(root, files)
    for number in range(6):
        await delete(root, b"noise%d" % number)
        del files[b"noise%d" % number]
    disk = FlakyDisk()
    with opening(root, disk) as opened:
        async with opened.running(count=1) as store:
            copies = deaths(disk, root, tmp_path, monkeypatch)
            assert await store.repack_in_background(always)
            disk.hook = lambda call, what: 0
    assert len(copies) > 20
    for dead in copies[::2]:
        await whole(dead, files)
    for dead in copies[::9]:
        assert await in_background(dead)
        await whole(dead, files)


@pytest.mark.parametrize("call", ["create", "pwrite", "fsync", "unlink"])
async def test_an_error_of_the_disk_changes_nothing(root: Path, call: str) -> None:
    files = pictures(12)
    await fill(root, files)
    objects = facts(root)
    for skip in range(3):
        disk = FlakyDisk()
        with opening(root, disk) as opened:
            async with opened.running(count=1) as store:
                disk.fail_once(call, skip=skip)
                with suppress(OSError, ExceptionGroup):
                    await store.repack_in_background(always)
                disk.hook = lambda call, what: 0
                put(store, b"more%d" % skip, noise(skip))
                await store.drain()
                await store.repack_in_background(always)
        files[b"more%d" % skip] = noise(skip)
        await whole(root, files)
    assert {number: facts(root)[number] for number in objects} == objects


class Counted:
    """Counts the bytes of entries: those written first, and those written again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stored = self.again = 0
        append, again = Writer.append, Writer.append_again

        async def first(writer: Writer, *args: Any, **more: Any) -> Object | None:
            new = await append(writer, *args, **more)
            assert new is not None
            self.stored += new.length
            return new

        async def other(writer: Writer, *args: Any) -> Object:
            moved = await again(writer, *args)
            self.again += moved.length
            return moved

        monkeypatch.setattr(Writer, "append", first)
        monkeypatch.setattr(Writer, "append_again", other)


@pytest.mark.parametrize("pattern", ["all stay", "the oldest go", "any go", "nearly all go"])
@pytest.mark.parametrize("restart", [3, 1000])
async def test_a_capture_loop_does_not_write_the_same_again_and_again(
    root: Path, pattern: str, restart: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Store a picture, idle, and so on. The mount starts again after each `restart` pictures."""
    always_pays(monkeypatch)
    counted = Counted(monkeypatch)
    chance = random.Random(1)
    files: dict[bytes, bytes] = {}
    count = 150
    for start in range(0, count, restart):
        with opening(root) as opened:
            async with opened.running(count=1) as store:
                for number in range(start, min(start + restart, count)):
                    name = b"%03d" % number
                    files[name] = noise(number, 1500)
                    put(store, name, files[name])
                    await store.drain()
                    for gone in going(pattern, list(files), chance):
                        store.index.purge(store.index.unlink(ROOT, gone, 1).ino)
                        del files[gone]
                    while not await store.repack_in_background(always):
                        pass
    await whole(root, files)
    assert counted.stored > count * 1500
    assert counted.again > 0.2 * counted.stored
    assert counted.again <= 2 * counted.stored
    if pattern == "all stay":
        assert counted.again <= counted.stored
    else:
        # The space of deleted files does come back.
        packed = sum(path.stat().st_size for path in (root / "packs").glob("*.zip"))
        alive = sum(map(len, files.values()))
        assert packed < 2.5 * alive + 4 * SEAL


def going(pattern: str, names: list[bytes], chance: random.Random) -> list[bytes]:
    """The files that are deleted now."""
    if pattern == "the oldest go" and len(names) > 30:
        return names[:1]
    if pattern == "any go" and chance.random() < 0.7:
        return [chance.choice(names)]
    if pattern == "nearly all go" and len(names) > 60:
        return chance.sample(names, 50)
    return []
