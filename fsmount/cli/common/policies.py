"""The policy of a store for commands, and what `stats` says of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsmount.cli.common.output import counted, size
from fsmount.errors import FsmountError
from fsmount.store import config
from fsmount.store.files import StoreFiles
from fsmount.store.retention.policy import Policy
from fsmount.store.transfer.policing import plan_policy


def policy_of(root: Path) -> Policy | None:
    """Return the policy of a store; None if it has none. Raises FsmountError if it is no policy."""
    try:
        return Policy.of(config.read(root))
    except ValueError as error:
        raise FsmountError(f"{error}; fsmount policy set writes a new one") from error


def policy_figures(store: StoreFiles) -> dict[str, Any] | None:
    """Return the policy, its last run and its next one for JSON, or None. Reads all rows."""
    policy = policy_of(store.layout.root)
    if policy is None:
        return None
    last = store.index.pruned()
    found = plan_policy(store, policy.rules)
    return {
        "rules": str(policy.rules),
        "every_hours": policy.every_hours,
        "last_ns": last[0] if last else None,
        "last_files": last[1] if last else 0,
        "last_bytes": last[2] if last else 0,
        "next_ns": max(policy.next_ns(last[0] if last else None), time.time_ns()),
        "next_files": found.count,
        "next_bytes": found.dropped_bytes,
        "over_budget": found.is_over_budget,
        "months_left": found.months_left,
    }


def policy_lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the figures in words."""
    yield f"policy: {found['rules']}"
    if found["last_ns"] is not None:
        files, nbytes = counted(found["last_files"], "file"), size(found["last_bytes"])
        yield f"  last run {_when(found['last_ns'])}: {files} ({nbytes}) went to the trash"
    files, nbytes = counted(found["next_files"], "file"), size(found["next_bytes"])
    yield (
        f"  next run of a mount with -o prune, from {_when(found['next_ns'])} on: {files}"
        f" ({nbytes}), as the store is now"
    )
    if found["over_budget"]:
        yield "  what the policy keeps takes more than its budget"
    elif found["months_left"] is not None:
        yield f"  about {found['months_left']:.0f} months until the budget is full"


def _when(time_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_ns // 10**9))
