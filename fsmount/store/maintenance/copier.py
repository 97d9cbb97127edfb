"""When the second copies are renewed: beside all else when a pack was sealed, and at a clean end.

Reading all rows takes a core for seconds where files are many (docs/benchmarks.md has it for a
million), so a worker does it while a mount answers, from a snapshot of the index; and never for
more than a twentieth of the time. At the end it is done only if anything has changed since the last
clean end.
"""

from __future__ import annotations

import logging
import zlib

import trio

from fsmount import threads
from fsmount.errors import Damaged
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index, Object
from fsmount.store.layout import Layout
from fsmount.store.maintenance import copies
from fsmount.store.packs.pack_set import Packs
from fsmount.threads import Kind
from fsmount.work.workers import Workers

_log = logging.getLogger(__name__)

_FAILED = "the copies of the index are not renewed: %s"
# What it waits after each time, in times of what that took.
_REST = 19.0


class Copier:
    """See the module. Belongs to the task that owns the store."""

    def __init__(self, layout: Layout, index: Index, disk: Disk, packs: Packs) -> None:
        self._layout = layout
        self._index = index
        self._disk = disk
        self._packs = packs
        # Begun, and not ended well.
        self._failed = False

    async def run(self, workers: Workers) -> None:
        """Renew the copies whenever they are due, for ever. Failures are logged."""
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
        wanted = await workers.run(copies.collect_beside, str(self._layout.index))
        # Entries that are kept twice are read from packs: none may go meanwhile.
        async with self._packs.turn:
            many = self._many(wanted)
            await threads.call(
                Kind.PACK, copies.update, self._layout, self._disk, wanted.names, many
            )

    def _many(self, wanted: copies.Copies) -> list[Object]:
        """The objects to keep twice, where they lie now."""
        found = map(self._index.known_object, wanted.many)
        return [each for each in found if each is not None]

    def finish(self) -> None:
        """A clean end: the copies say what the index does. Failures are logged."""
        try:
            if not self._is_due():
                self._index.set_copied()
                return
            wanted = copies.collect(self._index)
            copies.update(self._layout, self._disk, wanted.names, self._many(wanted))
            self._index.set_copied(zlib.crc32(wanted.names))
        except (OSError, Damaged) as error:
            _log.warning(_FAILED, error)

    def _is_due(self) -> bool:
        """Whether anything has changed since a clean end that left the copies as they should be."""
        return (
            self._index.changed
            or self._failed
            or self._packs.copies_due.is_set()
            or self._index.copied() != self._index.opened() - 1
            or not copies.is_as_left(self._layout, self._index)
        )
