"""How a store has grown: by day, month, year or folder; what costs most; and when the disk is full.

A file costs the bytes of its entry, which is what it brought that the store did not have. Of equal
files only the first name counts these bytes. Entries that no file shows, the index and parity are
not in these figures. Everything comes from the index, except the share of new pixels.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from fsmount.store.files import StoreFiles
from fsmount.store.frames.novelty import Novelty
from fsmount.store.index import FileFigures
from fsmount.store.retention.taken import LocalClock

_EPOCH = datetime(1970, 1, 1)
_DAY_US = 86400 * 10**6
# Days before the newest picture whose growth the forecast continues.
FORECAST_DAYS = 30
_PICTURES = ("key", "delta", "jpeg")


class Unit(StrEnum):
    """What one row of a table is about."""

    DAY = "day"
    MONTH = "month"
    YEAR = "year"
    FOLDER = "folder"


_FORMS = {Unit.DAY: "%Y-%m-%d", Unit.MONTH: "%Y-%m", Unit.YEAR: "%Y"}


@dataclass
class Row:
    """The figures of a period or a folder.

    files, pictures : numbers of files, and of pictures among them.
    bytes : bytes of the files.
    stored : bytes that they take in the store.
    new : sum of the shares of new pixels of the pictures: 2.5 is as much as two and a half screens.
        None if it was not asked.
    """

    label: str
    files: int = 0
    pictures: int = 0
    bytes: int = 0
    stored: int = 0
    new: float | None = None

    @property
    def ratio(self) -> float:
        """How many times smaller the files are in the store; 0 if they take nothing."""
        return self.bytes / self.stored if self.stored else 0.0


class Expensive(NamedTuple):
    """A picture or a folder that takes much. `size` and `stored` as in :class:`Row`."""

    stored: int
    path: str
    size: int


class Forecast(NamedTuple):
    """How the store grows.

    days : days that it rests on.
    stored_per_day, pictures_per_day : means over these days.
    free : free bytes on the disk.
    full_in_days : days until these are used up; None if the store does not grow.
    """

    days: int
    stored_per_day: float
    pictures_per_day: float
    free: int
    full_in_days: float | None


@dataclass
class Growth:
    """The result of :func:`growth`. Rows ascend by label, and the most expensive come first."""

    rows: list[Row] = field(default_factory=list)
    files: list[Expensive] = field(default_factory=list)
    folders: list[Expensive] = field(default_factory=list)
    forecast: Forecast | None = None


def growth(
    store: StoreFiles,
    unit: Unit = Unit.MONTH,
    *,
    top: int = 0,
    with_new: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> Growth:
    """Return the figures of all files of a store.

    `top` is the number of the most expensive pictures and folders. `with_new` reads the record of
    each picture, which waits for the disk. `progress` is called for each file. Memory grows with
    the number of rows and folders, and with that of equal files. Raises :class:`Damaged`, OSError.
    """
    work = _Collector(store, unit, with_new)
    largest: list[tuple[int, int, bytes, int]] = []
    for found in store.index.file_figures():
        progress()
        if not work.is_first_name(found):
            continue
        stored = work.add(found)
        if top and found.kind in _PICTURES:
            item = stored, found.folder, found.name, found.size
            (heapq.heappush if len(largest) < top else heapq.heappushpop)(largest, item)
    done = Growth(sorted(work.rows.values(), key=lambda row: row.label), forecast=work.forecast())
    for stored, folder, name, size in sorted(largest, reverse=True):
        path = os.fsdecode(_join(store.index.path(folder), name))
        done.files.append(Expensive(stored, path, size))
    if top:
        done.folders = work.folders(top)
    return done


class _Collector:
    """Adds up figures. Counts each inode, and the bytes of each object, once."""

    def __init__(self, store: StoreFiles, unit: Unit, with_new: bool) -> None:
        self._store = store
        self._unit = unit
        self._clock = LocalClock()
        self._novelty = Novelty(store.layout, store.index) if with_new else None
        self._linked: set[int] = set()
        self._shared: set[int] = set()
        self._labels: dict[int, str] = {}
        # By day since 1970: stored bytes and pictures.
        self._days: dict[int, tuple[int, int]] = {}
        # By inode number of a folder: stored bytes and bytes of the files in it.
        self._folders: dict[int, tuple[int, int]] = {}
        self.rows: dict[str, Row] = {}

    def is_first_name(self, found: FileFigures) -> bool:
        """Whether a name is the first one of its inode."""
        if found.links > 1:
            if found.ino in self._linked:
                return False
            self._linked.add(found.ino)
        return True

    def add(self, found: FileFigures) -> int:
        """Add a file. Return the bytes that it takes: 0 if an equal one came before."""
        stored, is_new = found.stored, True
        if found.uses > 1 and found.object_id is not None:
            is_new = found.object_id not in self._shared
            stored = stored if is_new else 0
            self._shared.add(found.object_id)
        is_picture = found.kind in _PICTURES or found.name.lower().endswith(b".png")
        day = self._clock.taken(found.name, found.mtime_ns).wall_us // _DAY_US
        row = self._row(found, day)
        row.files += 1
        row.pictures += is_picture
        row.bytes += found.size
        row.stored += stored
        if self._novelty is not None and is_picture:
            row.new = (row.new or 0.0) + (self._share(found) if is_new else 0.0)
        if is_picture:
            before, count = self._days.get(day, (0, 0))
            self._days[day] = before + stored, count + 1
        before, whole = self._folders.get(found.folder, (0, 0))
        self._folders[found.folder] = before + stored, whole + found.size
        return stored

    def _share(self, found: FileFigures) -> float:
        """The share of new pixels of a picture."""
        known = None if found.object_id is None else self._store.index.known_object(found.object_id)
        return 1.0 if known is None or self._novelty is None else self._novelty.share(known)

    def _row(self, found: FileFigures, day: int) -> Row:
        key = found.folder if self._unit is Unit.FOLDER else day
        label = self._labels.get(key)
        if label is None:
            label = self._labels[key] = self._label(key)
        return self.rows.setdefault(label, Row(label, new=0.0 if self._novelty else None))

    def _label(self, key: int) -> str:
        if self._unit is Unit.FOLDER:
            return os.fsdecode(self._store.index.path(key))
        try:
            return (_EPOCH + timedelta(days=key)).strftime(_FORMS[self._unit])
        except OverflowError:
            return "another time"

    def folders(self, top: int) -> list[Expensive]:
        """The most expensive folders, without those inside them."""
        most = heapq.nlargest(top, ((*sums, ino) for ino, sums in self._folders.items()))
        return [
            Expensive(stored, os.fsdecode(self._store.index.path(ino)), whole)
            for stored, whole, ino in most
        ]

    def forecast(self) -> Forecast | None:
        """Continue the growth of the last days; None without pictures."""
        if not self._days:
            return None
        last = max(self._days)
        first = max(min(self._days), last - FORECAST_DAYS + 1)
        days = last - first + 1
        recent = [sums for day, sums in self._days.items() if day >= first]
        stored = sum(each for each, _ in recent) / days
        disk = os.statvfs(self._store.layout.root)
        free = disk.f_bavail * disk.f_frsize
        pictures = sum(count for _, count in recent) / days
        return Forecast(days, stored, pictures, free, free / stored if stored else None)


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" * bool(folder) + name
