"""Limits of the store for scripts of small files, and no threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import trio

from fsmount.store import store as store_module
from fsmount.store.disk import reserve
from fsmount.store.frames import known_tiles
from fsmount.store.index import database
from fsmount.store.ingest import committer, durability, large, retries
from fsmount.store.maintenance import background, copier, free_space, parity_keeper, reclaim
from fsmount.store.packs import pack
from fsmount.work import machine
from tests.support.encoding import Inline

T = TypeVar("T")
LARGE = 20_000
"""Files with more bytes are large."""


def small_limits() -> None:
    """Lower the limits of the store.

    A script of small files then reaches large files, sealed packs and durability points.
    """
    large.KEEP_BYTES = LARGE
    committer._BATCH_SECONDS = 0.0
    retries._RETRY_SECONDS = 0.002
    pack.SEAL_BYTES = 6_000
    copier._REST = parity_keeper._REST = parity_keeper._LOOK_SECONDS = 0.0
    parity_keeper._NEW_BYTES, parity_keeper._FREE_BYTES = 1000, 0
    reserve.RESERVE_BYTES = 4096
    durability.DURABLE_SECONDS = 0.01
    free_space.LOOK_SECONDS = 0.01
    patch(store_module, "Workers", Inline)
    patch(background, "Workers", Inline)
    patch(background, "_LOOK_SECONDS", 0.0)
    patch(background, "_FREE_PACKS", 0)
    patch(known_tiles, "_FIRST_DUE", 2)
    # A second connection of this process finds the index locked, however long it waits.
    patch(database, "_BUSY_MS", 20)
    patch(reclaim, "_FIRST_BYTES", 1500)
    patch(reclaim, "_MORE_BYTES", 0)
    # The answer of the system takes longer than opening a small store.
    patch(machine, "default_cache_bytes", lambda: machine.LEAST_CACHE_BYTES)
    patch(trio.to_thread, "run_sync", _inline)


def patch(owner: object, name: str, value: object) -> None:
    """Replace an attribute for the rest of the process, whatever its type."""
    setattr(owner, name, value)


async def _inline(function: Callable[..., T], *args: Any, **_: Any) -> T:
    """Run a call in this task instead of a thread, so that no two calls overlap."""
    await trio.lowlevel.checkpoint()
    return function(*args)
