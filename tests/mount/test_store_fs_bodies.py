"""The filesystem of a store, without a kernel: reading and writing the contents of files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmount.errors import Damaged
from fsmount.mount.attributes import Changes
from fsmount.mount.store_fs import StoreFilesystem
from fsmount.store.disk.disk import Disk
from fsmount.store.index import ROOT
from tests.support.calls import ROOT_USER, USER, get, listing, mount, put, raises
from tests.support.fake_store import FakeStore


async def test_reading_an_encoded_file_renders_once(vfs: StoreFilesystem, store: FakeStore) -> None:
    ino = await put(vfs, b"a", bytes(range(256)) * 10)
    number = store.encode(ino)
    fh = await vfs.open(ino, os.O_RDONLY, USER)
    assert (await vfs.getattr(ino)).size == 2560
    assert (await listing(vfs))[b"a"].size == 2560
    assert store.renders == []
    async with trio.open_nursery() as nursery:
        for offset in range(0, 2560, 100):
            nursery.start_soon(vfs.read, fh, offset, 100)
    assert store.renders == [number]


async def test_damage_is_an_error_for_readers_and_writers(
    vfs: StoreFilesystem, store: FakeStore
) -> None:
    ino = await put(vfs, b"a", b"precious")
    store.encode(ino)
    store.damaged = True
    fh = await vfs.open(ino, os.O_RDWR, USER)
    with pytest.raises(Damaged):
        await vfs.read(fh, 0, 1)
    with pytest.raises(Damaged):
        await vfs.write(fh, 0, b"x")
    store.damaged = False
    assert await vfs.read(fh, 0, 99) == b"precious"
    assert store.staging.tokens() == []


async def test_a_write_copies_an_encoded_body_up(vfs: StoreFilesystem, store: FakeStore) -> None:
    data = os.urandom(3_000_000)
    ino = await put(vfs, b"a", data)
    store.encode(ino)
    fh = await vfs.open(ino, os.O_RDWR, USER)
    reader = await vfs.open(ino, os.O_RDONLY, USER)
    assert store.index.inode(ino).staged is None
    await vfs.write(fh, 1_000_000, b"changed")
    expected = data[:1_000_000] + b"changed" + data[1_000_007:]
    assert await vfs.read(reader, 0, 1 << 24) == expected
    await vfs.release(fh)
    await vfs.release(reader)
    store.encode(ino)
    assert await get(vfs, ino) == expected


async def test_truncating_to_nothing_needs_no_copy(vfs: StoreFilesystem, store: FakeStore) -> None:
    ino = await put(vfs, b"a", b"old")
    store.encode(ino)
    store.renders.clear()
    fh = await vfs.open(ino, os.O_WRONLY | os.O_TRUNC, USER)
    assert (await vfs.getattr(ino)).size == 0
    await vfs.write(fh, 0, b"n")
    await vfs.release(fh)
    assert await get(vfs, ino) == b"n"
    assert store.renders == []


@pytest.mark.parametrize("size", [0, 2, 4, 9])
async def test_truncate(vfs: StoreFilesystem, store: FakeStore, size: int) -> None:
    ino = await put(vfs, b"a", b"1234")
    store.encode(ino)
    shown = await vfs.setattr(ino, Changes(size=size), ROOT_USER)
    assert shown.size == size
    assert await get(vfs, ino) == b"1234"[:size].ljust(size, b"\0")
    assert store.queued.count(ino) == 2


async def test_truncate_to_huge_sizes(vfs: StoreFilesystem) -> None:
    ino = await put(vfs, b"a", b"1234")
    try:
        shown = await vfs.setattr(ino, Changes(size=10**15), ROOT_USER)
        assert shown.size == 10**15
        assert shown.blocks < 10_000
    except OSError as error:
        assert error.errno == errno.EFBIG
    with raises(errno.EFBIG):
        await vfs.setattr(ino, Changes(size=1 << 63), ROOT_USER)
    with raises(errno.EINVAL):
        await vfs.setattr(ino, Changes(size=-1), ROOT_USER)


async def test_each_handle_keeps_its_access_mode(vfs: StoreFilesystem) -> None:
    ino = await put(vfs, b"a", b"1234")
    reader = await vfs.open(ino, os.O_RDONLY, USER)
    both = await vfs.open(ino, os.O_RDWR, USER)
    writer = await vfs.open(ino, os.O_WRONLY, USER)
    await vfs.write(both, 0, b"A")
    await vfs.write(writer, 1, b"B")
    with raises(errno.EBADF):
        await vfs.write(reader, 0, b"x")
    with raises(errno.EBADF):
        await vfs.read(writer, 0, 1)
    assert await vfs.read(reader, 0, 9) == b"AB34"


async def test_a_reader_outlives_the_encoding_of_what_it_reads(
    vfs: StoreFilesystem, store: FakeStore
) -> None:
    ino = await put(vfs, b"a", b"1234")
    reader = await vfs.open(ino, os.O_RDONLY, USER)
    store.encode(ino)
    assert await vfs.read(reader, 0, 9) == b"1234"
    writer = await vfs.open(ino, os.O_WRONLY, USER)
    await vfs.write(writer, 4, b"5")
    assert await vfs.read(reader, 0, 9) == b"12345"


async def test_a_writer_holds_the_inode(vfs: StoreFilesystem, store: FakeStore) -> None:
    ino = await put(vfs, b"a", b"1234")
    store.queued.clear()
    one = await vfs.open(ino, os.O_WRONLY, USER)
    two = await vfs.open(ino, os.O_RDWR, USER)
    assert store.held == {ino}
    await vfs.setattr(ino, Changes(size=1), ROOT_USER)
    await vfs.release(one)
    assert store.held == {ino}
    assert store.queued == []
    await vfs.release(two)
    assert store.held == set()
    assert store.queued == [ino]


async def test_concurrent_first_writes_copy_once(vfs: StoreFilesystem, store: FakeStore) -> None:
    ino = await put(vfs, b"a", b"." * 100)
    store.encode(ino)
    handles = [await vfs.open(ino, os.O_RDWR, USER) for _ in range(10)]
    async with trio.open_nursery() as nursery:
        for place, fh in enumerate(handles):
            nursery.start_soon(vfs.write, fh, place, b"%d" % place)
    assert await vfs.read(handles[0], 0, 200) == b"0123456789" + b"." * 90
    assert len(store.staging.tokens()) == 1


async def test_a_failed_copy_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    class FullDisk(Disk):
        full = False

        def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
            if self.full:
                raise OSError(errno.ENOSPC, "full")
            return super().pwrite(fd, data, offset)

    disk = FullDisk()
    store = FakeStore(tmp_path / "store", disk=disk)
    vfs = mount(store)
    ino = await put(vfs, b"a", b"precious")
    store.encode(ino)
    disk.full = True
    fh = await vfs.open(ino, os.O_RDWR, USER)
    with raises(errno.ENOSPC):
        await vfs.write(fh, 0, b"x")
    assert store.staging.tokens() == []
    await vfs.release(fh)
    assert await get(vfs, ino) == b"precious"
    store.close()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(0, 3000), st.binary(max_size=400)),
            st.tuples(st.just("cut"), st.integers(0, 3000), st.just(b"")),
            st.tuples(st.just("encode"), st.just(0), st.just(b"")),
            st.tuples(st.just("reopen"), st.just(0), st.just(b"")),
        ),
        max_size=25,
    )
)
def test_a_body_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, bytes]]
) -> None:
    trio.run(_follow, tmp_path_factory.mktemp("fs") / "store", steps)


async def _follow(path: Path, steps: list[tuple[str, int, bytes]]) -> None:
    store = FakeStore(path)
    vfs = mount(store)
    ino = await put(vfs, b"a", b"")
    fh = await vfs.open(ino, os.O_RDWR, USER)
    model = bytearray()
    for verb, number, data in steps:
        if verb == "write" and data:
            await vfs.write(fh, number, data)
            model.extend(b"\0" * (number - len(model)))
            model[number : number + len(data)] = data
        elif verb == "cut":
            await vfs.setattr(ino, Changes(size=number), ROOT_USER)
            model = model[:number].ljust(number, b"\0")
        elif verb == "reopen":
            await vfs.release(fh)
            fh = await vfs.open(ino, os.O_RDWR, USER)
        elif verb == "encode":
            await vfs.release(fh)
            store.encode_queued()
            fh = await vfs.open(ino, os.O_RDWR, USER)
        assert await vfs.read(fh, 0, 1 << 20) == bytes(model)
        assert (await vfs.getattr(ino)).size == len(model)
    store.close()


async def test_a_quota_is_a_full_disk(
    vfs: StoreFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write beyond the quota fails for its caller. The bytes written earlier stay."""
    fh, made = await vfs.create(ROOT, b"a", 0o644, os.O_RDWR, USER)
    await vfs.write(fh, 0, b"first")

    def refuse(self: Disk, fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "pwrite", refuse)
        with pytest.raises(OSError, check=lambda error: error.errno == errno.EDQUOT):
            await vfs.write(fh, 5, b" second")
    assert await vfs.read(fh, 0, 100) == b"first"
    await vfs.write(fh, 5, b" second")
    await vfs.release(fh)
    assert (await vfs.getattr(made.ino)).size == 12


# -- rendering ahead


async def test_reading_by_name_renders_the_next_files_ahead(
    vfs: StoreFilesystem, store: FakeStore, nursery: trio.Nursery
) -> None:
    # The files are made out of order: rendering ahead goes by name.
    inos = {name: await put(vfs, name, name) for name in (b"3", b"1", b"2", b"5", b"4", b"6")}
    nursery.start_soon(vfs.run)
    for name in (b"1", b"2"):
        await get(vfs, inos[name])
        await trio.testing.wait_all_tasks_blocked()
        assert store.prefetched == []
    await get(vfs, inos[b"3"])
    await trio.testing.wait_all_tasks_blocked()
    assert sorted(store.prefetched) == sorted([inos[b"4"], inos[b"5"]])
    for name in (b"6", b"1", b"2", b"1", b"2"):
        await get(vfs, inos[name])
        await trio.testing.wait_all_tasks_blocked()
    assert sorted(store.prefetched) == sorted([inos[b"4"], inos[b"5"]])


async def test_reading_backwards_renders_the_files_before_ahead(
    vfs: StoreFilesystem, store: FakeStore, nursery: trio.Nursery
) -> None:
    inos = {name: await put(vfs, name, name) for name in (b"1", b"2", b"3", b"4", b"5")}
    nursery.start_soon(vfs.run)
    for name in (b"5", b"4", b"3"):
        assert store.prefetched == []
        await get(vfs, inos[name])
        await trio.testing.wait_all_tasks_blocked()
    assert sorted(store.prefetched) == sorted([inos[b"2"], inos[b"1"]])
    await get(vfs, inos[b"2"])
    await trio.testing.wait_all_tasks_blocked()
    assert store.prefetched[2:] == [inos[b"1"]]
    # The reader changes direction: the files after the one that it reads are rendered again.
    for name in (b"3", b"4"):
        assert store.prefetched[3:] == []
        await get(vfs, inos[name])
        await trio.testing.wait_all_tasks_blocked()
    assert store.prefetched[3:] == [inos[b"5"]]
