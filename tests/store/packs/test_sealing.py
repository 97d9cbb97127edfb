"""PackSet are sealed beside commits: the holder of the lock closes each pack, once."""

from __future__ import annotations

import errno
import logging
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fsmount.store import config
from fsmount.store.index import Index
from fsmount.store.index.schema import Object
from fsmount.store.layout import Layout
from fsmount.store.maintenance.repack import Repacker
from fsmount.store.packs import pack as packs
from fsmount.store.packs.entries import FileFacts, raw_entry
from fsmount.store.packs.pack import read_entry
from fsmount.store.packs.pack_set import PackSet
from fsmount.store.packs.staging import Staging
from fsmount.store.packs.writer import Writer
from fsmount.store.recovery.check import check_relations
from fsmount.store.store import open_store
from fsmount.store.writable_store import WritableStore
from tests.store.packs.test_pack import entry, new
from tests.support.encoding import open_files, put, reopened, settled
from tests.support.frames import FlakyDisk
from tests.support.packs import unzipped


class StrictDisk(FlakyDisk):
    """A disk that knows which descriptors are open, and notes each use of another one in `wrong`.

    `held`: fsync waits for this event, in a thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[int, Path] = {}
        self.wrong: list[str] = []
        self.held: threading.Event | None = None
        self.forcing = threading.Event()

    def _known(self, call: str, fd: int) -> None:
        if fd not in self.files:
            self.wrong.append(f"{call} of a descriptor that is not open")

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self.files[fd] = path
        return fd

    def open(self, path: Path, flags: int) -> int:
        fd = super().open(path, flags)
        self.files[fd] = path
        return fd

    def close(self, fd: int) -> None:
        self._known("close", fd)
        self.files.pop(fd, None)
        super().close(fd)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        self._known("pwrite", fd)
        return super().pwrite(fd, data, offset)

    def ftruncate(self, fd: int, size: int) -> None:
        self._known("ftruncate", fd)
        super().ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        path = self.files.get(fd)
        if self.held is not None and path is not None and path.suffix == ".zip":
            self.forcing.set()
            self.held.wait(20)
            if self.files.get(fd) != path:
                self.wrong.append(f"{path.name} was closed while it was forced")
        super().fsync(fd)


# -- a pack that is closed


def test_a_pack_may_be_closed_twice(tmp_path: Path) -> None:
    disk = StrictDisk()
    pack = new(tmp_path, disk)
    pack.close()
    assert pack.is_closed
    # Another file has the number of the closed descriptor now.
    other = disk.create(tmp_path / "other")
    pack.close()
    os.fstat(other)
    disk.close(other)
    assert disk.wrong == []


@pytest.mark.parametrize("call", ["append", "write_directory", "rewind", "fsync"])
def test_a_closed_pack_takes_nothing(tmp_path: Path, call: str) -> None:
    pack = new(tmp_path)
    pack.append(entry(1))
    if call != "write_directory":
        pack.write_directory()
    pack.close()
    before = pack.path.read_bytes()
    with (tmp_path / "other").open("w+b") as other:
        given: dict[str, list[Any]] = {"append": [entry(2)], "rewind": [0]}
        with pytest.raises(OSError, match="closed") as caught:
            getattr(pack, call)(*given.get(call, []))
        assert other.read() == b""
    assert caught.value.errno == errno.EBADF
    assert pack.path.read_bytes() == before


def test_a_close_that_fails_is_not_repeated(tmp_path: Path) -> None:
    disk = StrictDisk()
    pack = new(tmp_path, disk)
    disk.fail_once("close")
    with pytest.raises(OSError):
        pack.close()
    pack.close()
    assert [call for call, _ in disk.calls].count("close") == 1


# -- a writer of its own


class Parts:
    """A writer and the parts that it writes to."""

    def __init__(self, root: Path) -> None:
        self.disk = StrictDisk()
        config.make(root, self.disk)
        self.layout = Layout(root)
        self.index = Index(self.layout.index, self.disk)
        self.packs = PackSet()
        staging = Staging(self.layout.staging, self.disk)
        self.writer = Writer(self.layout, self.index, staging, self.disk, self.packs, None)
        self._next = 1

    async def append(self, size: int = 100) -> Object:
        new = await self.try_append(size)
        assert new is not None
        return new

    async def try_append(self, size: int) -> Object | None:
        """Append an entry. Returns None if everything was given up meanwhile."""
        number = self._next
        self._next += 1
        data = random.Random(number).randbytes(size)
        about = FileFacts(number, "a", 1, bytes(32), size)
        entry = raw_entry(about, "test", data)
        return await self.writer.append(entry, about, kind="raw", reason="test")

    async def commit(self, *objects: Object) -> None:
        def rows() -> None:
            for found in objects:
                self.index.add_object(found)

        await self.writer.commit(rows)
        for found in objects:
            self.writer.forget(found.id)

    def sealed(self) -> dict[int, bool]:
        return {number: sealed for number, (_, sealed) in self.index.packs().items()}

    def verdict(self, *objects: Object) -> None:
        """Check that entries are where their rows say, packs are whole, none was closed twice."""
        self.writer.close()
        assert self.disk.wrong == []
        assert [name for name in self.disk.files.values() if name.suffix == ".zip"] == []
        for found in objects:
            assert self.index.object(found.id) == found
            read_entry(self.layout.pack(found.pack), found.offset, found.length)
        for number, (length, _) in self.index.packs().items():
            assert len(unzipped(self.layout.pack(number))) > 0
            assert self.layout.pack(number).stat().st_size > length


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts(tmp_path / "store")
    yield made
    made.index.close()


async def test_a_seal_while_a_commit_waits_for_its_turn(parts: Parts) -> None:
    first = await parts.append()
    await parts.commit(first)
    second = await parts.append()
    async with trio.open_nursery() as nursery, parts.packs.turn:
        nursery.start_soon(parts.commit, second)
        await wait_all_tasks_blocked()
        nursery.start_soon(parts.writer.seal)
        await wait_all_tasks_blocked()
    # The pack has an entry of the commit, so the commit finishes the pack.
    assert parts.sealed() == {1: True}
    third = await parts.append()
    await parts.commit(third)
    assert parts.sealed() == {1: True, 2: False}
    parts.verdict(first, second, third)


async def test_a_commit_while_a_seal_waits_for_its_turn(parts: Parts) -> None:
    first = await parts.append()
    await parts.commit(first)
    async with trio.open_nursery() as nursery, parts.packs.turn:
        nursery.start_soon(parts.writer.seal)
        await wait_all_tasks_blocked()
        second = await parts.append()
        nursery.start_soon(parts.commit, second)
        await wait_all_tasks_blocked()
    assert second.pack == 2
    assert parts.sealed() == {1: True, 2: False}
    parts.verdict(first, second)


async def test_a_commit_that_noted_a_pack_which_is_sealed_before_it(parts: Parts) -> None:
    """The open pack has nothing new. The commit is about entries in another pack."""
    first = await parts.append()
    await parts.commit(first)
    async with trio.open_nursery() as nursery, parts.packs.turn:
        nursery.start_soon(parts.writer.seal)
        nursery.start_soon(parts.commit)
        await wait_all_tasks_blocked()
    assert parts.sealed() == {1: True}
    parts.verdict(first)


async def test_a_pack_that_gets_full_while_a_commit_waits(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries that come after the request for a commit count with the next commit."""
    monkeypatch.setattr(packs, "SEAL_BYTES", 500)
    first = await parts.append()
    async with trio.open_nursery() as nursery, parts.packs.turn:
        nursery.start_soon(parts.commit, first)
        await wait_all_tasks_blocked()
        second, third = await parts.append(400), await parts.append()
    assert (second.pack, third.pack) == (1, 2)
    assert parts.sealed() == {1: False}
    assert parts.index.packs()[1][0] == first.length
    await parts.commit(second, third)
    assert parts.sealed() == {1: True, 2: False}
    parts.verdict(first, second, third)


async def test_a_pack_with_entries_that_wait_for_a_commit_stays_open(parts: Parts) -> None:
    first = await parts.append()
    await parts.commit(first)
    second = await parts.append()
    await parts.writer.seal()
    assert parts.writer.is_open(1)
    assert parts.sealed() == {1: False}
    third = await parts.append()
    assert (second.pack, third.pack) == (1, 2)
    await parts.commit(second, third)
    assert parts.sealed() == {1: True, 2: False}
    assert not parts.writer.is_open(1)
    parts.verdict(first, second, third)


@pytest.mark.parametrize("call", ["give up", "commit", "seal"])
async def test_nothing_closes_a_pack_that_a_thread_forces(parts: Parts, call: str) -> None:
    first = await parts.append()
    await parts.commit(first)
    parts.disk.held = threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parts.writer.seal)
        while not parts.disk.forcing.is_set():
            await trio.sleep(0.001)
        second = await parts.append()
        if call == "give up":
            nursery.start_soon(parts.writer.give_up)
        elif call == "commit":
            nursery.start_soon(parts.commit, second)
        else:
            nursery.start_soon(parts.writer.seal)
        await wait_all_tasks_blocked()
        parts.disk.held.set()
    assert parts.sealed()[1]
    if call == "give up":
        parts.verdict(first)
    else:
        await parts.commit(*([second] if call == "seal" else []))
        parts.verdict(first, second)


async def test_a_seal_whose_fsync_failed_is_not_tried_again(parts: Parts) -> None:
    first = await parts.append()
    await parts.commit(first)
    parts.disk.calls.clear()
    parts.disk.fail_once("fsync")
    with pytest.raises(OSError):
        await parts.writer.seal()
    parts.disk.hook = lambda call, what: 0
    await parts.writer.seal()
    second = await parts.append()
    await parts.commit(second)
    assert second.pack == 2
    assert parts.sealed() == {1: False, 2: False}
    parts.verdict(first, second)


async def test_what_was_given_up_is_closed_by_the_next_who_may(parts: Parts) -> None:
    """The task that gives up is cancelled while another task has the lock."""
    first = await parts.append()
    async with parts.packs.turn:
        with trio.CancelScope() as scope:
            scope.cancel()
            await parts.writer.give_up()
    assert not parts.writer.is_open(first.pack)
    second = await parts.append()
    assert second.pack == first.pack + 1
    await parts.commit(second)
    parts.verdict(second)
    assert not parts.layout.pack(first.pack).exists()


async def test_a_lost_store_leaves_no_descriptor(parts: Parts) -> None:
    """Another process takes the store over while this one gives up and is cancelled."""
    first = await parts.append()
    path = parts.layout.pack(first.pack)
    written = path.read_bytes()
    async with parts.packs.turn:
        with trio.CancelScope() as scope:
            scope.cancel()
            await parts.writer.give_up()
    await parts.append()
    parts.writer.abandon()
    assert parts.disk.files == {}
    assert path.read_bytes() == written


async def test_an_index_that_cannot_be_read_leaves_no_descriptor(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await parts.append()

    def fail() -> None:
        raise OSError(errno.EIO, "told to fail")

    with monkeypatch.context() as patch:
        patch.setattr(parts.index, "packs", fail)
        await parts.writer.give_up()
        await parts.append()
        with pytest.raises(OSError):
            parts.writer.close()
    assert parts.disk.files == {}
    assert not parts.writer.is_open(first.pack)


@pytest.mark.parametrize("seed", range(20))
async def test_appends_commits_and_seals_in_any_order(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Another task takes the lock now and then, as the writing of parity does."""
    monkeypatch.setattr(packs, "SEAL_BYTES", 1000)
    chance = random.Random(seed)
    waiting: list[Object] = []
    counted: list[Object] = []
    committing = trio.Lock()

    async def commit() -> None:
        async with committing:
            some = waiting[:]
            waiting.clear()
            await parts.commit(*some)
            counted.extend(some)

    async def give_up() -> None:
        async with committing:
            waiting.clear()
            await parts.writer.give_up()

    async def copy() -> None:
        async with parts.packs.turn:
            for _ in range(chance.randrange(20)):
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(60):
            new = await parts.try_append(chance.randrange(400))
            if new is not None:
                waiting.append(new)
            doing = chance.choices(
                [None, commit, give_up, copy, parts.writer.seal], [4, 3, 1, 2, 3]
            )[0]
            if doing is not None:
                nursery.start_soon(doing)
            for _ in range(chance.choice([0, 1, 5, 30])):
                await trio.lowlevel.checkpoint()
    await commit()
    parts.verdict(*counted)


# -- a store


class Beside:
    """Puts files just after a repack has asked whether the index is consistent."""

    def __init__(self, store: WritableStore, files: dict[bytes, bytes], steps: int) -> None:
        self._store = store
        self._files = files
        self._steps = steps
        self._require_consistent = store._maintenance._require_consistent

    async def require_consistent(self) -> None:
        await self._require_consistent()
        for name, data in self._files.items():
            put(self._store, name, data)
        for _ in range(self._steps):
            await trio.lowlevel.checkpoint()


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("steps", [*range(0, 40, 2), 100, 1000])
async def test_a_repack_beside_the_encoder(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    steps: int,
) -> None:
    disk = StrictDisk()
    files = {b"a": b"first", b"b": b"second"}
    late = {b"%d" % number: random.Random(number).randbytes(100 + steps) for number in range(3)}
    opened = open_store(root, disk=disk)
    with caplog.at_level(logging.WARNING):
        async with opened.running(count=1) as store:
            for name, data in files.items():
                put(store, name, data)
            await settled(store, files)
            beside = Beside(store, late, steps)
            maintenance = store._maintenance
            monkeypatch.setattr(maintenance, "_require_consistent", beside.require_consistent)
            with trio.fail_after(20):
                await store.repack(lambda count: None)
            await settled(store, files | late)
    assert [entry.getMessage() for entry in caplog.records] == [], "a commit failed"
    assert disk.wrong == []
    assert check_relations(opened).findings == []
    opened.close()
    assert open_files(root) == []
    await reopened(root, files | late)


@pytest.mark.usefixtures("inline")
async def test_a_pack_does_not_go_while_an_entry_waits_for_its_commit(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repack moves all committed entries out of the pack. Then the commit names an entry in it."""
    opened = open_store(root)
    files = {b"a": b"first", b"b": b"second"}
    repacked = trio.Event()
    commit = Writer.commit

    async with opened.running(count=1) as store:

        async def late(writer: Writer, rows: Any) -> None:
            if writer is store._writer:
                with trio.fail_after(20):
                    await repacked.wait()
            await commit(writer, rows)

        put(store, b"a", files[b"a"])
        await settled(store, {b"a": files[b"a"]})
        monkeypatch.setattr(Writer, "commit", late)
        put(store, b"b", files[b"b"])
        writer = store._writer
        while not writer._appended:
            await trio.sleep(0.001)
        repacker: Repacker = store._maintenance._repacker(store.workers, at_once=1)
        async with store._maintenance._moving:
            await repacker.run(lambda count: None)
        repacked.set()
        await settled(store, files)
    opened.close()
    await reopened(root, files)
