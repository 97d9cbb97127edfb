"""The plain answers of a filesystem that cannot be changed, and its handles.

Inodes keep their numbers, so lookups are not counted. Nothing was written, so nothing waits for a
disk when a handle is closed.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from fsmount.mount.attributes import failure
from fsmount.mount.filesystem import Filesystem

T = TypeVar("T")
File = TypeVar("File")
Folder = TypeVar("Folder")


class PlainAnswers(Filesystem, Generic[File, Folder]):
    """See the module. Subclasses answer what depends on their entries. Belongs to the trio task.

    `first` is the number of the first handle. Files and folders have different handles. What a
    subclass keeps for each is of its own type.
    """

    def __init__(self, first: int) -> None:
        self._next = first
        self._files: dict[int, File] = {}
        self._folders: dict[int, Folder] = {}

    # -- handles

    def _new_handle(self) -> int:
        self._next += 1
        return self._next

    def _keep_file(self, opened: File) -> int:
        """Return a handle for an open file."""
        handle = self._new_handle()
        self._files[handle] = opened
        return handle

    def _keep_folder(self, opened: Folder) -> int:
        """Return a handle for an open folder."""
        handle = self._new_handle()
        self._folders[handle] = opened
        return handle

    def _file(self, fh: int) -> File:
        """What a handle of a file stands for. Raises OSError EBADF."""
        return _known(self._files, fh)

    def _folder(self, fh: int) -> Folder:
        """What a handle of a folder stands for. Raises OSError EBADF."""
        return _known(self._folders, fh)

    async def release(self, fh: int) -> None:
        """Close the handle of a file."""
        self._files.pop(fh, None)

    async def releasedir(self, fh: int) -> None:
        """Close the handle of a folder."""
        self._folders.pop(fh, None)

    # -- inodes

    def remember(self, ino: int) -> None:
        """No-op: an entry keeps its number."""

    async def forget(self, ino: int, count: int) -> None:
        """No-op, as `remember`."""

    async def readlink(self, ino: int) -> bytes:
        """Raises OSError EINVAL: there are no links."""
        raise failure(errno.EINVAL)

    # -- open files

    def keeps_pages(self, fh: int) -> bool:
        """Never: another process may change what the files are made of."""
        return False

    async def flush(self, fh: int) -> None:
        """No-op."""

    async def fsync(self, fh: int) -> None:
        """No-op."""

    async def fsyncdir(self, fh: int) -> None:
        """No-op."""

    # -- extended attributes

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        """Raises OSError ENODATA: there are none."""
        raise failure(errno.ENODATA)

    async def listxattr(self, ino: int) -> Sequence[bytes]:
        """None."""
        return ()


def _known(handles: Mapping[int, T], fh: int) -> T:
    found = handles.get(fh)
    if found is None:
        raise failure(errno.EBADF)
    return found
