"""Amounts of a rule: a number (``7``), an interval (``30d``, ``1y6m``), or ``forever``.

The words are those of restic (``--keep-within 1y5m7d2h``) and borg 2 (each rule takes a number or
an interval). Years and months are those of the calendar.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from fsmount.store.retention.calendar import months_later

FOREVER = ("forever", "unlimited")
_INTERVAL = re.compile(r"(?=.)(?:(\d+)y)?(?:(\d+)m)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_EVER = -(1 << 62)
EXAMPLES = "write for example 24, 30d, 1y6m or forever (y, m, w, d and h: years to hours)"


@dataclass(frozen=True, slots=True)
class Amount:
    """How much a rule keeps: the newest `count`, or an interval up to the newest picture.

    Without a count and with an interval of nothing it is forever.
    """

    count: int | None = None
    months: int = 0
    hours: int = 0

    def __str__(self) -> str:
        """Return the text that :func:`parse_amount` reads."""
        if self.count is not None:
            return str(self.count)
        years, months = divmod(self.months, 12)
        days, hours = divmod(self.hours, 24)
        parts = (years, "y"), (months, "m"), (days, "d"), (hours, "h")
        return "".join(f"{number}{unit}" for number, unit in parts if number) or FOREVER[0]

    @property
    def is_forever(self) -> bool:
        """Whether the amount has no end."""
        return self.count is None and not (self.months or self.hours)

    @property
    def is_interval(self) -> bool:
        """Whether it is an interval, or forever."""
        return self.count is None

    def start_us(self, newest_us: int) -> int:
        """Return the time at which an interval begins that ends at `newest_us`.

        Both are microseconds of the local clock (:class:`~fsmount.store.retention.taken.Taken`).
        What was taken after the result belongs to the interval.
        """
        if self.is_forever:
            return _EVER
        try:
            newest = _EPOCH + timedelta(microseconds=newest_us)
            start = months_later(newest, -self.months)
            if start.day < newest.day:
                # The month is too short. An interval that ends earlier never begins later, so this
                # one begins behind those of all days before. Otherwise a prune that drops the
                # newest picture could drop others when it runs again.
                start = datetime.combine(start.date(), time.max)
            start -= timedelta(hours=self.hours)
        except (ValueError, OverflowError):
            return _EVER
        return (start - _EPOCH) // _MICROSECOND


def parse_amount(text: str) -> Amount:
    """Parse an amount. Raises ValueError if the text is none, or is nothing (``0``, ``0d``)."""
    if text in FOREVER:
        return Amount()
    if text.isascii() and text.isdecimal() and 0 < int(text) < 1 << 62:
        return Amount(count=int(text))
    found = _INTERVAL.fullmatch(text)
    if found is None or not any(int(part or 0) for part in found.groups()):
        raise ValueError(f"{text!r} is no amount; {EXAMPLES}")
    years, months, weeks, days, hours = (int(part or 0) for part in found.groups())
    return Amount(months=12 * years + months, hours=24 * (7 * weeks + days) + hours)
