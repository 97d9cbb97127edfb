"""The filesystem of a store, without a kernel: names, lookup counts, attributes."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import time

import pytest

from fsmount.errors import FsmountError
from fsmount.mount import store_fs
from fsmount.mount.attributes import Caller, Changes
from fsmount.mount.store_fs import RENAME_EXCHANGE, RENAME_NOREPLACE, StoreFilesystem
from fsmount.store.index import ROOT
from tests.support.calls import ROOT_USER, USER, get, listing, put, raises
from tests.support.fake_store import FakeStore

# -- names


async def test_create_lookup_read(vfs: StoreFilesystem, store: FakeStore) -> None:
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
    vfs: StoreFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    ino = await put(vfs, b"a", b"x" * 10_000)
    fh = await vfs.open(ino, os.O_RDONLY, USER)
    real = os.pread

    def pread(fd: int, length: int, offset: int) -> bytes:
        if offset >= 4096:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, min(length, 4096 - offset), offset)

    def not_cached(*_: object) -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", pread)
        patch.setattr(os, "preadv", not_cached)
        with raises(errno.EIO):
            await vfs.read(fh, 0, 10_000)
        assert await vfs.read(fh, 0, 4096) == b"x" * 4096
    assert await vfs.read(fh, 0, 20_000) == b"x" * 10_000
    await vfs.release(fh)


async def test_missing_and_wrong_kinds(vfs: StoreFilesystem) -> None:
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


async def test_longest_name_and_bytes_that_are_no_text(vfs: StoreFilesystem) -> None:
    await put(vfs, b"n" * 255, b"1")
    await put(vfs, b"\xff\xfe\n", b"2")
    assert set(await listing(vfs)) == {b".", b"..", b"n" * 255, b"\xff\xfe\n"}


async def test_rmdir_and_link_counts(vfs: StoreFilesystem) -> None:
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


async def test_setgid_folder_passes_its_group_on(vfs: StoreFilesystem) -> None:
    folder = (await vfs.mkdir(ROOT, b"dir", 0o755, ROOT_USER)).ino
    await vfs.setattr(folder, Changes(mode=0o2775, gid=77), ROOT_USER)
    inner = await vfs.mkdir(folder, b"sub", 0o755, USER)
    assert inner.gid == 77
    assert inner.mode & stat.S_ISGID
    node = await vfs.mknod(folder, b"fifo", stat.S_IFIFO | 0o644, 0, USER)
    assert node.gid == 77
    assert not node.mode & stat.S_ISGID


async def test_special_files(vfs: StoreFilesystem) -> None:
    node = await vfs.mknod(ROOT, b"dev", stat.S_IFCHR | 0o666, os.makedev(1, 3), USER)
    assert (stat.S_IFMT(node.mode), node.rdev) == (stat.S_IFCHR, os.makedev(1, 3))
    plain = await vfs.mknod(ROOT, b"plain", stat.S_IFREG | 0o666, 0, USER)
    assert await get(vfs, plain.ino) == b""
    link = await vfs.symlink(ROOT, b"link", b"to/there", USER)
    assert (link.size, stat.S_IFMT(link.mode)) == (8, stat.S_IFLNK)
    assert await vfs.readlink(link.ino) == b"to/there"
    with raises(errno.ENAMETOOLONG):
        await vfs.symlink(ROOT, b"long", b"t" * 4096, USER)


async def test_hard_links(vfs: StoreFilesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    ino = await put(vfs, b"a", b"same")
    shown = await vfs.link(ino, ROOT, b"b")
    assert (shown.ino, shown.nlink) == (ino, 2)
    await vfs.unlink(ROOT, b"a")
    assert await get(vfs, (await vfs.lookup(ROOT, b"b")).ino) == b"same"
    monkeypatch.setattr(store_fs, "LINKS", 1)
    with raises(errno.EMLINK):
        await vfs.link(ino, ROOT, b"c")


# -- rename


async def test_rename_replaces(vfs: StoreFilesystem) -> None:
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


async def test_rename_rules(vfs: StoreFilesystem) -> None:
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


async def test_exchange(vfs: StoreFilesystem) -> None:
    top = await vfs.mkdir(ROOT, b"top", 0o755, ROOT_USER)
    folder = await vfs.mkdir(top.ino, b"x", 0o755, ROOT_USER)
    ino = await put(vfs, b"x", b"data")
    await vfs.rename(ROOT, b"x", top.ino, b"x", RENAME_EXCHANGE)
    assert (await vfs.lookup(ROOT, b"x")).ino == folder.ino
    assert (await vfs.lookup(top.ino, b"x")).ino == ino
    assert (await vfs.getattr(top.ino)).nlink == 2
    assert (await vfs.getattr(ROOT)).nlink == 4


async def test_rename_onto_another_name_of_itself_does_nothing(vfs: StoreFilesystem) -> None:
    ino = await put(vfs, b"a", b"")
    await vfs.link(ino, ROOT, b"b")
    await vfs.rename(ROOT, b"a", ROOT, b"b")
    assert (await vfs.getattr(ino)).nlink == 2


async def test_folders_in_a_circle_hold_up_nothing(vfs: StoreFilesystem) -> None:
    """The rename fails and does not hang. Only a damaged index has a cycle of folders."""
    upper = (await vfs.mkdir(ROOT, b"upper", 0o755, ROOT_USER)).ino
    lower = (await vfs.mkdir(upper, b"lower", 0o755, ROOT_USER)).ino
    await vfs.mkdir(ROOT, b"other", 0o755, ROOT_USER)
    index = vfs._index
    with index.transaction():
        index._run("UPDATE dirents SET folder = ? WHERE ino = ?", (lower, upper))
    with raises(errno.ELOOP):
        await vfs.rename(ROOT, b"other", lower, b"other")


# -- lifetime of inodes


async def test_unlinked_file_lives_while_open(vfs: StoreFilesystem, store: FakeStore) -> None:
    fh, shown = await vfs.create(ROOT, b"a", 0o644, os.O_RDWR, USER)
    await vfs.unlink(ROOT, b"a")
    await vfs.forget(shown.ino, 1)
    await vfs.write(fh, 0, b"still here")
    assert await vfs.read(fh, 0, 99) == b"still here"
    assert (await vfs.getattr(shown.ino)).nlink == 0
    await vfs.release(fh)
    assert store.staging.tokens() == []
    assert store.index.orphans() == []
    assert store.queued == []


async def test_unlinked_file_lives_while_the_kernel_knows_it(
    vfs: StoreFilesystem, store: FakeStore
) -> None:
    ino = await put(vfs, b"a", b"x")
    await vfs.lookup(ROOT, b"a")
    await vfs.unlink(ROOT, b"a")
    await vfs.forget(ino, 1)
    assert (await vfs.getattr(ino)).nlink == 0
    await vfs.forget(ino, 1)
    with pytest.raises(FsmountError):
        await vfs.getattr(ino)


async def test_each_answer_counts_one_lookup(vfs: StoreFilesystem, store: FakeStore) -> None:
    ino = await put(vfs, b"a", b"x")
    await vfs.link(ino, ROOT, b"b")
    await vfs.lookup(ROOT, b"b")
    vfs.remember(ino)
    await vfs.unlink(ROOT, b"a")
    await vfs.unlink(ROOT, b"b")
    for _ in range(3):
        await vfs.forget(ino, 1)
        assert len(store.index.orphans()) == 1
    await vfs.forget(ino, 1)
    assert store.index.orphans() == []
    folder = await vfs.mkdir(ROOT, b"d", 0o755, USER)
    link = await vfs.symlink(ROOT, b"s", b"t", USER)
    await vfs.rmdir(ROOT, b"d")
    await vfs.unlink(ROOT, b"s")
    assert {node.ino for node in store.index.orphans()} == {folder.ino, link.ino}
    await vfs.forget(folder.ino, 1)
    await vfs.forget(link.ino, 1)
    assert store.index.orphans() == []


async def test_the_end_of_the_mount_removes_orphans(vfs: StoreFilesystem, store: FakeStore) -> None:
    ino = await put(vfs, b"a", b"x")
    fh = await vfs.open(ino, os.O_RDWR, USER)
    await vfs.write(fh, 0, b"y")
    await vfs.unlink(ROOT, b"a")
    assert len(store.index.orphans()) == 1
    vfs.close()
    assert store.index.orphans() == []
    assert store.staging.tokens() == []
    assert store.held == set()


# -- attributes


async def test_an_explicit_mtime_wins_over_earlier_writes(vfs: StoreFilesystem) -> None:
    fh, shown = await vfs.create(ROOT, b"a", 0o644, os.O_WRONLY, USER)
    await vfs.write(fh, 0, b"x")
    await vfs.setattr(shown.ino, Changes(mtime_ns=123_456_789_012), USER)
    await vfs.flush(fh)
    await vfs.release(fh)
    assert (await vfs.getattr(shown.ino)).mtime_ns == 123_456_789_012


async def test_times_move_as_posix_says(vfs: StoreFilesystem) -> None:
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


async def test_set_user_id_goes_with_a_write_right_after_one_of_root(vfs: StoreFilesystem) -> None:
    ino = await put(vfs, b"a", b"x")
    await vfs.setattr(ino, Changes(mode=0o4777), ROOT_USER)
    first = await vfs.open(ino, os.O_WRONLY, ROOT_USER)
    second = await vfs.open(ino, os.O_WRONLY, USER)
    await vfs.write(first, 0, b"y")
    assert stat.S_IMODE((await vfs.getattr(ino)).mode) == 0o4777
    await vfs.write(second, 0, b"z")
    assert stat.S_IMODE((await vfs.getattr(ino)).mode) == 0o777


async def test_set_user_id_goes_with_writes_and_new_owners(vfs: StoreFilesystem) -> None:
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


async def test_creat_keeps_set_group_id(vfs: StoreFilesystem) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    fh, made = await vfs.create(ROOT, b"a", 0o6777, flags, USER)
    assert stat.S_IMODE(made.mode) == 0o6755
    await vfs.release(fh)
    fh, made = await vfs.create(ROOT, b"a", 0o6777, flags, USER)
    assert stat.S_IMODE(made.mode) == 0o755
    await vfs.release(fh)


async def test_readdir_survives_deletes_between_batches(vfs: StoreFilesystem) -> None:
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


async def test_dots_show_the_folder_and_the_one_above(vfs: StoreFilesystem) -> None:
    top = await vfs.mkdir(ROOT, b"top", 0o755, USER)
    sub = await vfs.mkdir(top.ino, b"sub", 0o755, USER)
    found = await listing(vfs, sub.ino)
    assert (found[b"."].ino, found[b".."].ino) == (sub.ino, top.ino)
    assert (await listing(vfs))[b".."].ino == ROOT


async def test_statfs_names_the_disk_behind(vfs: StoreFilesystem, store: FakeStore) -> None:
    assert (await vfs.statfs()).f_blocks == os.statvfs(store.path).f_blocks


# -- extended attributes


async def test_xattrs(vfs: StoreFilesystem) -> None:
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


async def test_the_attribute_that_keeps_a_file_from_a_prune(vfs: StoreFilesystem) -> None:
    ino = await put(vfs, b"a", b"")
    with raises(errno.ENODATA):
        await vfs.getxattr(ino, b"user.fsmount.keep")
    await vfs.setxattr(ino, b"user.fsmount.keep", b"1")
    assert await vfs.getxattr(ino, b"user.fsmount.keep") == b"1"
    assert await vfs.listxattr(ino) == [b"user.fsmount.keep"]
    await vfs.removexattr(ino, b"user.fsmount.keep")
    assert await vfs.listxattr(ino) == []


async def test_virtual_xattrs(vfs: StoreFilesystem, store: FakeStore) -> None:
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
