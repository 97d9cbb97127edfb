"""Commits: appended entries become durable, and rows turn from staged to encoded.

A batch holds the outcomes of about one second. Its commit reads all new entries back, forces the
packs, turns the rows in one transaction, forces the index, and then lets the staged files go. A
failed commit gives up everything appended and not committed: all claims are void, new entries go to
a new pack, and the files are queued again in their old order.

Contract: everything here belongs to the trio task.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from fsmount import threads
from fsmount.errors import Damaged, FsmountError
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index
from fsmount.store.ingest.claims import Claim, Claims
from fsmount.store.ingest.inputs import Inputs
from fsmount.store.ingest.outcome import Appended, Retry
from fsmount.store.ingest.queue import Queue
from fsmount.store.ingest.saved_tiles import SavedTiles
from fsmount.store.packs.writer import Writer
from fsmount.threads import Kind

_log = logging.getLogger(__name__)

_BATCH = 64
_BATCH_SECONDS = 1.0


class Committer:
    """Collects outcomes and commits them in batches."""

    def __init__(
        self,
        index: Index,
        disk: Disk,
        writer: Writer,
        inputs: Inputs,
        claims: Claims,
        tiles: SavedTiles,
        queue: Queue,
    ) -> None:
        self._index = index
        self._disk = disk
        self._writer = writer
        self._inputs = inputs
        self._claims = claims
        self._tiles = tiles
        self._queue = queue
        self._batch: list[Appended | Retry] = []
        # Held by a commit, and while encoding is halted.
        self._committing = trio.Lock()

    def add(self, outcome: Appended | Retry) -> None:
        """Take an outcome into the next batch. Does not await."""
        self._batch.append(outcome)
        self._queue.notify()

    def has_work(self) -> bool:
        """Whether an outcome waits for its commit."""
        return bool(self._batch)

    async def run(self, requeue: Callable[[list[int]], None], resting: Callable[[], int]) -> None:
        """Commit until cancelled.

        `requeue` gets the inodes of each batch afterwards and must not await. `resting` is the
        number of files that wait for their next try, and so join no batch soon.
        """
        while True:
            while not self._batch:
                await self._queue.change()
            with trio.move_on_after(_BATCH_SECONDS):
                while len(self._batch) < _BATCH and self._more_soon(resting()):
                    await self._queue.change()
            async with self._committing:
                done = await self._commit_all()
            # No sleep here: a failed file must not delay the commits of others.
            requeue([outcome.claim.ino for outcome in done if not _is_dictionary(outcome)])

    def _more_soon(self, resting: int) -> bool:
        """Whether more files will join the batch soon."""
        return self._queue.count() - resting > len(self._batch)

    @asynccontextmanager
    async def halted(self) -> AsyncIterator[None]:
        """In the block nothing is encoded or committed, and no plan rests on an object.

        Files on their way begin anew afterwards.
        """
        async with self._committing:
            self._claims.halt()
            try:
                await self._give_up([])
                yield
            finally:
                self._claims.go_on()

    async def _commit_all(self) -> list[Appended | Retry]:
        """Commit what is appended; returns all outcomes that are settled, failed or not.

        The caller holds `_committing`.
        """
        void = self._take_void()
        batch, self._batch = self._batch, []
        appended = [outcome for outcome in batch if isinstance(outcome, Appended)]
        try:
            if appended:
                await self._commit(appended)
        except Exception:
            _log.exception("a commit failed; its %d files stay staged", len(appended))
            await self._give_up(appended)
            # Outcomes that joined the next batch meanwhile come behind these.
            return appended + void + self._take_void()
        try:
            await self._writer.settle()
        except (OSError, FsmountError) as error:
            _log.error("%s; staged files wait until the index is durable", error)
        return appended + void

    def _take_void(self) -> list[Appended | Retry]:
        """Take outcomes with void claims out of the next batch."""
        void = [outcome for outcome in self._batch if self._claims.is_void(outcome.claim)]
        self._batch = [out for out in self._batch if not self._claims.is_void(out.claim)]
        return void

    async def _commit(self, batch: list[Appended]) -> None:
        """Commit one batch. Raises what the disk, the index or a check raises."""
        turned: list[Claim] = []
        spoilt: list[Path] = []
        await self._read_back(batch)
        try:
            await self._writer.commit(lambda: self._turn(batch, turned, spoilt))
        except Exception:
            # Without this count a disk that stays broken would be written to again and again.
            for done in batch:
                self._failed(done.claim.ino)
            raise
        for claim in turned:
            unneeded = self._inputs.committed(claim.ino, claim.token)
            if unneeded is not None:
                self._writer.discard(unneeded)
        for done in batch:
            if not done.dictionary:
                self._queue.forgive(done.claim.ino)
            self._writer.forget(done.object_id)
        # A writer that spoilt a body writes into this very file.
        await threads.finish(Kind.WRITE, self._unlink, spoilt)

    def _failed(self, ino: int) -> None:
        """Count a failure of a staged file; a source is refused."""
        if not self._inputs.refuse(ino):
            self._queue.failed(ino)

    def _unlink(self, kept: list[Path]) -> None:
        """Remove files from ``raw/`` that no row names. Runs in a thread.

        Recovery removes what cannot be removed now.
        """
        for path in kept:
            with suppress(OSError):
                self._disk.unlink(path)

    async def _read_back(self, batch: list[Appended]) -> None:
        """Read all new entries back. Raises what a check raises.

        Entries that are appended meanwhile join the batch: the commit covers all that packs hold.
        """
        wrong: Exception | None = None
        left = batch
        while left:
            # One call for all of them: a batch may have hundreds.
            failures = await threads.call(Kind.ENTRY, _failures, left)
            for done, error in failures:
                self._failed(done.claim.ino)
                wrong = error
            void = self._take_void()
            left = [outcome for outcome in self._batch if isinstance(outcome, Appended)]
            batch += left
            self._batch = void
        if wrong is not None:
            raise wrong

    def _turn(self, batch: list[Appended], turned: list[Claim], spoilt: list[Path]) -> None:
        """Add rows of objects, and turn rows of files from staged to encoded; add those of sources.

        Runs inside the transaction; does not await. Appends the claims of these rows to `turned`,
        and to `spoilt` the files in ``raw/`` of bodies that a writer has changed.
        """
        for done in batch:
            current = self._claims.is_current(done.claim)
            if done.kept is not None and not current:
                spoilt.append(done.kept)
                continue
            if done.new is not None:
                self._index.add_object(done.new)
            if done.dictionary:
                self._index.set_dictionary(done.dictionary, done.object_id)
                continue
            if (
                current
                and self._has_row(done.object_id)
                and self._inputs.encode(done.claim.ino, done.claim.token, done.object_id, done.size)
            ):
                turned.append(done.claim)
        self._tiles.save_due()

    def _has_row(self, object_id: int) -> bool:
        """Whether an object has its row. An object that was there before may be dropped by now."""
        try:
            self._index.object(object_id)
        except Damaged:
            return False
        return True

    async def _give_up(self, batch: list[Appended]) -> None:
        """Forget what was appended and not committed; new entries go to a new pack.

        The caller holds `_committing`. All claims are void before the first await.
        """
        self._claims.void_all()
        self._tiles.start_afresh()
        outcomes = batch + [out for out in self._batch if isinstance(out, Appended)]
        kept = [done.kept for done in outcomes if done.kept is not None]
        await self._writer.give_up()
        await threads.finish(Kind.WRITE, self._unlink, kept)


def _failures(batch: Sequence[Appended]) -> list[tuple[Appended, Exception]]:
    """Do the checks of a batch. Return those that failed, with their errors."""
    failures: list[tuple[Appended, Exception]] = []
    for done in batch:
        if done.check is not None:
            try:
                done.check()
            except Exception as error:
                failures.append((done, error))
    return failures


def _is_dictionary(outcome: Appended | Retry) -> bool:
    """Whether an outcome is a dictionary: its file is still on its way."""
    return isinstance(outcome, Appended) and bool(outcome.dictionary)
