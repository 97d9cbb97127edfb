"""Which pictures rules keep: examples, and properties of all sets of rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.store.retention import rules
from fsmount.store.retention.amounts import Amount, parse_amount
from fsmount.store.retention.rules import KEPT, PERIODS, Pictures, Rules, kept, ranks

KEEPING = ("last", "within", *PERIODS)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def us(when: datetime) -> int:
    return (when.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def taken(
    times: list[datetime],
    new_bytes: list[int] | None = None,
    series: list[int] | None = None,
    pinned: list[bool] | None = None,
) -> Pictures:
    """Pictures of a clock in UTC."""
    count = len(times)
    at_us = np.array([us(when) for when in times], np.int64)
    return Pictures(
        at_us,
        at_us,
        np.array(new_bytes or [10_000] * count, np.int64),
        np.array(series or [0] * count, np.int64),
        np.array(pinned or [False] * count, bool),
    )


def every(step: timedelta, count: int, first: datetime = datetime(2024, 2, 1)) -> list[datetime]:
    return [first + step * number for number in range(count)]


def stay(pictures: Pictures, **given_rules: str) -> list[int]:
    """The rows that stay."""
    wanted = rules_of({name: parse_amount(text) for name, text in given_rules.items()})
    return [int(row) for row in np.flatnonzero(ranks(pictures, wanted) == KEPT)]


def test_without_rules_everything_stays() -> None:
    assert stay(taken(every(timedelta(hours=1), 5))) == [0, 1, 2, 3, 4]


def test_numbers_count_periods_that_have_pictures() -> None:
    days = every(timedelta(hours=12), 6) + every(timedelta(hours=12), 4, datetime(2024, 5, 1))
    pictures = taken(days)
    # Of equal pictures of a day the last one stays. The newest three days: two in May, one before.
    assert stay(pictures, daily="3") == [5, 7, 9]
    assert stay(pictures, daily="5") == [1, 3, 5, 7, 9]
    # The rule reaches beyond the oldest picture, so that stays as well.
    assert stay(pictures, daily="6") == [0, 1, 3, 5, 7, 9]
    assert stay(pictures, daily="forever") == [0, 1, 3, 5, 7, 9]
    assert stay(pictures, monthly="2") == [5, 9]
    assert stay(pictures, last="2") == [8, 9]
    assert stay(pictures, last="99") == list(range(10))


def test_intervals_end_at_the_newest_picture() -> None:
    pictures = taken(every(timedelta(hours=12), 10))
    # 2024-02-05T12:00 minus a day, which itself is not in the interval.
    assert stay(pictures, within="1d") == [8, 9]
    assert stay(pictures, last="1d") == [8, 9]
    # The day that the interval only touches counts as a whole.
    assert stay(pictures, daily="30h") == [7, 9]
    assert stay(pictures, within="10y") == list(range(10))
    assert stay(pictures, daily="1y") == [0, 1, 3, 5, 7, 9]


def test_the_most_new_content_stays() -> None:
    pictures = taken(every(timedelta(minutes=20), 7), [10, 90, 10, 70, 70, 10, 5])
    assert stay(pictures, hourly="2") == [4, 6]
    assert stay(pictures, hourly="3") == [1, 4, 6]
    assert stay(pictures, hourly="4") == [0, 1, 4, 6]


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("hourly", "2024-02-01T09:59:59.999999", "2024-02-01T10:00:00"),
        ("daily", "2024-02-01T23:59:59", "2024-02-02T00:00:00"),
        ("weekly", "2024-02-04T23:59:59", "2024-02-05T00:00:00"),
        ("monthly", "2024-02-29T23:59:59", "2024-03-01T00:00:00"),
        ("yearly", "2024-12-31T23:59:59", "2025-01-01T00:00:00"),
        ("yearly", "1968-12-31T23:59:59", "1969-01-01T00:00:00"),
    ],
)
def test_where_a_period_ends(name: str, first: str, second: str) -> None:
    times = [datetime.fromisoformat(text) for text in (first, second)]
    numbers = rules.period_of(np.array([us(when) for when in times], np.int64), name)
    assert numbers[1] == numbers[0] + 1
    same = [times[1], times[1] + timedelta(seconds=1)]
    numbers = rules.period_of(np.array([us(when) for when in same], np.int64), name)
    assert numbers[1] == numbers[0]


def test_each_series_has_its_own_count() -> None:
    pictures = taken(every(timedelta(hours=1), 6), series=[0, 0, 0, 7, 7, 7])
    assert stay(pictures, last="1") == [2, 5]
    assert stay(pictures, within="1h") == [2, 5]


def test_idle_runs_keep_their_first_and_last() -> None:
    added = [50_000, 400, 400, 400, 0, 90_000, 400, 400, 50_000, 4096, 4096, 4096, 4097]
    pictures = taken(every(timedelta(minutes=1), len(added)), added)
    found = ranks(pictures, Rules(drop_idle=True))
    assert list(np.flatnonzero(found == 0)) == [2, 3, 10]
    # A keep rule protects some of them; it does not drop pictures that are not idle.
    found = ranks(pictures, Rules(drop_idle=True, last=Amount(count=3)))
    assert list(np.flatnonzero(found == 0)) == [2, 3]


def test_the_budget_takes_the_oldest_of_the_rest_first() -> None:
    pictures = taken(every(timedelta(days=1), 6)[::-1])
    assert list(ranks(pictures, Rules(budget=1))) == [6, 5, 4, 3, 2, 1]
    found = ranks(pictures, Rules(budget=1, last=Amount(count=2)))
    assert list(found) == [KEPT, KEPT, 4, 3, 2, 1]
    assert list(ranks(taken([]), Rules(budget=1, daily=Amount()))) == []


Given = dict[str, Amount | None]
AMOUNTS = st.one_of(
    st.just(Amount()),
    st.builds(Amount, count=st.integers(1, 40)),
    st.builds(Amount, months=st.integers(0, 15), hours=st.integers(1, 3000)),
)
SETS = st.fixed_dictionaries({name: st.none() | AMOUNTS for name in KEEPING})


@st.composite
def archives(draw: st.DrawFn) -> Pictures:
    """Pictures at irregular times, in up to three series, of a clock that jumps in summer."""
    count = draw(st.integers(1, 80))
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    step = draw(st.sampled_from([60, 3600, 86400, 10**6])) * 10**6
    at_us = 1_700_000_000 * 10**6 + np.cumsum(chance.integers(0, step, count)).astype(np.int64)
    chance.shuffle(at_us)
    jump = np.where(at_us % (2 * 10**13) < 10**13, 3600 * 10**6, 0)
    return Pictures(
        at_us,
        at_us + jump,
        chance.choice([0, 400, 4096, 5000, 90_000], count).astype(np.int64),
        chance.integers(0, draw(st.integers(1, 3)), count),
        chance.random(count) < draw(st.sampled_from([0, 0.1])),
    )


def rules_of(given_rules: Mapping[str, Amount | None], **more: Any) -> Rules:
    """Rules by their names."""
    return Rules(**{**given_rules, **more})


def drops(pictures: Pictures, wanted: Rules, asked: float = 1.0) -> rules.Bools:
    """The rows that go; `asked`: the share of the ranks that the budget asks for."""
    found = ranks(pictures, wanted)
    limit = int((found[found < KEPT].max(initial=0)) * asked)
    return np.asarray(found <= limit)


def stricter(amount: Amount, share: float) -> list[Amount]:
    """Amounts that ask for no more than `amount`."""
    if amount.count is not None:
        return [amount, Amount(count=max(1, int(amount.count * share)))]
    shorter = Amount(months=int(amount.months * share), hours=int(amount.hours * share) or 1)
    found = [amount, shorter]
    if amount.is_forever:
        found += [Amount(count=max(1, int(60 * share))), Amount(hours=1 + int(9000 * share))]
    return found


@given(archives(), SETS, st.booleans(), st.none() | st.just(1), st.floats(0, 1), st.floats(0, 1))
def test_no_rule_drops_what_a_stricter_reading_of_another_one_keeps(
    pictures: Pictures,
    given_rules: Given,
    drop_idle: bool,
    budget: int | None,
    asked: float,
    share: float,
) -> None:
    wanted = rules_of(given_rules, drop_idle=drop_idle, budget=budget)
    gone = drops(pictures, wanted, asked)
    for name, amount in wanted.keeping().items():
        for each in stricter(amount, share):
            assert not (kept(pictures, rules_of({name: each})) & gone).any()
    assert not (pictures.pinned & gone).any()
    if not wanted:
        assert not gone.any()


@given(archives(), SETS, st.sampled_from(KEEPING), AMOUNTS, st.booleans())
def test_one_more_keep_rule_never_keeps_less(
    pictures: Pictures,
    given_rules: Given,
    name: str,
    amount: Amount,
    drop_idle: bool,
) -> None:
    """Also where it replaces no rule: everything is kept then, or idle runs are thinned out."""
    fewer = rules_of({**given_rules, name: None}, drop_idle=drop_idle)
    more = rules_of({**given_rules, name: amount}, drop_idle=drop_idle)
    if fewer:
        assert not (drops(pictures, more) & ~drops(pictures, fewer)).any()


@given(archives(), SETS)
def test_drop_rules_drop_no_more_than_keep_rules_alone(
    pictures: Pictures, given_rules: Given
) -> None:
    keep = rules_of(given_rules)
    if keep:
        alone = drops(pictures, keep)
        assert not (drops(pictures, replace(keep, drop_idle=True)) & ~alone).any()
        assert (drops(pictures, replace(keep, budget=1)) == alone).all()


@given(archives(), SETS, st.booleans())
def test_pruning_again_drops_nothing(
    pictures: Pictures, given_rules: Given, drop_idle: bool
) -> None:
    wanted = rules_of(given_rules, drop_idle=drop_idle)
    left = ~drops(pictures, wanted)
    again = pictures.rows(left)
    assert not drops(again, wanted).any()


def test_pruning_again_at_the_end_of_a_month() -> None:
    """A month before December 31 is the same day as a month before December 30."""
    times = [datetime(2023, 11, 29, 9), datetime(2023, 11, 30, 12)]
    times += [datetime(2023, 12, 30, 23), datetime(2023, 12, 31, 0, 30)]
    pictures = taken(times, [9, 5, 9, 5])
    wanted = rules_of({"weekly": parse_amount("1m")})
    left = ~drops(pictures, wanted)
    assert not left[-1]
    assert not drops(pictures.rows(left), wanted).any()


@given(archives(), SETS, st.integers(1, 60), st.integers(1, 60), st.sampled_from(PERIODS))
def test_larger_numbers_keep_more(
    pictures: Pictures, given_rules: Given, one: int, other: int, name: str
) -> None:
    low, high = sorted((one, other))
    few = drops(pictures, rules_of({**given_rules, name: Amount(count=low)}))
    many = drops(pictures, rules_of({**given_rules, name: Amount(count=high)}))
    assert not (many & ~few).any()


@given(archives(), st.data())
def test_as_restic_does_it(pictures: Pictures, data: st.DataObject) -> None:
    """The loop of restic (internal/data/snapshot_policy.go), with the last picture of each."""
    name = data.draw(st.sampled_from(PERIODS))
    amount = data.draw(AMOUNTS.filter(lambda found: not found.is_interval or found.is_forever))
    alike = pictures._replace(
        wall_us=pictures.at_us,
        new_bytes=np.zeros_like(pictures.new_bytes),
        pinned=np.zeros_like(pictures.pinned),
    )
    expected = np.zeros(len(alike.at_us), bool)
    for number in set(alike.series.tolist()):
        rows = [
            row for row in np.argsort(alike.at_us, kind="stable") if alike.series[row] == number
        ]
        left, last = amount.count if amount.count is not None else -1, None
        for at, row in enumerate(reversed(rows)):
            period = int(rules.period_of(alike.at_us[row : row + 1], name)[0])
            if left != 0 and (period != last or at == len(rows) - 1):
                expected[row], last = True, period
                left -= left > 0
    assert (kept(alike, rules_of({name: amount})) == expected).all()
