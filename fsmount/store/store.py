"""An open store: the module that composes all parts of a store, and its public interface.

The mount and the command line access names and attributes through :attr:`Store.index`, staged files
through :attr:`Store.staging`, and encoded bytes through :meth:`Store.body`.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio

from fsmount import threads
from fsmount.errors import Damaged, FsmountError, ReadOnly, WorkerDied
from fsmount.store import config, contents
from fsmount.store.disk.disk import Disk
from fsmount.store.disk.reserve import Reserve
from fsmount.store.frames import jobs
from fsmount.store.index import Index, Object
from fsmount.store.ingest.encoder import Encoder
from fsmount.store.layout import Layout
from fsmount.store.lock import Lock
from fsmount.store.maintenance.background import QuietRepack
from fsmount.store.maintenance.copier import Copier
from fsmount.store.maintenance.reclaim import ENOUGH_BYTES, Room, Shrinker
from fsmount.store.maintenance.repack import Repacker, Summary, always, due
from fsmount.store.ownership import OwnedDisk, Ownership
from fsmount.store.packs.bodies import Kept, Rendered, load_sums
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import read_entry
from fsmount.store.packs.pack_set import Packs
from fsmount.store.packs.staging import Staging
from fsmount.store.packs.writer import Writer
from fsmount.store.recovery.consistency import Consistency
from fsmount.store.recovery.startup import recover
from fsmount.threads import Kind
from fsmount.work.cache import Cache
from fsmount.work.workers import Workers

_log = logging.getLogger(__name__)

DEFAULT_CACHE_BYTES = 256 << 20
# A write that was acknowledged without fsync survives a power cut after this long.
DURABLE_SECONDS = 5.0
Body = Rendered | Kept
T = TypeVar("T")


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
            self._packs = Packs()
            self._encoder: Encoder | None = None
            self._writer: Writer | None = None
            # Held by the task that moves entries of committed objects.
            self._repacking = trio.Lock()
            if self._ownership is not None:
                self._open_for_writing(self._ownership, undo)
            undo.pop_all()
        # Half of the cache holds rendered files here, half holds decoded layers in the workers.
        self._rendered: Cache[int, bytes] = Cache(cache_bytes // 2)
        self._layer_bytes = cache_bytes // 2
        self._queued: set[int] = set()
        self._used = time.monotonic()
        self._quiet: QuietRepack | None = None
        self._workers: Workers | None = None
        self._budget = 0
        self._ready = trio.Event()
        self._lost = trio.Event()
        self._full = trio.Event()

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
        self._room = Room(
            self.index,
            self._reserve,
            self._encoder,
            self._again,
            self._repacking,
            self._sound,
            lambda: self._repacker(None, at_once=1),
            self._shrinker,
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
        self._queued.add(ino)
        self._writing().queue.put(ino)

    async def need_room(self, size: int = 0) -> None:
        """Make room before files grow by `size` bytes.

        On a full disk, this method first reclaims the space of deleted files. It asks no disk if
        there was much free space a moment ago.

        Raises OSError ENOSPC while the disk has no room for the reserve: other writes must not fill
        the space that the reserve gave up for deletions. Raises OSError EIO if another process took
        the store over.
        """
        self._used = time.monotonic()
        if self._is_lost:
            self._owned()
        if self._writer is None or self._reserve.allows(size):
            return
        if await threads.call(Kind.ROOM, self._has_room):
            return
        await self._room.make()
        if not await threads.call(Kind.ROOM, self._reserve.fill):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _has_room(self) -> bool:
        """Whether files may grow. Runs in a thread.

        Raises OSError EIO if another process took the store over.
        """
        self._owned()
        return self._reserve.has_room()

    async def before_deleting(self) -> None:
        """Prepare for a commit that deletes: on a full disk, the commit gets the reserve."""
        if self._writer is not None and not self._reserve.allows(0):
            await threads.call(Kind.ROOM, self._reserve.spend_if_full)

    async def make_room(self, enough: int = ENOUGH_BYTES) -> None:
        """Reclaim space as on a full disk, until `enough` bytes are free.

        Raises ReadOnly. Logs failures.
        """
        self._writing()
        await self._room.make(enough)

    def discard(self, token: int) -> None:
        """Remove a staged file that no row names any more, once that is durable.

        Does not await. Raises ReadOnly.
        """
        if self._writer is None:
            raise ReadOnly(self.path)
        self._writer.discard(token)
        if self._reserve.is_spent:
            # A writer waits for the room that this gives.
            self._full.set()

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
        await self._room.make()
        await self.drain()
        await self._sound()
        assert self._workers is not None
        repacker = self._repacker(self._workers, at_once=len(os.sched_getaffinity(0)))
        await self.before_deleting()
        async with self._repacking:
            if encoder.is_idle():
                encoder.start_afresh()
                await repacker.drop_unneeded()
            repacker.summary.dropped += self._room.dropped
            return await repacker.run(progress)

    async def repack_quietly(self, go_on: Callable[[], bool]) -> bool:
        """Repack a part, as :mod:`background` describes. The caller makes one call at a time.

        Returns False if a file was written or read, or `go_on` returned False; True if nothing is
        left to do. Raises ReadOnly, :class:`Damaged`, OSError.
        """
        encoder = self._writing()
        await threads.call(Kind.ROOM, self._owned)
        await self._sound()
        if self._quiet is None:
            make = partial(self._repacker, at_once=1)
            self._quiet = QuietRepack(self.layout, self.index, encoder, make)
        await self.before_deleting()
        used = self._used
        async with self._repacking:
            return await self._quiet.work(lambda: self._used == used and go_on())

    async def _sound(self) -> None:
        """Raise :class:`Damaged` if the index must not be a reason for removing anything.

        Waits until workers run.
        """
        await self._ready.wait()
        assert self._workers is not None
        await self._consistency.require(self._workers)

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
        """Return the body of an object, after a check of its hash.

        A rendered body is checked as a whole here. A kept body is a large raw file, checked as it
        is read. Raises :class:`Damaged`, OSError.
        """
        self._used = time.monotonic()
        found = self._object(object_id)
        if found.is_kept:
            return await self._read(found, self._kept)
        return Rendered(await self._rendered.get(object_id, lambda: self._render(found)))

    async def prefetch(self, ino: int) -> None:
        """Render a file that will be read soon into the cache.

        Logs FsmountError; raises OSError.
        """
        try:
            object_id = self.index.inode(ino).object_id
            if object_id is not None and self._object(object_id).kind != "raw":
                await self.body(object_id)
        except FsmountError as error:
            _log.info("prefetch of inode %d: %s", ino, error)

    def _object(self, object_id: int) -> Object:
        """Return the row of an object, also if the writer has not committed it yet."""
        if self._writer is not None:
            return self._writer.object(object_id)
        return self.index.object(object_id)

    def _place(self, found: Object) -> Location:
        """Return the location of the entry of an object."""
        return Location(found.id, str(self.layout.pack(found.pack)), found.offset, found.length)

    async def _read(
        self, found: Object, read: Callable[[Object, Location, tuple[Location, ...]], Awaitable[T]]
    ) -> T:
        """Call `read` with an object, the location of its entry, and those of the entries it needs.

        Holds the packs meanwhile. Tries again if the entries moved during the call. Returns the
        result.
        """
        while True:
            with self._packs.reading():
                target, *places = self._places(found.id)
                try:
                    return await read(found, target, tuple(places))
                except Damaged:
                    if self._places(found.id) == [target, *places]:
                        raise
                    # Another process has repacked the entries, and their old packs are gone.

    async def _render(self, found: Object) -> tuple[bytes, int]:
        """Render an object. Returns (bytes, number of bytes), as the cache expects."""
        data = await self._read(found, self._render_from)
        if len(data) != found.size:
            raise Damaged(f"object {found.id}", reason=f"{len(data)} bytes, not {found.size}")
        return data, len(data)

    def _places(self, object_id: int) -> list[Location]:
        """Locations of the entry of an object, and of the entries that it needs."""
        found = self._object(object_id)
        needs = (self._object(i) for i in found.needs if i != object_id)
        return [self._place(found), *map(self._place, needs)]

    async def _render_from(
        self, found: Object, target: Location, places: tuple[Location, ...]
    ) -> bytes:
        """Render an object from these locations: a raw entry in a thread, others in a worker."""
        if found.kind == "raw":
            return await threads.call(Kind.ENTRY, jobs.render, target, places, found.sha256, 0)
        await self._ready.wait()
        assert self._workers is not None
        return await self._workers.run(
            jobs.render, target, places, found.sha256, self._budget, urgent=True
        )

    async def _kept(self, found: Object, place: Location, _: tuple[Location, ...]) -> Kept:
        """Return the body of a large file kept verbatim, with the checksums from its entry."""
        path = Path(place.pack)
        entry = await threads.call(Kind.ENTRY, read_entry, path, place.offset, place.length)
        return Kept(self.layout.kept(found.id), found.size, load_sums(entry.payload))

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
            nursery.start_soon(self._durable_for_ever, encoder, writer)
            nursery.start_soon(encoder.run, workers, count, self._budget)
            nursery.start_soon(self._copier.run, workers)
            nursery.start_soon(self._room_for_ever)

    async def warm(self) -> None:
        """Start a worker, so that the first reader does not wait for a process to start."""
        await self._ready.wait()
        assert self._workers is not None
        with suppress(WorkerDied):  # the first reader gets the error then
            await self._workers.warm(1)

    @asynccontextmanager
    async def running(self, *, count: int | None = None) -> AsyncIterator[None]:
        """Run :meth:`run` while the block lasts."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: self.run(count=count))
            await self._ready.wait()
            yield
            nursery.cancel_scope.cancel()

    async def _durable_for_ever(self, encoder: Encoder, writer: Writer) -> None:
        """Reach durability points, until cancelled.

        One comes after each DURABLE_SECONDS, or at once if a discarded file gives space to a full
        disk. Fills the reserve again each time. Logs failures, and tries again at the next point.
        """
        while True:
            with trio.move_on_after(DURABLE_SECONDS):
                await self._full.wait()
            self._full = trio.Event()
            touched, self._queued = self._queued | set(encoder.queue.held()), set()
            try:
                self._reserve.want(self._packs.largest)
                await threads.call(Kind.ROOM, self._reserve.fill)
                if not (touched or self.index.dirty or writer.has_discarded()):
                    continue
                await threads.call(Kind.FORCE, self._force_staged, self._tokens(touched))
                await writer.settle()
            except (OSError, FsmountError) as error:
                self._queued |= touched
                _log.error("a durability point failed: %s", error)

    async def _room_for_ever(self) -> None:
        """Reclaim space on a full disk even when no write triggers it, until cancelled."""
        while True:
            await trio.sleep(DURABLE_SECONDS)
            with suppress(OSError):
                if await threads.call(Kind.ROOM, self._is_full):
                    await self._room.make()

    def _is_full(self) -> bool:
        """Whether the disk is full. Runs in a thread."""
        return self._reserve.is_low or self._reserve.is_spent

    def _tokens(self, inodes: set[int]) -> dict[int, bytes]:
        """Map the tokens of the staged files of some inodes to their paths."""
        tokens = {}
        for ino in inodes:
            try:
                token = self.index.inode(ino).staged
            except FsmountError:
                continue
            if token is not None:
                tokens[token] = self.index.path(ino)
        return tokens

    def _force_staged(self, tokens: dict[int, bytes]) -> None:
        """Force staged files to the disk. Runs in a thread.

        A file that fails does not stop the others: it is logged. Raises OSError if a file cannot be
        opened.
        """
        for token, path in tokens.items():
            if self.staging.has_failed(token):
                continue
            try:
                self.staging.force_by_name(token)
            except FileNotFoundError:
                continue
            except OSError as error:
                if not self.staging.has_failed(token):
                    raise
                _log.error("%r may have lost bytes: forcing it to the disk failed: %s", path, error)

    # -- statistics

    def stats(self) -> dict[str, Any]:
        """Return the figures that `fsmount stats --json` prints; sizes in bytes. Raises OSError."""
        totals = self.index.totals()
        kinds = {kind: totals["kinds"].get(kind, 0) for kind in ("key", "delta", "jpeg", "raw")}
        stored = self.index.bytes()
        for folder, form in contents.forms(self.layout):
            for entry in contents.own(folder, form):
                # A mount that encodes at the same time may remove a staged file during the scan.
                with suppress(FileNotFoundError):
                    found = entry.stat()
                    # Large raw files may be sparse.
                    sparse = folder == self.layout.raw
                    stored += found.st_blocks * 512 if sparse else found.st_size
        return {
            "version": 1,
            "store": str(self.path),
            "files": totals["files"],
            "frames": kinds["key"] + kinds["delta"],
            "objects": {**kinds, "staged": totals["staged"]},
            "raw_reasons": totals["reasons"],
            "logical_bytes": totals["logical_bytes"],
            "stored_bytes": stored,
            "ratio": round(totals["logical_bytes"] / stored, 2) if stored else 0.0,
            "max_depth": totals["max_depth"],
            "packs": len(self.index.packs()),
        }


async def _cancel_at(event: trio.Event, scope: trio.CancelScope) -> None:
    """Cancel a scope when the event is set."""
    await event.wait()
    scope.cancel()
