"""An open store: the module that composes all parts of a store, and its public interface.

The mount and the command line access names and attributes through :attr:`Store.index`, staged files
through :attr:`Store.staging`, and encoded bytes through :meth:`Store.body`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio

from fsmount import threads
from fsmount.errors import Damaged, FsmountError, ReadOnly, WorkerDied
from fsmount.store import config, contents
from fsmount.store.disk.disk import Disk
from fsmount.store.disk.reserve import Reserve
from fsmount.store.frames import jobs
from fsmount.store.frames.body_reader import Body, BodyReader
from fsmount.store.index import Index, Object
from fsmount.store.ingest.durability import DurabilityPoints
from fsmount.store.ingest.encoder import Encoder
from fsmount.store.layout import Layout
from fsmount.store.lock import Lock
from fsmount.store.maintenance.background import BackgroundRepack
from fsmount.store.maintenance.copier import Copier
from fsmount.store.maintenance.free_space import FreeSpace
from fsmount.store.maintenance.reclaim import ENOUGH_BYTES, Reclaimer, Shrinker
from fsmount.store.maintenance.repack import Repacker, Summary, always, due
from fsmount.store.ownership import OwnedDisk, Ownership
from fsmount.store.packs.pack_set import PackSet
from fsmount.store.packs.staging import Staging
from fsmount.store.packs.writer import Writer
from fsmount.store.recovery.consistency import Consistency
from fsmount.store.recovery.startup import recover
from fsmount.store.statistics import statistics
from fsmount.threads import Kind
from fsmount.work.workers import Workers

_log = logging.getLogger(__name__)

DEFAULT_CACHE_BYTES = 256 << 20


class Store:
    """An open store; see the module. Open it with :meth:`open`.

    Belongs to one trio task, unless a method says otherwise.
    """

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool,
        cache_bytes: int,
        disk: Disk | None = None,
        lock_wait_s: float = 0.0,
        force_lock: bool = False,
    ) -> None:
        self.path = path
        self.read_only = read_only
        self.disk = disk or Disk()
        self._ownership: Ownership | None = None
        # If a step fails, `undo` closes everything that is open. It closes the index before it
        # releases the lock: SQLite must not fold the log of a store that another process has taken.
        with ExitStack() as undo:
            # The store reaches all its files through this descriptor: later, the path may lead to
            # another store.
            self._folder = config.enter(path)
            undo.callback(self._folder.close)
            self.layout = Layout(self._folder.path)
            self.config = config.read(self.layout.root)
            if not read_only:
                lock = Lock(self.layout.lock, lock_wait_s, force=force_lock)
                self._ownership = Ownership(lock)
                undo.callback(self._ownership.release)
                self.disk = OwnedDisk(self.disk, self._ownership)
            self.index = self._open_index()
            undo.callback(self.index.close)
            if self.index.identity() != self.config.get("uuid"):
                raise Damaged(self.layout.index, reason="it belongs to another store")
            self.staging = Staging(self.layout.staging, self.disk)
            self._packs = PackSet()
            self._encoder: Encoder | None = None
            self._writer: Writer | None = None
            # Held by the task that moves entries of committed objects.
            self._repacking = trio.Lock()
            if self._ownership is not None:
                self._open_for_writing(self._ownership, undo)
            undo.pop_all()
        # Half of the cache holds rendered files here, half holds decoded layers in the workers.
        self._bodies = BodyReader(
            self.layout, self._packs, self._object, self._pool, cache_bytes // 2
        )
        self._layer_bytes = cache_bytes // 2
        self._used = time.monotonic()
        self._background: BackgroundRepack | None = None
        self._workers: Workers | None = None
        self._budget = 0
        self._ready = trio.Event()
        self._lost = trio.Event()

    def _open_for_writing(self, ownership: Ownership, undo: ExitStack) -> None:
        """Recover the store, and create the parts that write.

        `undo` closes the parts that stay open.
        """
        ownership.watch(self.index)
        contents.make_folders(self.layout, self.index, self.disk)
        self._reserve = Reserve(self.layout.reserve, self.disk)
        self._reserve.fill()
        self.index.reserve = self._reserve
        rooms = self.layout, self.index, self.staging, self.disk
        opened = recover(*rooms, unproved=ownership.unproved)
        undo.callback(opened.close)
        self._packs.newest = opened.newest
        self._writer = Writer(*rooms, self._packs, opened.fresh)
        self._again = Writer(*rooms, self._packs, opened.for_repack)
        self._copier = Copier(self.layout, self.index, self.disk, self._packs)
        self._encoder = Encoder(*rooms, self._writer)
        self._consistency = Consistency(self.index)
        self._reclaimer = Reclaimer(
            self.index,
            self._reserve,
            self._encoder,
            self._again,
            self._repacking,
            self._sound,
            lambda: self._repacker(None, at_once=1),
            self._shrinker,
        )
        self._space = FreeSpace(ownership, self._reserve, self._reclaimer)
        self._durability = DurabilityPoints(
            self.index, self.staging, self._encoder.queue, self._writer, self._reserve
        )
        # Two processes may have found the lock free at the same time: only one of them has it.
        ownership.ask()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        read_only: bool = False,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        disk: Disk | None = None,
        lock_wait_s: float = 0.0,
        force_lock: bool = False,
    ) -> Store:
        """Open a store.

        `cache_bytes` is the size of the caches for rendered files and decoded layers. `lock_wait_s`
        is the time to wait for a process that is about to end, in seconds. `force_lock`: see
        :class:`Lock`.

        Raises NoStore, FormatUnsupported, StoreLocked, LockUnclear, NotWritable, Damaged, OSError.
        """
        with nullcontext() if read_only else config.writing(path):
            return cls(
                path,
                read_only=read_only,
                cache_bytes=cache_bytes,
                disk=disk,
                lock_wait_s=lock_wait_s,
                force_lock=force_lock,
            )

    def _open_index(self) -> Index:
        """Open the index. May wait for the disk."""
        if self._ownership is not None and self._ownership.unproved:
            # The previous holder may still map this file, through FUSE or a network. Its changes to
            # the map come back when it ends, and overwrite ours. So this process creates a new
            # file.
            self.disk.unlink(self.layout.index_shared)
        return Index(self.layout.index, self.disk, read_only=self.read_only)

    def close(self) -> None:
        """Close everything. The next writer encodes the files that are still staged.

        Leaves a store that another process has taken over as it is.
        """
        with ExitStack() as last:
            last.callback(self._folder.close)
            if self._ownership is not None:
                last.callback(self._ownership.release)
            last.callback(self.index.close)
            if self._writer is not None:
                self._finish(self._writer)

    def _finish(self, writer: Writer) -> None:
        """Close the writers and renew the copies.

        Abandons both if another process took the store over.
        """
        try:
            self._owned()
        except OSError as error:
            _log.error("packs and copies stay unchanged: %s", error)
            self._again.abandon()
            writer.abandon()
            return
        with ExitStack() as writers:
            writers.callback(writer.close)
            writers.callback(self._again.close)
        self._copier.finish()

    def _owned(self) -> None:
        """Check ownership; may wait for the disk.

        Raises OSError EIO if another process took the store over.
        """
        if self._ownership is not None:
            self._ownership.ask()

    @property
    def _is_lost(self) -> bool:
        """Whether this process knows that another process took the store over. Asks no disk."""
        return self._ownership is not None and self._ownership.is_lost

    # -- writing

    def hold(self, ino: int) -> None:
        """Note that a writer opened the file: the encoder waits for :meth:`unhold`.

        Raises ReadOnly.
        """
        self._used = time.monotonic()
        self._writing().queue.hold(ino)

    def unhold(self, ino: int) -> None:
        """Note that a writer closed the file. Raises ReadOnly."""
        self._used = time.monotonic()
        self._writing().queue.unhold(ino)

    def held(self) -> list[int]:
        """Inodes that have a writer."""
        return [] if self._encoder is None else self._encoder.queue.held()

    def queue(self, ino: int) -> None:
        """Queue a staged file for encoding: its last writer closed it. Raises ReadOnly."""
        self._used = time.monotonic()
        queue = self._writing().queue
        self._durability.add(ino)
        queue.put(ino)

    async def need_space(self, size: int = 0) -> None:
        """Make room before files grow by `size` bytes.

        See :meth:`FreeSpace.need`. Raises OSError ENOSPC, EIO.
        """
        self._used = time.monotonic()
        if self._writer is not None:
            await self._space.need(size)

    async def before_deleting(self) -> None:
        """Prepare for a commit that deletes: on a full disk, the commit gets the reserve."""
        if self._writer is not None:
            await self._space.before_deleting()

    async def reclaim(self, enough: int = ENOUGH_BYTES) -> None:
        """Reclaim space as on a full disk, until `enough` bytes are free.

        Raises ReadOnly. Logs failures.
        """
        self._writing()
        await self._space.reclaim(enough)

    def discard(self, token: int) -> None:
        """Remove a staged file that no row names any more, once that is durable.

        Does not await. Raises ReadOnly.
        """
        if self._writer is None:
            raise ReadOnly(self.path)
        self._durability.discard(token)

    def pending(self) -> int:
        """Number of staged files that are not encoded yet, without files that have a writer.

        0 if the store is open for reading only, or if another process took it over.
        """
        if self._encoder is None or self._is_lost:
            return 0
        return self._encoder.queue.pending()

    async def drain(self) -> None:
        """Wait until no file is pending.

        Raises OSError EIO if another process takes the store over.
        """
        if self._encoder is None:
            return
        await threads.call(Kind.ROOM, self._owned)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_at, self._lost, nursery.cancel_scope)
            await self._encoder.queue.drain()
            nursery.cancel_scope.cancel()
        await threads.call(Kind.ROOM, self._owned)

    def _writing(self) -> Encoder:
        """Return the encoder. Raises ReadOnly if the store is open for reading only."""
        if self._encoder is None:
            raise ReadOnly(self.path)
        return self._encoder

    async def durable(self) -> None:
        """Make everything that the index holds survive a power cut. Raises OSError."""
        if self._writer is not None:
            await self._writer.force()

    def renew_copies(self) -> None:
        """Ask for new second copies: the copier writes them soon, or at the latest at the end."""
        self._packs.copies_due.set()

    def repack_size(self) -> int:
        """Number of objects that :meth:`repack` would examine."""
        return sum(len(self.index.objects_in(number)) for number in due(self.index))

    async def repack(self, progress: Callable[[int], None]) -> Summary:
        """Reclaim space and write smaller entries. Encodes the staged files first.

        The caller keeps the store running. Raises ReadOnly, :class:`Damaged`, and OSError if the
        disk is full and not enough space could be reclaimed beforehand.
        """
        encoder = self._writing()
        await self._space.reclaim()
        await self.drain()
        await self._sound()
        assert self._workers is not None
        repacker = self._repacker(self._workers, at_once=len(os.sched_getaffinity(0)))
        await self.before_deleting()
        async with self._repacking:
            if encoder.is_idle():
                encoder.start_afresh()
                await repacker.drop_unneeded()
            repacker.summary.dropped += self._reclaimer.dropped
            return await repacker.run(progress)

    async def repack_in_background(self, go_on: Callable[[], bool]) -> bool:
        """Repack a part, as :mod:`background` describes. The caller makes one call at a time.

        Returns False if a file was written or read, or `go_on` returned False; True if nothing is
        left to do. Raises ReadOnly, :class:`Damaged`, OSError.
        """
        encoder = self._writing()
        await threads.call(Kind.ROOM, self._owned)
        await self._sound()
        if self._background is None:
            make = partial(self._repacker, at_once=1)
            self._background = BackgroundRepack(self.layout, self.index, encoder, make)
        await self.before_deleting()
        used = self._used
        async with self._repacking:
            return await self._background.work(lambda: self._used == used and go_on())

    async def _sound(self) -> None:
        """Raise :class:`Damaged` if the index must not be a reason for removing anything.

        Waits until workers run.
        """
        workers, _ = await self._pool()
        await self._consistency.require(workers)

    def unused_s(self) -> float:
        """Seconds since a file was last written or read; 0 while files are pending."""
        return 0.0 if self.pending() else time.monotonic() - self._used

    def _repacker(
        self, workers: Workers | None, go_on: Callable[[], bool] = always, *, at_once: int
    ) -> Repacker:
        """Create a repacker that codes `at_once` objects at a time while `go_on` returns True."""
        assert self._writer is not None
        writers = self._writer, self._again
        rooms = self.layout, self.index, self.disk
        return Repacker(*rooms, *writers, workers, self._budget, at_once, go_on)

    def _shrinker(self) -> Shrinker:
        """Create a shrinker with its own writer, for reclaim on a full disk."""
        rooms = self.layout, self.index, self.staging, self.disk
        writer = Writer(*rooms, self._packs, None)
        return Shrinker(self.layout, self.index, self.disk, writer, self._reserve)

    # -- reading

    async def body(self, object_id: int) -> Body:
        """See :meth:`BodyReader.body`."""
        self._used = time.monotonic()
        return await self._bodies.body(object_id)

    async def prefetch(self, ino: int) -> None:
        """Render a file that will be read soon into the cache.

        Logs FsmountError; raises OSError.
        """
        try:
            object_id = self.index.inode(ino).object_id
            if object_id is not None:
                await self._bodies.prefetch(object_id)
        except FsmountError as error:
            _log.info("prefetch of inode %d: %s", ino, error)

    def _object(self, object_id: int) -> Object:
        """Return the row of an object, also if the writer has not committed it yet."""
        if self._writer is not None:
            return self._writer.object(object_id)
        return self.index.object(object_id)

    async def _pool(self) -> tuple[Workers, int]:
        """Return the workers, and the bytes that each may cache. Waits until they run."""
        await self._ready.wait()
        assert self._workers is not None
        return self._workers, self._budget

    # -- tasks

    async def run(self, *, count: int | None = None) -> None:
        """Run workers, background encoding and durability points, until cancelled.

        `count` is the number of processes that encode, one for each core by default.
        """
        count = count or len(os.sched_getaffinity(0))
        preload = (jobs.__name__,)
        async with Workers(count, preload=preload) as workers, trio.open_nursery() as nursery:
            # One worker more than `count` is free for readers.
            self._budget = self._layer_bytes // (count + 1)
            self._workers = workers
            self._ready.set()
            if self._writer is not None:
                self._reserve.asked_before = True
            if self._encoder is not None and self._writer is not None:
                nursery.start_soon(self._write, self._encoder, self._writer, workers, count)
            await trio.sleep_forever()

    async def _write(self, encoder: Encoder, writer: Writer, workers: Workers, count: int) -> None:
        """Run the tasks that change the store, until another process takes the store over."""
        assert self._ownership is not None
        trio_token = trio.lowlevel.current_trio_token()

        def tell() -> None:
            with suppress(trio.RunFinishedError):
                trio_token.run_sync_soon(self._lost.set)

        self._ownership.when_lost = tell
        if self._is_lost:
            self._lost.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_at, self._lost, nursery.cancel_scope)
            nursery.start_soon(self._durability.run)
            nursery.start_soon(encoder.run, workers, count, self._budget)
            nursery.start_soon(self._copier.run, workers)
            nursery.start_soon(self._space.run)

    async def warm(self) -> None:
        """Start a worker, so that the first reader does not wait for a process to start."""
        workers, _ = await self._pool()
        with suppress(WorkerDied):  # the first reader gets the error then
            await workers.warm(1)

    @asynccontextmanager
    async def running(self, *, count: int | None = None) -> AsyncIterator[None]:
        """Run :meth:`run` while the block lasts."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: self.run(count=count))
            await self._ready.wait()
            yield
            nursery.cancel_scope.cancel()

    # -- statistics

    def stats(self) -> dict[str, Any]:
        """See :func:`statistics`."""
        return statistics(self.path, self.layout, self.index)


async def _cancel_at(event: trio.Event, scope: trio.CancelScope) -> None:
    """Cancel a scope when the event is set."""
    await event.wait()
    scope.cancel()
