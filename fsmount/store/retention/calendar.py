"""Months of the calendar."""

from __future__ import annotations

import calendar
from datetime import date, datetime


def months_later(when: datetime, months: int) -> datetime:
    """Return the same day and time so many months later, or earlier if `months` is negative.

    A day that the month does not have becomes its last day. Raises ValueError for years beyond 1 to
    9999.
    """
    year, month = divmod(when.year * 12 + when.month - 1 + months, 12)
    if not 1 <= year <= 9999:
        raise ValueError(f"the year {year}")
    day = min(when.day, calendar.monthrange(year, month + 1)[1])
    return datetime.combine(date(year, month + 1, day), when.timetz())
