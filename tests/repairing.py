"""`check --repair` without the command line."""

from __future__ import annotations

from pathlib import Path

from fsmount.store.disk.disk import Disk
from fsmount.store.recovery.check import Report
from fsmount.store.recovery.repair import Repairs, rebuild_index, repair_store
from fsmount.store.store import open_store
from tests.support.encoding import forget_caches


async def repair(root: Path, disk: Disk | None = None) -> tuple[Repairs, Report]:
    """Repair the store at `root`: what was done, and what is still found."""
    forget_caches()
    repairs = rebuild_index(root, disk or Disk())
    opened = open_store(root, disk=disk)
    try:
        async with opened.running(count=1) as store:
            return repairs, await repair_store(store, repairs, lambda count: None)
    finally:
        opened.close()
