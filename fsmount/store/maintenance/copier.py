"""Decides when the copy of the index is renewed: after a pack was sealed, and at a clean end.

If a store has many files, one core needs seconds to read all rows (docs/benchmarks.md has the
figure for a million files). So a worker reads them from a snapshot of the index, while the mount
answers requests. This takes at most a twentieth of the time. At a clean end the copy is renewed
only if something has changed since the last clean end.
"""

from __future__ import annotations

import logging
import zlib

import trio

from fsmount import threads
from fsmount.errors import Damaged
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index
from fsmount.store.layout import Layout
from fsmount.store.maintenance import copies
from fsmount.store.packs.pack_set import PackSet
from fsmount.threads import Kind
from fsmount.work.workers import Workers

_log = logging.getLogger(__name__)

_FAILED = "cannot renew the copy of the index: %s"
# After a renewal the copier waits this many times the duration of the renewal.
_REST = 19.0


class Copier:
    """Renews the copy of the index of a store.

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
        """Renew the copy whenever it is due, until cancelled. Failures are logged."""
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
        """Collect the copy in a worker and write it in a thread.

        Raises OSError, and what the worker raises.
        """
        names = await workers.run(copies.collect_beside, str(self._layout.index))
        await threads.call(Kind.PACK, copies.update, self._layout, self._disk, names)

    def finish(self) -> None:
        """At a clean end, bring the copy up to date with the index. Failures are logged.

        If nothing has changed, it only records the clean end in the index. Does not await, so the
        calling thread waits for the disk.
        """
        try:
            if not self._is_due():
                self._index.set_copied()
                return
            names = copies.collect(self._index)
            copies.update(self._layout, self._disk, names)
            self._index.set_copied(zlib.crc32(names))
        except (OSError, Damaged) as error:
            _log.warning(_FAILED, error)

    def _is_due(self) -> bool:
        """Whether something has changed since the last clean end that left a correct copy."""
        return (
            self._index.changed
            or self._failed
            or self._packs.copies_due.is_set()
            or self._index.copied() != self._index.opened() - 1
            or not copies.is_as_left(self._layout, self._index)
        )
