"""The pictures of a day, and how much of the screen was new in each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fsmount import threads
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.index import TRASH, Index, Inode
from fsmount.store.layout import Layout
from fsmount.store.retention.pictures import is_picture
from fsmount.threads import Kind
from fsmount.web.shares import Shares
from fsmount.web.table import DAY_US, Pictures


class Named(NamedTuple):
    """A picture as it is now: its cookie, its path from the root of the store, and its inode."""

    cookie: int
    path: bytes
    inode: Inode


class Days:
    """Lists the pictures of days. Belongs to the trio task. Methods raise OSError, Damaged."""

    def __init__(self, store: StoreFiles, shares: Shares) -> None:
        self._store = store
        self._shares = shares

    async def moments(self, pictures: Pictures, day: date) -> dict[str, Any]:
        """Return the pictures of a day that exist, the oldest first.

        - folders: paths of the folders that `moments` names by number.
        - moments: [cookie, object (0: not encoded yet), second of the day, bytes stored, whether
          it is busy, folder].
        """
        rows = pictures.of_day(day)
        cookies = pictures.cookie[rows].tolist()
        objects = await threads.call(Kind.ENTRY, _objects, self._store.layout, cookies)
        numbers, number = np.unique(pictures.folder[rows], return_inverse=True)
        seconds = pictures.wall_us[rows] % DAY_US // 10**6
        columns = (seconds, pictures.stored[rows], pictures.busy[rows].astype(int), number)
        found = zip(cookies, objects, *(column.tolist() for column in columns), strict=True)
        return {
            "day": day.isoformat(),
            "folders": [os.fsdecode(pictures.folders[i]) for i in numbers.tolist()],
            "moments": [list(row) for row in found if row[1] is not None],
            "before": _neighbour(pictures, rows.start - 1),
            "after": _neighbour(pictures, rows.stop),
        }

    async def shares(self, pictures: Pictures, day: date) -> list[tuple[int, float]]:
        """Return the share of the screen that was new: (object, share) for the busy ones of a day.

        1.0 for a picture that is no frame.
        """
        rows = pictures.of_day(day)
        objects = pictures.objects_of(rows)
        await self._shares.read(self._shares.missing(objects))
        shares = self._shares.of(objects)
        return [
            (number, round(share, 3))
            for number, share in zip(objects.tolist(), shares.tolist(), strict=True)
        ]

    def named(self, cookie: int) -> Named | None:
        """Return the picture with a cookie, or None if it is gone."""
        found = self._store.index.named(cookie)
        if found is None or found[0] == TRASH or not is_picture(found[1], found[2]):
            return None
        folder, name, inode = found
        return Named(cookie, self._store.index.path_of_name(folder, name), inode)


def _neighbour(pictures: Pictures, row: int) -> str | None:
    """Return the day of a row, if there is one."""
    if not 0 <= row < len(pictures.cookie):
        return None
    return str(np.datetime64(int(pictures.wall_us[row] // DAY_US), "D"))


def _objects(layout: Layout, cookies: Sequence[int]) -> list[int | None]:
    """For each cookie the object that it shows now: 0 if not encoded, None if it is gone.

    Runs in a thread, so it opens the index for itself.
    """
    index = Index(Path(layout.index), Disk(), read_only=True)
    try:
        found = map(index.named, cookies)
        return [
            None
            if entry is None or entry[0] == TRASH or not is_picture(entry[1], entry[2])
            else entry[2].object_id or 0
            for entry in found
        ]
    finally:
        index.close()
