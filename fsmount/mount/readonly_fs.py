"""A filesystem that is only read: any tree of files that knows its names, attributes and bytes.

A mount shows a folder of differences, or albums, through it. Inode numbers are given to paths in
the order in which the paths are first seen, and stay until the mount ends.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import trio

import fsmount
from fsmount import threads
from fsmount.mount.attributes import (
    NAME_BYTES,
    SHARED_VALID_S,
    Attributes,
    Bytes,
    Caller,
    DirEntry,
    failure,
)
from fsmount.mount.filesystem import ROOT
from fsmount.mount.plain_answers import PlainAnswers
from fsmount.threads import Kind

_VIRTUAL = b"user.fsmount."
# The size shown while the size is unknown; the kernel asks again at once.
_UNKNOWN = 0

_T = TypeVar("_T")


class Node(Protocol):
    """What a tree knows of a file without reading it; any frozen dataclass with these fields."""

    @property
    def mode(self) -> int:
        """Permissions and type bits, as in stat(2)."""

    @property
    def size(self) -> int | None:
        """In bytes; None if only rendering the file tells it."""

    @property
    def uid(self) -> int:
        """The owner."""

    @property
    def gid(self) -> int:
        """The group."""

    @property
    def mtime_ns(self) -> int:
        """In ns since 1970."""

    @property
    def target(self) -> bytes | None:
        """Where a symbolic link points to; None for any other file."""


class Tree(Protocol):
    """Files to show. A path is bytes, relative to the root, whose path is b"".

    Methods raise OSError with an errno (ENOENT for a path that does not exist) or FsmountError.
    """

    @property
    def source(self) -> Path:
        """The file or folder that is mounted, as `mount` and `df` name it."""

    def running(self) -> AbstractAsyncContextManager[object]:
        """The worker processes of the tree. Entered before any other method is called."""

    async def children(self, folder: bytes) -> Sequence[tuple[bytes, Node]]:
        """The entries of a folder, in name order. Decodes nothing."""

    async def attributes(self, path: bytes) -> Node:
        """One entry. The size of a regular file is never None; it is rendered if needed."""

    async def body(self, path: bytes) -> Bytes:
        """The bytes of a regular file. Called once for each open file that is read."""

    async def xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        """Extended attributes. Those named ``user.fsmount.…`` are answered but not listed."""


@dataclass(slots=True)
class _Open:
    """One open(2). `body` is kept from the first read on."""

    path: bytes
    body: Bytes | None = None
    # Held by the task that makes the body, so that readers make it once.
    making: trio.Lock = field(default_factory=trio.Lock)


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


class ReadOnlyFilesystem(PlainAnswers[_Open, list[tuple[bytes, int, Node]]]):
    """A :class:`Tree` by inode and handle."""

    def __init__(self, tree: Tree, first: int = 0) -> None:
        """`first` is added to the numbers of inodes and handles, and to cookies of folders."""
        super().__init__(first)
        self._tree = tree
        self._first = first
        self._paths: list[bytes] = [b"", b""]  # by inode number; number 0 is not used
        self._inodes: dict[bytes, int] = {b"": ROOT + first}

    def _ino(self, path: bytes) -> int:
        ino = self._inodes.get(path)
        if ino is None:
            ino = self._inodes[path] = len(self._paths) + self._first
            self._paths.append(path)
        return ino

    def _path(self, ino: int) -> bytes:
        if not 0 < ino - self._first < len(self._paths):
            raise failure(errno.ENOENT)
        return self._paths[ino - self._first]

    # -- inodes

    def _show(self, ino: int, node: Node) -> Attributes:
        size = _UNKNOWN if node.size is None else node.size
        known = node.size is not None or not stat.S_ISREG(node.mode)
        return Attributes(
            ino=ino,
            mode=node.mode,
            nlink=2 if stat.S_ISDIR(node.mode) else 1,
            uid=node.uid,
            gid=node.gid,
            rdev=0,
            size=size,
            blocks=-(-size // 512),
            atime_ns=node.mtime_ns,
            mtime_ns=node.mtime_ns,
            ctime_ns=node.mtime_ns,
            valid_s=SHARED_VALID_S if known else 0.0,
        )

    async def lookup(self, folder: int, name: bytes) -> Attributes:
        """The entry `name` of a folder. Raises OSError ENOENT, ENOTDIR, ENAMETOOLONG."""
        if len(name) > NAME_BYTES:
            raise failure(errno.ENAMETOOLONG)
        path = _join(self._path(folder), name)
        node = await self._tree.attributes(path)
        return self._show(self._ino(path), node)

    async def getattr(self, ino: int) -> Attributes:
        """What stat(2) shows."""
        return self._show(ino, await self._tree.attributes(self._path(ino)))

    async def readlink(self, ino: int) -> bytes:
        """The target of a symbolic link. Raises OSError EINVAL for anything else."""
        node = await self._tree.attributes(self._path(ino))
        if node.target is None:
            raise failure(errno.EINVAL)
        return node.target

    async def statfs(self) -> os.statvfs_result:
        """The disk of the source, with no free space."""
        found = await threads.call(Kind.FREE_SPACE, os.statvfs, self._tree.source)
        sizes = (found.f_bsize, found.f_frsize, found.f_blocks, 0, 0)
        return os.statvfs_result((*sizes, found.f_files, 0, 0, found.f_flag, NAME_BYTES))

    # -- open files

    async def open(self, ino: int, flags: int, caller: Caller) -> int:
        """A handle for reading. Raises OSError EROFS for any other access."""
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise failure(errno.EROFS)
        return self._keep_file(_Open(self._path(ino)))

    async def read(self, fh: int, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; fewer only at the end of the file."""
        opened = self._file(fh)
        if opened.body is None:
            async with opened.making:
                if opened.body is None:
                    opened.body = await self._tree.body(opened.path)
        return await opened.body.pread(offset, length)

    # -- open folders

    async def opendir(self, ino: int) -> int:
        """A handle on a folder, which shows its entries as they are now."""
        folder = self._path(ino)
        here = await self._tree.attributes(folder)
        above = folder.rpartition(b"/")[0]
        entries = [(b".", ino, here), (b"..", self._ino(above), here)]
        for name, node in await self._tree.children(folder):
            entries.append((name, self._ino(_join(folder, name)), node))
        return self._keep_folder(entries)

    async def readdir(self, fh: int, after: int) -> Iterator[DirEntry]:
        """All entries after the cookie `after`. A cookie is `first` + the entry's place from 1."""
        entries = self._folder(fh)
        start = max(0, after - self._first)
        return (
            (self._first + place, name, self._show(ino, node))
            for place, (name, ino, node) in enumerate(entries[start:], start + 1)
        )

    # -- extended attributes

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        """A value; of the mount's root also what `fsmount umount` asks. Raises OSError ENODATA."""
        value = self._of_mount(name) if ino == ROOT else None
        if value is None:
            value = (await self._tree.xattrs(self._path(ino))).get(name)
        if value is None:
            raise failure(errno.ENODATA)
        return value

    def _of_mount(self, name: bytes) -> bytes | None:
        return {
            b"store": os.fsencode(self._tree.source),
            b"staged": b"0",
            b"version": fsmount.__version__.encode(),
            b"pid": str(os.getpid()).encode(),
            b"read_only": b"1",
        }.get(name.removeprefix(_VIRTUAL))

    async def listxattr(self, ino: int) -> list[bytes]:
        """The names, without those of ``user.fsmount.…``."""
        names = await self._tree.xattrs(self._path(ino))
        return [name for name in names if not name.startswith(_VIRTUAL)]
