"""Files written and not yet encoded: verbatim bytes, one file each, named by a number (token)."""

from __future__ import annotations

import os
from pathlib import Path

from fsmount.store import contents
from fsmount.store.disk import Disk


class Staging:
    """The staging folder of a store. Tokens are never used twice while the store is open."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder = folder
        self._disk = disk
        self._next = max(self.tokens(), default=0) + 1

    def tokens(self) -> list[int]:
        """All tokens that have a file now."""
        return [int(entry.name) for entry in contents.own(self.folder, contents.STAGED)]

    def reserve(self, token: int) -> None:
        """Never hand out `token` or a smaller one again (the index may know it)."""
        self._next = max(self._next, token + 1)

    def path(self, token: int) -> Path:
        """Where the bytes of `token` lie."""
        return self.folder / str(token)

    def create(self) -> int:
        """A new empty staged file; its token."""
        token = self._next
        fd = self._disk.create(self.path(token))
        # Before closing may fail: the file is there, and would stand in the way of the next.
        self._next += 1
        self._disk.close(fd)
        return token

    def open(self, token: int, flags: int = os.O_RDWR) -> int:
        """A descriptor on a staged file."""
        return self._disk.open(self.path(token), flags)

    def size(self, token: int) -> int:
        """Bytes in the staged file (it is right even where the index lags behind a crash)."""
        return self.path(token).stat().st_size

    def remove(self, token: int) -> None:
        """Drop a staged file; the index must no longer name it."""
        self._disk.unlink(self.path(token))

    def fsync_folder(self) -> None:
        """Make the names of new staged files durable."""
        self._disk.fsync_folder(self.folder)
