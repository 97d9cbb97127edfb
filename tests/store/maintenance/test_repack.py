"""Repack: every file keeps its bytes, whatever happens on the way, and space comes back."""

from __future__ import annotations

import errno
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from fsmount.codec.delta import payload
from fsmount.codec.delta.payload import Own, Payload
from fsmount.codec.images import webp
from fsmount.codec.png.samples import Frame
from fsmount.codec.zstd import Dictionary
from fsmount.errors import WorkerDied
from fsmount.store.frames import known_tiles
from fsmount.store.frames.body_reader import BodyReader
from fsmount.store.index import ROOT, Object
from fsmount.store.ingest import large
from fsmount.store.maintenance import repack
from fsmount.store.maintenance.repack import RepackSummary
from fsmount.store.packs.mover import Mover
from fsmount.store.packs.pack import Entry, build_entry
from fsmount.store.recovery.check import check_contents, check_relations
from tests.support.encoding import Inline, deaths, get, open_files, put
from tests.support.frames import FlakyDisk, png, screens
from tests.support.repacking import (
    always_pays,
    delete,
    facts,
    fill,
    opening,
    opening_to_read,
    packed,
    pictures,
    poor,
    run,
    stored_as,
    whole,
)


@pytest.fixture(autouse=True)
def limits(inline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make codes poor at ingest, and treat files over 100,000 bytes as large."""
    monkeypatch.setattr(large, "KEEP_BYTES", 100_000)
    monkeypatch.setattr(payload, "encode", poor)


def samples() -> dict[bytes, bytes]:
    """Pictures, raw files, and a large file."""
    noise = np.random.default_rng(5).integers(0, 256, 150_000, np.uint8).tobytes()
    return pictures() | {b"note": b"not a picture", b"empty": b"", b"large": noise}


async def test_a_store_gets_smaller_and_keeps_every_byte(root: Path) -> None:
    await fill(root, samples())
    before, objects = packed(root), facts(root)
    summary = await run(root)
    assert summary.moved == len(objects)
    assert 0 < summary.smaller <= 6
    assert (summary.dropped, summary.problems) == (0, [])
    assert packed(root) < before
    assert facts(root) == objects
    await whole(root, samples())


async def test_twice_is_nothing_to_do(root: Path) -> None:
    await fill(root, samples())
    await run(root)
    state = {path: path.read_bytes() for path in (root / "packs").glob("*.zip")}
    assert await run(root) == RepackSummary()
    assert {path: path.read_bytes() for path in (root / "packs").glob("*.zip")} == state
    await whole(root, samples())


async def test_an_empty_store_is_nothing_to_do(root: Path) -> None:
    assert await run(root) == RepackSummary()
    await whole(root, {})


async def test_what_is_staged_is_encoded_first(root: Path) -> None:
    with opening(root) as store:
        put(store, b"00.png", pictures(1)[b"00.png"])
    assert (await run(root)).moved == 1
    await whole(root, pictures(1))


async def test_what_came_later_alone_is_coded_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pictures(6)
    early = dict(list(files.items())[:4])
    await fill(root, early)
    await run(root)
    await fill(root, dict(list(files.items())[4:]))
    coded: list[Frame] = []
    genuine = payload.encode_again

    def count(own: Own, dictionary: Dictionary | None = None) -> Payload:
        coded.append(own.tiles)
        return genuine(own, dictionary)

    monkeypatch.setattr(payload, "encode_again", count)
    summary = await run(root)
    assert len(coded) == 2
    assert summary.moved == 2
    assert await run(root) == RepackSummary()
    await whole(root, files)


async def test_deleted_files_give_their_space_back(root: Path) -> None:
    files = samples()
    await fill(root, files)
    objects = facts(root)
    await delete(root, b"05.png", b"note", b"large")
    gone = [number for number in objects if number not in facts(root)]
    assert gone == [], "deleting a file drops no object"
    before = packed(root)
    summary = await run(root)
    assert summary.dropped == 3
    for name in (b"05.png", b"note", b"large"):
        del files[name]
    assert list((root / "raw").iterdir()) == []
    assert packed(root) < before - 100_000
    await whole(root, files)


async def test_what_others_need_stays(root: Path) -> None:
    files = pictures(4)
    await fill(root, files)
    await delete(root, b"00.png")
    assert (await run(root)).dropped == 0
    del files[b"00.png"]
    await whole(root, files)
    await delete(root, *files)
    assert (await run(root)).dropped == 4
    await whole(root, {})
    assert packed(root) == 0
    await fill(root, pictures(4))
    await whole(root, pictures(4))


async def test_of_what_only_others_need_the_pixels_stay(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last file shows tiles of the second, none of the first. The second needs the first."""
    monkeypatch.setattr(known_tiles.KnownTiles, "keeps_anchor", lambda self, tiles: False)
    frames = screens(2, height=64)
    frames[1][:] = frames[0]
    frames[1][:48] = 255 - frames[0][:48]
    frames.append(frames[1].copy())
    frames[2][48:] = 99
    files = {b"%d.png" % number: png(frame) for number, frame in enumerate(frames)}
    await fill(root, files)
    assert [needs for *_, needs, _ in facts(root).values()] == [(), (1,), (2,)]
    await delete(root, b"0.png", b"1.png")
    summary = await run(root)
    assert (summary.dropped, summary.moved, summary.problems) == (1, 2, [])
    await whole(root, {b"2.png": files[b"2.png"]})
    assert await run(root) == RepackSummary()
    # The pixels left of 1.png must not be found for the same file when it comes again.
    await fill(root, {b"again.png": files[b"1.png"]})
    await run(root)
    await whole(root, {b"2.png": files[b"2.png"], b"again.png": files[b"1.png"]})


async def test_space_in_a_repacked_pack_comes_back(root: Path) -> None:
    files = samples()
    await fill(root, files)
    await run(root)
    await delete(root, *(name for name in files if name.endswith(b".png")))
    summary = await run(root)
    assert summary.dropped == 6
    assert summary.moved == 3
    assert await run(root) == RepackSummary()
    await whole(root, {name: files[name] for name in (b"note", b"empty", b"large")})


async def test_death_at_any_system_call_loses_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds also without the last changes that the dead process made to the index."""
    monkeypatch.setattr(repack, "_BATCH", 3)
    files = samples()
    await fill(root, files)
    await delete(root, b"05.png", b"note")
    del files[b"05.png"], files[b"note"]
    disk = FlakyDisk()
    with opening(root, disk) as opened:
        async with opened.running(count=1) as store:
            copies = deaths(disk, root, tmp_path, monkeypatch)
            await store.repack(lambda count: None)
            disk.hook = lambda call, what: 0
    calls = {call for call, _ in disk.calls}
    assert {"create", "pwrite", "fsync", "unlink"} <= calls
    assert len(copies) > 12
    for dead in copies:
        await whole(dead, files)
    for dead in copies[::4]:
        await run(dead)
        await whole(dead, files)
        assert await run(dead) == RepackSummary()


@pytest.mark.parametrize("call", ["create", "pwrite", "fsync"])
async def test_a_full_disk_leaves_the_store_as_it_was(
    root: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repack, "_BATCH", 3)
    await fill(root, samples())
    objects = facts(root)
    for skip in range(0, 12, 3):
        disk = FlakyDisk()
        with opening(root, disk) as opened:
            async with opened.running(count=1) as store:
                disk.fail_once(call, errno.ENOSPC, skip=skip)
                try:
                    await store.repack(lambda count: None)
                except* OSError as group:
                    assert [getattr(e, "errno", 0) for e in group.exceptions] == [errno.ENOSPC]
                disk.hook = lambda call, what: 0
        await whole(root, samples())
    await run(root)
    assert facts(root) == objects
    assert await run(root) == RepackSummary()
    assert open_files(root) == []


async def test_no_more_than_16_mib_of_entries_are_in_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or there is one entry, if that entry is larger."""
    always_pays(monkeypatch)
    monkeypatch.setattr(large, "KEEP_BYTES", 32 << 20)
    source = np.random.default_rng(3)
    sizes = [3 << 20] * 12 + [20 << 20, 1000, 6 << 20]
    files = {b"%02d" % n: source.bytes(size) for n, size in enumerate(sizes)}
    await fill(root, files)
    held: list[int] = []
    genuine = Mover.relocate

    async def relocate(
        self: Mover, batch: Sequence[Object], entries: dict[int, Entry], rows: Callable[..., None]
    ) -> list[Object]:
        held.append(sum(len(build_entry(entry)) for entry in entries.values()))
        assert held[-1] <= 16 << 20 or len(entries) == 1
        return await genuine(self, batch, entries, rows)

    monkeypatch.setattr(Mover, "relocate", relocate)
    tracemalloc.start()
    try:
        summary = await run(root)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert summary.moved == len(sizes)
    assert len(held) <= 6
    # Memory has one batch or the largest entry, and that entry as built and as read back.
    assert peak < (16 + 3 * 20) << 20
    assert sum(held) > 60 << 20
    await whole(root, files)


async def test_stopped_it_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repack, "_BATCH", 2)
    await fill(root, samples())
    seen: list[int] = []
    with trio.CancelScope() as scope:

        def stop(count: int) -> None:
            seen.append(count)
            if len(seen) == 5:
                scope.cancel()

        await run(root, progress=stop)
    assert scope.cancelled_caught
    await whole(root, samples())
    rest = await run(root)
    assert 0 < rest.smaller < 6
    assert await run(root) == RepackSummary()
    await whole(root, samples())


async def test_a_pack_with_a_damaged_object_stays(root: Path) -> None:
    """The pack could not be removed. What is moved out of it would take its space twice."""
    files = pictures(4)
    await fill(root, files)
    found, path = stored_as(root, b"03.png")
    data = bytearray(path.read_bytes())
    data[found.offset + found.length - 3] ^= 1
    path.write_bytes(data)
    for _ in range(2):
        summary = await run(root)
        assert [number for number, _ in summary.problems] == [found.id]
        assert summary.moved == 0
        assert path.read_bytes() == data
        assert packed(root) == len(data)
    data[found.offset + found.length - 3] ^= 1
    path.write_bytes(data)
    assert (await run(root)).moved == 4
    assert await run(root) == RepackSummary()
    await whole(root, files)


async def test_a_codec_that_errs_changes_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(own: Own, dictionary: Dictionary | None = None) -> Payload:
        return Payload(".webp", webp.encode(np.zeros_like(own.image())))

    monkeypatch.setattr(payload, "encode_again", wrong)
    await fill(root, pictures(3))
    summary = await run(root)
    assert (summary.moved, summary.smaller, summary.problems) == (0, 0, [])
    await whole(root, pictures(3))


async def test_a_proof_that_fails_leaves_the_object(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The payload is right, but the file rendered from it is wrong, as with another zlib."""
    await fill(root, pictures(3))
    with monkeypatch.context() as patch:
        patch.setattr("fsmount.store.frames.jobs.assemble", lambda *_, **__: b"something else")
        summary = await run(root)
    assert len(summary.problems) == 3
    await whole(root, pictures(3))


async def test_a_dead_worker_costs_the_effort_only(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(function: Callable[..., Any]) -> None:
        if function is repack.recode:
            raise WorkerDied("recode")

    await fill(root, pictures(3))
    with monkeypatch.context() as patch:
        patch.setattr(Inline, "before", staticmethod(die))
        summary = await run(root)
    assert (summary.moved, summary.smaller, summary.problems) == (0, 0, [])
    await whole(root, pictures(3))


async def test_a_reader_beside_it_never_sees_other_bytes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repack removes the pack after a reader has looked into the index, before the reader reads."""
    files = pictures(4)
    await fill(root, files)
    original = BodyReader._render_from
    turns: list[RepackSummary] = []

    async def late(self: BodyReader, *args: Any) -> bytes:
        if not turns:
            turns.append(await run(root))
        return await original(self, *args)

    monkeypatch.setattr(BodyReader, "_render_from", late)
    with opening_to_read(root) as opened_reader:
        async with opened_reader.running(count=1) as reader:
            for name, data in files.items():
                inode = reader.index.lookup(ROOT, name)
                assert inode is not None
                assert await get(reader, inode.ino) == data
            report = check_relations(reader)
            await check_contents(reader, report, lambda count: None)
            assert report.findings == []
    assert turns[0].moved == 4


async def test_check_beside_it_finds_no_damage(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(root, pictures(4))
    await fill(root, {b"note": b"a"})
    turns: list[RepackSummary] = []
    with opening_to_read(root) as opened_reader:
        report = check_relations(opened_reader)

        async def between(_: Callable[..., Any]) -> None:
            if not turns:
                turns.append(RepackSummary())
                await delete(root, b"note")
                turns.append(await run(root))

        monkeypatch.setattr(Inline, "before", staticmethod(between))
        async with opened_reader.running(count=1) as reader:
            await check_contents(reader, report, lambda count: None)
    assert len(turns) == 2
    assert report.findings == []
