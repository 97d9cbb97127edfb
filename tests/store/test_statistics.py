"""The figures of a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsmount.store.index import ROOT
from fsmount.store.store import open_store
from tests.support.encoding import put
from tests.support.frames import png, screens

NOTE = b"not a picture"


def test_stats_of_an_empty_store(root: Path) -> None:
    store = open_store(root)
    stats = store.stats()
    assert stats["files"] == stats["frames"] == stats["logical_bytes"] == 0
    assert stats["objects"] == {"key": 0, "delta": 0, "jpeg": 0, "raw": 0, "staged": 0}
    assert stats["ratio"] == 0
    store.close()


@pytest.mark.usefixtures("inline")
async def test_stats(root: Path) -> None:
    opened = open_store(root)
    data = png(screens(1)[0])
    async with opened.running(count=1) as store:
        put(store, b"a", data)
        put(store, b"b", data)
        await store.drain()
        held = put(store, b"c", NOTE)
        store.hold(held)
        stats = store.stats()
    assert (stats["files"], stats["frames"], stats["packs"]) == (3, 2, 1)
    assert stats["logical_bytes"] == 2 * len(data) + len(NOTE)
    assert stats["objects"]["staged"] == 1
    assert stats["max_depth"] == 0
    assert stats["ratio"] == round(stats["logical_bytes"] / stats["stored_bytes"], 2)
    assert opened.index.lookup(ROOT, b"c") is not None
    opened.close()
