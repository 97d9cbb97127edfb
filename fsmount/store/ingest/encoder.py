"""Background encoding: from staged files to objects in packs.

A staged file goes through *look* (a worker takes the PNG apart, several at once), *plan* and
*encode* (one after the other in queue order, since a frame may take tiles from the one before),
*append* to the open pack, and with others of its batch through *commit*: pack durable, rows turned
from staged to encoded in one transaction, index durable, staged files removed.

State and who touches it: everything here belongs to the trio task; between awaits nothing else
changes it. After each await the inode is looked at again: `_unchanged` says whether the body is
still the one that was taken (same token, not spoilt by a writer). When a commit fails, everything
appended and not committed is given up (`_epoch` moves on) and encoded anew, into a new pack. What
was under way then waits in the next batch for its turn, so that all of it is queued in order.

Only threads and workers ask the disk. From the moment :meth:`Writer.append` returns until the body
is in `_batch` nothing awaits: a commit has all that its packs hold.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import trio

from fsmount import threads
from fsmount.codec.deflate.deflate import DeflateParams
from fsmount.codec.images import images
from fsmount.codec.png.png import MAX_FILE, NOT_A_PNG
from fsmount.errors import Damaged, FsmountError, NotExact, WorkerDied
from fsmount.store.disk.disk import Disk
from fsmount.store.disk.holes import hole_bytes
from fsmount.store.frames import jobs
from fsmount.store.frames.jobs import Encoded, Look, Order, Transcoded
from fsmount.store.frames.planner import Plan, Planner
from fsmount.store.index import Index, Inode, Object
from fsmount.store.ingest import prove
from fsmount.store.ingest.queue import Queue, final_name
from fsmount.store.ingest.sequencer import Place, Sequencer
from fsmount.store.layout import Layout
from fsmount.store.packs import entries
from fsmount.store.packs.bodies import dump_sums, sum_up
from fsmount.store.packs.entries import About
from fsmount.store.packs.staging import Staging
from fsmount.store.packs.writer import Writer
from fsmount.threads import Kind
from fsmount.work.workers import Workers

_log = logging.getLogger(__name__)

# Files above this stay files of their own, in raw/, unless they are PNGs that can be re-created.
KEEP_BYTES = 32 << 20
# So do smaller ones with holes of so many bytes in them.
_HOLES_KEPT = 1 << 20
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_BATCH = 64
_BATCH_SECONDS = 1.0
_RETRY_SECONDS = 5.0
# JPEGs that are transcoded at once: one of 16 megapixels takes 700 MB of memory.
_TRANSCODING = 2
# Files under way for each process: while one is encoded others are looked at.
_AHEAD = 3
# After so many pictures in a row one process is left to encoding: a look costs a fifth more where
# the process did not look at the picture before. Files that need no encoding are for all.
_STREAK = 4
_SIGNATURES_KEPT = 512
# What link(2) says on filesystems without hard links (EPERM: exFAT, FAT), or of too many.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@dataclass(frozen=True, slots=True)
class _Job:
    """A staged body that is being encoded."""

    ino: int
    token: int
    epoch: int


@dataclass(frozen=True, slots=True)
class _Done:
    """A body whose object is appended (or was there before: `new` is None).

    `check` reads the entry back, and raises where that is not what was proved.
    """

    job: _Job
    object_id: int
    size: int
    new: Object | None
    check: Callable[[], None] | None = None
    signatures: tuple[str, bytes] | None = None
    kept: Path | None = None


class _CannotEncodeError(Exception):
    """This frame goes raw; the message says why."""


class Encoder:
    """Each staged file's way from the queue to the writer."""

    def __init__(
        self, layout: Layout, index: Index, staging: Staging, disk: Disk, writer: Writer
    ) -> None:
        self._layout = layout
        self._index = index
        self._staging = staging
        self._disk = disk
        self._writer = writer
        self.queue = Queue(index)
        self._planner = Planner()
        self._next_id = index.next_object_id()
        self._epoch = 0
        self._batch: list[_Done] = []
        self._committing = trio.Lock()
        self._going = trio.Event()
        self._going.set()
        self._transcoding = trio.Semaphore(_TRANSCODING)
        self._hints: dict[int, DeflateParams] = {}
        self._last_hint: DeflateParams | None = None
        # The process that encoded last has the layers that the next frame needs.
        self._by: int | None = None
        self._count = 1
        self._looks = trio.CapacityLimiter(math.inf)
        # Pictures since the last file that was none.
        self._streak = 0
        # Files under way that have failed and wait for their next try.
        self._resting: set[int] = set()
        for inode in index.staged_inodes():
            self.queue.put(inode.ino)

    def is_idle(self) -> bool:
        """Whether nothing is queued or under way, so that no plan rests on an object."""
        return not (self.queue.count() or self._batch)

    def start_afresh(self) -> None:
        """Plan from what the index has from here on: objects may have been dropped."""
        self._planner = Planner()

    @asynccontextmanager
    async def halted(self) -> AsyncIterator[None]:
        """In the block nothing is encoded or committed, and no plan rests on an object: what was
        under way begins anew after it."""
        async with self._committing:
            self._going = trio.Event()
            try:
                await self._give_up([])
                yield
            finally:
                self._going.set()

    # -- the route

    async def run(self, workers: Workers, count: int, budget: int) -> None:
        """Encode for ever; `count` files at once, `budget` bytes of layers in each worker."""
        slots = trio.Semaphore(_AHEAD * count + 1)
        places = Sequencer()
        self._count = count
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._commit_for_ever, nursery)
            while True:
                await slots.acquire()
                ino = await self.queue.take()
                place = places.place()
                nursery.start_soon(self._guarded, nursery, workers, budget, ino, place, slots)

    async def _guarded(
        self,
        nursery: trio.Nursery,
        workers: Workers,
        budget: int,
        ino: int,
        place: Place,
        slots: trio.Semaphore,
    ) -> None:
        """One file's way; whatever goes wrong leaves it staged and tries again later."""
        failed = False
        try:
            if await self._one(workers, budget, ino, place):
                return
        except Exception as error:
            try:
                inode = self._staged(ino)
                if inode is not None and await self._is_missing(inode):
                    # Nothing to wait for: a reader is told, the others go on.
                    _log.error("%r: its staged file is missing", self._index.path(ino))
                    self.queue.leave(ino)
                    self.queue.notify()
                    return
                if inode is not None:
                    self._failed(ino, error)
                    failed = True
            except OSError as again:
                self._failed(ino, again)
                failed = True
        finally:
            place.leave()
            slots.release()
        # No await since the slot was released: what is queued now may get it.
        left = [ino] if failed else self._requeue([ino])
        if left:
            nursery.start_soon(self._later, left)

    def _failed(self, ino: int, error: Exception) -> None:
        """Note a failure."""
        unforeseen = None if isinstance(error, OSError) else error
        _log.warning("encoding inode %d: %s; it stays staged", ino, error, exc_info=unforeseen)
        self.queue.failed(ino)

    def _again(self, nursery: trio.Nursery, inos: Iterable[int]) -> None:
        """Queue files that were under way: those that have failed after a while. Does not await."""
        failures = self.queue.failures
        for count, group in groupby(sorted(inos, key=failures), failures):
            some = list(group)
            left = some if count else self._requeue(some)
            if left:
                nursery.start_soon(self._later, left)

    async def _later(self, inos: list[int]) -> None:
        """Queue files that have failed, after a while."""
        while inos:
            self._resting.update(inos)
            await trio.sleep(_RETRY_SECONDS * max(map(self.queue.failures, inos)))
            self._resting.difference_update(inos)
            inos = self._requeue(inos)

    def _requeue(self, inos: Iterable[int]) -> list[int]:
        """Queue files that were under way, unless they are not there to be encoded any more.

        Returns those of which the index cannot be read just now; they have failed once more. Does
        not await, so that the first does not overtake those before it. Raises nothing: it would
        end the encoding of all files, and the workers that render them.
        """
        left = []
        for ino in inos:
            spoilt = self.queue.leave(ino)
            try:
                if self._staged(ino):
                    self.queue.put(ino)
                else:
                    # Its number may soon be another file's.
                    self.queue.forgive(ino)
            except Exception as error:
                self._failed(ino, error)
                self.queue.back(ino, spoilt)
                left.append(ino)
        self.queue.notify()
        return left

    async def _one(self, workers: Workers, budget: int, ino: int, place: Place) -> bool:
        """Whether the file's body has been appended and waits for its commit."""
        # No await between this and the note of the epoch: what is halted then must not go on.
        while not self._going.is_set():
            await self._going.wait()
        inode = self._staged(ino)
        if inode is None or inode.staged is None:
            return False
        job = _Job(ino, inode.staged, self._epoch)
        path = self._staging.path(inode.staged)
        if self._staging.has_failed(inode.staged):
            await self._rescue(job)
            return False
        if await threads.call(Kind.STAGED, _is_large, path):
            await place.enter()
            return await self._keep(job, path, NOT_A_PNG)
        seen = await self._look(workers, budget, inode, path)
        same = await threads.call(Kind.STAGED, prove.is_staged, path, seen.sha256, seen.size)
        transcoded = await self._transcode(workers, inode, path, seen)
        await place.enter()
        self._streak = self._streak + 1 if seen.picture is not None else 0
        if not self._unchanged(job):
            return self._void(job)
        if not same:
            raise Damaged(path, reason="a worker says another hash")
        there = self._writer.find(seen.sha256, seen.size)
        if there is not None:
            self._add(_Done(job, there, seen.size, None))
            return True
        reason = seen.reason
        if isinstance(transcoded, Transcoded):
            return await self._jpeg(job, seen, transcoded)
        if transcoded is not None:
            reason = transcoded
        if seen.picture is not None:
            try:
                return await self._frame(workers, budget, job, seen)
            except _CannotEncodeError as error:
                reason = str(error)
        if seen.size > KEEP_BYTES:
            return await self._keep(job, path, reason)
        return await self._raw(job, path, seen, reason)

    def _staged(self, ino: int) -> Inode | None:
        try:
            inode = self._index.inode(ino)
        except FsmountError:
            return None
        if inode.staged is None or not inode.nlink or self.queue.is_held(ino):
            return None
        return inode

    async def _is_missing(self, inode: Inode) -> bool:
        """Whether the staged file of a row is gone, and is still the one of its row."""
        if inode.staged is None:
            return False
        path = self._staging.path(inode.staged)
        if await threads.call(Kind.STAGED, path.exists):
            return False
        now = self._staged(inode.ino)
        return now is not None and now.staged == inode.staged

    def _unchanged(self, job: _Job) -> bool:
        inode = self._staged(job.ino)
        same = inode is not None and inode.staged == job.token
        safe = not self._staging.has_failed(job.token)
        return same and safe and self.queue.is_whole(job.ino) and self._epoch == job.epoch

    async def _rescue(self, job: _Job) -> None:
        """Give a file whose fsync failed another staged file, or set its bytes aside if the kernel
        has not got them any more: what the disk has instead must not be taken for the file."""
        found = await threads.call(Kind.STAGED, self._rescued, job.token)
        inode = self._staged(job.ino)
        if inode is None or inode.staged != job.token or not self.queue.is_whole(job.ino):
            if found is not None:
                await threads.finish(Kind.WRITE, self._staging.remove, found[0])
        elif found is None:
            what = self._index.path(job.ino)
            self._staging.condemn(job.token)
            place = await threads.call(Kind.WRITE, self._staging.set_aside, job.token)
            _log.critical("%r is lost: the disk did not take it; what it has is in %s", what, place)
        else:
            try:
                self._index.stage(job.ino, *found)
            except BaseException:
                await threads.finish(Kind.WRITE, self._staging.remove, found[0])
                raise
            self._writer.discard(job.token)

    def _rescued(self, token: int) -> tuple[int, int] | None:
        """The token and size of a new staged file, if one could be made. In a thread."""
        fresh = self._staging.rescue(token)
        return None if fresh is None else (fresh, self._staging.size(fresh))

    async def _look(self, workers: Workers, budget: int, inode: Inode, path: Path) -> Look:
        place = self._index.folder_of(inode.ino)
        folder = place[0] if place else 0
        known = (self._hints.get(folder), self._last_hint)
        hints = tuple(dict.fromkeys(hint for hint in known if hint is not None))
        one_encodes = self._count > 1 and self._streak >= _STREAK
        self._looks.total_tokens = self._count - 1 if one_encodes else math.inf
        try:
            async with self._looks:
                seen = await workers.run(jobs.look, str(path), hints, budget)
        except OSError:
            raise
        except Exception as error:
            reason = _why(error, self._index.path(inode.ino))
            return await threads.call(Kind.STAGED, jobs.look_raw, str(path), reason)
        params = seen.picture.recipe.params if seen.picture is not None else None
        if isinstance(params, DeflateParams):
            self._hints[folder] = self._last_hint = params
        return seen

    async def _transcode(
        self, workers: Workers, inode: Inode, path: Path, seen: Look
    ) -> Transcoded | str | None:
        """A JPEG's smaller form, or the reason why it has none; None: it is no JPEG, or known.

        Several at once, before the file's turn: one does not need another.
        """
        if not seen.jpeg or seen.size > KEEP_BYTES or self._writer.find(seen.sha256, seen.size):
            return None
        try:
            async with self._transcoding:
                return await workers.run(jobs.transcode, str(path), seen.sha256)
        except OSError:
            raise
        except Exception as error:
            return _why(error, self._index.path(inode.ino))

    # -- the kinds of bodies

    async def _frame(self, workers: Workers, budget: int, job: _Job, seen: Look) -> bool:
        assert seen.seen is not None and seen.picture is not None
        geometry = seen.seen.geometry
        if not self._planner.knows(geometry):
            self._planner.load(geometry, self._index.signatures(geometry))
        plan = self._planner.plan(seen.seen)
        about = self._about(job, seen.sha256, seen.size)
        with self._writer.packs.reading():
            # Sources, what their layers rest on, and the anchor.
            places = self._writer.places(plan.objects())
            order = Order(about, seen.picture, plan, places, self._writer.next_pack())
            try:
                encoded = await workers.run(jobs.encode, order, budget, by=self._by)
            except OSError:
                raise
            except Exception as error:
                raise _CannotEncodeError(_why(error, about.path)) from error
        self._by = encoded.by
        if not self._unchanged(job):
            return self._void(job)
        new = await self._writer.append(
            encoded.entry,
            about,
            kind=encoded.kind,
            depth=encoded.depth,
            needs=encoded.needs,
            layer=encoded.layer,
        )
        if new is None:
            return self._void(job)
        data = self._note(seen, plan, encoded, new.id)
        check = self._check(prove.check_frame, new, about, encoded.proof)
        signatures = (geometry, data) if data else None
        self._add(_Done(job, new.id, seen.size, new, check, signatures))
        return True

    def _note(self, seen: Look, plan: Plan, encoded: Encoded, object_id: int) -> bytes:
        assert seen.seen is not None
        if encoded.fell_back:
            _log.warning("object %d: its references were of no use; coded whole", object_id)
            for used in plan.objects():
                self._planner.forget(used)
        return self._planner.encoded(
            seen.seen, encoded.layout, object_id, anchor=encoded.anchor, size=seen.size
        )

    def _check(self, check: Callable[..., None], new: Object, *known: object) -> Callable[[], None]:
        """What reads an appended entry back; `known` is what it is compared with."""
        return partial(check, self._layout.pack(new.pack), new, *known)

    async def _jpeg(self, job: _Job, seen: Look, found: Transcoded) -> bool:
        about = self._about(job, seen.sha256, seen.size)
        entry = entries.jpeg_entry(about, found.payload)
        new = await self._writer.append(entry, about, kind=entries.JPEG)
        if new is None:
            return self._void(job)
        check = self._check(prove.check_whole, new, about, found.proof, images.JXL)
        self._add(_Done(job, new.id, seen.size, new, check))
        return True

    async def _raw(self, job: _Job, path: Path, seen: Look, reason: str) -> bool:
        payload = await threads.call(Kind.STAGED, path.read_bytes)
        if not self._unchanged(job) or len(payload) != seen.size:
            return self._void(job)
        about = self._about(job, seen.sha256, seen.size)
        entry = entries.raw_entry(about, reason, payload)
        new = await self._writer.append(entry, about, kind="raw", reason=reason)
        if new is None:
            return self._void(job)
        check = self._check(prove.check_whole, new, about, seen.sha256)
        self._add(_Done(job, new.id, seen.size, new, check))
        return True

    async def _keep(self, job: _Job, path: Path, reason: str) -> bool:
        """A large file becomes a file in raw/: by a hard link, or a copy where there are none."""
        sums, sha256, size = await threads.call(Kind.STAGED, sum_up, path)
        await threads.call(Kind.FORCE, self._staging.force_by_name, job.token)
        if not self._unchanged(job):
            return self._void(job)
        # Vast sparse files have no hash.
        there = self._writer.find(sha256, size) if sha256 else None
        if there is not None:
            self._add(_Done(job, there, size, None))
            return True
        about = self._about(job, sha256, size)
        listed = dump_sums(sums)
        proof = hashlib.sha256(listed).digest()
        entry = entries.kept_entry(about, reason, listed)
        kept = self._layout.kept(about.id)
        try:
            await threads.call(Kind.STAGED, self._name_again, path, kept, sums)
            new = None
            if self._unchanged(job):
                new = await self._writer.append(entry, about, kind="raw", reason=reason)
            if new is None:
                await threads.finish(Kind.WRITE, self._disk.unlink, kept)
                return self._void(job)
        except (OSError, FsmountError):
            await threads.finish(Kind.WRITE, self._disk.unlink, kept)
            raise
        check = self._check(prove.check_whole, new, about, proof, entries.SUMS)
        self._add(_Done(job, new.id, size, new, check, kept=kept))
        return True

    def _name_again(self, path: Path, kept: Path, sums: dict[int, bytes]) -> None:
        """A second name for a file; a copy with these `sums` where there are no hard links. It is
        durable. In a thread."""
        try:
            self._disk.link(path, kept)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if _copy(self._disk, path, kept) != sums:
                raise Damaged(kept, reason="the copy has other bytes") from None
        self._disk.fsync_folder(self._layout.raw)

    def _about(self, job: _Job, sha256: bytes, size: int) -> About:
        """What is written of a file, with a new object id."""
        self._next_id += 1
        mtime_ns = self._index.inode(job.ino).mtime_ns
        return About(self._next_id - 1, self._name(job.ino), mtime_ns, sha256, size)

    def _name(self, ino: int) -> str:
        folder, _, name = self._index.path(ino).rpartition(b"/")
        path = folder + b"/" * bool(folder) + final_name(name)
        return path.decode("utf-8", "surrogateescape")

    # -- the commit

    def _add(self, done: _Done) -> None:
        self._batch.append(done)
        self.queue.notify()

    def _void(self, job: _Job) -> bool:
        """What was made of a body is of no use; whether it waits in the next batch: it does if all
        was given up, to be begun anew behind the files that were before it. Does not await."""
        if job.epoch == self._epoch:
            return False
        self._add(_Done(job, 0, 0, None))
        return True

    async def _commit_for_ever(self, nursery: trio.Nursery) -> None:
        while True:
            while not self._batch:
                await self.queue.change()
            with trio.move_on_after(_BATCH_SECONDS):
                while len(self._batch) < _BATCH and self._busy():
                    await self.queue.change()
            async with self._committing:
                batch = await self._commit_all()
            # No sleep here: what fails must not keep the others from their commits.
            self._again(nursery, [done.job.ino for done in batch])

    async def _commit_all(self) -> list[_Done]:
        """Commit what is appended; returns that, and what was given up."""
        void = self._take_void()
        batch, self._batch = self._batch, []
        try:
            if batch:
                await self._commit(batch)
        except Exception:
            _log.exception("a commit failed; its %d files stay staged", len(batch))
            await self._give_up(batch)
            # Those that joined the next batch meanwhile come behind these.
            return batch + void + self._take_void()
        try:
            await self._writer.settle()
        except (OSError, FsmountError) as error:
            _log.error("%s; staged files wait until the index is durable", error)
        return batch + void

    def _take_void(self) -> list[_Done]:
        """Take what was given up out of the next batch."""
        void = [done for done in self._batch if done.job.epoch != self._epoch]
        self._batch = [done for done in self._batch if done.job.epoch == self._epoch]
        return void

    def _busy(self) -> bool:
        """Whether more files will join the batch soon."""
        return self.queue.count() - len(self._resting) > len(self._batch)

    async def _commit(self, batch: list[_Done]) -> None:
        """Packs, rows and index of a batch; the staged files of rows that turned may go then."""
        turned: list[int] = []
        spoilt: list[Path] = []
        await self._prove(batch)
        try:
            await self._writer.commit(lambda: self._turn(batch, turned, spoilt))
        except Exception:
            # Else a disk that stays broken would be written to again and again.
            for done in batch:
                self.queue.failed(done.job.ino)
            raise
        for token in turned:
            self._writer.discard(token)
        for done in batch:
            self.queue.forgive(done.job.ino)
            self._writer.forget(done.object_id)
        # The writers that spoilt them write into these very files.
        await threads.finish(Kind.WRITE, self._unlink, spoilt)

    def _unlink(self, kept: list[Path]) -> None:
        """Remove files from raw/ that no row names; recovery removes what is left. In a thread."""
        for path in kept:
            with suppress(OSError):
                self._disk.unlink(path)

    async def _prove(self, batch: list[_Done]) -> None:
        """Read back all that was appended. Raises what a check does.

        What is appended meanwhile joins the batch: the commit makes all that packs hold count.
        """
        wrong: Exception | None = None
        for done in batch:
            if done.check is not None:
                try:
                    await threads.call(Kind.ENTRY, done.check)
                except Exception as error:
                    self.queue.failed(done.job.ino)
                    wrong = error
            if done is batch[-1]:
                void = self._take_void()
                batch += self._batch
                self._batch = void
        if wrong is not None:
            raise wrong

    def _turn(self, batch: list[_Done], turned: list[int], spoilt: list[Path]) -> None:
        """Inside the transaction: objects, and rows from staged to encoded (their tokens).

        `spoilt`: what is to go from raw/ then.
        """
        for done in batch:
            unchanged = self._unchanged(done.job)
            if done.kept is not None and not unchanged:
                spoilt.append(done.kept)
                continue
            if done.new is not None:
                self._index.add_object(done.new)
            if done.signatures is not None:
                self._index.add_signatures(done.object_id, *done.signatures, keep=_SIGNATURES_KEPT)
            if (
                unchanged
                and self._is_there(done.object_id)
                and self._index.encode(done.job.ino, done.job.token, done.object_id, done.size)
            ):
                turned.append(done.job.token)

    def _is_there(self, object_id: int) -> bool:
        """Whether an object has its row: one found while it waited for it may have been dropped."""
        try:
            self._index.object(object_id)
        except Damaged:
            return False
        return True

    async def _give_up(self, batch: list[_Done]) -> None:
        """Forget what was appended and not committed, and write to a new pack from here on.

        What waits in the next batch is void from now on, and begun anew when its turn comes. The
        caller holds `_committing`. Up to the first await all of it is void already.
        """
        self._epoch += 1
        self._planner = Planner()
        kept = [done.kept for done in batch + self._batch if done.kept is not None]
        await self._writer.give_up()
        await threads.finish(Kind.WRITE, self._unlink, kept)


def _why(error: Exception, path: object) -> str:
    """Why a file goes raw, for `stats`. Anything unforeseen is logged: it costs space only."""
    if isinstance(error, NotExact):
        return str(error.detail)
    if isinstance(error, WorkerDied):
        _log.warning("%r cost two worker processes; kept raw", path)
        return "worker died"
    _log.error("%r is kept raw", path, exc_info=error)
    return "internal error"


def _is_large(path: Path) -> bool:
    """Whether a file is to stay a file of its own: packs have no holes."""
    size = path.stat().st_size
    if size > MAX_FILE:
        return True
    if size <= min(KEEP_BYTES, _HOLES_KEPT):
        return False
    with path.open("rb", buffering=0) as file:
        if file.read(len(_PNG_MAGIC)) == _PNG_MAGIC:
            return False
        return size > KEEP_BYTES or hole_bytes(file.fileno(), size) >= _HOLES_KEPT


def _copy(disk: Disk, source: Path, target: Path) -> dict[int, bytes]:
    """A copy of a file, forced to the disk; the sums of what was written."""
    reading = disk.open(source, os.O_RDONLY)
    try:
        writing = disk.create(target)
        try:
            disk.copy(reading, writing, os.fstat(reading).st_size)
            disk.fsync(writing)
        finally:
            disk.close(writing)
    finally:
        disk.close(reading)
    return sum_up(target)[0]
