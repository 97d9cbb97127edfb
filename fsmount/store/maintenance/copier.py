"""Decides when the second copies are renewed: after a pack was sealed, and at a clean end.

If a store has many files, one core needs seconds to read all rows (docs/benchmarks.md has the
figure for a million files). So a worker reads them from a snapshot of the index, while the mount
answers requests. This takes at most a twentieth of the time. At a clean end the copies are
renewed only if something has changed since the last clean end.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence

import trio

from fsmount import threads
from fsmount.errors import Damaged
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index
from fsmount.store.layout import Layout
from fsmount.store.maintenance import copies, second_entries
from fsmount.store.maintenance.second_entries import Copy, Wanted
from fsmount.store.packs.pack_set import PackSet
from fsmount.threads import Kind
from fsmount.work.workers import Workers

_log = logging.getLogger(__name__)

_FAILED = "cannot renew the second copies of the index: %s"
# After a renewal the copier waits this many times the duration of the renewal.
_REST = 19.0


class Copier:
    """Renews the second copies of a store.

    Contract: belongs to the trio task that owns the store.
    """

    def __init__(self, layout: Layout, index: Index, disk: Disk, packs: PackSet) -> None:
        self._layout = layout
        self._index = index
        self._disk = disk
        self._packs = packs
        # Whether the last renewal has not ended, or has failed.
        self._failed = False

    async def run(self, workers: Workers) -> None:
        """Renew the copies whenever they are due, until cancelled. Failures are logged."""
        while True:
            await self._packs.copies_due.wait()
            self._packs.copies_due = trio.Event()
            self._failed = True
            start = trio.current_time()
            try:
                await self._renew(workers)
                self._failed = False
            except Exception as error:
                _log.warning(_FAILED, error)
            await trio.sleep(_REST * (trio.current_time() - start))

    async def _renew(self, workers: Workers) -> None:
        """Collect the copies in a worker and write them in a thread.

        Raises OSError, and what the worker raises.
        """
        wanted = await workers.run(copies.collect_beside, str(self._layout.index))
        # The thread reads entries from packs. The lock keeps every pack in place until it ends.
        async with self._packs.turn:
            there = await threads.call(Kind.PACK, second_entries.held, self._layout)
            second = self._second(wanted.many, there)
            await threads.call(
                Kind.PACK, copies.update, self._layout, self._disk, wanted.names, there, second
            )

    def _second(self, many: Sequence[int], there: Sequence[Copy]) -> Wanted:
        """Return what to keep twice, with the present locations of all entries.

        The renewal that this is for gives back all bytes that are of no use, if that was asked.
        """
        exact, self._packs.copies_exact = self._packs.copies_exact, False
        ids = {*many, *(copy.object_id for copy in there)}
        rows = {number: row for number in ids if (row := self._index.known_object(number))}
        return Wanted(frozenset(many), rows, 0.0 if exact else second_entries.WASTE)

    def finish(self) -> None:
        """At a clean end, bring the copies up to date with the index. Failures are logged.

        If nothing has changed, it only records the clean end in the index. Does not await, so the
        calling thread waits for the disk.
        """
        try:
            if not self._is_due():
                self._index.set_copied()
                return
            wanted = copies.collect(self._index)
            there = second_entries.held(self._layout)
            second = self._second(wanted.many, there)
            copies.update(self._layout, self._disk, wanted.names, there, second)
            self._index.set_copied(zlib.crc32(wanted.names))
        except (OSError, Damaged) as error:
            _log.warning(_FAILED, error)

    def _is_due(self) -> bool:
        """Whether something has changed since the last clean end that left correct copies."""
        return (
            self._index.changed
            or self._failed
            or self._packs.copies_due.is_set()
            or self._index.copied() != self._index.opened() - 1
            or not copies.is_as_left(self._layout, self._index)
        )
