"""The time when a picture was taken: from its name, else its time of last change.

A name tells a time if it is one, as ``date -I`` writes it (:mod:`fsmount.legacy.timestamps`), or if
it has a date and a time of day in it, as screenshot programs write them:
``Screenshot from 2024-06-06 17-41-00.png``, ``20240606_174100.png``,
``Screenshot 2024-06-06 at 5.41.00 PM.png``. A date alone does not count: the time of last change is
more exact. A time without a zone is local time, as are the days and hours of a policy.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from fsmount.legacy.timestamps import parse_timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
# Time zones change their offset only at whole quarters of an hour.
_QUARTER_US = 900 * 10**6
# A date and a time of day inside a name. Years are limited, so that few other numbers fit.
_INSIDE = re.compile(
    r"(?<!\d)((?:19|20)\d\d)(?P<dash>[-_.]?)(\d\d)(?P=dash)(\d\d)"
    r"(?:[T _-]{1,3}|[ _]at[ _]|-at-)"
    r"(\d\d?)[:._h-]?(\d\d)(?:[:._m-]?(\d\d))?(?!\d)s?(?:[ \u202f]?([AaPp])[Mm])?"
)


class Taken(NamedTuple):
    """When a picture was taken.

    at_us : microseconds since 1970.
    wall_us : the same moment as the local clock showed it, as if that were UTC. Days and hours of
        it are local ones.
    """

    at_us: int
    wall_us: int


class LocalClock:
    """Converts between instants and local time; remembers the offsets that it has looked up."""

    def __init__(self) -> None:
        self._offsets: dict[int, int] = {}
        self._wall_offsets: dict[int, int] = {}

    def taken(self, name: bytes, mtime_ns: int) -> Taken:
        """Return when the file of this name (without folders) was taken.

        `mtime_ns` is its time of last change in ns since 1970. It counts if the name tells no time.
        """
        stem = name.rpartition(b".")[0] or name
        found = _time_in(stem.decode(errors="replace"))
        if found is None:
            at_us = mtime_ns // 1000
        elif found.zoned:
            at_us = found.us
        else:
            return Taken(self._instant(found.us), found.us)
        return Taken(at_us, at_us + self._offset(at_us))

    def wall(self, at_us: int) -> int:
        """Return what the local clock shows at an instant; see :class:`Taken`."""
        return at_us + self._offset(at_us)

    def _offset(self, at_us: int) -> int:
        """Local time minus UTC at an instant, in microseconds."""
        quarter = at_us // _QUARTER_US
        found = self._offsets.get(quarter)
        if found is None:
            try:
                found = time.localtime(quarter * 900).tm_gmtoff * 10**6
            except (OverflowError, OSError, ValueError):
                found = 0  # a year that the C library does not know
            self._offsets[quarter] = found
        return found

    def _instant(self, wall_us: int) -> int:
        """Return the instant at which the local clock shows a time."""
        quarter = wall_us // _QUARTER_US
        found = self._wall_offsets.get(quarter)
        if found is None:
            naive = _NAIVE_EPOCH + timedelta(seconds=quarter * 900)
            try:
                found = (naive.astimezone(UTC) - _EPOCH) // _MICROSECOND - quarter * _QUARTER_US
            except (OverflowError, OSError, ValueError):
                found = 0
            self._wall_offsets[quarter] = found
        return wall_us + found


class _Found(NamedTuple):
    """A time in a name: microseconds since 1970, as if in UTC unless it is `zoned`."""

    us: int
    zoned: bool


def _time_in(stem: str) -> _Found | None:
    """Return the time that a name without its suffix tells, or None."""
    whole = parse_timestamp(stem)
    if whole is not None:
        return _Found(whole.us, whole.zoned)
    found = _INSIDE.search(stem)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(found[n] or 0) for n in (1, 3, 4, 5, 6, 7))
    if half := found[8]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half in "Pp" else 0)
    try:
        when = datetime(year, month, day, hour, minute, min(second, 59))
    except ValueError:
        return None
    return _Found((when - _NAIVE_EPOCH) // _MICROSECOND, False)
