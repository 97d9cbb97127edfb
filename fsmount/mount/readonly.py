"""A mount that only reads: any tree of files that can say its names, attributes and bodies.

What a folder of differences, or anything else that is no store, is shown through. The tree knows no
kernel; this module knows no pictures. Inode numbers are given by path, in order of appearance,
and stay for the life of the mount.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pyfuse3
import trio
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    InodeT,
    ReaddirToken,
    RequestContext,
    StatvfsData,
    XAttrNameT,
)

import fsmount
from fsmount import threads
from fsmount.mount.attributes import NAME_BYTES, Attributes, Bytes, failure
from fsmount.mount.fuse import READ_ONLY_TIMEOUT_S, Overrides, answers, entry_of
from fsmount.threads import Kind

_ROOT = pyfuse3.ROOT_INODE
_VIRTUAL = b"user.fsmount."
# What stat shows in a listing where nobody knows the size yet; the kernel asks again at once.
_UNKNOWN = 0


class Node(Protocol):
    """What is known of a file without reading it; any frozen dataclass with these fields.

    `mode` with type bits; times in ns since 1970; `size` None: not known before it is rendered;
    `target`: of a symbolic link.
    """

    @property
    def mode(self) -> int: ...
    @property
    def size(self) -> int | None: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def mtime_ns(self) -> int: ...
    @property
    def target(self) -> bytes | None: ...


class Tree(Protocol):
    """Files to show. A path is bytes from the root, b"" the root itself, without leading slash.

    Methods raise OSError with an errno (ENOENT for what is not there), or FsmountError.
    """

    @property
    def source(self) -> Path:
        """What is mounted, as `mount` and `df` name it."""

    def running(self) -> AbstractAsyncContextManager[object]:
        """Whatever works behind the tree (worker processes), for as long as it is mounted."""

    async def children(self, folder: bytes) -> Sequence[tuple[bytes, Node]]:
        """The entries of a folder, in name order. Must not decode anything."""

    async def attributes(self, path: bytes) -> Node:
        """One entry. Of a regular file the size is always given, whatever that takes."""

    async def body(self, path: bytes) -> Bytes:
        """The bytes of a regular file. Asked once for each open file that is read."""

    async def xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        """Extended attributes. Those called ``user.fsmount.…`` are answered but not listed."""


@dataclass(slots=True)
class _Open:
    """One open(2), with the body pinned from the first read on."""

    path: bytes
    body: Bytes | None = None
    # Held by who makes the body, for all who read at once.
    making: trio.Lock = field(default_factory=trio.Lock)


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


class ReadOnlyOperations(pyfuse3.Operations):
    """The handlers over a :class:`Tree`. The kernel refuses writes itself (mount option ``ro``)."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, tree: Tree, overrides: Overrides | None = None, first: int = 0) -> None:
        """`first` is added to the numbers of inodes, handles and places in a folder."""
        super().__init__()
        self._tree = tree
        self._first = first
        self._overrides = overrides or Overrides()
        self._paths: list[bytes] = [b"", b""]  # by inode number; 0 is none
        self._inodes: dict[bytes, int] = {b"": _ROOT + first}
        self._open: dict[int, _Open] = {}
        self._folders: dict[int, list[tuple[bytes, int, Node]]] = {}
        self._next = first + 1

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

    def _entry(self, ino: int, node: Node) -> EntryAttributes:
        size = _UNKNOWN if node.size is None else node.size
        shown = Attributes(
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
        )
        known = node.size is not None or not stat.S_ISREG(node.mode)
        return entry_of(shown, self._overrides, READ_ONLY_TIMEOUT_S if known else 0.0)

    # -- inodes

    @answers
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        if len(name) > NAME_BYTES:
            raise failure(errno.ENAMETOOLONG)
        path = _join(self._path(parent_inode), name)
        node = await self._tree.attributes(path)
        return self._entry(self._ino(path), node)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Numbers stay given: a path has one number for the life of the mount."""

    @answers
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._entry(inode, await self._tree.attributes(self._path(inode)))

    @answers
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        node = await self._tree.attributes(self._path(inode))
        if node.target is None:
            raise failure(errno.EINVAL)
        return FileNameT(node.target)

    @answers
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        found = await threads.call(Kind.ROOM, os.statvfs, self._tree.source)
        data = StatvfsData()
        data.f_bsize, data.f_frsize = found.f_bsize, found.f_frsize
        data.f_blocks, data.f_files = found.f_blocks, found.f_files
        data.f_bfree = data.f_bavail = data.f_ffree = data.f_favail = 0
        data.f_namemax = NAME_BYTES
        return data

    # -- open files

    @answers
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise failure(errno.EROFS)
        path = self._path(inode)
        handle = self._handle()
        self._open[handle] = _Open(path)
        return FileInfo(fh=FileHandleT(handle))

    def _handle(self) -> int:
        self._next += 1
        return self._next - 1

    @answers
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        opened = self._open[fh]
        if opened.body is None:
            async with opened.making:
                if opened.body is None:
                    opened.body = await self._tree.body(opened.path)
        return await opened.body.pread(off, size)

    @answers
    async def flush(self, fh: FileHandleT) -> None:
        return

    @answers
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        return

    @answers
    async def release(self, fh: FileHandleT) -> None:
        self._open.pop(fh, None)

    # -- open folders

    @answers
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        folder = self._path(inode)
        here = await self._tree.attributes(folder)
        above = folder.rpartition(b"/")[0]
        entries = [(b".", inode, here), (b"..", self._ino(above), here)]
        for name, node in await self._tree.children(folder):
            entries.append((name, self._ino(_join(folder, name)), node))
        handle = self._handle()
        self._folders[handle] = entries
        return FileHandleT(handle)

    @answers
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        entries = self._folders[fh]
        for at in range(max(0, start_id - self._first), len(entries)):
            name, ino, node = entries[at]
            cookie = self._first + at + 1
            if not pyfuse3.readdir_reply(token, name, self._entry(ino, node), cookie):
                return

    @answers
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        return

    @answers
    async def releasedir(self, fh: FileHandleT) -> None:
        self._folders.pop(fh, None)

    # -- extended attributes

    @answers
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        value = self._of_mount(name) if inode == _ROOT else None
        if value is None:
            value = (await self._tree.xattrs(self._path(inode))).get(name)
        if value is None:
            raise failure(errno.ENODATA)
        return value

    def _of_mount(self, name: bytes) -> bytes | None:
        """What `fsmount umount` asks of the root; nothing is ever staged here."""
        return {
            b"store": os.fsencode(self._tree.source),
            b"staged": b"0",
            b"version": fsmount.__version__.encode(),
            b"pid": str(os.getpid()).encode(),
        }.get(name.removeprefix(_VIRTUAL))

    @answers
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        names = await self._tree.xattrs(self._path(inode))
        return [XAttrNameT(name) for name in names if not name.startswith(_VIRTUAL)]
