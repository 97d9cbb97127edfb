"""The time in a screenshot's name, as ``date -I`` writes it and in common variants."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone

_NAME = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)[T _]"
    # Thunar writes "_" for ":" when it copies to some filesystems.
    r"(\d\d)(?:(?P<mark>[:._-]?)(\d\d)(?:(?P=mark)(\d\d)(?:[.,](\d{1,9})\d*)?)?)?"
    r"(?P<zone>[Zz]|[+-]\d\d(?:[:_]?\d\d)?)?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Timestamp:
    """The time that a name tells, to the microsecond, as ``datetime.fromisoformat`` reads it.

    ``us`` is in microseconds since 1970. If the name has a time zone (``zoned``), it is an instant.
    Otherwise it is the instant that the digits would be in UTC: it gives an order, not an instant.
    It never depends on the time zone of this machine. ``places`` are the places of the two digits
    of the minute, and of those of the second, in the name; -1 for none.
    """

    us: int
    zoned: bool
    places: tuple[int, int] = field(default=(-1, -1), compare=False)


def parse_timestamp(stem: str) -> Timestamp | None:
    """Return the time that a name without its suffix tells, or None."""
    found = _NAME.fullmatch(stem)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(found[n] or 0) for n in (1, 2, 3, 4, 6, 7))
    if second > 60:
        return None
    try:
        # A leap second counts as the first second of the next minute.
        when = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=_zone(found))
        timestamp = _to_timestamp(when)
    except (ValueError, OverflowError):
        return None
    extra_us = (second - min(second, 59)) * 10**6 + int((found[8] or "").ljust(6, "0")[:6])
    places = found.start(6), found.start(7)
    return Timestamp(timestamp.us + extra_us, timestamp.zoned, places)


def parse_other_timestamp(stem: str) -> Timestamp | None:
    """Return a time that only the blog's scripts accept, such as a date alone, or None."""
    try:
        return (
            _to_timestamp(datetime.fromisoformat(stem)) if parse_timestamp(stem) is None else None
        )
    except (ValueError, OverflowError):
        return None


def _to_timestamp(when: datetime) -> Timestamp:
    """Return a datetime as a timestamp."""
    instant = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    return Timestamp((instant - _EPOCH) // timedelta(microseconds=1), when.tzinfo is not None)


def _zone(found: re.Match[str]) -> timezone | None:
    """Return the time zone of a match, or None."""
    text = found["zone"]
    if not text:
        return None
    if text in "Zz":
        return UTC
    digits = re.sub("[:_]", "", text[1:]).ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(offset if text[0] == "+" else -offset)
