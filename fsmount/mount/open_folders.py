"""Open folders of a store: their handles, and the entries of a listing."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fsmount.mount.attributes import Attributes, DirEntry, failure
from fsmount.store.index import Index, Inode

_BATCH = 24  # entries that one reply of 4 KiB has room for
_DOTS = 2  # readdir cookies of "." and ".." come before those of the index


@dataclass(slots=True)
class OpenFolder:
    """One opendir(3). `taken` is the number of entries that the last reply had room for."""

    ino: int
    taken: int = 0


class OpenFolders:
    """The table of open folders of a mount.

    `show` returns the attributes of an inode. Belongs to the trio task.
    """

    def __init__(self, index: Index, show: Callable[[Inode], Attributes]) -> None:
        self._index = index
        self._show = show
        self._folders: dict[int, OpenFolder] = {}
        self._next = 1

    def open(self, ino: int) -> int:
        """Open a folder and return its handle."""
        fh = self._next
        self._next += 1
        self._folders[fh] = OpenFolder(ino)
        return fh

    def check(self, fh: int) -> None:
        """Raise OSError EBADF if there is no such handle."""
        self._folder(fh)

    def release(self, fh: int) -> None:
        """Forget a handle. Raises OSError EBADF."""
        self._folder(fh)
        del self._folders[fh]

    def release_all(self) -> None:
        """Forget all handles at the end of the mount."""
        self._folders.clear()

    def entries(self, fh: int, after: int) -> Iterator[DirEntry]:
        """Yield the entries behind the cookie `after`; see :meth:`Filesystem.readdir`.

        Raises OSError EBADF at the call.
        """
        return self._entries(self._folder(fh), after)

    def _entries(self, folder: OpenFolder, after: int) -> Iterator[DirEntry]:
        if after < _DOTS:
            place = self._index.folder_of(folder.ino)
            above = place[0] if place else folder.ino
            for cookie, name, ino in ((1, b".", folder.ino), (2, b"..", above)):
                if cookie > after:
                    yield cookie, name, self._show(self._index.inode(ino))
        # Entries that are not taken are dropped, since they may change before the next request. So
        # the query asks for little more than the kernel had room for the last time.
        limit = max(_BATCH, folder.taken + folder.taken // 8)
        folder.taken, at = 0, max(0, after - _DOTS)
        while children := self._index.children(folder.ino, at, limit):
            for at, name, node in children:
                folder.taken += 1
                yield at + _DOTS, name, self._show(node)

    def _folder(self, fh: int) -> OpenFolder:
        folder = self._folders.get(fh)
        if folder is None:
            raise failure(errno.EBADF)
        return folder
