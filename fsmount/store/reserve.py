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

    def fill(self) -> None:
        """Allocate it where it is missing; a disk without room is left alone."""
        if self._path.exists():
            return
        try:
            fd = self._disk.create(self._path)
        except OSError:
            return
        try:
            self._disk.allocate(fd, RESERVE_BYTES)
        except OSError:
            self._disk.unlink(self._path)
        finally:
            self._disk.close(fd)

    def spend_if_full(self) -> None:
        """Give the space back to a disk that has hardly any left."""
        found = os.statvfs(self._path.parent)
        if found.f_bavail * found.f_frsize < RESERVE_BYTES:
            self._disk.unlink(self._path)
