"""Several filesystems as folders of one root."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from fsmount.mount.attributes import Caller
from fsmount.mount.filesystem import ROOT
from fsmount.mount.folders_fs import SPAN, FoldersFilesystem
from fsmount.mount.store_fs import StoreFilesystem
from fsmount.store.read_store import ReadStore
from tests.support.fake_store import FakeStore

ME = Caller(0, 0, 0)


@pytest.fixture(name="folders")
def _folders(tmp_path: Path) -> Iterator[FoldersFilesystem]:
    stores = {}
    for name in (b"desk", b"laptop"):
        store = FakeStore(tmp_path / os.fsdecode(name))
        token = store.staging.create()
        store.staging.path(token).write_bytes(name)
        store.index.create(
            ROOT, b"file", mode=0o100644, uid=0, gid=0, now_ns=1, staged=token, size=len(name)
        )
        stores[name] = store
    shown = {name: StoreFilesystem(cast(ReadStore, each), None) for name, each in stores.items()}
    yield FoldersFilesystem(shown, "s3://bucket/")
    for store in stores.values():
        store.close()


async def names(folders: FoldersFilesystem, ino: int) -> dict[bytes, int]:
    handle = await folders.opendir(ino)
    found = {name: each.ino for _, name, each in await folders.readdir(handle, 0)}
    await folders.releasedir(handle)
    return found


async def test_files_of_each_folder(folders: FoldersFilesystem) -> None:
    top = await names(folders, ROOT)
    assert top == {b".": ROOT, b"..": ROOT, b"desk": SPAN + 1, b"laptop": 2 * SPAN + 1}
    for name in (b"desk", b"laptop"):
        folder = await folders.lookup(ROOT, name)
        assert folder.ino == top[name]
        file = await folders.lookup(folder.ino, b"file")
        assert (await names(folders, folder.ino))[b"file"] == file.ino
        handle = await folders.open(file.ino, os.O_RDONLY, ME)
        assert await folders.read(handle, 0, 100) == name
        await folders.release(handle)
        assert (await folders.getattr(file.ino)).ino == file.ino
        assert await folders.getxattr(file.ino, b"user.fsmount.kind") == b"staged"
        for ino in (file.ino, folder.ino):
            await folders.forget(ino, 1)


async def test_the_root(folders: FoldersFilesystem) -> None:
    root = await folders.getattr(ROOT)
    assert (root.ino, root.nlink, root.mode) == (ROOT, 4, 0o40755)
    assert await folders.getxattr(ROOT, b"user.fsmount.store") == b"s3://bucket/"
    assert await folders.getxattr(ROOT, b"user.fsmount.read_only") == b"1"
    assert await folders.listxattr(ROOT) == []
    # A listing goes on behind a cookie.
    handle = await folders.opendir(ROOT)
    assert [name for _, name, _ in await folders.readdir(handle, 3)] == [b"laptop"]
    for what in (
        folders.lookup(ROOT, b"none"),
        folders.getxattr(ROOT, b"user.other"),
        folders.getattr(9 * SPAN),
        folders.mkdir(ROOT, b"new", 0o755, ME),
        folders.unlink(SPAN + 1, b"file"),
        folders.open(SPAN + 2, os.O_WRONLY, ME),
    ):
        with pytest.raises(OSError) as caught:
            await what
        assert caught.value.errno in (errno.ENOENT, errno.ENODATA, errno.EINVAL, errno.EROFS)
