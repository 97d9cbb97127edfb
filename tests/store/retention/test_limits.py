"""How much the trash holds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.store.index.trash import Trashed
from fsmount.store.retention.limits import TrashLimits

DAY_NS = 86400 * 10**9
NOW_NS = 20_000 * DAY_NS


def names(*entries: tuple[float, int]) -> list[tuple[bytes, int]]:
    """Names by the days since their deletion and their bytes, the oldest first."""
    return [
        (Trashed(NOW_NS - int(days * DAY_NS), b"%d" % number).name, nbytes)
        for number, (days, nbytes) in enumerate(entries)
    ]


@pytest.mark.parametrize(
    ("limits", "leaving"),
    [
        (TrashLimits(), 1),
        (TrashLimits(days=9), 2),
        (TrashLimits(days=0), 4),
        (TrashLimits(days=None), 0),
        (TrashLimits(days=None, most_bytes=100), 0),
        (TrashLimits(days=None, most_bytes=99), 1),
        (TrashLimits(days=None, most_bytes=29), 4),
        (TrashLimits(days=9, most_bytes=31), 3),
    ],
)
def test_the_oldest_leave(limits: TrashLimits, leaving: int) -> None:
    found = names((30, 10), (10, 20), (8.9, 40), (-3, 30))
    assert limits.leaving(found, NOW_NS) == [name for name, _ in found[:leaving]]


@given(
    st.lists(st.tuples(st.floats(-9, 99), st.integers(0, 99)), max_size=20),
    st.none() | st.integers(0, 99),
    st.none() | st.integers(0, 999),
)
def test_what_stays_is_within_the_limits(
    entries: list[tuple[float, int]], days: int | None, most: int | None
) -> None:
    found = names(*sorted(entries, reverse=True))
    gone = TrashLimits(days, most).leaving(found, NOW_NS)
    assert gone == [name for name, _ in found[: len(gone)]]
    left = sum(nbytes for _, nbytes in found[len(gone) :])
    assert most is None or left <= most or not found[len(gone) :]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, TrashLimits()),
        ({"trash": {"days": 7, "bytes": 5}}, TrashLimits(7, 5)),
        ({"trash": {"days": None}}, TrashLimits(None, None)),
        ({"trash": {"days": -1, "bytes": "x"}}, TrashLimits()),
        ({"trash": True}, TrashLimits()),
    ],
)
def test_limits_of_a_config(config: dict[str, Any], expected: TrashLimits) -> None:
    assert TrashLimits.of(config) == expected
    assert TrashLimits.of({"trash": expected.value()}) == expected
