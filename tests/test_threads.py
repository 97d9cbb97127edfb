"""Kinds of threads, descriptors that threads use, and requests that wait for no disk."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing

from fsmount import threads
from fsmount.mount.attributes import Changes
from fsmount.mount.readonly_fs import ReadOnlyFilesystem, Tree
from fsmount.mount.staged_files import StagedFile
from fsmount.mount.store_fs import StoreFilesystem
from fsmount.store.disk import reserve
from fsmount.store.disk.disk import Disk, pread
from fsmount.store.index import ROOT
from fsmount.store.ingest import committer, durability, large
from fsmount.store.maintenance import background, free_space
from fsmount.store.packs import bodies, pack
from fsmount.store.store import open_read_store, open_store
from fsmount.store.writable_store import WritableStore
from fsmount.threads import Kind
from tests.support.calls import ROOT_USER, USER, get, listing, mount, put
from tests.support.fake_store import FakeBody, FakeStore
from tests.support.frames import png, screens
from tests.support.watch import watched


class Gate:
    """Calls to :meth:`hang` wait until the gate opens. :meth:`inside` waits for the first call."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._came = threading.Event()

    def hang(self) -> None:
        self._came.set()
        assert self._event.wait(60)

    async def inside(self) -> None:
        with trio.fail_after(20):
            while not self._came.is_set():
                await trio.sleep(0.001)

    def open(self) -> None:
        self._event.set()


@contextmanager
def gate() -> Iterator[Gate]:
    made = Gate()
    try:
        yield made
    finally:
        made.open()


# -- kinds


async def test_calls_of_one_kind_that_hang_hold_up_no_other() -> None:
    async with trio.open_nursery() as nursery:
        with gate() as closed:
            for _ in range(100):
                nursery.start_soon(threads.call, Kind.READ, closed.hang)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(10):
                for kind in Kind:
                    if kind is not Kind.READ:
                        assert await threads.call(kind, lambda: 7) == 7
                assert await trio.to_thread.run_sync(lambda: 8) == 8
            with trio.move_on_after(0.05) as scope:
                await threads.call(Kind.READ, lambda: 9)
            assert scope.cancelled_caught, "else the limit is none"


async def test_a_cancelled_call_gets_what_it_has_begun_and_begins_no_more() -> None:
    begun: list[int] = []

    async def work(number: int) -> None:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            try:
                found = await threads.call(Kind.WRITE, step, number)
            except trio.Cancelled:
                ended[number] = None
                raise
            ended[number] = found

    def step(number: int) -> int:
        begun.append(number)
        closed.hang()
        return number

    scopes: list[trio.CancelScope] = []
    ended: dict[int, int | None] = {}
    places = int(threads.limiter(Kind.WRITE).total_tokens)
    async with trio.open_nursery() as nursery:
        with gate() as closed:
            for number in range(places + 5):
                nursery.start_soon(work, number)
            await trio.testing.wait_all_tasks_blocked()
            while len(begun) < places:
                await trio.sleep(0.001)
            for scope in scopes:
                scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert len(ended) == 5, "those that waited for a place"
    assert len(begun) == places
    assert {number for number, found in ended.items() if found == number} == set(begun)


async def test_finish_is_done_by_a_task_that_was_cancelled() -> None:
    done: list[int] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await threads.finish(Kind.OPEN, done.append, 1)
        await threads.call(Kind.OPEN, done.append, 2)
    assert done == [1]


# -- descriptors


class HeldDisk(Disk):
    """A disk whose calls can hang. It lists closed descriptors, and those closed while in use."""

    def __init__(self) -> None:
        self.hanging: dict[str, Gate] = {}
        self.used: list[int] = []
        self.closed: list[int] = []
        self.wrong: list[str] = []

    def _hang(self, call: str, fd: int = -1) -> None:
        self.used.append(fd)
        try:
            if call in self.hanging:
                self.hanging[call].hang()
        finally:
            self.used.remove(fd)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        self._hang("pwrite", fd)
        return super().pwrite(fd, data, offset)

    def ftruncate(self, fd: int, size: int) -> None:
        self._hang("ftruncate", fd)
        super().ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        self._hang("fsync", fd)

    def open(self, path: Path, flags: int) -> int:
        self._hang("open")
        return super().open(path, flags)

    def create(self, path: Path) -> int:
        if path.parent.name == "staging":
            self._hang("create")
        return super().create(path)

    def unlink(self, path: Path) -> None:
        self._hang("unlink")
        super().unlink(path)

    def read_cached(self, fd: int, length: int, offset: int) -> bytes:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def close(self, fd: int) -> None:
        if fd in self.used:
            self.wrong.append(f"{fd} was closed while a thread used it")
        self._hang("close")
        self.closed.append(fd)
        super().close(fd)


@pytest.fixture
def held_disk() -> HeldDisk:
    return HeldDisk()


@pytest.fixture
def held(tmp_path: Path, held_disk: HeldDisk) -> Iterator[StoreFilesystem]:
    store = FakeStore(tmp_path / "store", disk=held_disk)
    yield mount(store)
    store.close()
    assert held_disk.wrong == []


async def test_a_descriptor_outlives_its_file_until_the_last_thread_leaves_it(
    tmp_path: Path, held_disk: HeldDisk
) -> None:
    fd = held_disk.create(tmp_path / "file")
    staged = StagedFile(held_disk, 1, fd)
    async with trio.open_nursery() as nursery:
        with gate() as closed:
            for _ in range(3):
                nursery.start_soon(staged.use, Kind.READ, lambda fd: closed.hang())
            await closed.inside()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            assert not staged.drop()
            assert held_disk.closed == []
    assert held_disk.closed == [fd]
    with pytest.raises(OSError, check=lambda error: error.errno == errno.EBADF):
        await staged.pread(0, 1)
    with pytest.raises(OSError, check=lambda error: error.errno == errno.EBADF):
        await staged.change(os.fsync)


@asynccontextmanager
async def writing(
    held: StoreFilesystem, held_disk: HeldDisk, fh: int
) -> AsyncIterator[trio.Nursery]:
    """In the block a write of b"12345" to the start of the file hangs in the disk."""
    async with trio.open_nursery() as nursery:
        with gate() as closed:
            held_disk.hanging = {"pwrite": closed}
            nursery.start_soon(held.write, fh, 0, b"12345")
            await closed.inside()
            yield nursery
    held_disk.hanging = {}


async def test_a_write_that_was_cancelled_half_way_leaves_file_and_row_in_step(
    held: StoreFilesystem, held_disk: HeldDisk
) -> None:
    fh, made = await held.create(ROOT, b"a", 0o644, os.O_RDWR, USER)
    async with writing(held, held_disk, fh) as nursery:
        nursery.cancel_scope.cancel()
    assert (await held.getattr(made.ino)).size == 5
    await held.release(fh)
    assert (await held.lookup(ROOT, b"a")).size == 5
    assert await get(held, made.ino) == b"12345"


async def test_what_brings_the_row_up_to_date_beside_a_write_misses_nothing_of_it(
    held: StoreFilesystem, held_disk: HeldDisk
) -> None:
    fh, made = await held.create(ROOT, b"a", 0o644, os.O_RDWR, USER)
    async with writing(held, held_disk, fh):
        await held.flush(fh)
        assert (await held.getattr(made.ino)).size == 0
    await held.release(fh)
    assert (await held.lookup(ROOT, b"a")).size == 5


@pytest.mark.parametrize("call", ["create", "open", "pwrite", "ftruncate", "fsync", "close"])
async def test_who_waits_for_a_disk_that_hangs_keeps_nobody_waiting(
    held: StoreFilesystem, held_disk: HeldDisk, call: str
) -> None:
    """Other requests are answered. When the call returns, no descriptor stays open."""
    other = await put(held, b"other", b"other")
    ino = await put(held, b"a", b"12345")
    fh = await held.open(ino, os.O_RDWR, USER)
    last = await held.open(other, os.O_RDWR, USER)
    opened = len(os.listdir("/proc/self/fd"))

    async def create() -> None:
        new, _ = await held.create(ROOT, b"new", 0o644, os.O_RDWR, USER)
        await held.release(new)

    async def open_it() -> None:
        await held.release(await held.open(closed_file, os.O_RDWR, USER))

    closed_file = await put(held, b"closed", b"c")
    works: dict[str, Callable[[], object]] = {
        "create": create,
        "open": open_it,
        "pwrite": lambda: held.write(fh, 0, b"new"),
        "ftruncate": lambda: held.setattr(ino, Changes(size=2), ROOT_USER),
        "fsync": lambda: held.fsync(fh),
        "close": lambda: held.release(last),
    }
    async with trio.open_nursery() as nursery:
        with gate() as closed:
            held_disk.hanging = {call: closed}
            nursery.start_soon(works[call])  # type: ignore[arg-type]
            await closed.inside()
            with trio.fail_after(5):
                assert (await held.getattr(ino)).size == 5
                assert (await held.lookup(ROOT, b"other")).size == 5
                shown = await listing(held)
                assert {b"a", b"other", b"closed"} <= shown.keys()
                assert await held.read(fh, 0, 5) == b"12345"
                await held.rename(ROOT, b"other", ROOT, b"moved")
                await held.mkdir(ROOT, b"folder", 0o755, USER)
    held_disk.hanging = {}
    await held.release(fh)
    if call != "close":
        await held.release(last)
    assert len(os.listdir("/proc/self/fd")) == opened - 2


async def test_two_writes_of_one_file_keep_their_order(
    held: StoreFilesystem, held_disk: HeldDisk
) -> None:
    fh, made = await held.create(ROOT, b"a", 0o644, os.O_RDWR, USER)
    async with trio.open_nursery() as nursery:
        with gate() as closed:
            held_disk.hanging = {"pwrite": closed}
            for text in (b"first", b"again", b"third"):
                nursery.start_soon(held.write, fh, 0, text)
                await trio.testing.wait_all_tasks_blocked()
            await closed.inside()
    held_disk.hanging = {}
    assert await held.read(fh, 0, 9) == b"third"
    await held.release(fh)
    assert (await held.getattr(made.ino)).size == 5


# -- the thread that answers requests calls no disk


async def _use(vfs: StoreFilesystem, store: WritableStore, files: dict[bytes, bytes]) -> None:
    """Write, read, change and remove files of all kinds, and free the space."""
    inodes = {name: await put(vfs, name, data) for name, data in files.items()}
    await listing(vfs)
    fh, _ = await vfs.create(ROOT, b"open", 0o644, os.O_RDWR, USER)
    await vfs.write(fh, 0, bytes(100_000))
    await vfs.fsync(fh)
    assert len(await vfs.read(fh, 50_000, 100_000)) == 50_000
    await vfs.statfs()
    await vfs.mknod(ROOT, b"empty", 0o100644, 0, USER)
    await store.drain()
    for name, ino in inodes.items():
        assert await get(vfs, ino) == files[name]
        for key in (b"user.fsmount.kind", b"user.fsmount.stored_bytes"):
            await vfs.getxattr(ino, key)
    first, second, third, *rest = inodes
    changed = await vfs.open(inodes[first], os.O_RDWR, USER)
    await vfs.write(changed, 10, b"changed")
    await vfs.release(changed)
    await vfs.setattr(inodes[second], Changes(size=50), USER)
    await vfs.release(await vfs.open(inodes[third], os.O_RDWR | os.O_TRUNC, USER))
    kept = await vfs.open(inodes[b"large"], os.O_RDWR, USER)
    await vfs.write(kept, 0, b"x")
    await vfs.release(kept)
    files[b"large"] = b"x" + files[b"large"][1:]
    for name in rest[::2]:
        await vfs.unlink(ROOT, name)
        await vfs.forget(inodes[name], 1 << 30)
    await vfs.release(fh)
    await vfs.unlink(ROOT, b"open")
    await store.drain()
    await store.durable()
    await store.repack(lambda count: None)
    while not await store.repack_in_background(lambda: True):
        pass
    await store.reclaim(1 << 60)
    for name in rest[1::2]:
        assert await get(vfs, inodes[name]) == files[name]


def _files() -> dict[bytes, bytes]:
    files = {b"%02d.png" % number: png(frame) for number, frame in enumerate(screens(5))}
    noise = random.Random(1)
    files |= {b"noise%d" % number: noise.randbytes(3000) for number in range(7)}
    return files | {b"large": noise.randbytes(30_000), b"z-large": noise.randbytes(40_000)}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small packs, small files in raw/, and durability points all the time."""
    monkeypatch.setattr(large, "KEEP_BYTES", 20_000)
    monkeypatch.setattr(committer, "_BATCH_SECONDS", 0.01)
    monkeypatch.setattr(pack, "SEAL_BYTES", 10_000)
    monkeypatch.setattr(background, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(background, "_FREE_PACKS", 0)
    monkeypatch.setattr(durability, "DURABLE_SECONDS", 0.02)
    monkeypatch.setattr(free_space, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(reserve, "_BELIEVED_S", 0.001)


@pytest.mark.usefixtures("small")
async def test_no_disk_is_asked_on_the_thread_that_answers(root: Path) -> None:
    opened = open_store(root)
    async with opened.running(count=1) as store:
        vfs = StoreFilesystem(store, store)
        await store.warm()
        with watched(root) as seen:
            await _use(vfs, store, _files())
    vfs.close()
    opened.close()
    assert seen == []


@pytest.mark.usefixtures("small")
async def test_no_disk_is_asked_where_the_store_is_only_read(root: Path) -> None:
    opened = open_store(root)
    async with opened.running(count=1) as store:
        vfs = StoreFilesystem(store, store)
        files = _files()
        inodes = {name: await put(vfs, name, data) for name, data in files.items()}
        await store.drain()
        inodes[b"staged"] = await put(vfs, b"staged", b"staged")
        opened_beside = open_read_store(root)
        async with opened_beside.running(count=1) as beside:
            reader = StoreFilesystem(beside, None)
            with watched(root) as seen:
                for name, ino in inodes.items():
                    assert await get(reader, ino) == (files | {b"staged": b"staged"})[name]
                await listing(reader)
                await reader.statfs()
        reader.close()
        opened_beside.close()
    vfs.close()
    opened.close()
    assert seen == []


def _without_thread(monkeypatch: pytest.MonkeyPatch, direct: Kind) -> None:
    async def call(kind: Kind, function: Callable[..., object], *args: object) -> object:
        if kind is direct:
            return function(*args)
        return await real(kind, function, *args)

    real = threads.call
    monkeypatch.setattr(threads, "call", call)


def _writes_here(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_thread(monkeypatch, Kind.WRITE)


def _packs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_thread(monkeypatch, Kind.PACK)


def _sizes_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = StagedFile._measure

    def measure(self: StagedFile, found: os.stat_result) -> None:
        measured(self, os.fstat(self._fd))

    monkeypatch.setattr(StagedFile, "_measure", measure)


@pytest.mark.parametrize("bug", [_writes_here, _packs_here, _sizes_asked])
@pytest.mark.usefixtures("small")
async def test_the_watch_sees_who_does(
    root: Path, monkeypatch: pytest.MonkeyPatch, bug: Callable[[pytest.MonkeyPatch], None]
) -> None:
    opened = open_store(root)
    async with opened.running(count=1) as store:
        vfs = StoreFilesystem(store, store)
        await store.warm()
        bug(monkeypatch)
        with watched(root) as seen:
            await put(vfs, b"note", b"no picture")
            await store.drain()
        monkeypatch.undo()
    vfs.close()
    opened.close()
    assert seen


# -- several readers of one picture


async def test_a_large_file_is_read_once_for_all_who_ask_for_a_part_of_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random.Random(2).randbytes(1 << 20)
    path = root / "file"
    path.write_bytes(data)
    sums, _, size = bodies.sum_up(path)
    reads: list[int] = []

    def count(fd: int, length: int, offset: int) -> bytes:
        reads.append(offset)
        return pread(fd, length, offset)

    monkeypatch.setattr("fsmount.store.packs.bodies.pread", count)
    kept = bodies.KeptBody(path, size, sums)
    found: dict[int, bytes] = {}

    async def part(at: int) -> None:
        found[at] = await kept.pread(at, 1 << 17)

    async with trio.open_nursery() as nursery:
        for at in range(0, 1 << 20, 1 << 17):
            nursery.start_soon(part, at)
    assert b"".join(found[at] for at in sorted(found)) == data
    assert reads == [0]


async def test_a_warm_read_takes_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FakeStore(tmp_path / "store")
    vfs = mount(store)
    ino = await put(vfs, b"a", b"12345")
    fh = await vfs.open(ino, os.O_RDONLY, USER)
    kinds: list[Kind] = []
    real = threads.call

    async def call(kind: Kind, *args: object) -> object:
        kinds.append(kind)
        return await real(kind, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(threads, "call", partial(call))
    for _ in range(3):
        assert await vfs.read(fh, 0, 99) == b"12345"
    cached = kinds == []
    store.encode(ino)
    await vfs.release(fh)
    kinds.clear()
    fh = await vfs.open(ino, os.O_RDONLY, USER)
    assert await vfs.read(fh, 0, 99) == b"12345"
    await vfs.release(fh)
    assert kinds == [], "what is rendered is in memory"
    store.close()
    if not cached:
        pytest.skip("this filesystem cannot tell what is in memory")


class Slow:
    """A tree with one picture that takes some time to make. `made` counts how often it is made."""

    source = Path("/")

    def __init__(self) -> None:
        self.made = 0

    async def body(self, path: bytes) -> FakeBody:
        self.made += 1
        await trio.sleep(0.01)
        return FakeBody(b"picture")


async def test_a_picture_is_made_once_for_all_who_begin_to_read_it() -> None:
    tree = Slow()
    shown = ReadOnlyFilesystem(cast(Tree, tree))
    opened = await shown.open(1, os.O_RDONLY, USER)
    found: list[bytes] = []

    async def read() -> None:
        found.append(await shown.read(opened, 0, 100))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(read)
    assert found == [b"picture"] * 5
    assert tree.made == 1
