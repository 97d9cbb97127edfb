"""Background repack: repacks a store in small parts while no program uses it.

It limits how often it writes the same bytes. The command `repack` does all work at once
(:mod:`fsmount.store.maintenance.repack`). The background repack differs from it:

- It moves only sealed packs. If pictures come in one a minute, it moves them once, after their pack
  has become full, and not after each picture.
- It moves a pack that repack wrote again when half of the pack is garbage. So first moves write at
  most the bytes that were stored, and further moves write at most the bytes that became garbage.
  Together this is at most twice the bytes that came in, for every pattern of use.
- It codes one object at a time, in a process of low priority. It begins no object after a program
  has used the store. It commits the objects that are done.
- It drops unneeded objects only if enough bytes are unused to justify a look at all rows. It reads
  the rows in slices.
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
# Seconds between two looks for garbage. Each look reads all rows.
_LOOK_SECONDS = 600.0
# Unneeded objects are dropped only if this share of the size of a pack has become unused since the
# last drop.
_DROP_SHARE = 0.25
# This many times the size of a pack must be free on the disk.
_FREE_PACKS = 4
_NICE = 19
# Seconds for one job. A worker of low priority may get no processor time for long.
_TIME_LIMIT = 900.0

# Makes a repacker from workers (with None it codes no object) and a function that says whether it
# may go on.
Make = Callable[[Workers | None, Callable[[], bool]], Repacker]


class BackgroundRepack:
    """Repacks the store in small parts. The module docstring says how.

    It remembers the packs that it has moved, and the time of the last look for garbage.

    Contract: belongs to the trio task that owns the store.
    """

    def __init__(self, layout: Layout, index: Index, encoder: Encoder, make: Make) -> None:
        self._layout = layout
        self._index = index
        self._encoder = encoder
        self._make = make
        self._looked = float("-inf")
        self._unused_left = 0
        # Packs that were moved. They are not moved again, although an object that failed its proof
        # may be left in them.
        self._done: set[int] = set()

    async def work(self, go_on: Callable[[], bool]) -> bool:
        """Repack a part. Return True if nothing is left to do, False if `go_on` has stopped it.

        `go_on` returns whether the repack may go on. Once a program reads or writes a file, it
        always returns False. Raises OSError, FsmountError.
        """
        look = time.monotonic() - self._looked >= _LOOK_SECONDS
        if look:
            await self._drop_unneeded(go_on)
            if not go_on():
                return False
            self._looked = time.monotonic()
        packs = self._due(look)
        if not packs or not await threads.call(Kind.FREE_SPACE, self._has_space):
            return True
        _log.info("no program uses the store: repacking %d packs", len(packs))
        workers = Workers(1, preload=(repack.__name__,), nice=_NICE, time_limit=_TIME_LIMIT)
        async with workers:
            repacker = self._make(workers, go_on)
            for number in packs:
                await repacker.empty(number, lambda count: None)
                if not go_on():
                    return False
                self._done.add(number)
                if not await threads.call(Kind.FREE_SPACE, self._has_space):
                    break
        return True

    def _due(self, look: bool) -> list[int]:
        """Return the packs to move: sealed packs that repack has not written.

        With `look` it adds packs of which at least _WASTE is garbage, and reads all rows for that.
        """
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

    def _has_space(self) -> bool:
        """Whether the disk has enough free space. Runs in a thread. Raises OSError."""
        disk = os.statvfs(self._layout.packs)
        return disk.f_bavail * disk.f_frsize >= _FREE_PACKS * pack.SEAL_BYTES

    async def _drop_unneeded(self, go_on: Callable[[], bool]) -> None:
        """Drop unneeded objects, and packs that are empty then.

        No-op if too few bytes have become unused, if the encoder is busy, or if `go_on` returns
        False. Raises OSError, FsmountError.
        """
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
        # If nothing was written in the meantime, no new object needs another one.
        if not self._encoder.is_idle():
            return
        repacker = self._make(None, go_on)
        self._encoder.start_afresh()
        await repacker.drop_unneeded(needed)
        await repacker.drop_emptied()
        self._unused_left = self._index.unused_bytes()
