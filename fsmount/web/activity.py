"""How a screen was used, from the times of its pictures and the bytes that they brought.

A picture is busy if it brought more than IDLE_BYTES to the store, else idle. A minute is active if
a busy picture was taken in it. If pictures are further apart, a busy one stands for the minutes up
to the next picture, but for no more than :data:`LONGEST_MIN`. All times are local ones.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fsmount.web.table import DAY_US, EPOCH, MINUTE_US, Longs, Pictures, day_text

LONGEST_MIN = 5
_DAY_MIN = 24 * 60
# A stretch that is shorter than this is no idle time worth a name.
_SHORTEST_IDLE_MIN = 10


class Minutes(NamedTuple):
    """The minutes in which pictures were taken, ascending: arrays (n,) of int64.

    minute : since 1970, by the local clock.
    active : how many minutes of activity it stands for; 0 if all of its pictures are idle.
    """

    minute: Longs
    active: Longs


def minutes(pictures: Pictures, rows: slice = slice(None)) -> Minutes:
    """Return the minutes of some pictures."""
    minute, first = np.unique(pictures.wall_us[rows] // MINUTE_US, return_index=True)
    if not len(minute):
        return Minutes(minute, minute.copy())
    busy = np.add.reduceat(pictures.busy[rows].astype(np.int64), first) > 0
    lasts = np.minimum(np.diff(minute, append=minute[-1] + 1), LONGEST_MIN)
    return Minutes(minute, np.where(busy, lasts, 0))


def by_day(pictures: Pictures, shares: npt.NDArray[np.float32] | None = None) -> list[list[Any]]:
    """Return for each day: [day, pictures, busy pictures, active minutes, screens].

    The oldest is the first. `shares` has the share of the screen that was new in each picture.
    `screens` is its sum over the busy pictures of a day: with 2.5, two and a half screens were new.
    It is None if `shares` is None.
    """
    if not len(pictures.cookie):
        return []
    days, first, counts = np.unique(pictures.day_of(), return_index=True, return_counts=True)
    busy = np.add.reduceat(pictures.busy.astype(np.int64), first)
    found = minutes(pictures)
    number = np.searchsorted(days, found.minute // _DAY_MIN)
    active = np.bincount(number, found.active, len(days)).astype(np.int64)
    screens: list[float | None] = [None] * len(days)
    if shares is not None:
        # What is not encoded yet has no share.
        new = np.where(pictures.busy & ~pictures.staged, shares, 0).astype(np.float64)
        screens = np.add.reduceat(new, first).round(2).tolist()
    columns = (column.tolist() for column in (days, counts, busy, active))
    return [[day_text(day), *rest] for day, *rest in zip(*columns, screens, strict=True)]


def habits(pictures: Pictures, year: int | None = None) -> dict[str, Any]:
    """Return when a screen was used, in a year or in all of them.

    - hours: active minutes by weekday (0 is Monday) and hour: 7 lists of 24.
    - weekdays: how many days of each weekday have pictures.
    - months: [month, active minutes], the oldest first.
    - days, active_min: days with pictures, and all active minutes.
    - busiest: [day, active minutes], the five busiest days.
    - idle: [start, end, minutes], the five longest stretches of idle pictures, as local times.
    """
    rows = rows_of(pictures, year)
    found = minutes(pictures, rows)
    day = found.minute // _DAY_MIN
    # 1970 began on a Thursday.
    weekday, hour = (day + 3) % 7, found.minute // 60 % 24
    grid = np.bincount(weekday * 24 + hour, found.active, 7 * 24).astype(np.int64)
    days, number = np.unique(day, return_inverse=True)
    per_day = np.bincount(number, found.active, len(days)).astype(np.int64)
    months = days.astype("datetime64[D]").astype("datetime64[M]")
    names, month = np.unique(months, return_inverse=True)
    per_month = np.bincount(month, per_day, len(names)).astype(np.int64)
    busiest = np.argsort(-per_day, kind="stable")[:5]
    return {
        "hours": grid.reshape(7, 24).tolist(),
        "weekdays": np.bincount((days + 3) % 7, minlength=7).tolist(),
        "months": [[str(name), int(n)] for name, n in zip(names, per_month, strict=True)],
        "days": len(days),
        "active_min": int(found.active.sum()),
        "busiest": [[day_text(days[i]), int(per_day[i])] for i in busiest if per_day[i]],
        "idle": _longest_idle(found),
        "years": years(pictures),
    }


def years(pictures: Pictures) -> list[int]:
    """Return the years in which pictures were taken."""
    first = np.unique(pictures.day_of())
    found = first.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970
    return [int(year) for year in np.unique(found)]


def rows_of(pictures: Pictures, year: int | None) -> slice:
    """Return the rows of a year."""
    if year is None:
        return slice(None)
    starts = [np.datetime64(f"{each:04}-01-01", "D").astype(np.int64) for each in (year, year + 1)]
    start, end = np.searchsorted(pictures.wall_us, np.array(starts) * DAY_US)
    return slice(int(start), int(end))


def _longest_idle(found: Minutes) -> list[list[Any]]:
    """Return the longest stretches in which pictures were taken and nothing was new.

    A gap without pictures ends a stretch: the machine was off then.
    """
    if not len(found.minute):
        return []
    idle = found.active == 0
    gap = np.diff(found.minute, prepend=found.minute[0]) > 6 * LONGEST_MIN
    # A stretch is a run of idle minutes without a gap.
    starts = idle & (gap | ~np.concatenate(([False], idle[:-1])))
    number = np.cumsum(starts)[idle]
    if not len(number):
        return []
    at = found.minute[idle]
    first = at[np.flatnonzero(np.diff(number, prepend=0))]
    last = at[np.flatnonzero(np.diff(number, append=number[-1] + 1))]
    length = last - first + 1
    longest = np.argsort(-length, kind="stable")[:5]
    return [
        [_time_text(first[i]), _time_text(last[i]), int(length[i])]
        for i in longest
        if length[i] >= _SHORTEST_IDLE_MIN
    ]


def _time_text(minute: int) -> str:
    """Return a local time, as minutes since 1970, in the form 2026-03-14T09:41."""
    day, rest = divmod(int(minute), _DAY_MIN)
    hour, left = divmod(rest, 60)
    return f"{(EPOCH + timedelta(days=day)).isoformat()}T{hour:02}:{left:02}"
