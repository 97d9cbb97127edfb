"""Activity, habits and growth from times and bytes alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from fsmount.web import activity, layouts, storage
from fsmount.web.table import DAY_US, Pictures
from tests.support.frames import screens

BUSY, IDLE = 10_000, 300
Row = tuple[str, int]


def pictures(rows: Sequence[Row], *, staged: int = 0) -> Pictures:
    """Pictures with local times and stored bytes; the last ones are `staged`."""
    epoch = datetime(1970, 1, 1)
    wall = [round((datetime.fromisoformat(at) - epoch).total_seconds()) * 10**6 for at, _ in rows]
    count = len(rows)
    numbers = np.arange(1, count + 1)
    numbers[count - staged :] = 0
    return Pictures(
        np.arange(1, count + 1, dtype=np.int64),
        np.array(wall, np.int64),
        numbers.astype(np.uint32),
        np.array([stored for _, stored in rows], np.uint32),
        np.full(count, 100_000, np.uint32),
        np.zeros(count, np.int32),
        [b"screen"],
        1,
    )


def minutes_of(day: str, start: int, end: int, stored: int, step: int = 1) -> list[Row]:
    return [(f"{day}T{m // 60:02}:{m % 60:02}:05", stored) for m in range(start, end, step)]


def test_nothing() -> None:
    nothing = pictures([])
    assert activity.by_day(nothing) == []
    found = activity.habits(nothing)
    assert (found["days"], found["active_min"], found["idle"], found["busiest"]) == (0, 0, [], [])
    assert storage.by_month(nothing)["months"] == []
    assert layouts.samples(nothing, slice(None)) == []


def test_a_minute_is_active_if_one_of_its_pictures_is_busy() -> None:
    rows = minutes_of("2026-03-12", 540, 600, BUSY) + minutes_of("2026-03-12", 600, 660, IDLE)
    # A second screen: its pictures come some seconds later, and bring nothing.
    rows += [(at.replace(":05", ":40"), IDLE) for at, _ in rows]
    assert activity.by_day(pictures(sorted(rows))) == [["2026-03-12", 240, 60, 60, None]]


def test_screens_are_the_sum_of_shares_of_busy_pictures() -> None:
    rows = [("2026-03-12T09:00:00", BUSY), ("2026-03-12T09:01:00", IDLE)]
    rows += [("2026-03-12T09:02:00", BUSY), ("2026-03-13T09:00:00", IDLE)]
    rows += [("2026-03-14T09:00:00", BUSY), ("2026-03-14T09:01:00", BUSY)]
    some = pictures(rows, staged=1)
    shares = np.array([1, np.nan, 0.25, np.nan, 0.5, np.nan], np.float32)
    assert [row[4] for row in activity.by_day(some, shares)] == [1.25, 0.0, 0.5]


def test_a_busy_picture_stands_for_five_minutes_at_most() -> None:
    for step, active in ((1, 60), (2, 60), (5, 60), (10, 30), (60, 1)):
        rows = minutes_of("2026-03-12", 0, 60, BUSY, step)
        found = activity.by_day(pictures(rows))[0][3]
        # The last one has no next one, and stands for one minute.
        assert active - 5 <= found <= active, step


def test_habits_add_up() -> None:
    chance = random.Random(4)
    rows = []
    for day in range(1, 29):
        for month in ("2025-12", "2026-01", "2026-02"):
            start = chance.randrange(300, 800)
            rows += minutes_of(f"{month}-{day:02}", start, start + 60, BUSY)
            rows += minutes_of(f"{month}-{day:02}", start + 60, start + 90 + day, IDLE)
    all_of_them = pictures(sorted(rows))
    found = activity.habits(all_of_them)
    days = activity.by_day(all_of_them)
    assert sum(map(sum, found["hours"])) == found["active_min"] == sum(row[3] for row in days)
    assert found["days"] == sum(found["weekdays"]) == len(days) == 84
    assert [name for name, _ in found["months"]] == ["2025-12", "2026-01", "2026-02"]
    assert sum(active for _, active in found["months"]) == found["active_min"]
    assert found["years"] == [2025, 2026]
    # The idle time of a day is as long as its number.
    assert {row[0][8:10] for row in found["idle"]} <= {"28", "27"}
    assert [row[2] for row in found["idle"]] == sorted((r[2] for r in found["idle"]), reverse=True)
    first, second = (activity.habits(all_of_them, year) for year in (2025, 2026))
    assert (first["days"], second["days"]) == (28, 56)
    assert first["active_min"] + second["active_min"] == found["active_min"]


def test_weekdays_begin_with_monday() -> None:
    found = activity.habits(pictures(minutes_of("2026-03-12", 600, 630, BUSY)))
    assert found["hours"][3][10] == 30
    assert found["weekdays"] == [0, 0, 0, 1, 0, 0, 0]
    assert found["busiest"] == [["2026-03-12", 30]]


def test_a_machine_that_is_off_is_not_idle() -> None:
    rows = minutes_of("2026-03-12", 0, 60, IDLE) + minutes_of("2026-03-12", 600, 640, IDLE)
    idle = activity.habits(pictures(rows))["idle"]
    assert idle == [
        ["2026-03-12T00:00", "2026-03-12T00:59", 60],
        ["2026-03-12T10:00", "2026-03-12T10:39", 40],
    ]
    # A night goes on over midnight.
    night = minutes_of("2026-03-12", 1380, 1440, IDLE) + minutes_of("2026-03-13", 0, 60, IDLE)
    assert activity.habits(pictures(night))["idle"][0][2] == 120


def test_rows_of_a_day() -> None:
    found = pictures(minutes_of("2026-03-11", 1439, 1440, IDLE) + minutes_of("2026-03-12", 0, 2, 1))
    rows = found.of_day(datetime(2026, 3, 12).date())
    assert (rows.start, rows.stop) == (1, 3)
    assert (found.wall_us[rows] % DAY_US).tolist() == [5 * 10**6, 65 * 10**6]
    assert found.row(2) == 1
    assert found.row(99) is None


def test_growth() -> None:
    days = [(month, day) for month in (1, 2) for day in range(1, 21)]
    rows = [(f"2026-{month:02}-{day:02}T12:00:00", BUSY) for month, day in days]
    found = storage.by_month(pictures(rows, staged=3))
    assert found["months"] == [
        ["2026-01", 20, 2_000_000, 20 * BUSY],
        ["2026-02", 20, 2_000_000, 20 * BUSY],
    ]
    assert found["staged"] == [3, 300_000]
    # The last 30 days begin on the 22nd of January.
    assert found["per_day"] == {"days": 30, "stored": 20 * BUSY / 30, "pictures": 20 / 30}


def test_moments_that_look_alike_are_one_arrangement() -> None:
    frames = screens(2, seed=3, height=18, width=32)
    other = screens(1, seed=8, height=18, width=32)[0] // 4
    light = np.clip(frames[0].astype(int) + 6, 0, 255).astype(np.uint8)
    signatures = [each.tobytes() for each in (frames[0], other, light, frames[0], other)]
    groups = layouts.grouped(signatures)
    assert [sorted(group) for group in groups] == [[0, 2, 3], [1, 4]]
    rows = minutes_of("2026-03-12", 0, 6, BUSY)
    told = layouts.told([*groups, [5]], list(range(6)), pictures(rows))
    assert [row[2] for row in told] == [3, 2], "what was seen once does not recur"
    assert told[0][3] == 0.5
    assert layouts.grouped([]) == []


def test_samples_are_spread_and_bounded() -> None:
    many = pictures(minutes_of("2026-03-12", 0, 1440, BUSY))
    found = layouts.samples(many, slice(100, 1440))
    assert len(found) == layouts.SAMPLES
    assert (found[0], found[-1]) == (100, 1439)
    assert found == sorted(set(found))
