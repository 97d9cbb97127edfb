"""Numbers, intervals and forever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.store.retention.amounts import Amount, parse_amount

EPOCH = datetime(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)


def us(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 10**6)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("30d", "2024-02-01T12:00:00"),
        ("1m", "2024-02-02T12:00:00"),
        ("1y", "2023-03-02T12:00:00"),
        ("1y1m", "2023-02-02T12:00:00"),
        ("2w", "2024-02-17T12:00:00"),
        ("1w1d", "2024-02-23T12:00:00"),
        ("36h", "2024-03-01T00:00:00"),
        ("1y5m7d2h", "2022-09-25T10:00:00"),
    ],
)
def test_where_an_interval_begins(text: str, start: str) -> None:
    amount = parse_amount(text)
    assert amount.is_interval and not amount.is_forever
    assert amount.start_us(us("2024-03-02T12:00:00")) == us(start)
    assert parse_amount(str(amount)) == amount


def test_the_last_day_of_a_month() -> None:
    """A month before it is the end of a shorter month."""
    begins = us("2024-03-01T00:00:00") - 1
    assert parse_amount("1m").start_us(us("2024-03-31T00:00:00")) == begins
    assert parse_amount("1m").start_us(us("2024-03-30T23:00:00")) == begins
    assert parse_amount("1m").start_us(us("2024-03-29T23:00:00")) == us("2024-02-29T23:00:00")


@given(
    st.datetimes(datetime(1999, 1, 1), datetime(2030, 1, 1)),
    st.timedeltas(timedelta(0), timedelta(days=40)),
    st.integers(0, 30),
    st.integers(0, 100),
)
def test_an_interval_that_ends_later_never_begins_earlier(
    end: datetime, later: timedelta, months: int, hours: int
) -> None:
    amount = Amount(months=months, hours=hours)
    begins = [amount.start_us((when - EPOCH) // MICROSECOND) for when in (end, end + later)]
    assert begins[0] <= begins[1]


@pytest.mark.parametrize("text", ["forever", "unlimited", "99999y"])
def test_without_an_end(text: str) -> None:
    assert parse_amount(text).start_us(us("2024-03-02T12:00:00")) < us("0001-01-01T00:00:00")
    assert parse_amount("forever") == Amount() and Amount().is_forever


def test_numbers() -> None:
    assert parse_amount("24") == Amount(count=24)
    assert [str(Amount(count=24)), str(Amount()), str(Amount(months=13, hours=50))] == [
        "24",
        "forever",
        "1y1m2d2h",
    ]
    assert not parse_amount("24").is_interval


@pytest.mark.parametrize("text", ["", "0", "0d", "-1", "1.5", "d", "3x", "1d1y", "30D", "1 d", "²"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="is no amount"):
        parse_amount(text)
