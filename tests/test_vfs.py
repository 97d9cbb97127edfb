"""The tree without a kernel: names, lookup counts, bodies, times, durability."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmount.errors import Damaged, FsmountError
from fsmount.mount import vfs as vfs_module
from fsmount.mount.attributes import Attributes, Caller, Changes
from fsmount.mount.vfs import RENAME_EXCHANGE, RENAME_NOREPLACE, Vfs
from fsmount.store.disk import Disk
from fsmount.store.index import ROOT
from fsmount.store.store import Store
from tests.fake_store import FakeStore

ROOT_USER = Caller(0, 0, 0o022)
USER = Caller(1000, 100, 0o022)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FakeStore]:
    made = FakeStore(tmp_path / "store")
    yield made
    made.close()


@pytest.fixture
def vfs(store: FakeStore) -> Vfs:
    return mount(store)


def mount(store: FakeStore) -> Vfs:
    return Vfs(cast(Store, store))


async def put(vfs: Vfs, name: bytes, data: bytes, folder: int = ROOT) -> int:
    """A closed file with these bytes; its inode number. Leaves one lookup."""
    fh, shown = await vfs.create(folder, name, 0o644, os.O_WRONLY, ROOT_USER)
    await vfs.write(fh, 0, data)
    await vfs.flush(fh)
    await vfs.release(fh)
    return shown.ino


async def get(vfs: Vfs, ino: int) -> bytes:
    fh = await vfs.open(ino, os.O_RDONLY, ROOT_USER)
    data = await vfs.read(fh, 0, 1 << 24)
    await vfs.release(fh)
    return data


async def listing(vfs: Vfs, folder: int = ROOT) -> dict[bytes, Attributes]:
    fh = await vfs.opendir(folder)
    found: dict[bytes, Attributes] = {}
    after = 0
    while entries := list(await vfs.readdir(fh, after)):
        for cookie, name, shown in entries:
            assert name not in found
            after = cookie
            found[name] = shown
    await vfs.releasedir(fh)
    return found


def raises(code: int) -> pytest.RaisesExc[OSError]:
    return pytest.raises(OSError, check=lambda error: error.errno == code)


# -- names


async def test_create_lookup_read(vfs: Vfs, store: FakeStore) -> None:
    fh, made = await vfs.create(ROOT, b"a.png", 0o666, os.O_RDWR, USER)
    assert stat.S_ISREG(made.mode)
    assert stat.S_IMODE(made.mode) == 0o644
    assert (made.uid, made.gid, made.nlink, made.size) == (1000, 100, 1, 0)
    assert await vfs.write(fh, 0, b"hello") == 5
    assert await vfs.read(fh, 1, 100) == b"ello"
    assert (await vfs.getattr(made.ino)).size == 5
    await vfs.release(fh)
    assert (await vfs.lookup(ROOT, b"a.png")).size == 5
    assert store.queued == [made.ino]
    assert not store.held


async def test_a_read_that_stops_at_a_bad_page_is_an_error_not_the_end(
    vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ino = await put(vfs, b"a", b"x" * 10_000)
    fh = await vfs.open(ino, os.O_RDONLY, USER)
    real = os.pread

    def pread(fd: int, length: int, offset: int) -> bytes:
        if offset >= 4096:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, min(length, 4096 - offset), offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", pread)
        with raises(errno.EIO):
            await vfs.read(fh, 0, 10_000)
        assert await vfs.read(fh, 0, 4096) == b"x" * 4096
    assert await vfs.read(fh, 0, 20_000) == b"x" * 10_000
    await vfs.release(fh)


async def test_missing_and_wrong_kinds(vfs: Vfs) -> None:
    ino = await put(vfs, b"file", b"x")
    folder = (await vfs.mkdir(ROOT, b"dir", 0o755, ROOT_USER)).ino
    with raises(errno.ENOENT):
        await vfs.lookup(ROOT, b"nothing")
    with raises(errno.ENOTDIR):
        await vfs.lookup(ino, b"x")
    with raises(errno.ENAMETOOLONG):
        await vfs.lookup(ROOT, b"n" * 256)
    with raises(errno.EISDIR):
        await vfs.open(folder, os.O_RDONLY, USER)
    with raises(errno.EISDIR):
        await vfs.unlink(ROOT, b"dir")
    with raises(errno.ENOTDIR):
        await vfs.rmdir(ROOT, b"file")
    with raises(errno.EEXIST):
        await vfs.mkdir(ROOT, b"file", 0o755, USER)
    with raises(errno.EEXIST):
        await vfs.create(ROOT, b"file", 0o644, os.O_WRONLY | os.O_EXCL, USER)
    with raises(errno.EPERM):
        await vfs.link(folder, ROOT, b"hard")
    with raises(errno.EINVAL):
        await vfs.readlink(ino)
    with raises(errno.EINVAL):
        await vfs.mknod(ROOT, b"odd", stat.S_IFLNK | 0o600, 0, USER)
    with raises(errno.EBADF):
        await vfs.read(999, 0, 1)
    with pytest.raises(FsmountError) as caught:
        await vfs.getattr(999)
    assert caught.value.errno == errno.ENOENT


async def test_longest_name_and_bytes_that_are_no_text(vfs: Vfs) -> None:
    await put(vfs, b"n" * 255, b"1")
    await put(vfs, b"\xff\xfe\n", b"2")
    assert set(await listing(vfs)) == {b".", b"..", b"n" * 255, b"\xff\xfe\n"}


async def test_rmdir_and_link_counts(vfs: Vfs) -> None:
    folder = (await vfs.mkdir(ROOT, b"dir", 0o755, ROOT_USER)).ino
    assert (await vfs.getattr(ROOT)).nlink == 3
    await put(vfs, b"x", b"", folder)
    with raises(errno.ENOTEMPTY):
        await vfs.rmdir(ROOT, b"dir")
    await vfs.unlink(folder, b"x")
    await vfs.rmdir(ROOT, b"dir")
    assert (await vfs.getattr(ROOT)).nlink == 2
    with raises(errno.ENOENT):
        await vfs.create(folder, b"late", 0o644, os.O_WRONLY, USER)


async def test_setgid_folder_passes_its_group_on(vfs: Vfs) -> None:
    folder = (await vfs.mkdir(ROOT, b"dir", 0o755, ROOT_USER)).ino
    await vfs.setattr(folder, Changes(mode=0o2775, gid=77), ROOT_USER)
    inner = await vfs.mkdir(folder, b"sub", 0o755, USER)
    assert inner.gid == 77
    assert inner.mode & stat.S_ISGID
    node = await vfs.mknod(folder, b"fifo", stat.S_IFIFO | 0o644, 0, USER)
    assert node.gid == 77
    assert not node.mode & stat.S_ISGID


async def test_special_files(vfs: Vfs) -> None:
    node = await vfs.mknod(ROOT, b"dev", stat.S_IFCHR | 0o666, os.makedev(1, 3), USER)
    assert (stat.S_IFMT(node.mode), node.rdev) == (stat.S_IFCHR, os.makedev(1, 3))
    plain = await vfs.mknod(ROOT, b"plain", stat.S_IFREG | 0o666, 0, USER)
    assert await get(vfs, plain.ino) == b""
    link = await vfs.symlink(ROOT, b"link", b"to/there", USER)
    assert (link.size, stat.S_IFMT(link.mode)) == (8, stat.S_IFLNK)
    assert await vfs.readlink(link.ino) == b"to/there"
    with raises(errno.ENAMETOOLONG):
        await vfs.symlink(ROOT, b"long", b"t" * 4096, USER)


async def test_hard_links(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    ino = await put(vfs, b"a", b"same")
    shown = await vfs.link(ino, ROOT, b"b")
    assert (shown.ino, shown.nlink) == (ino, 2)
    await vfs.unlink(ROOT, b"a")
    assert await get(vfs, (await vfs.lookup(ROOT, b"b")).ino) == b"same"
    monkeypatch.setattr(vfs_module, "LINKS", 1)
    with raises(errno.EMLINK):
        await vfs.link(ino, ROOT, b"c")


# -- rename


async def test_rename_replaces(vfs: Vfs) -> None:
    a = await put(vfs, b"a", b"new")
    b = await put(vfs, b"b", b"old")
    fh = await vfs.open(b, os.O_RDONLY, USER)
    with raises(errno.EEXIST):
        await vfs.rename(ROOT, b"a", ROOT, b"b", RENAME_NOREPLACE)
    await vfs.rename(ROOT, b"a", ROOT, b"b")
    assert (await vfs.lookup(ROOT, b"b")).ino == a
    assert await vfs.read(fh, 0, 10) == b"old"
    with raises(errno.ENOENT):
        await vfs.lookup(ROOT, b"a")


async def test_rename_rules(vfs: Vfs) -> None:
    top = (await vfs.mkdir(ROOT, b"top", 0o755, ROOT_USER)).ino
    sub = (await vfs.mkdir(top, b"sub", 0o755, ROOT_USER)).ino
    await put(vfs, b"file", b"")
    await vfs.mkdir(ROOT, b"empty", 0o755, ROOT_USER)
    cases = [
        ((ROOT, b"top", sub, b"x", 0), errno.EINVAL),
        ((ROOT, b"top", top, b"x", 0), errno.EINVAL),
        ((top, b"sub", ROOT, b"top", RENAME_EXCHANGE), errno.EINVAL),
        ((ROOT, b"file", ROOT, b"top", 0), errno.EISDIR),
        ((ROOT, b"top", ROOT, b"file", 0), errno.ENOTDIR),
        ((ROOT, b"empty", ROOT, b"top", 0), errno.ENOTEMPTY),
        ((ROOT, b"nothing", ROOT, b"x", 0), errno.ENOENT),
        ((ROOT, b"file", ROOT, b"nothing", RENAME_EXCHANGE), errno.ENOENT),
        ((ROOT, b"file", ROOT, b"y" * 256, 0), errno.ENAMETOOLONG),
        ((ROOT, b"file", ROOT, b"x", 4), errno.EINVAL),
        ((ROOT, b"file", ROOT, b"x", RENAME_EXCHANGE | RENAME_NOREPLACE), errno.EINVAL),
    ]
    for arguments, code in cases:
        with raises(code):
            await vfs.rename(*arguments)
    assert set(await listing(vfs)) == {b".", b"..", b"top", b"file", b"empty"}


async def test_exchange(vfs: Vfs) -> None:
    top = await vfs.mkdir(ROOT, b"top", 0o755, ROOT_USER)
    folder = await vfs.mkdir(top.ino, b"x", 0o755, ROOT_USER)
    ino = await put(vfs, b"x", b"data")
    await vfs.rename(ROOT, b"x", top.ino, b"x", RENAME_EXCHANGE)
    assert (await vfs.lookup(ROOT, b"x")).ino == folder.ino
    assert (await vfs.lookup(top.ino, b"x")).ino == ino
    assert (await vfs.getattr(top.ino)).nlink == 2
    assert (await vfs.getattr(ROOT)).nlink == 4


async def test_rename_onto_another_name_of_itself_does_nothing(vfs: Vfs) -> None:
    ino = await put(vfs, b"a", b"")
    await vfs.link(ino, ROOT, b"b")
    await vfs.rename(ROOT, b"a", ROOT, b"b")
    assert (await vfs.getattr(ino)).nlink == 2


# -- how long an inode lives


async def test_unlinked_file_lives_while_open(vfs: Vfs, store: FakeStore) -> None:
    fh, shown = await vfs.create(ROOT, b"a", 0o644, os.O_RDWR, USER)
    await vfs.unlink(ROOT, b"a")
    vfs.forget(shown.ino, 1)
    await vfs.write(fh, 0, b"still here")
    assert await vfs.read(fh, 0, 99) == b"still here"
    assert (await vfs.getattr(shown.ino)).nlink == 0
    await vfs.release(fh)
    assert store.staging.tokens() == []
    assert store.index.orphans() == []
    assert store.queued == []


async def test_unlinked_file_lives_while_the_kernel_knows_it(vfs: Vfs, store: FakeStore) -> None:
    ino = await put(vfs, b"a", b"x")
    await vfs.lookup(ROOT, b"a")
    await vfs.unlink(ROOT, b"a")
    vfs.forget(ino, 1)
    assert (await vfs.getattr(ino)).nlink == 0
    vfs.forget(ino, 1)
    with pytest.raises(FsmountError):
        await vfs.getattr(ino)


async def test_each_answer_counts_one_lookup(vfs: Vfs, store: FakeStore) -> None:
    ino = await put(vfs, b"a", b"x")
    await vfs.link(ino, ROOT, b"b")
    await vfs.lookup(ROOT, b"b")
    vfs.remember(ino)
    await vfs.unlink(ROOT, b"a")
    await vfs.unlink(ROOT, b"b")
    for _ in range(3):
        vfs.forget(ino, 1)
        assert len(store.index.orphans()) == 1
    vfs.forget(ino, 1)
    assert store.index.orphans() == []
    folder = await vfs.mkdir(ROOT, b"d", 0o755, USER)
    link = await vfs.symlink(ROOT, b"s", b"t", USER)
    await vfs.rmdir(ROOT, b"d")
    await vfs.unlink(ROOT, b"s")
    assert {node.ino for node in store.index.orphans()} == {folder.ino, link.ino}
    vfs.forget(folder.ino, 1)
    vfs.forget(link.ino, 1)
    assert store.index.orphans() == []


async def test_the_end_of_the_mount_removes_orphans(vfs: Vfs, store: FakeStore) -> None:
    ino = await put(vfs, b"a", b"x")
    fh = await vfs.open(ino, os.O_RDWR, USER)
    await vfs.write(fh, 0, b"y")
    await vfs.unlink(ROOT, b"a")
    assert len(store.index.orphans()) == 1
    vfs.close()
    assert store.index.orphans() == []
    assert store.staging.tokens() == []
    assert store.held == set()


# -- bodies


async def test_reading_an_encoded_file_renders_once(vfs: Vfs, store: FakeStore) -> None:
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


async def test_damage_is_an_error_for_readers_and_writers(vfs: Vfs, store: FakeStore) -> None:
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


async def test_a_write_copies_an_encoded_body_up(vfs: Vfs, store: FakeStore) -> None:
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


async def test_truncating_to_nothing_needs_no_copy(vfs: Vfs, store: FakeStore) -> None:
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
async def test_truncate(vfs: Vfs, store: FakeStore, size: int) -> None:
    ino = await put(vfs, b"a", b"1234")
    store.encode(ino)
    shown = await vfs.setattr(ino, Changes(size=size), ROOT_USER)
    assert shown.size == size
    assert await get(vfs, ino) == b"1234"[:size].ljust(size, b"\0")
    assert store.queued.count(ino) == 2


async def test_truncate_to_huge_sizes(vfs: Vfs) -> None:
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


async def test_each_handle_keeps_its_access_mode(vfs: Vfs) -> None:
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


async def test_a_reader_outlives_the_encoding_of_what_it_reads(vfs: Vfs, store: FakeStore) -> None:
    ino = await put(vfs, b"a", b"1234")
    reader = await vfs.open(ino, os.O_RDONLY, USER)
    store.encode(ino)
    assert await vfs.read(reader, 0, 9) == b"1234"
    writer = await vfs.open(ino, os.O_WRONLY, USER)
    await vfs.write(writer, 4, b"5")
    assert await vfs.read(reader, 0, 9) == b"12345"


async def test_a_writer_holds_the_inode(vfs: Vfs, store: FakeStore) -> None:
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


async def test_concurrent_first_writes_copy_once(vfs: Vfs, store: FakeStore) -> None:
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


# -- attributes


async def test_an_explicit_mtime_wins_over_earlier_writes(vfs: Vfs) -> None:
    fh, shown = await vfs.create(ROOT, b"a", 0o644, os.O_WRONLY, USER)
    await vfs.write(fh, 0, b"x")
    await vfs.setattr(shown.ino, Changes(mtime_ns=123_456_789_012), USER)
    await vfs.flush(fh)
    await vfs.release(fh)
    assert (await vfs.getattr(shown.ino)).mtime_ns == 123_456_789_012


async def test_times_move_as_posix_says(vfs: Vfs) -> None:
    ino = await put(vfs, b"a", b"x")
    old = Changes(mtime_ns=-5, atime_ns=7)
    assert (await vfs.setattr(ino, old, USER)).mtime_ns == -5
    before = time.time_ns()
    fh = await vfs.open(ino, os.O_RDWR, USER)
    await vfs.read(fh, 0, 1)
    assert (await vfs.getattr(ino)).atime_ns == 7
    await vfs.write(fh, 0, b"y")
    shown = await vfs.getattr(ino)
    assert shown.mtime_ns >= before
    assert shown.ctime_ns >= before
    await vfs.release(fh)
    before = time.time_ns()
    await vfs.setattr(ino, Changes(mode=0o600), USER)
    await vfs.unlink(ROOT, b"a")
    assert (await vfs.getattr(ino)).ctime_ns >= before
    assert (await vfs.getattr(ROOT)).mtime_ns >= before
    far = (await vfs.setattr(ROOT, Changes(mtime_ns=1 << 70), USER)).mtime_ns
    assert far == (1 << 63) - 1


async def test_set_user_id_goes_with_a_write_right_after_one_of_root(vfs: Vfs) -> None:
    ino = await put(vfs, b"a", b"x")
    await vfs.setattr(ino, Changes(mode=0o4777), ROOT_USER)
    first = await vfs.open(ino, os.O_WRONLY, ROOT_USER)
    second = await vfs.open(ino, os.O_WRONLY, USER)
    await vfs.write(first, 0, b"y")
    assert stat.S_IMODE((await vfs.getattr(ino)).mode) == 0o4777
    await vfs.write(second, 0, b"z")
    assert stat.S_IMODE((await vfs.getattr(ino)).mode) == 0o777


async def test_set_user_id_goes_with_writes_and_new_owners(vfs: Vfs) -> None:
    ino = await put(vfs, b"a", b"x")

    async def mode_after(mode: int, changes: Changes, caller: Caller) -> int:
        await vfs.setattr(ino, Changes(mode=mode), ROOT_USER)
        return stat.S_IMODE((await vfs.setattr(ino, changes, caller)).mode)

    assert await mode_after(0o6777, Changes(size=1), ROOT_USER) == 0o6777
    assert await mode_after(0o6777, Changes(size=1), USER) == 0o777
    assert await mode_after(0o6777, Changes(uid=5), ROOT_USER) == 0o777
    assert await mode_after(0o6767, Changes(gid=5), ROOT_USER) == 0o2767
    assert await mode_after(0o6777, Changes(), ROOT_USER) == 0o777
    assert await mode_after(0o6777, Changes(mtime_ns=1), ROOT_USER) == 0o6777
    await vfs.setattr(ino, Changes(mode=0o4755), ROOT_USER)
    fh = await vfs.open(ino, os.O_WRONLY, USER)
    await vfs.write(fh, 0, b"z")
    assert stat.S_IMODE((await vfs.getattr(ino)).mode) == 0o755


async def test_creat_keeps_set_group_id(vfs: Vfs) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    fh, made = await vfs.create(ROOT, b"a", 0o6777, flags, USER)
    assert stat.S_IMODE(made.mode) == 0o6755
    await vfs.release(fh)
    fh, made = await vfs.create(ROOT, b"a", 0o6777, flags, USER)
    assert stat.S_IMODE(made.mode) == 0o755
    await vfs.release(fh)


async def test_readdir_survives_deletes_between_batches(vfs: Vfs) -> None:
    for number in range(200):
        await vfs.mknod(ROOT, b"%03d" % number, stat.S_IFIFO | 0o600, 0, USER)
    fh = await vfs.opendir(ROOT)
    first = list(itertools.islice(await vfs.readdir(fh, 0), 50))
    seen = [name for _, name, _ in first]
    for name in seen[2:]:
        await vfs.unlink(ROOT, name)
    after = first[-1][0]
    while entries := list(await vfs.readdir(fh, after)):
        seen += [name for _, name, _ in entries]
        after = entries[-1][0]
    assert seen == [b".", b".."] + [b"%03d" % number for number in range(200)]
    assert [name for _, name, _ in await vfs.readdir(fh, 1)][:1] == [b".."]


async def test_dots_show_the_folder_and_the_one_above(vfs: Vfs) -> None:
    top = await vfs.mkdir(ROOT, b"top", 0o755, USER)
    sub = await vfs.mkdir(top.ino, b"sub", 0o755, USER)
    found = await listing(vfs, sub.ino)
    assert (found[b"."].ino, found[b".."].ino) == (sub.ino, top.ino)
    assert (await listing(vfs))[b".."].ino == ROOT


async def test_statfs_names_the_disk_behind(vfs: Vfs, store: FakeStore) -> None:
    assert (await vfs.statfs()).f_blocks == os.statvfs(store.path).f_blocks


# -- extended attributes


async def test_xattrs(vfs: Vfs) -> None:
    ino = await put(vfs, b"a", b"x")
    await vfs.setxattr(ino, b"user.colour", b"red\0blue")
    await vfs.setxattr(ino, b"user.colour", b"")
    await vfs.setxattr(ino, b"security.x", b"1")
    assert await vfs.getxattr(ino, b"user.colour") == b""
    assert set(await vfs.listxattr(ino)) == {b"user.colour", b"security.x"}
    await vfs.removexattr(ino, b"user.colour")
    with raises(errno.ENODATA):
        await vfs.getxattr(ino, b"user.colour")
    with raises(errno.ENODATA):
        await vfs.removexattr(ino, b"user.colour")
    with raises(errno.ENOTSUP):
        await vfs.setxattr(ino, b"system.posix_acl_access", b"1")
    with raises(errno.ENOTSUP):
        await vfs.getxattr(
            ino,
            b"odd",
        )
    with raises(errno.EPERM):
        await vfs.setxattr(ino, b"user.fsmount.kind", b"key")
    with raises(errno.ERANGE):
        await vfs.setxattr(ino, b"user." + b"n" * 255, b"")
    with raises(errno.E2BIG):
        await vfs.setxattr(ino, b"user.big", bytes(65537))


async def test_virtual_xattrs(vfs: Vfs, store: FakeStore) -> None:
    ino = await put(vfs, b"a", b"four")

    async def told(name: bytes) -> bytes:
        return await vfs.getxattr(ino, b"user.fsmount." + name)

    assert (await told(b"kind"), await told(b"stored_bytes")) == (b"staged", b"4")
    assert await vfs.getxattr(ROOT, b"user.fsmount.staged") == b"1"
    with raises(errno.ENODATA):
        await told(b"sha256")
    store.encode(ino)
    assert [await told(n) for n in (b"kind", b"stored_bytes", b"depth")] == [b"raw", b"4", b"0"]
    assert len(await told(b"sha256")) == 64
    assert await vfs.getxattr(ROOT, b"user.fsmount.staged") == b"0"
    assert await vfs.getxattr(ROOT, b"user.fsmount.store") == bytes(store.path)
    assert await vfs.listxattr(ino) == []
    folder = await vfs.mkdir(ROOT, b"d", 0o755, USER)
    with raises(errno.ENODATA):
        await vfs.getxattr(folder.ino, b"user.fsmount.kind")


# -- durability


async def test_close_and_crash_keep_what_was_written(tmp_path: Path) -> None:
    store = FakeStore(tmp_path / "store")
    vfs = mount(store)
    closed = await put(vfs, b"closed", b"12345")
    await vfs.setattr(closed, Changes(mtime_ns=42), USER)
    fh, shown = await vfs.create(ROOT, b"open", 0o644, os.O_WRONLY, USER)
    await vfs.write(fh, 0, b"123")
    store.close()  # the daemon dies here: no flush, no release
    again = FakeStore(tmp_path / "store")
    after = mount(again)
    assert await get(after, (await after.lookup(ROOT, b"open")).ino) == b"123"
    assert again.index.inode(shown.ino).size == 3
    found = await after.lookup(ROOT, b"closed")
    assert (found.size, found.mtime_ns) == (5, 42)
    again.close()


class BadFsync(Disk):
    """The first fsync fails; as on Linux, the second reports success."""

    failures = 0

    def fsync(self, fd: int) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EIO, "lost")


async def test_a_failed_fsync_is_never_followed_by_a_good_one(tmp_path: Path) -> None:
    disk = BadFsync()
    store = FakeStore(tmp_path / "store", disk=disk)
    vfs = mount(store)
    fh, shown = await vfs.create(ROOT, b"a", 0o644, os.O_WRONLY, USER)
    await vfs.write(fh, 0, b"x")
    disk.failures = 1
    for _ in range(2):
        with raises(errno.EIO):
            await vfs.fsync(fh)
    await vfs.release(fh)
    fh = await vfs.open(shown.ino, os.O_RDONLY, USER)
    with raises(errno.EIO):
        await vfs.fsync(fh)
    store.close()


async def test_fsync_forces_file_then_folder_then_index(tmp_path: Path) -> None:
    calls: list[str] = []

    class Recorder(Disk):
        def fsync(self, fd: int) -> None:
            calls.append(Path(f"/proc/self/fd/{fd}").readlink().name)

    store = FakeStore(tmp_path / "store", disk=Recorder())
    vfs = mount(store)
    fh, shown = await vfs.create(ROOT, b"a", 0o644, os.O_WRONLY, USER)
    await vfs.write(fh, 0, b"x")
    calls.clear()
    await vfs.fsync(fh)
    token = store.index.inode(shown.ino).staged
    assert calls == [str(token), "staging", "index.sqlite-wal"]
    assert store.index.inode(shown.ino).size == 1
    folder = await vfs.opendir(ROOT)
    await vfs.fsyncdir(folder)
    assert calls[3:] == ["index.sqlite-wal"]
    store.close()


async def test_read_only_refuses_every_change(tmp_path: Path) -> None:
    path = tmp_path / "store"
    first = FakeStore(path)
    ino = await put(mount(first), b"a", b"x")
    first.close()
    store = FakeStore(path, read_only=True)
    vfs = mount(store)
    assert await get(vfs, ino) == b"x"
    changes = [
        lambda: vfs.create(ROOT, b"b", 0o644, os.O_WRONLY, USER),
        lambda: vfs.open(ino, os.O_RDWR, USER),
        lambda: vfs.open(ino, os.O_TRUNC, USER),
        lambda: vfs.mkdir(ROOT, b"b", 0o755, USER),
        lambda: vfs.mknod(ROOT, b"b", stat.S_IFIFO, 0, USER),
        lambda: vfs.symlink(ROOT, b"b", b"t", USER),
        lambda: vfs.link(ino, ROOT, b"b"),
        lambda: vfs.unlink(ROOT, b"a"),
        lambda: vfs.rmdir(ROOT, b"a"),
        lambda: vfs.rename(ROOT, b"a", ROOT, b"b"),
        lambda: vfs.setattr(ino, Changes(mode=0), USER),
        lambda: vfs.setxattr(ino, b"user.a", b""),
        lambda: vfs.removexattr(ino, b"user.a"),
    ]
    for change in changes:
        with raises(errno.EROFS):
            await change()  # type: ignore[no-untyped-call]
    vfs.close()
    store.close()


# -- rendering ahead


async def test_reading_by_name_renders_the_next_files_ahead(
    vfs: Vfs, store: FakeStore, nursery: trio.Nursery
) -> None:
    # Made out of order: what counts is the name.
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
    vfs: Vfs, store: FakeStore, nursery: trio.Nursery
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
    # Turned round: what follows again.
    for name in (b"3", b"4"):
        assert store.prefetched[3:] == []
        await get(vfs, inos[name])
        await trio.testing.wait_all_tasks_blocked()
    assert store.prefetched[3:] == [inos[b"5"]]


async def test_a_quota_is_a_full_disk(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write beyond the quota fails for who wrote it; what was there stays."""
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


async def test_folders_in_a_circle_hold_up_nothing(vfs: Vfs) -> None:
    """Only damage of the index makes them."""
    upper = (await vfs.mkdir(ROOT, b"upper", 0o755, ROOT_USER)).ino
    lower = (await vfs.mkdir(upper, b"lower", 0o755, ROOT_USER)).ino
    await vfs.mkdir(ROOT, b"other", 0o755, ROOT_USER)
    index = vfs._index
    with index.transaction():
        index._run("UPDATE dirents SET folder = ? WHERE ino = ?", (lower, upper))
    with raises(errno.ELOOP):
        await vfs.rename(ROOT, b"other", lower, b"other")
