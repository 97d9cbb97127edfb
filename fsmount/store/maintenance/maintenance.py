"""Maintenance of a store: repack, background repack and reclaim, of which one works at a time.

The command repacks everything (:mod:`fsmount.store.maintenance.repack`), an idle mount repacks in
the background (:mod:`fsmount.store.maintenance.background`), and a full disk needs a reclaim
(:mod:`fsmount.store.maintenance.reclaim`). All three move entries of committed objects. This module
gives each what it needs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import trio

from fsmount import threads
from fsmount.store.disk.reserve import Reserve
from fsmount.store.files import StoreFiles
from fsmount.store.frames.layer_cache import LayerCache
from fsmount.store.ingest.encoder import Encoder
from fsmount.store.maintenance import compacting
from fsmount.store.maintenance.background import BackgroundRepack
from fsmount.store.maintenance.free_space import FreeSpace
from fsmount.store.maintenance.reclaim import Reclaimer, Shrinker
from fsmount.store.maintenance.repack import Repacker, RepackSummary, always
from fsmount.store.maintenance.trimming import Trimming, find_hidden_at, trim
from fsmount.store.ownership import Ownership
from fsmount.store.packs.mover import Mover
from fsmount.store.packs.pack import Entry
from fsmount.store.packs.writer import Writer
from fsmount.store.packs.writers import Writers
from fsmount.store.retention.trash import TrashCan
from fsmount.threads import Kind
from fsmount.work import machine
from fsmount.work.workers import Workers


class Maintenance:
    """Repacks a store and reclaims space in it; see the module.

    workers : code the entries.
    layers : the layers that the workers have decoded.
    require_consistent : raises :class:`Damaged` if the index must not be a reason for removing
        anything.
    trash : the trash of the store.
    space : keeps space free, by a reclaim if the disk is full.

    Contract: belongs to the trio task.
    """

    def __init__(
        self,
        files: StoreFiles,
        writers: Writers,
        encoder: Encoder,
        reserve: Reserve,
        ownership: Ownership,
        *,
        workers: Workers,
        layers: LayerCache,
        require_consistent: Callable[[], Awaitable[None]],
        trash: TrashCan,
    ) -> None:
        self._files = files
        self._writers = writers
        self._encoder = encoder
        self._reserve = reserve
        self._workers = workers
        self._layers = layers
        self._require_consistent = require_consistent
        # Held by the task that moves entries of committed objects.
        self._moving = trio.Lock()
        make = partial(self._repacker, at_once=1)
        self._background = BackgroundRepack(files.layout, files.index, encoder, make)
        self._reclaimer = Reclaimer(
            files.index,
            reserve,
            encoder,
            writers.moved,
            self._moving,
            require_consistent,
            lambda: make(None),
            self._shrinker,
            trash,
            self._trim,
        )
        self.space = FreeSpace(ownership, reserve, self._reclaimer)

    async def prepare(self) -> None:
        """Prepare for a repack, which removes entries: the index is consistent, commits have space.

        Raises :class:`Damaged` if the index must not be a reason for removing anything.
        """
        await self._require_consistent()
        await self.space.before_deleting()

    async def repack(
        self, progress: Callable[[int], None], known: Mapping[int, Entry]
    ) -> RepackSummary:
        """Repack all packs that are worth it. Calls `progress(1)` after each object.

        `known` has entries that were coded again and proved before. The caller has called
        :meth:`prepare`. Raises OSError, FsmountError.
        """
        repacker = self._repacker(self._workers, at_once=machine.cores())
        repacker.known |= known
        async with self._moving:
            if self._encoder.is_idle():
                self._encoder.start_afresh()
                await repacker.drop_unneeded()
            repacker.summary.dropped += self._reclaimer.dropped
            summary = await repacker.run(progress)
            if summary.moved or summary.dropped:
                self._writers.packs.renew_copies()
                free = await threads.call(Kind.FREE_SPACE, self._reserve.free)
                await compacting.compact(self._files.index, self._workers, free)
            return summary

    async def give_back(self, go_on: Callable[[], bool] = always, *, compact: bool = True) -> None:
        """Give back the space of what nothing shown needs: in packs, ``raw/`` and the index.

        `compact`: also in the index, which stops all other work for a moment. Stops after a pack
        when `go_on` says no. Raises OSError, FsmountError.
        """
        await self.space.before_deleting()
        await self._reclaimer.give_back(go_on)
        self._writers.packs.renew_copies()
        if compact:
            free = await threads.call(Kind.FREE_SPACE, self._reserve.free)
            await compacting.compact(self._files.index, self._workers, free)

    async def repack_in_background(self, go_on: Callable[[], bool]) -> bool:
        """See :meth:`BackgroundRepack.work`. The caller has called :meth:`prepare`.

        Nothing is left to do while packs are at a URL only: objects here may rest on them.
        """
        if self._writers.packs.away:
            return True
        async with self._moving:
            return await self._background.work(go_on)

    def _repacker(
        self, workers: Workers | None, go_on: Callable[[], bool] = always, *, at_once: int
    ) -> Repacker:
        """Create a repacker that codes `at_once` objects at a time while `go_on` returns True."""
        return Repacker(self._files, self._writers, workers, self._layers, at_once, go_on)

    async def _trim(self, mover: Mover, go_on: Callable[[], bool]) -> int:
        """See :func:`trim`. Nothing is trimmed while packs are at a URL only."""
        if self._writers.packs.away:
            return 0
        index, layout = self._files.index, self._files.layout
        trimming = Trimming(layout, index, self._workers, machine.cores())
        # A worker reads the rows of all objects. All changes so far are committed.
        found = await self._workers.run(find_hidden_at, str(index.file))
        return await trim(index, found, trimming, mover, go_on)

    def _shrinker(self) -> Shrinker:
        """Create a shrinker with its own writer, for reclaim on a full disk."""
        layout, index, disk = self._files.layout, self._files.index, self._files.disk
        writer = Writer(layout, index, self._files.staging, disk, self._writers.packs, None)
        return Shrinker(layout, index, disk, writer, self._reserve)
