"""Several filesystems as folders of one root, which is only read.

Each of them has a range of numbers of its own for inodes and handles: those of the n-th one are n
times :data:`SPAN` higher than it counts itself, from 1. So a number says where a call goes. The
root, number 1, belongs to this module.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import fsmount
from fsmount.mount.attributes import VALID_S, Attributes, Caller, DirEntry, failure
from fsmount.mount.filesystem import ROOT, Filesystem

SPAN = 1 << 48

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _passed_on(
    method: Callable[Concatenate[Any, int, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[FoldersFilesystem, int, _P], Coroutine[Any, Any, _T]]:
    """A method of the filesystem that its first argument belongs to; the root has none of it."""
    called = method.__name__

    async def call(
        folders: FoldersFilesystem, number: int, /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        inner, own = folders.owner(number)
        answer: _T = await getattr(inner, called)(own, *args, **kwargs)
        return answer

    return call


class FoldersFilesystem(Filesystem):
    """See the module. `source` is the name of all of them, for ``user.fsmount.store``."""

    def __init__(self, folders: Mapping[bytes, Filesystem], source: str) -> None:
        self._names = list(folders)
        self._inner = list(folders.values())
        self._source = source
        self._now = time.time_ns()
        # Handles of the root.
        self._opened: set[int] = set()
        self._next = 1

    def owner(self, number: int) -> tuple[Filesystem, int]:
        """The filesystem that a number belongs to, and its own number. Raises OSError EINVAL."""
        at, own = divmod(number, SPAN)
        if not 0 < at <= len(self._inner):
            raise failure(errno.EINVAL)
        return self._inner[at - 1], own

    def _outer(self, shown: Attributes, like: int) -> Attributes:
        """Attributes with the number that belongs to them here, in the range of `like`."""
        return shown._replace(ino=shown.ino + like // SPAN * SPAN)

    def _root(self) -> Attributes:
        mode, times = stat.S_IFDIR | 0o755, (self._now, self._now, self._now)
        links = 2 + len(self._inner)
        return Attributes(ROOT, mode, links, os.getuid(), os.getgid(), 0, 0, 0, *times, VALID_S)

    # -- inodes

    async def lookup(self, folder: int, name: bytes) -> Attributes:
        """The entry `name` of a folder. Raises OSError ENOENT, ENOTDIR, ENAMETOOLONG."""
        if folder != ROOT:
            inner, own = self.owner(folder)
            return self._outer(await inner.lookup(own, name), folder)
        if name not in self._names:
            raise failure(errno.ENOENT)
        number = (self._names.index(name) + 1) * SPAN + ROOT
        self.remember(number)
        return await self.getattr(number)

    def remember(self, ino: int) -> None:
        """Count one lookup more."""
        if ino != ROOT:
            inner, own = self.owner(ino)
            inner.remember(own)

    async def forget(self, ino: int, count: int) -> None:
        """Count lookups fewer."""
        if ino != ROOT:
            inner, own = self.owner(ino)
            await inner.forget(own, count)

    async def getattr(self, ino: int) -> Attributes:
        """What stat(2) shows."""
        if ino == ROOT:
            return self._root()
        inner, own = self.owner(ino)
        return self._outer(await inner.getattr(own), ino)

    readlink = _passed_on(Filesystem.readlink)

    async def statfs(self) -> os.statvfs_result:
        """The disk that holds what was read."""
        return await self._inner[0].statfs()

    # -- open files

    async def open(self, ino: int, flags: int, caller: Caller) -> int:
        """Open a regular file. Raises as the filesystem that it belongs to."""
        inner, own = self.owner(ino)
        return await inner.open(own, flags, caller) + ino // SPAN * SPAN

    def keeps_pages(self, fh: int) -> bool:
        """Whether the kernel may keep pages."""
        inner, own = self.owner(fh)
        return inner.keeps_pages(own)

    read = _passed_on(Filesystem.read)
    flush = _passed_on(Filesystem.flush)
    fsync = _passed_on(Filesystem.fsync)
    release = _passed_on(Filesystem.release)

    # -- open folders

    async def opendir(self, ino: int) -> int:
        """Open a folder."""
        if ino != ROOT:
            inner, own = self.owner(ino)
            return await inner.opendir(own) + ino // SPAN * SPAN
        self._next += 1
        self._opened.add(self._next)
        return self._next

    async def readdir(self, fh: int, after: int) -> Iterable[DirEntry]:
        """The entries behind `after`; of the root the folders, with cookies from 1."""
        if fh not in self._opened:
            inner, own = self.owner(fh)
            shown = await inner.readdir(own, after)
            return ((cookie, name, self._outer(each, fh)) for cookie, name, each in shown)
        root = self._root()
        entries = [(b".", root), (b"..", root)]
        for at, (name, inner) in enumerate(zip(self._names, self._inner, strict=True), 1):
            entries.append((name, self._outer(await inner.getattr(ROOT), at * SPAN)))
        return [(at, name, each) for at, (name, each) in enumerate(entries, 1) if at > after]

    async def fsyncdir(self, fh: int) -> None:
        """No-op: nothing was written."""

    async def releasedir(self, fh: int) -> None:
        """Close the handle of a folder."""
        if fh in self._opened:
            self._opened.discard(fh)
            return
        inner, own = self.owner(fh)
        await inner.releasedir(own)

    # -- extended attributes

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        """A value; of the root what tells about the mount. Raises OSError ENODATA, ENOTSUP."""
        if ino != ROOT:
            inner, own = self.owner(ino)
            return await inner.getxattr(own, name)
        value = {
            b"store": os.fsencode(self._source),
            b"staged": b"0",
            b"version": fsmount.__version__.encode(),
            b"pid": str(os.getpid()).encode(),
            b"read_only": b"1",
        }.get(name.removeprefix(b"user.fsmount."))
        if value is None:
            raise failure(errno.ENODATA)
        return value

    async def listxattr(self, ino: int) -> Sequence[bytes]:
        """The names of the stored attributes; the root has none."""
        if ino == ROOT:
            return []
        inner, own = self.owner(ino)
        return await inner.listxattr(own)
