"""Plans a run of the policy of a store, in a worker process: it reads all rows of the index."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.index import Index
from fsmount.store.layout import Layout
from fsmount.store.packs.staging import Staging
from fsmount.store.retention.pictures import KeptList
from fsmount.store.retention.pruning import Plan, plan
from fsmount.store.retention.rules import Rules
from fsmount.store.retention.trash import Name
from fsmount.store.transfer.selecting import prunable


class Run(NamedTuple):
    """What a run of the policy does.

    names : of the pictures that go. nbytes : their sizes together. left_bytes : what the store
    takes when they have left the trash. is_over_budget : whether that is more than the budget.
    """

    names: list[Name]
    nbytes: int
    left_bytes: int
    is_over_budget: bool


def plan_policy(store: StoreFiles, rules: Rules) -> Plan:
    """Plan a prune of all pictures of a store. Reads all rows. Raises OSError, Damaged."""
    percent = config.parity_of(config.read(store.layout.root))
    return plan(store.index, prunable(store), rules, KeptList(), percent)


def run_at(root: str, rules: Rules) -> Run:
    """Plan a run for the store at `root`, which another process has open. Runs in a worker."""
    layout, disk = Layout(Path(root)), Disk()
    index = Index(layout.index, disk, read_only=True)
    try:
        store = StoreFiles(layout.root, disk, layout, index, Staging(layout.staging, disk))
        with index.snapshot():
            found = plan_policy(store, rules)
            names = list(found.names())
        return Run(names, found.dropped_bytes, found.left_bytes, found.is_over_budget)
    finally:
        index.close()
