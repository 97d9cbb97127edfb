"""Points in time on the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A date, hours and minutes, seconds, a part of a second, a zone. Only the date is required.
_FORM = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?P<second>:\d\d(?P<part>[.,]\d+)?)?(?P<zone>Z|[+-][\d:]+)?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Moment:
    """A time as written: a day, minute, second or microsecond. In ns since 1970, without `end`."""

    start: int
    end: int


class MomentType(click.ParamType):  # type: ignore[type-arg]
    """A date or time in ISO 8601, in local time unless it has a zone."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Moment:
        """Return the day, minute or second that the text names; fail if it is malformed."""
        if isinstance(value, Moment):
            return value
        form = _FORM.fullmatch(str(value))
        try:
            if form is None:
                raise ValueError
            start = datetime.fromisoformat(str(value))
            return Moment(_since_1970(start), _since_1970(start + _length(form)))
        except (ValueError, OverflowError):
            text = f"{value!r} is not a time; write for example 2024-06-06 or 2024-06-06T17:41"
            self.fail(text, param, ctx)


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
