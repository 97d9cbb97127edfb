"""A little space kept back, so that files can be deleted from a store whose disk is full."""

from __future__ import annotations

import os
from pathlib import Path

from fsmount.store.disk import Disk

RESERVE_BYTES = 1 << 20


class Reserve:
    """A file of allocated bytes that mean nothing; given up for a commit that deletes."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk

    def fill(self) -> bool:
        """Allocate it where it is missing, if the disk has room; whether it is there."""
        if self._path.exists():
            return True
        try:
            fd = self._disk.create(self._path)
        except OSError:
            return False
        try:
            self._disk.allocate(fd, RESERVE_BYTES)
        except OSError:
            self._disk.unlink(self._path)
            return False
        finally:
            self._disk.close(fd)
        return True

    def spend_if_full(self) -> bool:
        """Give the space back to a disk that has hardly any left; whether it is such a disk."""
        found = os.statvfs(self._path.parent)
        full = found.f_bavail * found.f_frsize < RESERVE_BYTES
        if full:
            self._disk.unlink(self._path)
        return full

    @property
    def is_spent(self) -> bool:
        """Whether the disk has had no room for it since it was given up."""
        return not self._path.exists()
