"""A union without a kernel: which filesystem a call goes to, hidden names, listings, errors."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from fsmount.errors import Damaged
from fsmount.mount.attributes import Changes, DirEntry, failure
from fsmount.mount.filesystem import Filesystem
from fsmount.mount.readonly_fs import ReadOnlyFilesystem
from fsmount.mount.store_fs import StoreFilesystem
from fsmount.mount.union_fs import FIRST, UnionFilesystem
from fsmount.store.index import ROOT
from fsmount.store.packs.bodies import RenderedBody
from tests.support.calls import ROOT_USER, USER, put, raises

ALBUMS = [b"Italy", b"Japan", b"Peru"]


@dataclass(frozen=True)
class Node:
    """Attributes of a folder, or of a file of 6 bytes."""

    mode: int
    size: int = 6
    uid: int = 1
    gid: int = 2
    mtime_ns: int = 3
    target: bytes | None = None


FOLDER, FILE = Node(stat.S_IFDIR | 0o555), Node(stat.S_IFREG | 0o444)


class Albums:
    """A source of a read-only filesystem: folders with one file each."""

    source = Path("/")

    def __init__(self) -> None:
        self.error: Exception | None = None

    def running(self) -> AbstractAsyncContextManager[object]:
        return nullcontext()

    async def children(self, folder: bytes) -> Sequence[tuple[bytes, Node]]:
        return [(b"photo", FILE)] if folder else [(name, FOLDER) for name in ALBUMS]

    async def attributes(self, path: bytes) -> Node:
        if self.error is not None:
            raise self.error
        album, _, photo = path.partition(b"/")
        if (path and album not in ALBUMS) or photo not in (b"", b"photo"):
            raise failure(errno.ENOENT)
        return FILE if photo else FOLDER

    async def body(self, path: bytes) -> RenderedBody:
        return RenderedBody(b"pixels")

    async def xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        return {b"user.of": path}


@pytest.fixture
def albums() -> Albums:
    return Albums()


@pytest.fixture
def union(vfs: StoreFilesystem, albums: Albums) -> UnionFilesystem:
    return UnionFilesystem(vfs, ReadOnlyFilesystem(albums, FIRST))


class Pages(StoreFilesystem):
    """A filesystem of a store that lists two entries at a time."""

    async def readdir(self, fh: int, after: int) -> Iterable[DirEntry]:  # type: ignore[override]
        return list(await super().readdir(fh, after))[:2]


async def names(filesystem: Filesystem, room: int) -> list[bytes]:
    """The names in the root, read as the kernel reads them: at most `room` entries a call."""
    fh = await filesystem.opendir(ROOT)
    found: list[bytes] = []
    after = 0
    while True:
        taken = 0
        for cookie, name, _ in await filesystem.readdir(fh, after):
            if taken == room:
                break
            taken, after = taken + 1, cookie
            found.append(name)
        if not taken:
            await filesystem.releasedir(fh)
            return found


@pytest.mark.parametrize("room", [1, 2, 3, 100])
@pytest.mark.parametrize("kind", [StoreFilesystem, Pages])
async def test_a_listing_has_every_name_once(
    vfs: StoreFilesystem, albums: Albums, kind: type[StoreFilesystem], room: int
) -> None:
    upper = kind(vfs._store, vfs._writable())
    union = UnionFilesystem(upper, ReadOnlyFilesystem(albums, FIRST))
    for name in (b"a", b"b", b"Japan"):
        await put(upper, name, b"x")
    assert await names(union, room) == [b".", b"..", b"a", b"b", b"Japan", b"Italy", b"Peru"]


async def test_a_name_in_the_upper_root_hides_that_of_the_lower(
    union: UnionFilesystem, vfs: StoreFilesystem
) -> None:
    lower = await union.lookup(ROOT, b"Italy")
    assert lower.ino > FIRST
    assert (await union.getattr(lower.ino)).ino == lower.ino
    await put(vfs, b"Italy", b"notes")
    assert (await union.lookup(ROOT, b"Italy")).size == 5
    # After the upper name is removed, the lower folder shows again.
    await union.unlink(ROOT, b"Italy")
    assert (await union.lookup(ROOT, b"Italy")).ino == lower.ino
    with raises(errno.ENOENT):
        await union.lookup(ROOT, b"Spain")
    with raises(errno.ENAMETOOLONG):
        await union.lookup(ROOT, b"n" * 256)


async def test_files_of_both_are_read(union: UnionFilesystem, vfs: StoreFilesystem) -> None:
    await put(vfs, b"a", b"of the store")
    album = await union.lookup(ROOT, b"Italy")
    photo = await union.lookup(album.ino, b"photo")
    mine = await union.lookup(ROOT, b"a")
    for ino, data in ((photo.ino, b"pixels"), (mine.ino, b"of the store")):
        fh = await union.open(ino, os.O_RDONLY, USER)
        assert await union.read(fh, 0, 99) == data
        assert union.keeps_pages(fh) is (ino == mine.ino)
        await union.flush(fh)
        await union.release(fh)
        with raises(errno.EBADF):
            await union.read(fh, 0, 99)
    assert await union.listxattr(photo.ino) == [b"user.of"]
    assert await union.getxattr(photo.ino, b"user.of") == b"Italy/photo"
    # The root belongs to the store.
    assert await union.getxattr(ROOT, b"user.fsmount.store") == bytes(vfs._store.path)
    assert (mine.valid_s, photo.valid_s) == (86_400, 1)


async def test_the_lower_filesystem_is_not_changed(
    union: UnionFilesystem, vfs: StoreFilesystem
) -> None:
    await put(vfs, b"a", b"x")
    mine = (await union.lookup(ROOT, b"a")).ino
    album = (await union.lookup(ROOT, b"Italy")).ino
    photo = (await union.lookup(album, b"photo")).ino
    for folder, name in ((ROOT, b"Italy"), (album, b"photo"), (album, b"new")):
        for refused in (
            union.mknod(folder, name, stat.S_IFREG, 0, USER),
            union.mkdir(folder, name, 0o755, USER),
            union.symlink(folder, name, b"t", USER),
            union.create(folder, name, 0o644, os.O_RDWR, USER),
            union.unlink(folder, name),
            union.rmdir(folder, name),
            union.link(mine, folder, name),
            union.rename(folder, name, ROOT, b"b"),
            union.rename(ROOT, b"a", folder, name),
        ):
            with raises(errno.EROFS):
                await refused
    for changed in (
        union.setattr(photo, Changes(mode=0), USER),
        union.setxattr(photo, b"user.x", b""),
        union.removexattr(photo, b"user.of"),
        union.open(photo, os.O_RDWR, USER),
    ):
        with raises(errno.EROFS):
            await changed
    with raises(errno.EXDEV):
        await union.link(photo, ROOT, b"b")


async def test_the_upper_filesystem_is_changed(union: UnionFilesystem) -> None:
    folder = (await union.mkdir(ROOT, b"folder", 0o755, ROOT_USER)).ino
    fh, made = await union.create(ROOT, b"a", 0o644, os.O_RDWR, ROOT_USER)
    assert await union.write(fh, 0, b"abc") == 3
    await union.fsync(fh)
    await union.release(fh)
    await union.link(made.ino, folder, b"Italy")
    await union.rename(ROOT, b"a", folder, b"b")
    await union.setxattr(made.ino, b"user.x", b"1")
    await union.removexattr(made.ino, b"user.x")
    assert (await union.setattr(made.ino, Changes(size=1), ROOT_USER)).size == 1
    await union.unlink(folder, b"b")
    assert (await union.lookup(folder, b"Italy")).nlink == 1
    await union.statfs()


async def test_lookups_of_the_union_itself_are_not_counted(
    union: UnionFilesystem, vfs: StoreFilesystem
) -> None:
    await put(vfs, b"Italy", b"x")
    shown = await union.lookup(ROOT, b"Italy")
    await names(union, 9)
    with raises(errno.EEXIST):
        await union.mkdir(ROOT, b"Italy", 0o755, USER)
    await union.unlink(ROOT, b"Italy")
    # put() and lookup() each counted one lookup. The file is removed at the second forget().
    await union.forget(shown.ino, 1)
    assert (await union.getattr(shown.ino)).nlink == 0
    await union.forget(shown.ino, 1)
    with pytest.raises(Exception, match=str(shown.ino)):
        await union.getattr(shown.ino)


async def test_what_the_lower_cannot_read_does_not_keep_from_writing(
    union: UnionFilesystem, albums: Albums, vfs: StoreFilesystem
) -> None:
    albums.error = Damaged("albums", reason="told so")
    await union.mkdir(ROOT, b"new", 0o755, USER)
    with pytest.raises(Damaged):
        await union.lookup(ROOT, b"Italy")
    # An error, since a listing without the albums would look as if they had been deleted.
    with pytest.raises(Damaged):
        await union.opendir(ROOT)
    assert not vfs._folders._folders
