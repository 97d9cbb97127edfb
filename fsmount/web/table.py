"""What the page knows of all pictures of a store: 36 bytes for each, in memory.

The index has no order by time, because the time of a picture comes from its name. So
:class:`Table` goes through all names once, in a thread and on a connection of its own, and later
only through new ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import trio

from fsmount import threads
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.index import Index
from fsmount.store.retention.pictures import SUFFIXES
from fsmount.store.retention.rules import IDLE_BYTES
from fsmount.store.retention.taken import LocalClock
from fsmount.store.transfer.tree import is_for_desktops
from fsmount.threads import Kind

MINUTE_US = 60 * 10**6
DAY_US = 86_400 * 10**6
EPOCH = date(1970, 1, 1)
_QUARTER_US = 15 * MINUTE_US
# rsync and others move a new file to its name. So the newest names are read again.
_AGAIN = 2000
# Names that were moved or deleted, and files that were encoded, are found when all are read again.
_ALL_AGAIN_S = 600.0
_FRESH_S = 1.0
_LARGEST = (1 << 32) - 1

Longs = npt.NDArray[np.int64]
Column = npt.NDArray[Any]


class _Rows(NamedTuple):
    """Columns of pictures, by cookie, each (n,).

    cookie, at_us : int64. quarters : int16, local time minus UTC in quarters of an hour. object :
    uint32, 0 for none. stored, size : uint32, bytes. folder : int32, number among `folders`.
    """

    cookie: npt.NDArray[np.int64]
    at_us: npt.NDArray[np.int64]
    quarters: npt.NDArray[np.int16]
    object: npt.NDArray[np.uint32]
    stored: npt.NDArray[np.uint32]
    size: npt.NDArray[np.uint32]
    folder: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Pictures:
    """All pictures of a store in the order of their times: arrays (n,), as in :class:`_Rows`.

    wall_us : when each was taken, as the local clock showed it, as if that were UTC.
    stored : bytes that each brought to the store. Of equal pictures only the first counts.
    staged : whether each is not encoded yet.
    folders : paths of folders, by their numbers.
    number : changes whenever the rest does.
    """

    cookie: Longs
    wall_us: Longs
    object: npt.NDArray[np.uint32]
    stored: npt.NDArray[np.uint32]
    size: npt.NDArray[np.uint32]
    folder: npt.NDArray[np.int32]
    folders: list[bytes]
    number: int

    @property
    def busy(self) -> npt.NDArray[np.bool_]:
        """Which pictures brought something new: more than IDLE_BYTES."""
        return np.asarray(self.stored > IDLE_BYTES)

    @property
    def staged(self) -> npt.NDArray[np.bool_]:
        """Which pictures are not encoded yet."""
        return np.asarray(self.object == 0)

    @cached_property
    def objects(self) -> npt.NDArray[np.uint32]:
        """The objects of all busy pictures, each once, ascending."""
        return self.objects_of(slice(None))

    def objects_of(self, rows: slice) -> npt.NDArray[np.uint32]:
        """The objects of the busy pictures in some rows, each once, ascending."""
        found = self.object[rows]
        return np.unique(found[(self.stored[rows] > IDLE_BYTES) & (found > 0)])

    def day_of(self) -> Longs:
        """The day of each picture, as days since 1970."""
        return self.wall_us // DAY_US

    def of_day(self, day: date) -> slice:
        """The rows of a day. Two pictures may be out of order where clocks were changed."""
        number = (day - EPOCH).days
        start, end = np.searchsorted(self.wall_us, (number * DAY_US, (number + 1) * DAY_US))
        return slice(int(start), int(end))

    def row(self, cookie: int) -> int | None:
        """The row of the picture with a cookie, or None."""
        found = np.flatnonzero(self.cookie == cookie)
        return int(found[0]) if len(found) else None


def day_text(number: int) -> str:
    """Return a day, as days since 1970, in the form 2026-03-14."""
    return (EPOCH + timedelta(days=int(number))).isoformat()


class Table:
    """See the module. Belongs to the trio task. Methods raise OSError and :class:`Damaged`."""

    def __init__(self, store: StoreFiles) -> None:
        self._index = store.index
        self._path = store.layout.index
        self._version = -1
        self._rows: _Rows | None = None
        self._folders: dict[int, int] = {}
        self._paths: list[bytes] = []
        self._pictures = _arranged(_empty(), [], 0)
        self._refreshed = self._read_all = -_ALL_AGAIN_S
        # Held by the task that reads names, so that others wait for its result.
        self._reading = trio.Lock()
        self.names_read = 0
        """How many names the first reading has read so far."""

    @property
    def is_ready(self) -> bool:
        """Whether all names have been read once."""
        return self._rows is not None

    async def pictures(self) -> Pictures:
        """Return all pictures; those that came in the last second may be missing."""
        async with self._reading:
            now = time.monotonic()
            if now - self._refreshed >= _FRESH_S:
                # Asked before the names are read: what comes meanwhile is read the next time.
                version = self._index.version()
                if version != self._version:
                    await self._read(again=now - self._read_all >= _ALL_AGAIN_S)
                    self._version = version
                self._refreshed = time.monotonic()
        return self._pictures

    async def _read(self, *, again: bool) -> None:
        """Read new names, or all of them `again`."""
        known = self._rows
        after = 0
        if again:
            # A folder may have another name, or lie in a trash folder.
            self._folders, self._paths = {}, []
        elif known is not None and len(known.cookie):
            after = max(0, int(known.cookie[-1]) - _AGAIN)
        work = _Reading(self._path, self._folders, self._paths, self._note)
        new = await threads.call(Kind.ENTRY, work.read, after)
        if known is not None:
            kept = int(np.searchsorted(known.cookie, after, side="right"))
            if again:
                kept = 0
            columns: list[tuple[Column, Column]] = list(zip(known, new, strict=True))
            same = all(np.array_equal(old[kept:], other) for old, other in columns)
            if same and self._pictures.folders == self._paths:
                self._read_all = time.monotonic() if again else self._read_all
                return
            new = _Rows._make(np.concatenate([old[:kept], other]) for old, other in columns)
        number = self._pictures.number + 1
        self._pictures = await threads.call(Kind.ENTRY, _arranged, new, self._paths, number)
        self._rows = new
        if again or known is None:
            self._read_all = time.monotonic()

    def _note(self, count: int) -> None:
        self.names_read = count


class _Reading:
    """Reads names. Runs in a thread, so it opens the index for itself."""

    def __init__(
        self,
        path: Path,
        folders: dict[int, int],
        paths: list[bytes],
        progress: Callable[[int], None],
    ) -> None:
        self._path = path
        # Inode number of a folder -> number of its path; -1 for folders that are not shown.
        self._folders = folders
        self._paths = paths
        self._progress = progress

    def read(self, after: int) -> _Rows:
        """Read the names with cookies above `after`. Raises OSError, :class:`Damaged`."""
        parts = [_empty()]
        clock = LocalClock()
        count = 0
        index = Index(self._path, Disk(), read_only=True)
        try:
            for page in index.picture_pages(after):
                rows = [row for row in page if row[2].lower().endswith(SUFFIXES)]
                for folder in {row[1] for row in rows} - self._folders.keys():
                    self._folder(index, folder)
                rows = [row for row in rows if self._folders[row[1]] >= 0]
                if rows:
                    parts.append(self._columns(rows, clock))
                count += len(page)
                self._progress(count)
        finally:
            index.close()
        return _Rows._make(map(np.concatenate, zip(*parts, strict=True)))

    def _columns(self, rows: list[tuple[Any, ...]], clock: LocalClock) -> _Rows:
        """Return the columns of some pictures. Loops over pictures take most of the time."""
        cookie, folder, name, mtime_ns, object_id, stored, size = zip(*rows, strict=True)
        at_us, wall_us = clock.taken_all(name, mtime_ns)
        return _Rows(
            np.array(cookie, np.int64),
            at_us,
            ((wall_us - at_us) // _QUARTER_US).astype(np.int16),
            np.array(object_id, np.uint32),
            np.minimum(np.array(stored, np.int64), _LARGEST).astype(np.uint32),
            np.minimum(np.array(size, np.int64), _LARGEST).astype(np.uint32),
            np.array([self._folders[each] for each in folder], np.int32),
        )

    def _folder(self, index: Index, ino: int) -> None:
        """Give a folder its number."""
        path = index.path(ino)
        number = -1
        if not any(map(is_for_desktops, path.split(b"/"))):
            number = len(self._paths)
            self._paths.append(path)
        self._folders[ino] = number


def _empty() -> _Rows:
    types = (np.int64, np.int64, np.int16, np.uint32, np.uint32, np.uint32, np.int32)
    return _Rows._make(np.empty(0, kind) for kind in types)


def _arranged(rows: _Rows, folders: list[bytes], number: int) -> Pictures:
    """Sort rows by time, and count the bytes of equal pictures once."""
    stored = np.zeros(len(rows.cookie), np.uint32)
    own = np.flatnonzero(rows.object)
    _, first = np.unique(rows.object[own], return_index=True)
    stored[own[first]] = rows.stored[own[first]]
    staged = rows.object == 0
    stored[staged] = rows.stored[staged]
    wall_us = rows.at_us + rows.quarters.astype(np.int64) * _QUARTER_US
    # By the local clock, so that the rows of a day lie together.
    order = np.lexsort((rows.cookie, rows.at_us, wall_us))
    return Pictures(
        rows.cookie[order],
        wall_us[order],
        rows.object[order],
        stored[order],
        rows.size[order],
        rows.folder[order],
        list(folders),
        number,
    )
