"""The policy in the config of a store."""

from __future__ import annotations

from typing import Any

import pytest

from fsmount.store.retention.amounts import parse_amount
from fsmount.store.retention.policy import Policy
from fsmount.store.retention.rules import Rules

HOUR_NS = 3600 * 10**9


@pytest.mark.parametrize(
    "policy",
    [
        Policy(Rules(within=parse_amount("30d"), daily=parse_amount("forever"))),
        Policy(Rules(last=parse_amount("9"), drop_idle=True, budget=5), every_hours=168),
    ],
)
def test_there_and_back(policy: Policy) -> None:
    assert Policy.of({"policy": policy.value()}) == policy


def test_none() -> None:
    assert Policy.of({}) is None
    assert Policy.of({"policy": None}) is None


@pytest.mark.parametrize(
    "found",
    [
        7,
        {"keep": 7},
        {"keep": {"daily": "x"}},
        {"keep": {"within": "7"}},
        {"keep": {"fortnightly": "7"}},
        {"budget": -1},
        {"budget": "5G"},
        {"drop_idle": 1},
        {"every_hours": None},
        {"drop_idle": True, "drop_large": True},
    ],
)
def test_what_makes_no_sense_prunes_nothing(found: Any) -> None:
    """Above all a rule that this version does not know: without it, more would go."""
    with pytest.raises(ValueError, match=r"policy in fsmount\.json|is no amount"):
        Policy.of({"policy": found})


def test_when_it_runs() -> None:
    policy = Policy(Rules(drop_idle=True), every_hours=2)
    assert policy.next_ns(None) == 0
    assert policy.next_ns(5) == 5 + 2 * HOUR_NS
    assert str(policy.rules) == "--drop-idle"
    rules = Rules(within=parse_amount("1y"), budget=7)
    assert str(rules) == "--keep-within 1y --budget 7"
