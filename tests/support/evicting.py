"""Stores some packs of which are at a URL only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio

from fsmount.errors import RemoteFailed
from fsmount.remote.away import Connect, away_packs
from fsmount.remote.evict import EvictSummary, bring_back, evict
from fsmount.remote.reading import for_reading
from fsmount.remote.transport import Transport, transport_to
from fsmount.store.disk.disk import Disk
from fsmount.store.layout import Layout
from fsmount.store.store import open_read_store, open_store
from fsmount.store.writable_store import WritableStore
from tests.support.encoding import forget_caches, get, put
from tests.support.remotes import read_all


def evicted(
    root: Path, remote: str | Transport, *, keep: int = 0, disk: Disk | None = None
) -> EvictSummary:
    """Drop the packs of a store that are at a URL."""
    forget_caches()
    remote = transport_to(remote) if isinstance(remote, str) else remote
    with open_store(root, disk=disk, elsewhere=True) as store:
        return evict(store, remote, keep=keep)


def returned(root: Path, remote: str | Transport, *, disk: Disk | None = None) -> EvictSummary:
    """Bring the packs of a store back."""
    forget_caches()
    remote = transport_to(remote) if isinstance(remote, str) else remote
    with open_store(root, disk=disk, elsewhere=True) as store:
        return bring_back(store, remote)


def lost_network(url: str) -> Transport:
    """Connects to nothing."""
    raise RemoteFailed(url, reason="there is no network")


def shown_partly(
    root: Path, caches: Path, *, budget: int = 1 << 30, connect: Connect = for_reading
) -> dict[bytes, bytes]:
    """All files of a store, as a mount for reading shows them."""
    forget_caches()

    async def read() -> dict[bytes, bytes]:
        with open_read_store(root, elsewhere=True) as opened:
            identity = opened.index.identity()
            async with (
                away_packs(
                    opened.away, identity, caches, budget=budget, limit_s=60.0, connect=connect
                ) as packs,
                opened.running(count=1, packs=packs) as store,
            ):
                return await read_all(store)

    return trio.run(read)


def taken(
    root: Path,
    caches: Path,
    files: dict[bytes, bytes],
    *,
    connect: Connect = for_reading,
    look: Callable[[WritableStore], None] = lambda store: None,
) -> dict[bytes, bytes]:
    """Put files into a store as a mount does. Return what it shows of them then."""
    forget_caches()

    async def work() -> dict[bytes, bytes]:
        with open_store(root, elsewhere=True) as opened:
            identity = opened.index.identity()
            async with (
                away_packs(
                    opened.away, identity, caches, budget=1 << 30, limit_s=60.0, connect=connect
                ) as packs,
                opened.running(count=1, packs=packs) as store,
            ):
                numbers = {}
                for name, data in files.items():
                    numbers[name] = put(store, name, data)
                    await store.drain()
                look(store)
                return {name: await get(store, ino) for name, ino in numbers.items()}

    return trio.run(work)


def packs_here(root: Path) -> set[int]:
    """Numbers of the packs that are in a store."""
    return {int(path.stem) for path in Layout(root).packs.glob("*.zip")}
