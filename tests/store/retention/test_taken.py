"""The time when a picture was taken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.store.retention.calendar import months_later
from fsmount.store.retention.taken import LocalClock

MTIME_NS = 1_700_000_000_123_456_789


@pytest.fixture(name="east")
def two_hours_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is two hours ahead of UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC-2")
        time.tzset()
        yield
    time.tzset()


def us(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 10**6)


@pytest.mark.usefixtures("east")
@pytest.mark.parametrize(
    ("name", "wall"),
    [
        ("2024-06-06T17:41:00.png", "2024-06-06T17:41:00"),
        ("2024-06-06T17:41:00+02:00.png", "2024-06-06T17:41:00"),
        ("2024-06-06T17:41:00Z.png", "2024-06-06T19:41:00"),
        ("2024-06-06T17_41_00+0000.png", "2024-06-06T19:41:00"),
        ("20240606_174100.png", "2024-06-06T17:41:00"),
        ("Screenshot_20240606-174100.png", "2024-06-06T17:41:00"),
        ("Screenshot from 2024-06-06 17-41-00.png", "2024-06-06T17:41:00"),
        ("Bildschirmfoto vom 2024-06-06 17-41-00-2.png", "2024-06-06T17:41:00"),
        ("2024-06-06-174100_1920x1080_scrot.png", "2024-06-06T17:41:00"),
        ("20240606_17h41m00s_grim.png", "2024-06-06T17:41:00"),
        ("Screenshot 2024-06-06 at 17.41.00.png", "2024-06-06T17:41:00"),
        ("Screenshot 2024-06-06 at 5.41.00 PM.png", "2024-06-06T17:41:00"),
        ("Screenshot 2024-06-06 at 12.41.00\u202fAM (2).png", "2024-06-06T00:41:00"),
        ("shot 2024-06-06 17:41.png", "2024-06-06T17:41:00"),
    ],
)
def test_time_in_the_name(name: str, wall: str) -> None:
    found = LocalClock().taken(name.encode(), MTIME_NS)
    assert found.wall_us == us(wall)
    assert found.at_us == us(wall) - 2 * 3600 * 10**6


@pytest.mark.usefixtures("east")
@pytest.mark.parametrize(
    "name",
    [
        b"shot.png",
        b"2024-06-06.png",
        b"2024-13-06T17:41:00.png",
        b"2024-06-06 25-41-00 x.png",
        b"Screenshot 2024-06-06 at 17.41.00 PM.png",
        b"120240606_174100.png",
        b"20240606_1741001.png",
        b"\xff\xfe.png",
        b".png",
        b"",
    ],
)
def test_mtime_counts_where_the_name_tells_no_time(name: bytes) -> None:
    at_us = MTIME_NS // 1000
    assert LocalClock().taken(name, MTIME_NS) == (at_us, at_us + 2 * 3600 * 10**6)


def test_summer_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        clock = LocalClock()
        winter = clock.taken(b"2024-01-10T12:00:00.png", 0)
        summer = clock.taken(b"2024-07-10T12:00:00.png", 0)
        assert winter.at_us == us("2024-01-10T11:00:00")
        assert summer.at_us == us("2024-07-10T10:00:00")
        assert clock.taken(b"x", summer.at_us * 1000) == summer
        assert clock.wall(winter.at_us) == winter.wall_us
        for text in ("2024-10-27T00:30:00Z", "2024-10-27T01:30:00Z"):
            assert clock.taken(text.encode() + b".png", 0).wall_us == us("2024-10-27T02:30:00")
    time.tzset()


@given(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=30))
def test_any_time_and_name(mtime_ns: int, name: bytes) -> None:
    found = LocalClock().taken(name, mtime_ns)
    assert abs(found.wall_us - found.at_us) <= 26 * 3600 * 10**6


@given(st.datetimes(datetime(1, 1, 1), datetime(9000, 1, 1)), st.integers(-5000, 5000))
def test_months_later(when: datetime, months: int) -> None:
    try:
        found = months_later(when, months)
    except ValueError:
        assert not 1 <= (when.year * 12 + when.month - 1 + months) // 12 <= 9999
        return
    assert found.year * 12 + found.month == when.year * 12 + when.month + months
    assert found.time() == when.time()
    assert found.day == when.day or (found + timedelta(days=1)).day == 1


_DIGITS = st.integers(0, 99).map("{:02d}".format)
_SHAPES = st.sampled_from(
    [
        "2024-{0}-{1}T{2}:{3}:{4}.png",
        "2024-{0}-{1}T{2}:{3}:{4}+0{1}00.png",
        "2024-03-31T0{2}:{3}:{4}.png",
        "2024-06-{1}T{2}{3}.png",
        "2024-06-06T{2}:{3}:{4}.{0}.png",
        "Screenshot from 2024-06-{1} {2}-{3}-{4}.png",
        "20{0}0606_{2}{3}{4}.png",
        "{0}{1}-19{2}{3}{4}_2024-06-06_10-{3}-{4}.png",
        "Screenshot 2024-06-06 at 5.{3}.{4} PM.png",
        "shot 2024-06-06 17:{3}.png",
        "\xe9 2024-06-06 17:{3}:{4}.png",
    ]
)


@given(st.lists(st.tuples(_SHAPES, st.tuples(*[_DIGITS] * 5)), min_size=2, max_size=40))
def test_what_is_remembered_changes_nothing(names: list[tuple[str, tuple[str, ...]]]) -> None:
    """Summer time begins on 2024-03-31 in some zones; the zone of the machine is any."""
    clock = LocalClock()
    for shape, digits in names:
        name = shape.format(*digits).encode()
        assert clock.taken(name, MTIME_NS) == LocalClock().taken(name, MTIME_NS)


@given(
    st.lists(st.tuples(_SHAPES, st.tuples(*[_DIGITS] * 5)), max_size=12),
    st.tuples(_SHAPES, _DIGITS, _DIGITS, _DIGITS),
    st.lists(st.tuples(st.integers(0, 61), st.integers(0, 61)), max_size=40),
)
def test_many_at_once(
    mixed: list[tuple[str, tuple[str, ...]]],
    form: tuple[str, str, str, str],
    clocks: list[tuple[int, int]],
) -> None:
    """Names of any forms, and names of one form that follow each other."""
    shape, *first = form
    alike = [shape.format(*first, f"{minute:02}", f"{second:02}") for minute, second in clocks]
    for names in ([shape.format(*digits) for shape, digits in mixed], alike, sorted(alike)):
        at, wall = LocalClock().taken_all([name.encode() for name in names], range(len(names)))
        wanted = [LocalClock().taken(name.encode(), n) for n, name in enumerate(names)]
        assert list(zip(at.tolist(), wall.tolist(), strict=True)) == wanted


def test_the_hour_in_which_summer_time_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Australia/Lord_Howe")
        time.tzset()
        clock = LocalClock()
        for minute in range(24 * 60):
            name = b"2024-10-06T%02d:%02d:30.png" % divmod(minute, 60)
            assert clock.taken(name, 0) == LocalClock().taken(name, 0)
    time.tzset()
