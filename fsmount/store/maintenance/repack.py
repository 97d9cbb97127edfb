"""Repack: the space of deleted files back, and entries coded again with more effort.

Objects keep their ids, their pixels and their records; only their entries move to new packs, with
smaller payloads where more effort finds some. So nothing else has to change: no object that takes
pixels from another, no open file, no cache. What a frame touches stays the same, too.

Steps, each a commit of its own, each leaving a whole store:

1. Objects that no file shows and none that is shown needs lose their rows. Of those that no file
   shows, but some need, nothing but the pixels they coded is kept usable.
2. Pack after pack, a batch of objects after the other: each entry is coded again in a worker,
   which renders the file from it and compares its hash; the entry is appended to a pack that has
   repacked entries alone and read back from there; the pack is forced to the disk, one transaction
   turns the rows to their new places, the index is forced.
3. A pack without objects loses its row with the batch, its file when that is durable and nobody
   is reading what was found there before.

Stopped or killed at any moment it has done as many batches as were committed: what is not is cut
off, and packs without rows are removed, at the next start. The index notes how far `repack` has
written each pack, so that it goes on where it was and does nothing twice.

Readers and the encoder may be at work meanwhile, but for step 1: see :class:`Encoder.is_idle`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import trio

from fsmount import threads
from fsmount.codec.images import images
from fsmount.codec.memory import of_worker
from fsmount.errors import FsmountError, WorkerDied
from fsmount.folder import readable
from fsmount.store.disk.disk import Disk
from fsmount.store.frames import jobs
from fsmount.store.frames.reader import Reader
from fsmount.store.index import Index, Object
from fsmount.store.layout import Layout
from fsmount.store.packs import mover
from fsmount.store.packs.entries import FRAMES, NO_PAYLOAD, layout_of
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import Entry, build_entry, parse_entry
from fsmount.store.packs.writer import Writer
from fsmount.threads import Kind
from fsmount.work.workers import Workers

_log = logging.getLogger(__name__)

# Objects between two commits, and bytes of their entries, which are in memory until then.
_BATCH = 64
_BATCH_BYTES = 16 << 20
# A pack that repack wrote is written again when more than this share of it is nobody's.
_WASTE = 0.25


def always() -> bool:
    """For a repack that nothing stops."""
    return True


@dataclass
class Summary:
    """What was done: `dropped` objects that nothing needed, `moved` ones, of which `smaller`.

    `problems`: (object, why) of those that could not be proved and stay where they were.
    """

    dropped: int = 0
    moved: int = 0
    smaller: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)


def recode(target: Location, places: tuple[Location, ...], sha256: bytes, budget: int) -> Entry:
    """In a worker: the smallest entry found for an object; the one it has if none is smaller.

    A new entry is proved by rendering the file from its bytes: raises :class:`Damaged` if that does
    not have the hash `sha256`.
    """
    memory = of_worker()
    memory.share_for_store(budget)
    reader = Reader([*places, target], memory)
    entry = reader.entry(target.id)
    found = reader.record(entry)
    if found.header.get("kind") not in FRAMES or entry.suffix == NO_PAYLOAD:
        return entry
    image = images.decode(entry.suffix, entry.payload, layout_of(found).shape[2])
    suffix, payload = images.encode_again(image)
    if len(payload) >= len(entry.payload):
        return entry
    if not np.array_equal(images.decode(suffix, payload, image.shape[2]), image):
        _log.error("object %d: %s gave other pixels; left as it is", target.id, suffix)
        return entry
    smaller = Entry(f"{entry.name[:8]}{suffix}", entry.record, payload)
    parsed, _ = parse_entry(build_entry(smaller))
    jobs.rendered(parsed, Reader([*places, target], memory), sha256)
    return smaller


def due(index: Index) -> list[int]:
    """Packs worth writing again."""
    done, fill = index.repacked(), index.pack_fill()
    found = []
    for number, (length, _) in index.packs().items():
        waste = length - fill.get(number, 0)
        if done.get(number, 0) < length or waste > _WASTE * length:
            found.append(number)
    return found


def _batches(objects: Sequence[Object]) -> Iterator[list[Object]]:
    """Objects to move together: no more than fit into memory, but one at least."""
    batch: list[Object] = []
    size = 0
    for found in objects:
        if batch and (len(batch) >= _BATCH or size + found.length > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(found)
        size += found.length
    if batch:
        yield batch


class Repacker:
    """See the module. Belongs to the task that owns the store; one at a time.

    `fresh` writes new objects, `again` what is moved. No more than `at_once` objects are coded at a
    time (none without `workers`), and none is begun once `go_on` says no.
    """

    def __init__(
        self,
        layout: Layout,
        index: Index,
        disk: Disk,
        fresh: Writer,
        again: Writer,
        workers: Workers | None,
        budget: int,
        at_once: int,
        go_on: Callable[[], bool] = always,
    ) -> None:
        self._layout = layout
        self._index = index
        self._disk = disk
        self._fresh = fresh
        self._again = again
        self._mover = mover.Mover(layout, index, again)
        self._workers = workers
        self._budget = budget
        self._slots = trio.Semaphore(at_once)
        self._go_on = go_on
        self.summary = Summary()

    async def run(self, progress: Callable[[int], None]) -> Summary:
        """Move all that is worth it; `progress` is told of each object. Raises OSError: disk full.

        The encoder may be at work: a pack with entries that are not committed yet stays open, and
        is there for the next time. Whatever it raises, what was committed stays and the rest is as
        it was.
        """
        packs = due(self._index)
        for writer in (self._fresh, self._again):
            if any(map(writer.is_open, packs)):
                await writer.seal()
        for number in packs:
            await self.empty(number, progress)
        await self.drop_emptied()
        return self.summary

    async def drop_unneeded(self, needed: Container[int] | None = None) -> None:
        """Forget objects that nothing needs. The encoder is idle and plans afresh.

        Up to the first await nothing else can change what is needed. `needed`: see the index.
        """
        dropped = self._index.unneeded_objects(needed)
        if not dropped:
            return
        self._index.drop_objects([found.id for found in dropped])
        await self._again.force()
        kept = [self._layout.kept(found.id) for found in dropped if found.is_kept]
        await threads.call(Kind.PACK, self._unlink, kept)
        self.summary.dropped += len(dropped)
        # A copy that still has them would have a repair look for them.
        self._again.packs.copies_due.set()

    async def drop_emptied(self) -> None:
        """Forget packs that hold no object."""
        if self._emptied():
            await self._move([], {})

    def _emptied(self) -> list[int]:
        """Packs that hold no object, and to which none will come."""
        fill = self._index.pack_fill()
        without = [number for number in self._index.packs() if number not in fill]
        return [n for n in without if not (self._fresh.is_open(n) or self._again.is_open(n))]

    async def empty(self, number: int, progress: Callable[[int], None]) -> None:
        """Move all objects out of a pack to which nothing is appended any more."""
        done = self._index.repacked().get(number, 0)
        for batch in _batches(self._index.objects_in(number)):
            entries: dict[int, Entry] = {}
            async with trio.open_nursery() as nursery:
                for found in batch:
                    again = found.offset >= done and not found.is_layer_only
                    nursery.start_soon(self._recode, found, again, entries, progress)
            whole = [found for found in batch if found.id in entries]
            if whole:
                await self._move(whole, entries)
            if not self._go_on():
                return

    async def _recode(
        self, found: Object, again: bool, entries: dict[int, Entry], progress: Callable[[int], None]
    ) -> None:
        """Find the entry to write for an object, or why there is none."""
        async with self._slots:
            if not self._go_on():
                return
            try:
                entries[found.id] = await self._entry(found, again)
            except OSError:
                raise
            except Exception as error:
                unforeseen = None if isinstance(error, FsmountError) else error
                _log.error("object %d stays: %s", found.id, error, exc_info=unforeseen)
                self.summary.problems.append((found.id, readable(str(error) or repr(error))))
            progress(1)

    async def _entry(self, found: Object, again: bool) -> Entry:
        place = self._fresh.place(found.id)
        if again and self._workers is not None:
            needs = tuple(map(self._fresh.place, found.needs))
            with suppress(WorkerDied):
                return await self._workers.run(recode, place, needs, found.sha256, self._budget)
        return await threads.call(Kind.ENTRY, mover.read, place)

    async def _move(self, batch: list[Object], entries: dict[int, Entry]) -> None:
        """Write the entries of a batch and commit; packs without objects go then."""
        emptied: list[int] = []
        moved = await self._mover.relocate(batch, entries, lambda moved: self._turn(moved, emptied))
        self.summary.moved += len(moved)
        pairs = zip(batch, moved, strict=True)
        self.summary.smaller += sum(new.length < old.length for old, new in pairs)
        if emptied:
            async with self._mover.left():
                await threads.call(Kind.PACK, self._unlink, map(self._layout.pack, emptied))

    def _unlink(self, paths: Iterable[Path]) -> None:
        """In a thread."""
        for path in paths:
            self._disk.unlink(path)

    def _turn(self, moved: Sequence[Object], emptied: list[int]) -> None:
        """Inside the transaction: rows of packs; what is emptied goes to `emptied`."""
        ends: dict[int, int] = {}
        for new in moved:
            ends[new.pack] = max(ends.get(new.pack, 0), new.offset + new.length)
        for number, end in ends.items():
            self._index.set_repacked(number, end)
        emptied += self._emptied()
        for number in emptied:
            self._index.drop_pack(number)
