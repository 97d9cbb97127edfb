"""Points in time on the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from fsmount.store.retention.calendar import months_later

TIME_HELP = """\
TIME is a month, a date or a time: 2024-06, 2024-06-06, 2024-06-06T17:41,
2024-06-06T17:41:00+02:00, or as long ago: "3 days ago", "2 weeks ago". It is local time if it has
no zone. --since and --until keep what was taken in between, both included. The time of a file is
the one in its name (2024-06-06T17:41:00+02:00.png, Screenshot from 2024-06-06 17-41-00.png), else
the time of its last change."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A month; or a date, hours and minutes, seconds, a part of a second, a zone. Only the date is
# required.
_MONTH = re.compile(r"(\d{4})-(\d\d)", re.ASCII)
_FORM = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?P<second>:\d\d(?P<part>[.,]\d+)?)?(?P<zone>Z|[+-][\d:]+)?)?",
    re.ASCII,
)
# "3 days ago". Months and years are those of the calendar.
_AGO = re.compile(r"(\d{1,6}) (second|minute|hour|day|week|month|year)s? ago", re.ASCII)
_MONTHS = {"month": 1, "year": 12}


@dataclass(frozen=True, slots=True)
class Moment:
    """A time as written: a month, day, minute, or less. In ns since 1970, without `end`."""

    start: int
    end: int


class MomentType(click.ParamType):  # type: ignore[type-arg]
    """A month, date or time in ISO 8601, in local time unless it has a zone, or "3 days ago"."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Moment:
        """Return the day, minute or second that the text names; fail if it is malformed."""
        if isinstance(value, Moment):
            return value
        form = _FORM.fullmatch(str(value))
        try:
            if month := _MONTH.fullmatch(str(value)):
                start = datetime(int(month[1]), int(month[2]), 1)
                return Moment(_since_1970(start), _since_1970(months_later(start, 1)))
            if ago := _AGO.fullmatch(str(value)):
                start = _ago(int(ago[1]), ago[2])
                return Moment(_since_1970(start), _since_1970(start + timedelta(seconds=1)))
            if form is None:
                raise ValueError
            start = datetime.fromisoformat(str(value))
            return Moment(_since_1970(start), _since_1970(start + _length(form)))
        except (ValueError, OverflowError):
            text = (
                f"{value!r} is not a time; write for example 2024-06-06, 2024-06-06T17:41,"
                " 2024-06 or '3 days ago'"
            )
            self.fail(text, param, ctx)


def _ago(count: int, unit: str) -> datetime:
    """Return the local time so many units before now. Raises ValueError, OverflowError."""
    now = datetime.now()
    if unit in _MONTHS:
        return months_later(now, -count * _MONTHS[unit])
    return now - timedelta(**{f"{unit}s": count})


def _length(form: re.Match[str]) -> timedelta:
    """Return how long the written unit lasts."""
    if ":" not in form[0]:
        return timedelta(days=1)
    if form["second"] is None:
        return timedelta(minutes=1)
    return timedelta(seconds=1) if form["part"] is None else timedelta(microseconds=1)


def _since_1970(when: datetime) -> int:
    """Return a time in ns since 1970. A time without a zone is local time."""
    passed = when.astimezone(UTC) - _EPOCH
    return ((passed.days * 86400 + passed.seconds) * 1_000_000 + passed.microseconds) * 1000
