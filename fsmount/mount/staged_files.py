"""Descriptors on staged files: opened, measured, used by threads, and closed after their last user.

:class:`StagedFile` is one descriptor. :class:`StagedFiles` opens and closes them for a mount.
"""

from __future__ import annotations

import errno
import logging
import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from fsmount import threads
from fsmount.mount.attributes import failure
from fsmount.store.disk.disk import Disk, pread
from fsmount.store.packs.staging import Staging
from fsmount.store.packs.supply import Range, Supply
from fsmount.threads import Kind

T = TypeVar("T")
_log = logging.getLogger(__name__)

_BLOCK = 512
_SPARSE_KNOWN = 1000


class StagedFile:
    """A descriptor on a staged file, and the extent of the file after its last change.

    `size` is in bytes, `blocks` in units of 512 bytes. Only threads ask the disk. The descriptor is
    closed once nothing refers to it and no thread uses it. So no thread meets another file under
    its number. `supply` brings its bytes, if the store lies elsewhere; `path` is its path for that.
    Belongs to the trio task.
    """

    def __init__(
        self, disk: Disk, token: int, fd: int, path: str = "", supply: Supply | None = None
    ) -> None:
        """Take over the descriptor `fd`. Call it in a thread. Raises OSError."""
        self.token = token
        self._path = path
        self._supply = supply
        self._disk = disk
        self._fd = fd
        self._users = 0
        self._is_dropped = False
        self._measure(os.fstat(fd))

    def _measure(self, found: os.stat_result) -> None:
        self.size = found.st_size
        # A file that lies elsewhere is a hole here. A program would take it for one without bytes.
        self.blocks = blocks_of(self.size) if self._supply is not None else found.st_blocks

    async def use(self, kind: Kind, function: Callable[[int], T]) -> T:
        """Run `function(fd)` in a thread and return its result.

        Raises OSError EBADF if the file is dropped, and the errors of `function`.
        """
        if self._is_dropped:
            raise failure(errno.EBADF)
        self._users += 1
        try:
            return await threads.call(kind, function, self._fd)
        finally:
            self._users -= 1
            if self._is_dropped and not self._users:
                await threads.finish(Kind.OPEN, self._disk.close, self._fd)

    async def change(self, function: Callable[[int], T]) -> T:
        """Like :meth:`use`, for a function that changes the file.

        Measures the extent again, also after an error: the function may have changed a part.
        """
        found: list[os.stat_result] = []

        def changing(fd: int) -> T:
            try:
                return function(fd)
            finally:
                found.append(os.fstat(fd))

        try:
            return await self.use(Kind.WRITE, changing)
        finally:
            for each in found:
                self._measure(each)

    async def pread(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset` (bytes); fewer only at the end.

        Raises OSError, and what :meth:`Supply.held` raises.
        """
        if self._supply is not None:
            async with self._supply.held([Range(self._path, offset, length)]):
                return await self.use(Kind.READ, lambda fd: pread(fd, length, offset))
        if not self._is_dropped:
            # Bytes in the memory of the kernel need no thread. After any error a thread asks.
            with suppress(OSError):
                return self._disk.read_cached(self._fd, length, offset)
        return await self.use(Kind.READ, lambda fd: pread(fd, length, offset))

    def drop(self) -> bool:
        """Note that nothing refers to this file any more. Does not await.

        Returns whether the caller must call :meth:`close`. Otherwise the last user closes it.
        """
        self._is_dropped = True
        return not self._users

    def close(self) -> None:
        """Close the descriptor of a dropped file without users. May wait for the disk.

        Raises OSError.
        """
        self._disk.close(self._fd)


class StagedFiles:
    """The descriptors on staged files of a mount.

    With `read_only`, descriptors are opened for reading. `supply`: see :class:`StagedFile`. Belongs
    to the trio task.
    """

    def __init__(
        self, staging: Staging, disk: Disk, *, read_only: bool, supply: Supply | None = None
    ) -> None:
        self._supply = supply
        self._staging = staging
        self._disk = disk
        self._flags = os.O_RDONLY if read_only else os.O_RDWR
        # Token -> blocks of a closed sparse staged file. Only the disk and this table know them.
        self._sparse: OrderedDict[int, int] = OrderedDict()
        # Dropped files. The next method that awaits closes them.
        self._closing: list[StagedFile] = []

    async def open(self, token: int) -> StagedFile:
        """Open a staged file. The caller owns it. Raises OSError."""

        def opened() -> StagedFile:
            return self._took(token, self._staging.open(token, self._flags))

        return await threads.call(Kind.OPEN, opened)

    async def fresh(self) -> StagedFile:
        """Create an empty staged file that no row names yet. The caller owns it. Raises OSError."""

        def create() -> StagedFile:
            return self._took(*self._staging.create_open())

        return await threads.call(Kind.WRITE, create)

    def _took(self, token: int, fd: int) -> StagedFile:
        """Take over a descriptor. Runs in a thread. Raises OSError."""
        try:
            path = str(self._staging.path(token))
            return StagedFile(self._disk, token, fd, path, self._supply)
        except BaseException:
            self._disk.close(fd)
            raise

    async def close(self, fresh: StagedFile) -> None:
        """Close a staged file that belongs to no open inode. Raises OSError."""
        if fresh.drop():
            await threads.finish(Kind.OPEN, fresh.close)

    async def remove(self, fresh: StagedFile) -> None:
        """Close and remove a staged file that no row names. Raises OSError."""
        try:
            await self.close(fresh)
        finally:
            await threads.finish(Kind.WRITE, self._staging.remove, fresh.token)

    def drop(self, staged: StagedFile) -> None:
        """Note that nothing refers to a file any more. Does not await.

        The caller must call :meth:`close_dropped` later.
        """
        self._remember_holes(staged)
        if staged.drop():
            self._closing.append(staged)

    async def close_dropped(self) -> None:
        """Close dropped files that no thread uses."""
        while self._closing:
            await threads.finish(Kind.OPEN, self._closing.pop().close)

    def close_at_end(self) -> None:
        """Close dropped files at the end of the mount. Logs errors.

        Waits for the disk in the trio task: no other task needs it any more.
        """
        while self._closing:
            try:
                self._closing.pop().close()
            except OSError:
                _log.exception("closing a staged file failed")

    def _remember_holes(self, staged: StagedFile) -> None:
        if staged.blocks * _BLOCK < staged.size:
            self._sparse[staged.token] = staged.blocks
            while len(self._sparse) > _SPARSE_KNOWN:
                self._sparse.popitem(last=False)
        else:
            self._sparse.pop(staged.token, None)

    def closed_blocks(self, token: int, size: int) -> int:
        """Number of blocks of 512 bytes of a staged file of `size` bytes that is not open.

        Asks no disk.
        """
        return self._sparse.get(token, blocks_of(size))


def blocks_of(size: int) -> int:
    """Number of blocks of 512 bytes that `size` bytes without holes fill."""
    return -(-size // _BLOCK)
