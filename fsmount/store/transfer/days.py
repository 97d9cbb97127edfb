"""The pictures of a store by the local day on which they were taken.

The index has no order by time, because the time of a picture comes from its name. So :class:`Days`
goes through all names once, in a thread and on a connection of its own, and later only through new
ones. It keeps 12 bytes a picture.
"""

from __future__ import annotations

import time
from array import array
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import trio

from fsmount import threads
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.index import TRASH, Index, Inode
from fsmount.store.retention.pictures import SUFFIXES, is_picture
from fsmount.store.retention.taken import LocalClock
from fsmount.store.transfer.tree import is_for_desktops
from fsmount.threads import Kind

_EPOCH = date(1970, 1, 1)
_DAY_US = 86_400 * 10**6
# rsync and others move a new file to its name. So the newest names are read again.
_AGAIN = 2000
# Names that were moved later are found when all names are read again.
_ALL_AGAIN_S = 600.0


class Picture(NamedTuple):
    """A picture: its folder's inode number, its name there, the path of the folder, its inode."""

    folder: int
    name: bytes
    where: bytes
    inode: Inode


class _Names(NamedTuple):
    """Days since 1970 (int32) and cookies (int64) of pictures, by cookie, and the last cookie."""

    days: np.ndarray[tuple[int], np.dtype[np.int32]]
    cookies: np.ndarray[tuple[int], np.dtype[np.int64]]
    last: int


class Days:
    """See the module. Belongs to the trio task. Methods raise OSError and :class:`Damaged`."""

    def __init__(self, store: StoreFiles) -> None:
        self._index = store.index
        self._path = store.layout.index
        self._known = _Names(np.empty(0, np.int32), np.empty(0, np.int64), 0)
        self._read_all = -_ALL_AGAIN_S
        self._clock = LocalClock()
        # Held by the task that reads names, so that others wait for its result.
        self._reading = trio.Lock()

    async def refresh(self) -> None:
        """Read the names that came since the last call."""
        async with self._reading:
            now = time.monotonic()
            if now - self._read_all >= _ALL_AGAIN_S:
                self._known = await threads.call(Kind.ENTRY, _read, self._path, 0)
                self._read_all = now
                return
            known = self._known
            # Names that are gone leave gaps among the cookies, which costs nothing here.
            start = int(np.searchsorted(known.cookies, known.last - _AGAIN))
            new = await threads.call(Kind.ENTRY, _read, self._path, max(0, known.last - _AGAIN - 1))
            self._known = _Names(
                np.concatenate([known.days[:start], new.days]),
                np.concatenate([known.cookies[:start], new.cookies]),
                max(known.last, new.last),
            )

    def days(self) -> list[date]:
        """Return the days on which pictures were taken, in order. Some may be deleted by now."""
        return [_EPOCH + timedelta(days=int(day)) for day in np.unique(self._known.days)]

    def pictures(self, day: date) -> list[Picture]:
        """Return the pictures of a day that exist, the oldest first."""
        number = (day - _EPOCH).days
        found = []
        hidden: dict[int, tuple[bytes, bool]] = {}
        for cookie in self._known.cookies[self._known.days == number].tolist():
            entry = self._index.named(cookie)
            if entry is None or entry[0] == TRASH or not is_picture(entry[1], entry[2]):
                continue
            folder, name, inode = entry
            taken = self._clock.taken(name, inode.mtime_ns)
            if folder not in hidden:
                where = self._index.path(folder)
                hidden[folder] = where, any(map(is_for_desktops, where.split(b"/")))
            where, is_hidden = hidden[folder]
            if taken.wall_us // _DAY_US == number and not is_hidden:
                found.append((taken.at_us, Picture(folder, name, where, inode)))
        found.sort(key=lambda each: (each[0], each[1].where, each[1].name))
        return [picture for _, picture in found]


def _read(path: Path, after: int) -> _Names:
    """Read the names with cookies above `after`. Runs in a thread."""
    days, cookies = array("i"), array("q")
    last = after
    clock = LocalClock()
    index = Index(path, Disk(), read_only=True)
    try:
        for last, folder, name, mtime_ns in index.files_by_creation(after):
            if folder != TRASH and name.lower().endswith(SUFFIXES):
                days.append(clock.taken(name, mtime_ns).wall_us // _DAY_US)
                cookies.append(last)
    finally:
        index.close()
    return _Names(np.frombuffer(days, np.int32), np.frombuffer(cookies, np.int64), last)
