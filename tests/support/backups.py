"""What a store shows and what a check finds, for tests that copy whole stores."""

from __future__ import annotations

from pathlib import Path

import trio

from fsmount.store.recovery.check import check_contents, check_relations
from fsmount.store.store import open_read_store
from tests.support.encoding import forget_caches, get


def shown(root: Path) -> dict[bytes, bytes]:
    """All files of a store by path, as a reader gets them."""
    forget_caches()

    async def read() -> dict[bytes, bytes]:
        with open_read_store(root) as opened:
            async with opened.running(count=1) as store:
                found = {}
                for path, node in store.index.walk():
                    if node.object_id is not None or node.staged is not None:
                        found[path] = await get(store, node.ino)
                return found

    return trio.run(read)


def faults(root: Path) -> list[tuple[str, str]]:
    """What `check --full` finds."""
    forget_caches()

    async def look() -> list[tuple[str, str]]:
        with open_read_store(root) as opened:
            report = check_relations(opened)
            async with opened.running(count=1) as store:
                await check_contents(store, report, lambda count: None)
        return [(f.what, f.why) for f in report.findings]

    return trio.run(look)
