"""The filesystem of a store, without a kernel: what survives a crash, and what fsync forces."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from fsmount.mount.attributes import Changes
from fsmount.store.disk.disk import Disk
from fsmount.store.index import ROOT
from tests.support.calls import USER, get, mount, put, raises
from tests.support.fake_store import FakeStore


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
    """A disk whose next `failures` fsyncs fail. Later ones report success, as on Linux."""

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


async def test_a_body_that_is_replaced_leaves_the_failed_fsync_behind(tmp_path: Path) -> None:
    disk = BadFsync()
    store = FakeStore(tmp_path / "store", disk=disk)
    vfs = mount(store)
    ino = await put(vfs, b"a", b"old bytes")
    fh = await vfs.open(ino, os.O_RDWR, USER)
    disk.failures = 1
    with raises(errno.EIO):
        await vfs.fsync(fh)
    failed = store.index.inode(ino).staged
    # The write replaces a part of the file. Lost pages may lie in the rest.
    await vfs.write(fh, 0, b"new")
    await vfs.setattr(ino, Changes(size=5), USER)
    with raises(errno.EIO):
        await vfs.fsync(fh)
    other = await vfs.open(ino, os.O_WRONLY | os.O_TRUNC, USER)
    await vfs.write(other, 0, b"whole")
    for each in (other, fh):
        await vfs.fsync(each)
    assert store.index.inode(ino).staged != failed
    assert await vfs.read(fh, 0, 100) == b"whole"
    await vfs.release(other)
    await vfs.release(fh)
    assert store.staging.tokens() == [store.index.inode(ino).staged]
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
