"""What a mount can show: the methods that the FUSE adapter calls, by inode and handle number.

No pyfuse3 type stands here, so filesystems are tested without a kernel and compose below FUSE
(:mod:`union_fs`). A method that answers a system call is async, because it may wait.

Contracts for every method:

- It is called in the trio thread. Many calls run at once; between two awaits a call is alone.
- It raises :class:`OSError` with the errno that POSIX gives, or :class:`FsmountError`, which has
  an errno too. The errors named below come in addition to ENOENT for an unknown inode number and
  EBADF for an unknown handle.
- Its arguments are passed by position.
- It checks no permissions: the kernel does (``default_permissions``).

Methods that change something are refused with EROFS, until a subclass overrides them. So a
filesystem that is only read implements the others.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from typing import Protocol

from fsmount.mount.attributes import Attributes, Caller, Changes, DirEntry, failure

ROOT = 1
"""The inode number of a mount's root; FUSE sets it."""


class Filesystem(Protocol):
    """A tree of files. Inode numbers and handles are above 0 and below 2 ** 63.

    **Lookup counts.** The kernel counts how often it was told of an inode, and so does a
    filesystem that removes inodes: one more for each answer of `lookup`, `create`, `mknod`,
    `mkdir`, `symlink` and `link` and for each call of `remember`; fewer by `forget`. An inode
    without a name stays until its count is 0 and no handle is open.
    """

    # -- inodes

    async def lookup(self, folder: int, name: bytes, /) -> Attributes:
        """The entry `name` of a folder. Raises OSError ENOENT, ENOTDIR, ENAMETOOLONG."""

    def remember(self, ino: int, /) -> None:
        """Count one lookup more: the kernel has accepted an entry of `readdir`. Never waits."""

    async def forget(self, ino: int, count: int, /) -> None:
        """Count `count` lookups fewer. The kernel waits for no answer and sees no error."""

    async def getattr(self, ino: int, /) -> Attributes:
        """What stat(2) shows."""

    async def setattr(self, ino: int, changes: Changes, caller: Caller, /) -> Attributes:
        """Set attributes, the size included; returns the new ones.

        Raises OSError EISDIR, EINVAL, EFBIG, ENOSPC.
        """
        raise failure(errno.EROFS)

    async def readlink(self, ino: int, /) -> bytes:
        """The target of a symbolic link. Raises OSError EINVAL for anything else."""

    async def statfs(self) -> os.statvfs_result:
        """Size and free space; `f_namemax` is not used."""

    # -- names

    async def mknod(
        self, folder: int, name: bytes, mode: int, rdev: int, caller: Caller, /
    ) -> Attributes:
        """Make a regular file, FIFO, socket or device, and do not open it. `mode` has type bits.

        Raises OSError EEXIST, ENOENT, ENOTDIR, ENAMETOOLONG, EINVAL, ENOSPC.
        """
        raise failure(errno.EROFS)

    async def mkdir(self, folder: int, name: bytes, mode: int, caller: Caller, /) -> Attributes:
        """Make a folder. Raises OSError as `mknod`."""
        raise failure(errno.EROFS)

    async def symlink(
        self, folder: int, name: bytes, target: bytes, caller: Caller, /
    ) -> Attributes:
        """Make a symbolic link. Raises OSError as `mknod`."""
        raise failure(errno.EROFS)

    async def link(self, ino: int, folder: int, name: bytes, /) -> Attributes:
        """Give a file another name.

        Raises OSError as `mknod`; EPERM for a folder, EMLINK, EXDEV for a file of another
        filesystem.
        """
        raise failure(errno.EROFS)

    async def unlink(self, folder: int, name: bytes, /) -> None:
        """Remove a name of a file. Raises OSError ENOENT, ENOTDIR, EISDIR."""
        raise failure(errno.EROFS)

    async def rmdir(self, folder: int, name: bytes, /) -> None:
        """Remove an empty folder. Raises OSError ENOENT, ENOTDIR, ENOTEMPTY."""
        raise failure(errno.EROFS)

    async def rename(
        self, folder: int, name: bytes, new_folder: int, new_name: bytes, flags: int = 0, /
    ) -> None:
        """Move or exchange entries. Raises OSError with the errnos of the system call.

        `flags` is 0, RENAME_NOREPLACE or RENAME_EXCHANGE.
        """
        raise failure(errno.EROFS)

    # -- open files

    async def create(
        self, folder: int, name: bytes, mode: int, flags: int, caller: Caller, /
    ) -> tuple[int, Attributes]:
        """Make a regular file and open it, or open the one that exists: (handle, attributes).

        Raises OSError as `mknod` and `open`; EEXIST only with O_EXCL.
        """
        raise failure(errno.EROFS)

    async def open(self, ino: int, flags: int, caller: Caller, /) -> int:
        """Open a regular file; the handle. Raises OSError EISDIR, EINVAL, EROFS."""

    def keeps_pages(self, fh: int, /) -> bool:
        """Whether the kernel may keep the pages of an open file after it is closed.

        True where nothing but this mount changes the bytes of a file. Never waits.
        """

    async def read(self, fh: int, offset: int, length: int, /) -> bytes:
        """Up to `length` bytes from byte `offset` on; fewer only at the end of the file."""

    async def write(self, fh: int, offset: int, data: bytes, /) -> int:
        """Write all of `data` at byte `offset`; its length. Raises OSError EBADF, EFBIG, ENOSPC."""
        raise failure(errno.EROFS)

    async def flush(self, fh: int, /) -> None:
        """close(2) of one descriptor; called as often as the descriptor was duplicated."""

    async def fsync(self, fh: int, /) -> None:
        """Return when everything written to the file survives a power cut."""

    async def release(self, fh: int, /) -> None:
        """Close the handle. Called once; the kernel sees no error."""

    # -- open folders

    async def opendir(self, ino: int, /) -> int:
        """Open a folder; the handle. Raises OSError ENOTDIR."""

    async def readdir(self, fh: int, after: int, /) -> Iterable[DirEntry]:
        """Entries after the cookie `after` (0: from the start), in the order of their cookies.

        At least one, or the folder ends there. There may be more: whoever calls asks again from
        the last cookie on. "." and ".." come first and count no lookup; `remember` counts one for
        every other entry that the kernel accepts. Cookies stay valid while names come and go.
        """

    async def fsyncdir(self, fh: int, /) -> None:
        """Return when the names in the folder survive a power cut."""

    async def releasedir(self, fh: int, /) -> None:
        """Close the handle of a folder. Called once."""

    # -- extended attributes

    async def getxattr(self, ino: int, name: bytes, /) -> bytes:
        """A value. Raises OSError ENODATA, ENOTSUP."""

    async def listxattr(self, ino: int, /) -> Sequence[bytes]:
        """The names; attributes that are made up on request may be left out."""

    async def setxattr(self, ino: int, name: bytes, value: bytes, /) -> None:
        """Set or replace. Raises OSError EPERM, ENOTSUP, ERANGE, E2BIG."""
        raise failure(errno.EROFS)

    async def removexattr(self, ino: int, name: bytes, /) -> None:
        """Remove. Raises OSError EPERM, ENOTSUP, ENODATA."""
        raise failure(errno.EROFS)
