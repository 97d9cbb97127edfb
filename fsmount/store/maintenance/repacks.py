"""The three ways to move entries of committed objects; one of them works at a time.

The command repacks everything (:mod:`fsmount.store.maintenance.repack`), an idle mount repacks in
the background (:mod:`fsmount.store.maintenance.background`), and a full disk needs a reclaim
(:mod:`fsmount.store.maintenance.reclaim`). This module gives each what it needs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from fsmount.store.disk.disk import Disk
from fsmount.store.disk.reserve import Reserve
from fsmount.store.frames.layer_cache import LayerCache
from fsmount.store.index import Index
from fsmount.store.ingest.encoder import Encoder
from fsmount.store.layout import Layout
from fsmount.store.maintenance.background import BackgroundRepack
from fsmount.store.maintenance.reclaim import Reclaimer, Shrinker
from fsmount.store.maintenance.repack import Repacker, RepackSummary, always
from fsmount.store.packs.staging import Staging
from fsmount.store.packs.writer import Writer
from fsmount.work import machine
from fsmount.work.workers import Workers


class Repacks:
    """Moves entries of committed objects; see the module.

    fresh, again : the writers of new objects and of moved entries.
    workers : code the entries.
    layers : the layers that the workers have decoded.
    require_consistent : see :class:`Reclaimer`.
    reclaimer : reclaims space on a full disk.

    Contract: belongs to the trio task.
    """

    def __init__(
        self,
        layout: Layout,
        index: Index,
        staging: Staging,
        disk: Disk,
        *,
        fresh: Writer,
        again: Writer,
        encoder: Encoder,
        reserve: Reserve,
        workers: Workers,
        layers: LayerCache,
        require_consistent: Callable[[], Awaitable[None]],
    ) -> None:
        self._parts = layout, index, disk
        self._staging = staging
        self._fresh = fresh
        self._again = again
        self._encoder = encoder
        self._reserve = reserve
        self._workers = workers
        self._layers = layers
        # Held by the task that moves entries of committed objects.
        self._moving = trio.Lock()
        make = partial(self._repacker, at_once=1)
        self._background = BackgroundRepack(layout, index, encoder, make)
        self.reclaimer = Reclaimer(
            index,
            reserve,
            encoder,
            again,
            self._moving,
            require_consistent,
            lambda: make(None),
            self._shrinker,
        )

    async def repack(self, progress: Callable[[int], None]) -> RepackSummary:
        """Repack all packs that are worth it. Calls `progress(1)` after each object.

        The caller has made sure that the index is consistent. Raises OSError, FsmountError.
        """
        repacker = self._repacker(self._workers, at_once=machine.cores())
        async with self._moving:
            if self._encoder.is_idle():
                self._encoder.start_afresh()
                await repacker.drop_unneeded()
            repacker.summary.dropped += self.reclaimer.dropped
            return await repacker.run(progress)

    async def work_in_background(self, go_on: Callable[[], bool]) -> bool:
        """See :meth:`BackgroundRepack.work`.

        The caller has made sure that the index is consistent.
        """
        async with self._moving:
            return await self._background.work(go_on)

    def _repacker(
        self, workers: Workers | None, go_on: Callable[[], bool] = always, *, at_once: int
    ) -> Repacker:
        """Create a repacker that codes `at_once` objects at a time while `go_on` returns True."""
        writers = self._fresh, self._again
        return Repacker(*self._parts, *writers, workers, self._layers, at_once, go_on)

    def _shrinker(self) -> Shrinker:
        """Create a shrinker with its own writer, for reclaim on a full disk."""
        layout, index, disk = self._parts
        writer = Writer(layout, index, self._staging, disk, self._fresh.packs, None)
        return Shrinker(layout, index, disk, writer, self._reserve)
