"""Reserved disk space, so that files can be deleted from a store whose disk is full.

A deletion is a commit of the index, and a commit needs free space.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from fsmount.store.disk.disk import Disk

RESERVE_BYTES = 1 << 20
# The reserve grows to its wanted size only if this many times the wanted size is free.
_PLENTY = 4
# If this many times RESERVE_BYTES is free, allows() uses that result for _BELIEVED_S seconds.
_ROOMY = 64
_BELIEVED_S = 1.0


class Reserve:
    """A file of allocated bytes without meaning. It is removed for a commit that deletes.

    is_spent : whether the reserve is missing, as far as is known: it was removed, and the disk has
        had no room for it since.
    asked_before : whether every caller that deletes calls :meth:`spend_if_full` in a thread before
        the transaction. A mount sets it, because its transactions must not wait for the disk.

    Contract: unless a method says otherwise, it may wait for the disk, any thread may call it, and
    it may raise OSError.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._wanted = max(RESERVE_BYTES, self._size())
        self._was_low = False
        # Bytes that may still be written without asking the disk, and the time when that ends.
        self._allowed = 0
        self._believed_until = 0.0
        self._changing = threading.Lock()
        self.is_spent = not path.exists()
        self.asked_before = False

    def want(self, size: int) -> None:
        """Request a reserve that is large enough to move an entry of `size` bytes.

        Does not ask the disk: :meth:`fill` makes the reserve larger.
        """
        steps = -(-(size + RESERVE_BYTES // 2) // RESERVE_BYTES)
        self._wanted = max(self._wanted, steps * RESERVE_BYTES)

    def has_space(self) -> bool:
        """Whether files may grow.

        They may if the reserve exists or can be allocated, and at least RESERVE_BYTES more are
        free.
        """
        if not self.fill() or self.is_low:
            self._believed_until = 0.0
            return False
        free = self.free()
        # Only a quarter: other programs write to this disk, too.
        if free >= _ROOMY * RESERVE_BYTES:
            self._allowed = free // 4
            self._believed_until = time.monotonic() + _BELIEVED_S
        return True

    def allows(self, size: int) -> bool:
        """Whether `size` more bytes fit, according to the last result of :meth:`has_space`.

        The result counts for one second, and bytes allowed since then are subtracted. Does not ask
        the disk. Only one task may call it.
        """
        if size > self._allowed or time.monotonic() >= self._believed_until:
            return False
        self._allowed -= size
        return True

    def fill(self) -> bool:
        """Allocate a missing reserve if the disk has room. Return whether the reserve exists.

        The reserve gets larger than :data:`RESERVE_BYTES` only if the disk has free space of four
        times the wanted size.
        """
        with self._changing:
            return self._fill()

    def _fill(self) -> bool:
        """As :meth:`fill`. The caller holds `_changing`."""
        size = self._size()
        plenty = size < self._wanted and self.free() >= _PLENTY * self._wanted
        if size and not plenty:
            return True
        return self._allocate(self._wanted if plenty else RESERVE_BYTES) or size > 0

    def _allocate(self, size: int) -> bool:
        """Make the file and allocate `size` bytes. Return whether that worked.

        The caller holds `_changing`.
        """
        there = self._path.exists()
        self.is_spent = not there
        try:
            fd = self._disk.open(self._path, os.O_RDWR) if there else self._disk.create(self._path)
        except OSError:
            return False
        try:
            self._disk.allocate(fd, size)
        except OSError:
            if not there:
                self._disk.unlink(self._path)
            return False
        finally:
            self._disk.close(fd)
        self.is_spent = False
        return True

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def spend_if_full(self) -> bool:
        """Remove the reserve if the disk is almost full. Return whether the disk is almost full."""
        with self._changing:
            if not self.is_low:
                return False
            self._disk.unlink(self._path)
            self.is_spent = True
            return True

    def is_due(self) -> bool:
        """As :meth:`spend_if_full`, inside a commit.

        With `asked_before` it returns the last known state and does not ask the disk.
        """
        return self._was_low if self.asked_before else self.spend_if_full()

    @property
    def is_low(self) -> bool:
        """Whether less than :data:`RESERVE_BYTES` are free, not counting the reserve."""
        self._was_low = self.free() < RESERVE_BYTES
        return self._was_low

    def free(self) -> int:
        """Free bytes on the disk that this user may use (statvfs(3), f_bavail)."""
        found = os.statvfs(self._path.parent)
        return found.f_bavail * found.f_frsize
