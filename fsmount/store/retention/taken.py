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
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fsmount.legacy.timestamps import Timestamp, parse_timestamp

Longs = npt.NDArray[np.int64]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
# Time zones change their offset only at whole quarters of an hour.
_QUARTER_US = 900 * 10**6
_MOST_KNOWN = 200_000
_SHAPE = bytes.maketrans(b"123456789", b"000000000")
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
    """Converts between instants and local time; remembers the offsets that it has looked up.

    Most names of a store differ from others in the digits of minute and second alone. So it
    remembers the times of quarters of an hour by the rest of a name, and adds minutes and seconds.
    """

    def __init__(self) -> None:
        self._offsets: dict[int, int] = {}
        self._wall_offsets: dict[int, int] = {}
        # By a name with 0 for each digit: where the digits of minute and second are.
        self._places: dict[bytes, tuple[int, int]] = {}
        self._quarters: dict[tuple[bytes, int, bytes, bytes], Taken] = {}

    def taken(self, name: bytes, mtime_ns: int) -> Taken:
        """Return when the file of this name (without folders) was taken.

        `mtime_ns` is its time of last change in ns since 1970. It counts if the name tells no time.
        """
        shape = name.translate(_SHAPE)
        place = self._places.get(shape)
        if place is not None:
            key, past_us = _split(name, *place)
            quarter = self._quarters.get(key)
            if quarter is not None and past_us >= 0:
                return Taken(quarter.at_us + past_us, quarter.wall_us + past_us)
        found, place = self._taken(name, mtime_ns)
        if place[0] >= 0 and name.isascii():
            if len(self._quarters) >= _MOST_KNOWN or len(self._places) >= _MOST_KNOWN:
                self._places.clear()
                self._quarters.clear()
            key, past_us = _split(name, *place)
            if past_us >= 0:
                self._places[shape] = place
                self._quarters[key] = Taken(found.at_us - past_us, found.wall_us - past_us)
        return found

    def taken_all(self, names: Sequence[bytes], mtimes_ns: Sequence[int]) -> tuple[Longs, Longs]:
        """As :meth:`taken` for many names: `at_us` and `wall_us`, arrays (n,) of int64.

        Several times as fast for names of one form that are in the order of their times.
        """
        found = self._in_one_form(names, mtimes_ns)
        if found is None:
            each = list(map(self.taken, names, mtimes_ns))
            found = np.array(each, np.int64).reshape(-1, 2).T
        return found[0], found[1]

    def _in_one_form(self, names: Sequence[bytes], mtimes_ns: Sequence[int]) -> Longs | None:
        """Return the times as rows, or None if the names have several forms, or an unknown one."""
        if not names or {len(name) for name in names} != {len(names[0])}:
            return None
        self.taken(names[0], mtimes_ns[0])
        shape = names[0].translate(_SHAPE)
        place = self._places.get(shape)
        text = np.frombuffer(b"".join(names), np.uint8).reshape(len(names), -1)
        is_digit = (text >= ord("0")) & (text <= ord("9"))
        same = np.where(is_digit, ord("0"), text) == np.frombuffer(shape, np.uint8)
        if place is None or not same.all():
            return None
        columns = [at for at in place if at >= 0]
        minute, second = (
            (text[:, at].astype(np.int64) * 10 + text[:, at + 1] - 11 * ord("0")) for at in place
        )
        second = second if len(columns) == 2 else np.zeros_like(minute)
        if minute.max() > 59 or second.max() > 59:
            return None
        others = np.delete(text, [each for at in columns for each in (at, at + 1)], axis=1)
        quarter = minute // 15
        starts = np.ones(len(names), bool)
        starts[1:] = (others[1:] != others[:-1]).any(axis=1) | (quarter[1:] != quarter[:-1])
        past_us = (minute % 15 * 60 + second) * 10**6
        first = np.flatnonzero(starts)
        bases = [self.taken(names[n], mtimes_ns[n]) for n in first.tolist()]
        base = np.array(bases, np.int64).T - past_us[first]
        found: Longs = np.repeat(base, np.diff(first, append=len(names)), axis=1) + past_us
        return found

    def _taken(self, name: bytes, mtime_ns: int) -> tuple[Taken, tuple[int, int]]:
        """As :meth:`taken`, with the places of minute and second in the name; -1 for none."""
        stem = name.rpartition(b".")[0] or name
        found = _time_in(stem.decode(errors="replace"))
        if found is None:
            at_us = mtime_ns // 1000
        elif found.zoned:
            at_us = found.us
        else:
            return Taken(self._instant(found.us), found.us), found.places
        places = (-1, -1) if found is None else found.places
        return Taken(at_us, at_us + self._offset(at_us)), places

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


def _split(
    name: bytes, minute_at: int, second_at: int
) -> tuple[tuple[bytes, int, bytes, bytes], int]:
    """Return what tells the quarter of an hour, and microseconds since it began.

    The latter are -1 if the digits are no minute and second of the clock.
    """
    minute, end = int(name[minute_at : minute_at + 2]), minute_at + 2
    second = 0
    between = b""
    if second_at >= 0:
        second = int(name[second_at : second_at + 2])
        between, end = name[end:second_at], second_at + 2
    past_us = (minute % 15 * 60 + second) * 10**6 if minute < 60 and second < 60 else -1
    return (name[:minute_at], minute // 15, between, name[end:]), past_us


def _time_in(stem: str) -> Timestamp | None:
    """Return the time that a name without its suffix tells, or None."""
    whole = parse_timestamp(stem)
    if whole is not None:
        return whole
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
    places = found.start(6), found.start(7)
    return Timestamp((when - _NAIVE_EPOCH) // _MICROSECOND, False, places)
