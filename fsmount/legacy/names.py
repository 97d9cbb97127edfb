"""The time in a screenshot's name, as `date -I` writes it and as people have varied it since."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

_NAME = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)[T _]"
    r"(\d\d)(?:(?P<mark>[:.-]?)(\d\d)(?:(?P=mark)(\d\d)(?:[.,](\d{1,9})\d*)?)?)?"
    r"(?P<zone>[Zz]|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Time:
    """The time a name tells, to the microsecond, as `datetime.fromisoformat` has it.

    `us`: microseconds since 1970. Where the name has a time zone (`zoned`) that is an instant.
    Where it has none it is what the digits would be in UTC: it gives an order, but no instant. It
    never depends on the time zone of this machine.
    """

    us: int
    zoned: bool


def time_in(stem: str) -> Time | None:
    """The time a name without its suffix tells; None if it tells none."""
    found = _NAME.fullmatch(stem)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(found[n] or 0) for n in (1, 2, 3, 4, 6, 7))
    if second > 60:
        return None
    try:
        # A leap second is the next minute's first.
        when = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=_zone(found))
        told = _told(when)
    except (ValueError, OverflowError):
        return None
    more = (second - min(second, 59)) * 10**6 + int((found[8] or "").ljust(6, "0")[:6])
    return Time(told.us + more, told.zoned)


def other_time_in(stem: str) -> Time | None:
    """The time in a name that only the blog's script takes for one, such as a date alone."""
    try:
        return _told(datetime.fromisoformat(stem)) if time_in(stem) is None else None
    except (ValueError, OverflowError):
        return None


def _told(when: datetime) -> Time:
    instant = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    return Time((instant - _EPOCH) // timedelta(microseconds=1), when.tzinfo is not None)


def _zone(found: re.Match[str]) -> timezone | None:
    text = found["zone"]
    if not text:
        return None
    if text in "Zz":
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(offset if text[0] == "+" else -offset)
