"""A little space kept back, so that files can be deleted from a store whose disk is full."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from fsmount.store.disk.disk import Disk

RESERVE_BYTES = 1 << 20
# With so many times as much free the reserve is made as large as it should be.
_PLENTY = 4
# Where so many times as much is free, what the disk says of it is believed for so long.
_ROOMY = 64
_BELIEVED_S = 1.0


class Reserve:
    """A file of allocated bytes that mean nothing; given up for a commit that deletes.

    The methods may wait for the disk, and any thread may call them, unless they say otherwise.
    `is_spent`: whether the disk has had no room for it since it was given up, as far as is known.
    `asked_before`: whoever deletes calls :meth:`spend_if_full` in a thread before the transaction,
    which must not wait for the disk itself. A mount sets it.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._wanted = max(RESERVE_BYTES, self._size())
        self._was_low = False
        # How many bytes may still be written without asking, and until when.
        self._allowed = 0
        self._believed_until = 0.0
        self._changing = threading.Lock()
        self.is_spent = not path.exists()
        self.asked_before = False

    def want(self, size: int) -> None:
        """An entry of `size` bytes may have to be moved: the reserve is to have room for it.

        Asks no disk.
        """
        steps = -(-(size + RESERVE_BYTES // 2) // RESERVE_BYTES)
        self._wanted = max(self._wanted, steps * RESERVE_BYTES)

    def has_room(self) -> bool:
        """Whether files may grow: the reserve is there, or can be, and more is free besides."""
        if not self.fill() or self.is_low:
            self._believed_until = 0.0
            return False
        free = self.free()
        # Others write to this disk, too.
        if free >= _ROOMY * RESERVE_BYTES:
            self._allowed = free // 4
            self._believed_until = time.monotonic() + _BELIEVED_S
        return True

    def allows(self, size: int) -> bool:
        """Whether `size` bytes more fit by what :meth:`has_room` found a moment ago, less what
        was allowed since. Asks no disk; for one task."""
        if size > self._allowed or time.monotonic() >= self._believed_until:
            return False
        self._allowed -= size
        return True

    def fill(self) -> bool:
        """Allocate it where it is missing, if the disk has room; whether it is there.

        It gets no larger than :data:`RESERVE_BYTES` unless there is plenty of room.
        """
        with self._changing:
            return self._fill()

    def _fill(self) -> bool:
        size = self._size()
        plenty = size < self._wanted and self.free() >= _PLENTY * self._wanted
        if size and not plenty:
            return True
        return self._allocate(self._wanted if plenty else RESERVE_BYTES) or size > 0

    def _allocate(self, size: int) -> bool:
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
        """Give the space back to a disk that has hardly any left; whether it is such a disk."""
        with self._changing:
            if not self.is_low:
                return False
            self._disk.unlink(self._path)
            self.is_spent = True
            return True

    def is_due(self) -> bool:
        """As :meth:`spend_if_full`, inside a commit: asks no disk if that was `asked_before`."""
        return self._was_low if self.asked_before else self.spend_if_full()

    @property
    def is_low(self) -> bool:
        """Whether the disk has hardly any space left, the reserve aside."""
        self._was_low = self.free() < RESERVE_BYTES
        return self._was_low

    def free(self) -> int:
        """Bytes that the disk has for us."""
        found = os.statvfs(self._path.parent)
        return found.f_bavail * found.f_frsize
