"""The policy of a store: rules that a mount prunes by, in ``fsmount.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fsmount.store.retention.amounts import parse_amount
from fsmount.store.retention.rules import PERIODS, Rules

KEY = "policy"
"""The key of ``fsmount.json``."""
EVERY_HOURS = 24
_HOUR_NS = 3600 * 10**9


@dataclass(frozen=True, slots=True)
class Policy:
    """A set of rules, and how many hours lie between two runs at least."""

    rules: Rules
    every_hours: int = EVERY_HOURS

    @classmethod
    def of(cls, config: dict[str, Any]) -> Policy | None:
        """Return the policy of a config, or None if it has none.

        Raises ValueError if it makes no sense: then nothing may be pruned by it.
        """
        found = config.get(KEY)
        if found is None:
            return None
        if not isinstance(found, dict):
            raise ValueError("the policy in fsmount.json is no object")
        known = {"every_hours", "drop_idle", "budget", "keep"}
        keep = found.get("keep", {})
        if set(found) - known or not isinstance(keep, dict):
            raise ValueError("the policy in fsmount.json has rules that this fsmount does not know")
        if set(keep) - {"last", "within", *PERIODS}:
            raise ValueError("the policy in fsmount.json has rules that this fsmount does not know")
        amounts = {name: parse_amount(str(text)) for name, text in keep.items()}
        within = amounts.get("within")
        budget, every = found.get("budget"), found.get("every_hours", EVERY_HOURS)
        if (
            not (within is None or within.is_interval)
            or not (budget is None or _is_number(budget))
            or not _is_number(every)
            or not isinstance(found.get("drop_idle", False), bool)
        ):
            raise ValueError("the policy in fsmount.json makes no sense")
        rules = Rules(**amounts, drop_idle=found.get("drop_idle", False), budget=budget)
        return cls(rules, every)

    def value(self) -> dict[str, Any]:
        """Return the value for the config."""
        return {
            "keep": {name: str(amount) for name, amount in self.rules.keeping().items()},
            "drop_idle": self.rules.drop_idle,
            "budget": self.rules.budget,
            "every_hours": self.every_hours,
        }

    def next_ns(self, last_ns: int | None) -> int:
        """Return when the next run is due, from the time of the last one; 0: now. In ns."""
        return 0 if last_ns is None else last_ns + self.every_hours * _HOUR_NS


def _is_number(value: object) -> bool:
    """Whether a value of the config is a number that is not negative."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
