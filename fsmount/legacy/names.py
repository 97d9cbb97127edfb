"""The time in a screenshot's name, as `date -I` writes it and as people have varied it since."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_NAME = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)[T _]"
    r"(\d\d)(?:(?P<mark>[:.-]?)(\d\d)(?:(?P=mark)(\d\d)(?:[.,](\d{1,9})\d*)?)?)?"
    r"(?P<zone>[Zz]|[+-]\d\d(?::?\d\d)?)?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(stem: str) -> int | None:
    """The time a name without its suffix tells, in ns since 1970; None if it tells none.

    A time without zone is local time here, as `datetime.timestamp` has it.
    """
    found = _NAME.fullmatch(stem)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(found[n] or 0) for n in (1, 2, 3, 4, 6, 7))
    try:
        when = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=_zone(found))
        seconds = (when.astimezone(UTC) - _EPOCH) // timedelta(seconds=1)
    except (ValueError, OverflowError):
        return None
    # A leap second has a name of its own.
    seconds += second - min(second, 59)
    return seconds * 10**9 + int((found[8] or "").ljust(9, "0"))


def _zone(found: re.Match[str]) -> timezone | None:
    text = found["zone"]
    if not text:
        return None
    if text in "Zz":
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(offset if text[0] == "+" else -offset)
