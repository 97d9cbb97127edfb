"""Files written and not yet encoded: verbatim bytes, one file each, named by a number (token).

The upper half of a token says which writer made it: a number that is chosen at random at each
opening of the store for writing. So a staged file that no row names can be told from one that
another writer has made, which may have acknowledged it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from fsmount.store.disk import Disk

_WRITER_BITS = 31
_COUNT_BITS = 32


def new_writer() -> int:
    """A number for an opening that no other has had."""
    return 1 + secrets.randbelow((1 << _WRITER_BITS) - 1)


def writer_of(token: int) -> int:
    """Which writer made a staged file; 0: an earlier build."""
    return token >> _COUNT_BITS


class Staging:
    """The staging folder of a store. Tokens are never used twice while the store is open."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder = folder
        self._disk = disk
        self.begin(0)

    def tokens(self) -> list[int]:
        """All tokens that have a file now."""
        if not self.folder.is_dir():
            return []
        return [int(entry.name) for entry in os.scandir(self.folder) if entry.name.isdigit()]

    def begin(self, writer: int, known: Iterable[int] = ()) -> None:
        """Hand out tokens of `writer` from here on, none of which has a file or is `known`."""
        used = [token for token in (*self.tokens(), *known) if writer_of(token) == writer]
        self._next = max(used, default=writer << _COUNT_BITS) + 1

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
