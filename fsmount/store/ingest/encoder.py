"""Background encoding: staged files, and sources of imports, become objects in packs.

This module wires the parts. The :class:`Queue` says which file is next. A :class:`Pipeline` takes
the file from look to append. The :class:`Committer` makes the result durable. :class:`Retries`
queues files that did not succeed. Several files are under way at once (:class:`UnderWay`); one
:class:`Sequencer` keeps their plans in queue order, and another one their entries.

Contract: everything here belongs to the trio task.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

import trio

from fsmount import threads
from fsmount.store.disk.disk import Disk
from fsmount.store.frames.layer_cache import LayerCache
from fsmount.store.frames.planner import Planner
from fsmount.store.index import Index
from fsmount.store.ingest.claims import Claims
from fsmount.store.ingest.committer import Committer
from fsmount.store.ingest.dictionaries import Dictionaries
from fsmount.store.ingest.frames import Frames
from fsmount.store.ingest.inputs import Inputs, Settled, Source
from fsmount.store.ingest.look import Looker
from fsmount.store.ingest.outcome import Skipped
from fsmount.store.ingest.pipeline import Pipeline
from fsmount.store.ingest.queue import Queue
from fsmount.store.ingest.retries import Retries
from fsmount.store.ingest.saved_tiles import SavedTiles
from fsmount.store.ingest.sequencer import Sequencer, Turns
from fsmount.store.ingest.under_way import Place, UnderWay
from fsmount.store.layout import Layout
from fsmount.store.packs.staging import Staging
from fsmount.store.packs.writer import Writer
from fsmount.threads import Kind
from fsmount.work.workers import Workers

_log = logging.getLogger(__name__)

# Files under way for each worker. Entries are appended in order, so a file that takes long holds
# up those behind it; meanwhile the workers look at others and code them.
_AHEAD = 8
# Pictures under way have this many bytes of samples, or half as many as the cache has, if that is
# more.
_UNDER_WAY_BYTES = 256 << 20


class Encoder:
    """Encodes staged files in the background."""

    def __init__(
        self, layout: Layout, index: Index, staging: Staging, disk: Disk, writer: Writer
    ) -> None:
        self._rooms = layout, index, staging, disk, writer
        self._index = index
        self._staging = staging
        self._inputs = Inputs(index, staging)
        self.queue = Queue(self._inputs)
        self._claims = Claims(self._inputs, staging, self.queue)
        self._planner = Planner()
        self._tiles = SavedTiles(index, self._planner, writer.is_here)
        self._ids: Iterator[int] = itertools.count(index.next_object_id())
        self._committer = Committer(
            index, disk, writer, self._inputs, self._claims, self._tiles, self.queue
        )
        for inode in index.staged_inodes():
            self.queue.put(inode.ino)

    def new_id(self) -> int:
        """Return the id for another object."""
        return next(self._ids)

    def is_idle(self) -> bool:
        """Whether nothing is queued or under way, so that no plan rests on an object."""
        return not (self.queue.count() or self._committer.has_work())

    def add_source(self, source: Source) -> None:
        """Queue a source of an import. :meth:`settled_sources` tells what becomes of it."""
        self.queue.put(self._inputs.add(source))

    def settled_sources(self) -> list[Settled]:
        """Return the sources that were settled since the last call, in order.

        A refused source is for :class:`Staging`: the encoder does not try it again.
        """
        return self._inputs.settled()

    def withdraw_sources(self) -> None:
        """Give all sources up that are not settled. None of them gets into the store any more."""
        self._inputs.withdraw()

    def start_afresh(self) -> None:
        """Plan from what the index has from here on: objects may have been dropped."""
        self._tiles.start_afresh()

    def finish(self) -> None:
        """Save what the next start needs to plan. The encoder does not run any more."""
        self._tiles.save()

    def halted(self) -> AbstractAsyncContextManager[None]:
        """See :meth:`Committer.halted`."""
        return self._committer.halted()

    async def run(self, workers: Workers, layers: LayerCache) -> None:
        """Encode until cancelled; `layers` has the layers that `workers` decoded."""
        layout, _, _, _, writer = self._rooms
        dictionaries = Dictionaries(
            layout,
            self._index,
            writer,
            self._planner,
            self._claims,
            self._ids,
            workers=workers,
            layers=layers,
            add=self._committer.add,
        )
        pipeline = Pipeline(
            *self._rooms,
            self._inputs,
            self._claims,
            self._ids,
            looker=Looker(self._inputs, workers, layers.streams_bytes),
            frames=Frames(
                layout,
                writer,
                self._planner,
                self._tiles,
                workers=workers,
                layers=layers,
                dictionaries=dictionaries,
            ),
            dictionaries=dictionaries,
        )

        def files() -> int:
            return _AHEAD * workers.limit + 1

        under_way = UnderWay(files, max(_UNDER_WAY_BYTES, layers.budget))
        plans, entries = Sequencer(), Sequencer()
        async with trio.open_nursery() as nursery:
            retries = Retries(self.queue, self._claims, nursery)
            nursery.start_soon(self._committer.run, retries.again, retries.resting)
            for number in itertools.count():
                place = await under_way.enter()
                ino = await self.queue.take()
                turns = Turns(number, plans.slot(), entries.slot())
                nursery.start_soon(self._encode, pipeline, retries, ino, turns, place)

    async def _encode(
        self, pipeline: Pipeline, retries: Retries, ino: int, turns: Turns, place: Place
    ) -> None:
        """Encode one file. After any failure a staged file stays and is tried again later."""
        failed = False
        try:
            outcome = await pipeline.run(ino, turns, place)
            if not isinstance(outcome, Skipped):
                self._committer.add(outcome)
                return
        except Exception as error:
            try:
                if self._inputs.refuse(ino):
                    _log.info("a source is not encoded where it lies: %s", error)
                elif await self._is_missing(ino):
                    # There is nothing to wait for: readers get the error, other files go on.
                    _log.error("%r: its staged file is missing", self._inputs.path(ino))
                    self.queue.leave(ino)
                    self.queue.notify()
                    return
                elif self._claims.token(ino) is not None:
                    retries.failed(ino, error)
                    failed = True
            except OSError as second:
                retries.failed(ino, second)
                failed = True
        finally:
            turns.leave()
            place.leave()
        # No await since the release: a file that is queued now may get the place.
        if failed:
            retries.later(ino)
        else:
            retries.at_once([ino])

    async def _is_missing(self, ino: int) -> bool:
        """Whether the staged file of a row is gone, and is still the one of its row."""
        token = self._claims.token(ino)
        if token is None or await threads.call(Kind.STAGED, self._staging.path(token).exists):
            return False
        return self._claims.token(ino) == token
