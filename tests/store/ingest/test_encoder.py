"""Background encoding: staged files become objects, and no byte is lost at any moment."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from fsmount.errors import WorkerDied
from fsmount.store import config
from fsmount.store.frames import jobs
from fsmount.store.frames.layers import Done
from fsmount.store.frames.relations import References
from fsmount.store.index import ROOT
from fsmount.store.ingest import committer, retries
from fsmount.store.store import open_store
from fsmount.store.writable_store import WritableStore
from tests.support.encoding import (
    NOTE,
    Gate,
    Inline,
    check,
    forget_caches,
    get,
    put,
    reopened,
    rewrite,
    samples,
    settled,
    token_of,
    unlink_staged,
)
from tests.support.frames import FlakyDisk, png, screens, stacked

pytestmark = pytest.mark.usefixtures("inline")


async def test_files_of_all_kinds_are_encoded(root: Path) -> None:
    files = samples()
    opened = open_store(root)
    async with opened.running(count=2) as store:
        for name, data in files.items():
            put(store, name, data)
        assert store.pending() == len(files)
        await settled(store, files)
        assert store.staging.tokens() == []
    stats = opened.stats()
    assert stats["objects"] == {"key": 1, "delta": 3, "jpeg": 0, "raw": 3, "staged": 0}
    assert (stats["files"], stats["frames"]) == (7, 4)
    assert stats["raw_reasons"]["not a PNG"] == 2
    opened.close()
    await reopened(root, files)


async def test_pictures_are_coded_side_by_side(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each copies tiles of the ones before, which are not coded yet. The first is the anchor."""
    coding: set[int] = set()
    all_coding = trio.Event()

    async def before(function: Callable[..., Any]) -> None:
        if function is jobs.encode and Inline.args[0].about.id > 1:
            order = Inline.args[0]
            assert {each.about.id for each in order.pending} >= coding
            coding.add(order.about.id)
            if len(coding) == 3:
                all_coding.set()
            await all_coding.wait()

    monkeypatch.setattr(Inline, "before", staticmethod(before))
    files = {b"%d" % number: png(frame) for number, frame in enumerate(stacked(4))}
    opened = open_store(root)
    async with opened.running(count=2) as store:
        for name, data in files.items():
            put(store, name, data)
        await settled(store, files)
        rows = list(store.index.all_objects())
        assert [row.kind for row in rows] == ["key", "delta", "delta", "delta"]
        assert rows[3].needs == (1, 2, 3)
    opened.close()
    await reopened(root, files)


async def test_frames_are_encoded_in_order_of_folder_and_name(root: Path) -> None:
    opened = open_store(root)
    names = [b"c", b".a.AbCdEf", b"b", b"d"]
    async with opened.running(count=2) as store:
        for name in names:
            put(store, name, name + NOTE)
        await store.drain()
        order = [store.index.names_of(found.id)[0] for found in store.index.all_objects()]
    assert order == [b".a.AbCdEf", b"b", b"c", b"d"]
    opened.close()


async def test_equal_files_share_one_object(root: Path) -> None:
    data = png(screens(1)[0])
    opened = open_store(root)
    async with opened.running(count=2) as store:
        for name in (b"a", b"b"):
            put(store, name, data)
        await store.drain()
        put(store, b"c", data)
        await settled(store, {b"a": data, b"b": data, b"c": data})
    assert len(list(opened.index.all_objects())) == 1
    assert opened.index.object(1).uses == 3
    opened.close()


async def overwrite(store: WritableStore, gate: Gate, old: bytes, new: bytes) -> tuple[int, int]:
    """Write in place to a file that a job has. Returns its inode and its staged body.

    The file stays held.
    """
    ino = put(store, b"a", old)
    await gate.reached.wait()
    store.hold(ino)
    token = token_of(store, ino)
    store.staging.path(token).write_bytes(new)
    return ino, token


@pytest.mark.parametrize("function", [jobs.look, jobs.encode])
async def test_a_writer_spoils_what_is_under_way(
    root: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any]
) -> None:
    old, new = (png(frame) for frame in screens(2))
    gate = Gate(monkeypatch, function)
    opened = open_store(root)
    async with opened.running(count=1) as store:
        ino, token = await overwrite(store, gate, old, new)
        gate.open.set()
        await store.drain()
        assert store.index.inode(ino).staged == token
        assert list(store.index.all_objects()) == []
        store.queue(ino)
        assert store.pending() == 0, "held files are not encoded"
        store.unhold(ino)
        store.queue(ino)
        await settled(store, {b"a": new})
    opened.close()
    await reopened(root, {b"a": new})


@pytest.mark.parametrize("function", [jobs.look, jobs.encode])
async def test_a_writer_that_has_come_and_gone_spoils_it_too(
    root: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any]
) -> None:
    """The writer changes the staged file in place. Only the writer's report shows the change."""
    old, new = (png(frame) for frame in screens(2))
    gate = Gate(monkeypatch, function)
    opened = open_store(root)
    async with opened.running(count=1) as store:
        ino, _ = await overwrite(store, gate, old, new)
        store.unhold(ino)
        store.queue(ino)
        gate.open.set()
        await settled(store, {b"a": new})
    opened.close()


async def test_a_file_queued_again_while_under_way_is_encoded_anew(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (png(frame) for frame in screens(2))
    gate = Gate(monkeypatch, jobs.encode)
    opened = open_store(root)
    async with opened.running(count=1) as store:
        ino = put(store, b"a", old)
        await gate.reached.wait()
        rewrite(store, ino, new)
        gate.open.set()
        await settled(store, {b"a": new})
    opened.close()


async def test_hold_after_queue_and_two_writers(root: Path) -> None:
    opened = open_store(root)
    async with opened.running(count=1) as store:
        ino = put(store, b"a", NOTE)
        store.hold(ino)
        store.hold(ino)
        await store.drain()
        assert store.index.inode(ino).staged is not None
        store.unhold(ino)
        store.queue(ino)
        assert store.pending() == 0
        store.unhold(ino)
        store.queue(ino)
        await settled(store, {b"a": NOTE})
    opened.close()


@pytest.mark.parametrize("function", [None, jobs.look, jobs.encode])
async def test_a_file_unlinked_while_it_waits_is_dropped(
    root: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any] | None
) -> None:
    gate = Gate(monkeypatch, function or jobs.render)
    opened = open_store(root)
    async with opened.running(count=1) as store:
        put(store, b"a", png(screens(1)[0]))
        if function is not None:
            await gate.reached.wait()
        unlink_staged(store, b"a")
        gate.open.set()
        put(store, b"b", NOTE)
        await settled(store, {b"b": NOTE})
    assert opened.staging.tokens() == []
    opened.close()
    await reopened(root, {b"b": NOTE})


async def test_an_inode_number_used_again_is_another_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, jobs.encode)
    opened = open_store(root)
    first, second = (png(frame) for frame in screens(2))
    async with opened.running(count=1) as store:
        ino = put(store, b"a", first)
        await gate.reached.wait()
        unlink_staged(store, b"a")
        assert put(store, b"b", second) == ino
        gate.open.set()
        await settled(store, {b"b": second})
    opened.close()


async def test_a_missing_staged_file_holds_nobody_up(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_store(root)
    with caplog.at_level(logging.ERROR):
        async with opened.running(count=1) as store:
            ino = put(store, b"lost", NOTE)
            token = token_of(store, ino)
            store.staging.remove(token)
            put(store, b"b", NOTE)
            with trio.fail_after(10):
                await store.drain()
    assert "missing" in caplog.text
    assert opened.index.inode(ino).staged == token
    opened.close()


async def test_failures_are_not_held_against_the_next_file_of_that_number(
    root: Path, disk: FlakyDisk
) -> None:
    opened = open_store(root, disk=disk)
    async with opened.running(count=1) as store:
        disk.hook = lambda call, what: errno.ENOSPC if call == "pwrite" else 0
        ino = put(store, b"a", NOTE)
        with trio.fail_after(10):
            await store.drain()
        assert store.index.inode(ino).staged is not None
        unlink_staged(store, b"a")
        engine = store._encoder
        with trio.fail_after(10):
            while engine.queue.count():
                await trio.sleep(0.001)
        assert put(store, b"b", NOTE) == ino
        assert store.pending() == 1
        disk.hook = lambda call, what: 0
        await settled(store, {b"b": NOTE})
    opened.close()


def kill_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the worker of each encoding die."""

    async def before(function: Callable[..., Any]) -> None:
        if function is jobs.encode:
            raise WorkerDied("encode")

    monkeypatch.setattr(Inline, "before", staticmethod(before))


async def test_a_frame_whose_worker_dies_is_kept_raw(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_encoding(monkeypatch)
    data = png(screens(1)[0])
    opened = open_store(root)
    async with opened.running(count=1) as store:
        put(store, b"a.png", data)
        await settled(store, {b"a.png": data})
    assert opened.stats()["raw_reasons"] == {"worker died": 1}
    opened.close()


async def test_a_reference_that_rots_costs_only_the_files_that_show_it(root: Path) -> None:
    frames = [png(frame) for frame in screens(3)]
    opened = open_store(root)
    async with opened.running(count=1) as store:
        put(store, b"0", frames[0])
        await store.drain()
        found = store.index.object(1)
        path = store.layout.pack(found.pack)
        data = bytearray(path.read_bytes())
        data[found.offset + found.length - 9] ^= 1
        path.write_bytes(data)
        forget_caches()
        for number in (1, 2):
            put(store, b"%d" % number, frames[number])
        await settled(store, {b"1": frames[1], b"2": frames[2]})
    assert all(1 not in found.needs for found in opened.index.all_objects())
    opened.close()


# -- wrong answers (`tests/crash/lies.py` has them at every stage)


class Lying:
    """Replaces the results of a job by wrong ones, `times` times."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        function: Callable[..., Any],
        change: Callable[[Any], Any],
        times: int = 1,
        about: bytes = b"",
    ) -> None:
        """`about`: lie only about the file with this SHA-256."""
        self.left = times
        whole = Inline.run

        async def run(inline: Inline, asked: Callable[..., Any], *args: Any, **how: Any) -> Any:
            answer = await whole(inline, asked, *args, **how)
            if asked is function and self.left and (not about or args[0].about.sha256 == about):
                self.left -= 1
                if isinstance(answer, Done):
                    return replace(answer, result=change(answer.result))
                return change(answer)
            return answer

        monkeypatch.setattr(Inline, "run", run)


async def test_the_answer_to_another_file_is_not_taken(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the file would silently become another file that is already there."""
    known, new = (png(frame) for frame in screens(2))
    opened = open_store(root)
    async with opened.running(count=1) as store:
        put(store, b"a", known)
        await store.drain()
        other = jobs.look(str(root / "packs" / "00000001.zip"), ())
        found = store.index.object(1)
        lie = replace(other, sha256=found.sha256, size=found.size)
        lying = Lying(monkeypatch, jobs.look, lambda _: lie)
        put(store, b"b", new)
        await settled(store, {b"a": known, b"b": new})
    assert lying.left == 0
    opened.close()
    await reopened(root, {b"a": known, b"b": new})


def _less_payload(answer: jobs.Encoded) -> jobs.Encoded:
    return replace(answer, entry=replace(answer.entry, payload=answer.entry.payload[:-1]))


def _names_nothing(answer: jobs.Encoded) -> jobs.Encoded:
    named = References((), (), 0)
    return replace(answer, proof=answer.proof._replace(references=named, levels=()))


def _names_less(answer: jobs.Encoded) -> jobs.Encoded:
    named = answer.proof.references._replace(copied=())
    return replace(answer, proof=answer.proof._replace(references=named))


def _other_levels(answer: jobs.Encoded) -> jobs.Encoded:
    levels = tuple((i, 7) for i, _ in answer.proof.levels)
    return replace(answer, proof=answer.proof._replace(levels=levels))


def _no_digest(answer: jobs.Encoded) -> jobs.Encoded:
    return replace(answer, proof=answer.proof._replace(digest=b""))


def _codes_less(answer: jobs.Encoded) -> jobs.Encoded:
    tiles = np.ones_like(answer.layout.tiles)
    return replace(answer, layout=replace(answer.layout, tiles=tiles))


@pytest.mark.parametrize(
    "lie", [_less_payload, _names_nothing, _names_less, _other_levels, _no_digest, _codes_less]
)
async def test_what_is_not_what_was_proved_does_not_count(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    lie: Callable[[jobs.Encoded], jobs.Encoded],
) -> None:
    monkeypatch.setattr(retries, "_RETRY_SECONDS", 0.05)
    files = {b"%d" % number: png(frame) for number, frame in enumerate(screens(3))}

    opened = open_store(root)
    async with opened.running(count=1) as store:
        put(store, b"0", files[b"0"])
        await store.drain()
        lying = Lying(monkeypatch, jobs.encode, lie)
        for name in (b"1", b"2"):
            put(store, name, files[name])
        await settled(store, files)
    assert lying.left == 0
    assert opened.stats()["objects"]["raw"] == 0
    opened.close()
    await reopened(root, files)


async def test_a_file_that_never_gets_through_stops_no_other(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_RETRY_SECONDS", 0.05)
    bad, *good = (png(frame) for frame in screens(4))
    digest = hashlib.sha256(bad).digest()
    opened = open_store(root)
    Lying(monkeypatch, jobs.encode, _no_digest, times=1 << 30, about=digest)
    async with opened.running(count=2) as store:
        ino = put(store, b"0", bad)
        for number, data in enumerate(good, start=1):
            put(store, b"%d" % number, data)
        with trio.fail_after(20):
            await store.drain()
        assert [inode.ino for inode in store.index.staged_inodes()] == [ino]
        await check(store, {b"0": bad, b"1": good[0], b"2": good[1], b"3": good[2]})
    opened.close()
    monkeypatch.undo()
    await reopened(root, {b"0": bad, b"3": good[2]})


# -- large files


def noisy(seed: int) -> bytes:
    return png(np.random.default_rng(seed).integers(0, 256, (60, 60, 3), np.uint8))


@pytest.mark.usefixtures("small_limits")
async def test_large_files_stay_files(root: Path) -> None:
    files = {
        b"big": random.Random(1).randbytes(200_000),
        b"small": b"x" * 5000,
        b"big.png": noisy(1),
        b"broken.png": noisy(2)[:-30],
    }
    opened = open_store(root)
    async with opened.running(count=2) as store:
        for name, data in files.items():
            put(store, name, data)
        await settled(store, files)
    assert len(os.listdir(opened.layout.raw)) == 2
    kept = opened.index.lookup(ROOT, b"big")
    assert kept is not None
    assert kept.object_id is not None
    assert opened.layout.kept(kept.object_id).read_bytes() == files[b"big"]
    assert opened.layout.pack(1).stat().st_size < 200_000
    opened.close()
    await reopened(root, files)


@pytest.mark.usefixtures("small_limits")
async def test_a_large_picture_that_cannot_be_encoded_stays_a_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_encoding(monkeypatch)
    files = {b"big.png": noisy(1)}
    opened = open_store(root)
    async with opened.running(count=1) as store:
        put(store, b"big.png", files[b"big.png"])
        await settled(store, files)
    opened.close()
    await reopened(root, files)


@pytest.mark.usefixtures("small_limits")
async def test_a_copy_of_a_large_file_that_was_given_up_is_encoded_itself(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first file is spoilt after the second one found it. The second must not name it."""
    monkeypatch.setattr(committer, "_BATCH_SECONDS", 30.0)
    data = noisy(2)[:-30]
    is_looking, all_queued, gate = trio.Event(), trio.Event(), trio.Event()

    async def before(function: Callable[..., Any]) -> None:
        # All looks wait for the first one, and then run side by side. The look at the note holds
        # the batch open, so it must not be the first.
        if function is jobs.look:
            path = Path(Inline.args[0])
            is_looking.set()
            await all_queued.wait()
            if path.stat().st_size == len(NOTE):
                await gate.wait()

    monkeypatch.setattr(Inline, "before", staticmethod(before))
    opened = open_store(root)
    async with opened.running(count=1) as store:
        first = put(store, b"a", data)
        engine = store._encoder
        with trio.fail_after(20):
            await is_looking.wait()
            second = put(store, b"b", data)
            put(store, b"c", NOTE)
            all_queued.set()
            while len(engine._committer._batch) < 2:
                await trio.sleep(0.001)
        store.hold(first)
        gate.set()
        await store.drain()
        assert await get(store, second) == data
        store.unhold(first)
        store.queue(first)
        monkeypatch.setattr(committer, "_BATCH_SECONDS", 0.01)
        await settled(store, {b"a": data, b"b": data, b"c": NOTE})
    opened.close()
    await reopened(root, {b"a": data, b"b": data, b"c": NOTE})


@pytest.mark.usefixtures("small_limits")
async def test_a_vast_sparse_file_stays_cheap(tmp_path: Path) -> None:
    folder = Path("/dev/shm") / f"fsmount-test-{os.getpid()}"
    config.make(folder, FlakyDisk())
    opened = open_store(folder)
    try:
        token = opened.staging.create()
        try:
            os.truncate(opened.staging.path(token), 10**15)
        except OSError:
            pytest.skip("no file system here takes 10^15 bytes")
        made = opened.index.create(
            ROOT, b"vast", mode=0o100644, uid=0, gid=0, now_ns=1, staged=token, size=10**15
        )
        async with opened.running(count=1) as store:
            store.queue(made.ino)
            with trio.fail_after(10):
                await store.drain()
            object_id = store.index.inode(made.ino).object_id
            assert object_id is not None
            body = await store.body(object_id)
            assert body.size == 10**15
            assert await body.pread(10**15 - 5, 9) == bytes(5)
        assert opened.stats()["stored_bytes"] < 1 << 20
    finally:
        opened.close()
        shutil.rmtree(folder)
