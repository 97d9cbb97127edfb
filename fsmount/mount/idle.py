"""Repack while a mount is idle and the machine on mains power."""

from __future__ import annotations

import logging
from pathlib import Path

import trio

from fsmount.mount.power_supply import SUPPLIES, on_mains
from fsmount.store.writable_store import WritableStore

_log = logging.getLogger(__name__)

_RETRY_S = 600.0
# Factor of the wait after a round with nothing to do, or without mains power.
_REST = 6


async def repack_when_idle(store: WritableStore, after_s: float, supplies: Path = SUPPLIES) -> None:
    """Repack whenever no file has been written or read for `after_s` seconds, until cancelled.

    It stops, after the picture under way, when a file is used or the machine runs on its battery.
    """

    def may() -> bool:
        return on_mains(supplies)

    while True:
        await trio.sleep(max(after_s - store.unused_s(), after_s / 4))
        if store.unused_s() < after_s:
            continue
        try:
            rest = not may() or await store.repack_in_background(may)
        except Exception:
            _log.exception("repacking failed; it is tried again later")
            await trio.sleep(_RETRY_S)
        else:
            if rest:
                await trio.sleep(_REST * after_s)
