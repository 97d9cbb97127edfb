"""A union: the folders of one filesystem appear in the root of another.

The upper filesystem owns the root. The lower one is only read, and numbers its inodes, handles
and cookies from `first` on, which the upper one never reaches. So a number says which of the two it
belongs to, and a call goes there. A name in the upper root hides the same name of the lower root.
The lower filesystem may show files of the upper one, under their own numbers.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Coroutine, Iterable
from itertools import chain
from typing import Any, Concatenate, ParamSpec, TypeVar

from fsmount.errors import FsmountError
from fsmount.mount.attributes import Attributes, DirEntry, failure
from fsmount.mount.filesystem import ROOT, Filesystem

FIRST = 1 << 48
_DOTS = 2  # "." and ".." of the lower root, which the upper root has itself

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _by_number(
    method: Callable[Concatenate[Any, int, _P], _T],
) -> Callable[Concatenate[UnionFilesystem, int, _P], _T]:
    """A method of the filesystem that its first argument, an inode or a handle, belongs to."""
    called = method.__name__

    def call(union: UnionFilesystem, number: int, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        answer: _T = getattr(union.owner(number), called)(number, *args, **kwargs)
        return answer

    return call


def _by_name(
    method: Callable[Concatenate[Any, int, bytes, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[UnionFilesystem, int, bytes, _P], Coroutine[Any, Any, _T]]:
    """A method of the upper filesystem that changes a name; refused where that is the lower's."""
    called = method.__name__

    async def call(
        union: UnionFilesystem, folder: int, name: bytes, /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        await union.check_upper(folder, name)
        answer: _T = await getattr(union.upper, called)(folder, name, *args, **kwargs)
        return answer

    return call


class UnionFilesystem(Filesystem):
    """See the module."""

    def __init__(self, upper: Filesystem, lower: Filesystem, first: int = FIRST) -> None:
        self.upper = upper
        self._lower = lower
        self._first = first
        self._lower_root = first + ROOT
        # For each open handle of the upper root: that of the lower root, and the hidden names.
        self._roots: dict[int, tuple[int, set[bytes]]] = {}

    def owner(self, number: int) -> Filesystem:
        """The filesystem that an inode or a handle belongs to."""
        return self._lower if number >= self._first else self.upper

    async def check_upper(self, folder: int, name: bytes) -> None:
        """Raise OSError EROFS if a name belongs to the lower filesystem."""
        if folder >= self._first or (folder == ROOT and await self._is_lower(name)):
            raise failure(errno.EROFS)

    async def _is_lower(self, name: bytes) -> bool:
        """Whether the root shows `name` of the lower root.

        A name that cannot be read does not count, or damage there would keep people from writing
        here.
        """
        try:
            found = await self._lower.lookup(self._lower_root, name)
        except (OSError, FsmountError):
            return False
        await self._lower.forget(found.ino, 1)
        return not await self._is_upper(name)

    async def _is_upper(self, name: bytes) -> bool:
        """Whether the upper root has an entry `name`."""
        try:
            found = await self.upper.lookup(ROOT, name)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        await self.upper.forget(found.ino, 1)
        return True

    remember = _by_number(Filesystem.remember)
    forget = _by_number(Filesystem.forget)
    getattr = _by_number(Filesystem.getattr)
    setattr = _by_number(Filesystem.setattr)
    readlink = _by_number(Filesystem.readlink)
    mknod = _by_name(Filesystem.mknod)
    mkdir = _by_name(Filesystem.mkdir)
    symlink = _by_name(Filesystem.symlink)
    unlink = _by_name(Filesystem.unlink)
    rmdir = _by_name(Filesystem.rmdir)
    create = _by_name(Filesystem.create)
    open = _by_number(Filesystem.open)
    keeps_pages = _by_number(Filesystem.keeps_pages)
    read = _by_number(Filesystem.read)
    write = _by_number(Filesystem.write)
    flush = _by_number(Filesystem.flush)
    fsync = _by_number(Filesystem.fsync)
    release = _by_number(Filesystem.release)
    fsyncdir = _by_number(Filesystem.fsyncdir)
    getxattr = _by_number(Filesystem.getxattr)
    listxattr = _by_number(Filesystem.listxattr)
    setxattr = _by_number(Filesystem.setxattr)
    removexattr = _by_number(Filesystem.removexattr)

    async def lookup(self, folder: int, name: bytes) -> Attributes:
        """In the root a name that the upper filesystem lacks is looked up in the lower one."""
        try:
            return await self.owner(folder).lookup(folder, name)
        except OSError as error:
            if folder != ROOT or error.errno != errno.ENOENT:
                raise
        return await self._lower.lookup(self._lower_root, name)

    async def statfs(self) -> os.statvfs_result:
        """Size and free space of the upper filesystem."""
        return await self.upper.statfs()

    async def link(self, ino: int, folder: int, name: bytes) -> Attributes:
        """Raises OSError EXDEV for a file of the lower filesystem, besides what `mknod` raises."""
        await self.check_upper(folder, name)
        if ino >= self._first:
            raise failure(errno.EXDEV)
        return await self.upper.link(ino, folder, name)

    async def rename(
        self, folder: int, name: bytes, new_folder: int, new_name: bytes, flags: int = 0
    ) -> None:
        """Raises OSError EROFS if one of the names belongs to the lower filesystem."""
        await self.check_upper(folder, name)
        await self.check_upper(new_folder, new_name)
        await self.upper.rename(folder, name, new_folder, new_name, flags)

    async def opendir(self, ino: int) -> int:
        """The handle of the root stands for both roots."""
        fh = await self.owner(ino).opendir(ino)
        if ino == ROOT:
            try:
                self._roots[fh] = await self._open_lower()
            except BaseException:
                await self.upper.releasedir(fh)
                raise
        return fh

    async def _open_lower(self) -> tuple[int, set[bytes]]:
        """A handle of the lower root, and the names in it that the upper root hides."""
        fh = await self._lower.opendir(self._lower_root)
        hidden, after = set[bytes](), self._first + _DOTS
        while entries := list(await self._lower.readdir(fh, after)):
            after = entries[-1][0]
            hidden |= {name for _, name, _ in entries if await self._is_upper(name)}
        return fh, hidden

    async def readdir(self, fh: int, after: int) -> Iterable[DirEntry]:
        """Of the root first the entries of the upper one, then those of the lower one."""
        if fh not in self._roots:
            return await self.owner(fh).readdir(fh, after)
        if after < self._first:
            entries = iter(await self.upper.readdir(fh, after))
            for first in entries:
                # The upper filesystem may have more: the lower one follows when it has none.
                return chain([first], entries)
        lower, hidden = self._roots[fh]
        shown = await self._lower.readdir(lower, max(after, self._first + _DOTS))
        return (entry for entry in shown if entry[1] not in hidden)

    async def releasedir(self, fh: int) -> None:
        """Close the handle of a folder, for the root both."""
        if fh in self._roots:
            await self._lower.releasedir(self._roots.pop(fh)[0])
        await self.owner(fh).releasedir(fh)
