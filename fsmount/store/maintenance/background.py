"""Repack while nobody uses the store: a little at a time, and no byte again and again.

What is different from the command, which does all there is to do (:mod:`repack`):

- Only sealed packs are moved. So what comes in one picture a minute is moved once, when its pack
  has been full, and not with each of them.
- A pack that repack wrote is moved again when half of it is nobody's. So moving for the first
  time writes at most what was stored, and moving again at most what was given up: together twice
  the bytes that came in, whatever the pattern.
- One object is coded at a time, in a process of low priority, and none is begun once somebody uses
  the store; those that are done are committed.
- What nothing needs is dropped when it is worth a look at all rows, which goes in slices.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

import trio

from fsmount import threads
from fsmount.store.index import Index
from fsmount.store.ingest.encoder import Encoder
from fsmount.store.layout import Layout
from fsmount.store.maintenance import repack
from fsmount.store.maintenance.repack import Repacker
from fsmount.store.packs import pack
from fsmount.threads import Kind
from fsmount.work.workers import Workers

_log = logging.getLogger(__name__)

_WASTE = 0.5
# Seconds between two looks at how much is nobody's: each goes through all rows.
_LOOK_SECONDS = 600.0
# Of the size of a pack: so much must have been given up since the last time, to drop it.
_DROP_SHARE = 0.25
# Of the size of a pack: so much must be free on the disk.
_FREE_PACKS = 4
_NICE = 19
# A worker of low priority may have to wait for long.
_TIME_LIMIT = 900.0

# A repacker that has these workers (none: it codes nothing) and goes on as long as it may.
Make = Callable[[Workers | None, Callable[[], bool]], Repacker]


class QuietRepack:
    """See the module; remembers what it looked at. Belongs to the task that owns the store."""

    def __init__(self, layout: Layout, index: Index, encoder: Encoder, make: Make) -> None:
        self._layout = layout
        self._index = index
        self._encoder = encoder
        self._make = make
        self._looked = float("-inf")
        self._unused_left = 0
        # Packs that were gone through: an object that could not be proved may be left there.
        self._done: set[int] = set()

    async def work(self, go_on: Callable[[], bool]) -> bool:
        """Repack until `go_on` says no (False), or until nothing is left to do (True).

        `go_on` says no for good once a file is written or read. Raises OSError, FsmountError.
        """
        look = time.monotonic() - self._looked >= _LOOK_SECONDS
        if look:
            await self._drop_unneeded(go_on)
            if not go_on():
                return False
            self._looked = time.monotonic()
        packs = self._due(look)
        if not packs or not await threads.call(Kind.ROOM, self._has_room):
            return True
        _log.info("nobody uses the store: repacking %d packs", len(packs))
        workers = Workers(1, preload=(repack.__name__,), nice=_NICE, time_limit=_TIME_LIMIT)
        async with workers:
            repacker = self._make(workers, go_on)
            for number in packs:
                await repacker.empty(number, lambda count: None)
                if not go_on():
                    return False
                self._done.add(number)
                if not await threads.call(Kind.ROOM, self._has_room):
                    break
        return True

    def _due(self, look: bool) -> list[int]:
        """Packs to move: those that repack has not written, and after a `look` wasted ones."""
        written = self._index.repacked()
        fill = self._index.pack_fill() if look else {}
        return [
            number
            for number, (length, sealed) in self._index.packs().items()
            if sealed
            and number not in self._done
            and (
                written.get(number, 0) < length
                or (look and length - fill.get(number, 0) >= _WASTE * length)
            )
        ]

    def _has_room(self) -> bool:
        disk = os.statvfs(self._layout.packs)
        return disk.f_bavail * disk.f_frsize >= _FREE_PACKS * pack.SEAL_BYTES

    async def _drop_unneeded(self, go_on: Callable[[], bool]) -> None:
        """Drop objects that nothing needs, and packs that have no others."""
        unused = self._index.unused_bytes()
        enough = max(1, _DROP_SHARE * pack.SEAL_BYTES)
        if unused - self._unused_left < enough or not self._encoder.is_idle():
            return
        needed: set[int] = set()
        for some in self._index.needed_by_shown():
            needed |= some
            await trio.lowlevel.checkpoint()
            if not go_on():
                return
        # With nothing written meanwhile no object has come that needs another one.
        if not self._encoder.is_idle():
            return
        repacker = self._make(None, go_on)
        self._encoder.start_afresh()
        await repacker.drop_unneeded(needed)
        await repacker.drop_emptied()
        self._unused_left = self._index.unused_bytes()
