"""Decides which pictures a set of rules keeps. Pure: arrays in, arrays out.

The keep rules say what must stay; a picture stays if one of them keeps it. What else goes:

- without `drop_idle` and `budget`: everything else;
- with `drop_idle`: of the rest, the pictures inside of idle runs;
- with `budget`: of the rest, the oldest pictures, only as many as have to go.

So no rule drops what a keep rule keeps, and one more keep rule never keeps less. Without any rule
everything stays.

The keep rules are those of restic (https://restic.readthedocs.io, "Removing snapshots according to
a policy") and of borg 2: one picture stays of each hour, day, ISO week, month or year of the local
clock that has pictures, for the newest N of these, or for those that an interval touches. Intervals
end at the newest picture of its series, not now. A rule that reaches beyond the oldest picture
keeps that one, too. One thing differs: of each hour, day … the picture stays that brought the most
new content, not the last one; of equal ones the newest.

A series is one sequence of pictures, such as those of one screen. Rules count in each series.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fsmount.store.retention.amounts import Amount

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

IDLE_BYTES = 4096
"""Bytes that a picture adds when only a clock and a graph change. Measured on an idle desktop."""
KEPT = 1 << 62
"""The rank of a picture that stays."""
_HOUR_US = 3600 * 10**6
_DAY_US = 24 * _HOUR_US
PERIODS = ("hourly", "daily", "weekly", "monthly", "yearly")


@dataclass(frozen=True, slots=True)
class Rules:
    """A set of rules; None and False: the rule is not given.

    last : keep the newest pictures. within : keep all pictures of an interval. hourly to yearly :
    keep one of each hour, … year. drop_idle : drop pictures inside of idle runs. budget : drop the
    oldest pictures until the store takes at most so many bytes.
    """

    last: Amount | None = None
    within: Amount | None = None
    hourly: Amount | None = None
    daily: Amount | None = None
    weekly: Amount | None = None
    monthly: Amount | None = None
    yearly: Amount | None = None
    drop_idle: bool = False
    budget: int | None = None

    def keeping(self) -> dict[str, Amount]:
        """Return the keep rules that are given, by name."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Amount)}

    def __bool__(self) -> bool:
        """Whether any rule is given."""
        return self != Rules()

    def __str__(self) -> str:
        """Return the rules as options of ``fsmount prune``."""
        found = [f"--keep-{name} {amount}" for name, amount in self.keeping().items()]
        found += ["--drop-idle"] * self.drop_idle
        found += [] if self.budget is None else [f"--budget {self.budget}"]
        return " ".join(found)


class Pictures(NamedTuple):
    """Pictures as arrays of equal length (n,).

    at_us, wall_us : int64, see :class:`~fsmount.store.retention.taken.Taken`.
    new_bytes : int64, bytes that each picture added to the store.
    series : int64, a number for each series.
    pinned : bool, whether the user said that it stays.
    """

    at_us: Ints
    wall_us: Ints
    new_bytes: Ints
    series: Ints
    pinned: Bools

    def rows(self, wanted: Ints | Bools) -> Pictures:
        """Return some of the pictures, by row numbers or a mask."""
        return Pictures(
            self.at_us[wanted],
            self.wall_us[wanted],
            self.new_bytes[wanted],
            self.series[wanted],
            self.pinned[wanted],
        )


def ranks(pictures: Pictures, rules: Rules) -> Ints:
    """Return in which order the rules drop pictures: int64 (n,).

    0: the picture goes. 1, 2, …: it may go after those of lower ranks, as far as the budget asks;
    the oldest picture has the lowest rank. KEPT: it stays.
    """
    count = len(pictures.at_us)
    if not rules:
        return np.full(count, KEPT, np.int64)
    stays = kept(pictures, rules)
    found = np.full(count, KEPT, np.int64)
    if rules.drop_idle:
        found[inside_idle_runs(pictures) & ~stays] = 0
    elif rules.budget is None:
        found[~stays] = 0
    if rules.budget is not None:
        rest = np.flatnonzero(~stays & (found == KEPT))
        rest = rest[np.argsort(pictures.at_us[rest], kind="stable")]
        found[rest] = np.arange(1, len(rest) + 1)
    return found


def kept(pictures: Pictures, rules: Rules) -> Bools:
    """Return which pictures a keep rule keeps, or the user: bool (n,)."""
    stays = pictures.pinned.copy()
    keeping = rules.keeping()
    if keeping:
        for rows in each_series(pictures):
            of_series = pictures.rows(rows)
            for name, amount in keeping.items():
                stays[rows[_kept_by(of_series, name, amount)]] = True
    return stays


def each_series(pictures: Pictures) -> Iterator[Ints]:
    """Yield the rows of each series, the oldest picture first: int64 arrays."""
    order = np.lexsort((pictures.wall_us, pictures.at_us, pictures.series)).astype(np.int64)
    found = pictures.series[order]
    bounds = np.flatnonzero(found[1:] != found[:-1]) + 1
    yield from (rows for rows in np.split(order, bounds) if len(rows))


def inside_idle_runs(pictures: Pictures) -> Bools:
    """Return which pictures lie inside of an idle run, neither its first nor its last: bool (n,).

    An idle run is a sequence of pictures of a series that each added at most IDLE_BYTES.
    """
    inside = np.zeros(len(pictures.at_us), bool)
    for rows in each_series(pictures):
        idle = pictures.new_bytes[rows] <= IDLE_BYTES
        inside[rows[1:-1]] = idle[1:-1] & idle[:-2] & idle[2:]
    return inside


def _kept_by(series: Pictures, name: str, amount: Amount) -> Bools:
    """Return which pictures of one series, oldest first, a keep rule keeps: bool (n,)."""
    count = len(series.at_us)
    newest_us = int(series.wall_us.max())
    if name in ("last", "within"):
        if amount.count is not None:
            return np.asarray(np.arange(count) >= count - amount.count)
        return np.asarray(series.wall_us > amount.start_us(newest_us))
    periods = period_of(series.wall_us, name)
    if amount.count is not None:
        existing = np.unique(periods)
        fits = amount.count > len(existing)
        wanted: Bools = periods >= existing[-min(amount.count, len(existing))]
    else:
        in_it = series.wall_us > amount.start_us(newest_us)
        fits = bool(in_it[0])
        # A period that the interval touches counts as a whole.
        wanted = periods >= periods[in_it].min()
    stays = _best_of_each(periods, series.new_bytes) & wanted
    stays[0] |= fits
    return stays


def period_of(wall_us: Ints, name: str) -> Ints:
    """Return the number of the hour, day, ISO week, month or year of times: int64 (n,).

    `wall_us` is int64 (n,), `name` one of PERIODS.
    """
    if name == "hourly":
        return np.asarray(wall_us // _HOUR_US)
    days = wall_us // _DAY_US
    if name == "daily":
        return np.asarray(days)
    if name == "weekly":
        # 1970-01-01 was a Thursday, and ISO weeks begin with Monday.
        return np.asarray((days + 3) // 7)
    unit = "M" if name == "monthly" else "Y"
    return np.asarray(days.astype("M8[D]").astype(f"M8[{unit}]").astype(np.int64))


def _best_of_each(periods: Ints, new_bytes: Ints) -> Bools:
    """Return the pictures that brought the most in their period; of equal ones the last."""
    order = np.lexsort((np.arange(len(periods)), new_bytes, periods))
    last = np.append(periods[order][1:] != periods[order][:-1], True)
    best = np.zeros(len(periods), bool)
    best[order[last]] = True
    return best
