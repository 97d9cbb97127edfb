"""The order of a repair on an open store; :mod:`repair` has the steps."""

from __future__ import annotations

from collections.abc import Callable

from fsmount.store.recovery.check import Report, check_contents, check_relations
from fsmount.store.recovery.repair import Repairs, cut, heal, hopeless
from fsmount.store.store import Store


async def mend(store: Store, repairs: Repairs, progress: Callable[[int], None]) -> Report:
    """Heal and cut; what is still found afterwards. The store is open for writing and running."""
    heal(store.layout, store.index, store.disk, repairs)
    report = await _check(store, progress)
    if report.readable and report.findings:
        bad = hopeless(store.layout, store.index, report.unreadable)
        cut(store.layout, store.index, store.disk, bad, repairs)
        report = await _check(store, progress)
    # They may be what was damaged.
    store.renew_copies()
    return report


async def _check(store: Store, progress: Callable[[int], None]) -> Report:
    report = check_relations(store)
    if report.readable:
        await check_contents(store, report, progress)
    return report
