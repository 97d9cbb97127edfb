"""Repack: reclaims the space of deleted files, and codes entries again with more effort.

Objects keep their ids, pixels and records. Only their entries move to new packs, with a smaller
payload if more effort finds one. So nothing else has to change: no object that copies pixels from
another, no open file, no cache. A frame also touches the same objects as before.

Repack works in steps. Each step is a commit of its own and leaves a consistent store.

1. Drop the rows of objects that no file shows and no shown object needs. If no file shows an
   object, but another object needs it, only its own pixels stay usable.
2. Work through the packs, a batch of objects after the other. A worker codes each entry again,
   renders the file from it, and compares the hash. The repacker appends the entry to a pack that
   has only repacked entries, and reads it back. Then it forces the pack to the disk, turns the rows
   to their new locations in one transaction, and forces the index. A pack stays if moving its
   objects would make the store larger: see :meth:`Repacker.empty`.
3. Drop a pack without objects. Its row goes with the batch. Its file goes when that commit is
   durable and no task reads a location that it found there before.

Repack may be stopped or killed at any moment. The committed batches stay done. The next start cuts
off all uncommitted entries and removes packs without rows. The index records how many bytes of each
pack `repack` has written, or has left as they are. So the next repack continues there and does
nothing twice.

Readers and the encoder may work during a repack, except in step 1: see :meth:`Encoder.is_idle`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path

import numpy as np
import trio

from fsmount import threads
from fsmount.codec.delta import payload
from fsmount.codec.delta.payload import Own
from fsmount.errors import Damaged, FsmountError, WorkerDied
from fsmount.folder import readable
from fsmount.store.files import StoreFiles
from fsmount.store.frames import jobs
from fsmount.store.frames.layer_cache import LayerCache
from fsmount.store.frames.layers import Done, JobLayers, Loan
from fsmount.store.frames.reader import Reader
from fsmount.store.index import Index, Object
from fsmount.store.packs import mover
from fsmount.store.packs.entries import FRAMES, layout_of
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import Entry, build_entry, parse_entry
from fsmount.store.packs.writers import Writers
from fsmount.threads import Kind
from fsmount.work.workers import Workers

_log = logging.getLogger(__name__)

# Number of objects between two commits, and bytes of their entries. Memory holds the entries until
# the commit.
_BATCH = 64
_BATCH_BYTES = 16 << 20
# A pack that repack wrote is repacked again if more than this share of it is garbage.
_WASTE = 0.25
# A pack without garbage is moved if its entries become smaller by more than these bytes, and by
# more than these for each object. A new pack takes a row of the index. The row of an object that
# moved may take a byte or two more, in the index and in its copy.
_LEAST_GAIN = 64
_ROW_BYTES = 4


def always() -> bool:
    """Return True: the `go_on` of a repack that nothing stops."""
    return True


@dataclass
class RepackSummary:
    """Result of a repack.

    dropped : number of unneeded objects that were dropped.
    moved : number of moved objects.
    smaller : number of moved objects with a smaller entry.
    problems : (object id, reason) of each object that is damaged or failed its proof. Its entry is
        unchanged.
    """

    dropped: int = 0
    moved: int = 0
    smaller: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)


def recode(
    target: Location, places: tuple[Location, ...], sha256: bytes, loan: Loan
) -> Done[Entry]:
    """Code the entry of an object again. Return the new entry, or the old one if it is as small.

    `target` is the location of the entry, `places` are those of all other entries that it needs.
    Runs in a worker process.

    As a proof, it renders the file from the bytes of a new entry. Raises :class:`Damaged` if the
    file does not have the hash `sha256`, or if an entry is damaged.
    """
    layers = JobLayers(loan)
    reader = Reader([*places, target], jobs.memory_for(loan.streams_bytes), layers)
    return Done(_recoded(reader.entry(target.id), reader, sha256), layers.made())


def _recoded(entry: Entry, reader: Reader, sha256: bytes) -> Entry:
    """Code an entry again; see :func:`recode`."""
    found = reader.record(entry)
    if found.header.get("kind") not in FRAMES or entry.suffix == payload.NOTHING:
        return entry
    layout = layout_of(found)
    places, shape = layout.own(), layout.shape
    dictionary = reader.dictionary(entry.dictionary)
    tiles = payload.decode(entry.images, places, shape, layout.dtype, dictionary)
    again = payload.encode_again(Own(tiles, places, shape), dictionary)
    if again.cost >= entry.images.cost:
        return entry
    if not np.array_equal(payload.decode(again, places, shape, layout.dtype, dictionary), tiles):
        _log.error("object %d: %s gave other pixels; left as it is", entry.object_id, again.suffix)
        return entry
    name = f"{entry.name[:8]}{again.suffix}"
    smaller = replace(entry, name=name, payload=again.data, photographs=again.photographs)
    parsed, _ = parse_entry(build_entry(smaller))
    reader.begin()
    jobs.rendered(parsed, reader, sha256)
    return smaller


def due(index: Index) -> list[int]:
    """Return the packs that are worth a repack. Reads all rows.

    These are packs that ingest has written, wholly or in part, and packs with much garbage.
    """
    done, fill = index.repacked(), index.pack_fill()
    found = []
    for number, (length, _) in index.packs().items():
        waste = length - fill.get(number, 0)
        if done.get(number, 0) < length or waste > _WASTE * length:
            found.append(number)
    return found


def reclaimable(index: Index) -> int:
    """Return the dead bytes that a repack gives back, as far as the index tells. Reads all rows.

    These are entries of deleted files, and garbage of stopped runs, in packs that a repack would
    empty. What coding entries again saves is not known before.
    """
    dead: Counter[int] = Counter()
    whole_files = 0
    for found in index.unneeded_objects():
        dead[found.pack] += found.length
        if found.is_kept:
            whole_files += found.size
    done, fill = index.repacked(), index.pack_fill()
    total = whole_files
    for number, (length, _) in index.packs().items():
        waste = length - fill.get(number, 0) + dead[number]
        if done.get(number, 0) < length or waste > _WASTE * length:
            total += waste
    return total


def _batches(objects: Sequence[Object]) -> Iterator[list[Object]]:
    """Split objects into batches: each has one object at least, and at most the limits above."""
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


def _damage(places: Iterable[Location]) -> list[tuple[int, str]]:
    """Read entries. Return (object id, reason) for those that are damaged. Runs in a thread."""
    found = []
    for place in places:
        try:
            mover.read(place)
        except Damaged as error:
            found.append((place.id, readable(str(error))))
    return found


class Repacker:
    """Does one repack of a store, or a part of it. The module docstring says how.

    workers : code the entries. Without workers no entry is coded again.
    layers : the layers that the workers have decoded.
    at_once : number of objects that are coded at the same time, at most.
    go_on : says whether the repacker may begin another object.
    known : entries that :func:`recode` made before, by object id. They are not coded once more.
    summary : result so far.

    Contract: belongs to the trio task that owns the store. Only one repacker works at a time.
    """

    def __init__(
        self,
        files: StoreFiles,
        writers: Writers,
        workers: Workers | None,
        layers: LayerCache,
        at_once: int,
        go_on: Callable[[], bool] = always,
    ) -> None:
        self._files = files
        self._index = files.index
        self._writers = writers
        self._mover = mover.Mover(files.layout, files.index, writers.moved)
        self._workers = workers
        self._layers = layers
        self._slots = trio.Semaphore(at_once)
        self._go_on = go_on
        self.known: dict[int, Entry] = {}
        self.summary = RepackSummary()

    async def run(self, progress: Callable[[int], None]) -> RepackSummary:
        """Repack all packs that are worth it. Return the summary.

        It calls `progress(1)` after each object. The encoder may work during the call. A pack with
        uncommitted entries stays open for the encoder, and the next repack takes it. Raises
        OSError, for example on a full disk. After an error the committed batches stay done, and the
        rest is unchanged.
        """
        for number in due(self._index):
            await self.empty(number, progress)
        await self.drop_emptied()
        return self.summary

    async def drop_unneeded(self, needed: Container[int] | None = None) -> None:
        """Drop the rows of unneeded objects, and their files in ``raw/``.

        The caller makes sure that the encoder is idle or halted, and that it plans afresh. The
        method does not await before the rows are dropped, so no other task can change the needs in
        between. `needed` is the argument of :meth:`Index.unneeded_objects`. Raises OSError,
        FsmountError.
        """
        dropped = self._index.unneeded_objects(needed)
        if not dropped:
            return
        self._index.drop_objects([found.id for found in dropped])
        await self._writers.moved.force()
        kept = [self._files.layout.kept(found.id) for found in dropped if found.is_kept]
        await threads.call(Kind.PACK, self._unlink, kept)
        self.summary.dropped += len(dropped)
        # From an old copy of the index, a repair would search for the dropped objects.
        self._writers.packs.renew_copies()

    async def drop_emptied(self) -> None:
        """Drop packs without objects. Raises OSError, FsmountError."""
        if self._emptied():
            await self._move([], {})

    def _emptied(self) -> list[int]:
        """Return the packs that have no object and that no writer has open. Reads all rows."""
        fill = self._index.pack_fill()
        without = [number for number in self._index.packs() if number not in fill]
        return [number for number in without if not self._writers.is_open(number)]

    async def empty(self, number: int, progress: Callable[[int], None]) -> None:
        """Move all objects out of a pack, in batches, until `go_on` says no.

        The pack stays as it is if one of its entries is damaged: it could not be removed, and would
        take its space twice. It also stays if it has no garbage and its objects get hardly smaller.

        The method calls `progress(1)` after each object. The summary names the objects that are
        damaged or that failed their proof. Raises OSError, FsmountError.
        """
        objects = self._index.objects_in(number)
        if await self._has_damage(objects):
            progress(len(objects))
            return
        done = self._index.repacked().get(number, 0)
        length, _ = self._index.packs().get(number, (0, True))
        may_stay = sum(found.length for found in objects) == length
        if not may_stay:
            await self._writers.seal([number])
        # Objects that are not moved, as long as the pack may stay.
        left = [found for found in objects if may_stay and found.offset < done]
        progress(len(left))
        gained, problems = 0, len(self.summary.problems)
        for batch in _batches(objects[len(left) :]):
            entries = await self._entries(batch, done, progress)
            whole = [found for found in batch if found.id in entries]
            gained += sum(found.length - len(build_entry(entries[found.id])) for found in whole)
            if may_stay and gained > _LEAST_GAIN + _ROW_BYTES * len(objects):
                may_stay = False
                await self._writers.seal([number])
                for some in _batches(left):
                    await self._move(some, await self._read(some))
            if may_stay and len(self.summary.problems) == problems:
                self._note(number, batch, entries)
            elif not may_stay and whole:
                await self._move(whole, entries)
            left += whole
            if not self._go_on():
                return

    def _note(self, number: int, batch: Sequence[Object], entries: Container[int]) -> None:
        """Note in the index that the objects that have `entries` need not be coded again."""
        seen = list(takewhile(lambda found: found.id in entries, batch))
        if seen:
            self._index.set_repacked(number, seen[-1].offset + seen[-1].length)

    async def _entries(
        self, batch: Sequence[Object], done: int, progress: Callable[[int], None]
    ) -> dict[int, Entry]:
        """Return the entries to write of a batch, coded again from offset `done` on.

        Begins with the first object, and begins no more when `go_on` says no. Leaves out damaged
        entries. Raises OSError.
        """
        entries: dict[int, Entry] = {}
        async with trio.open_nursery() as nursery:
            for found in batch:
                await self._slots.acquire()
                if not self._go_on():
                    self._slots.release()
                    break
                again = found.offset >= done and not found.is_layer_only
                nursery.start_soon(self._recode, found, again, entries, progress)
        return entries

    async def _has_damage(self, objects: Sequence[Object]) -> bool:
        """Whether an entry cannot be read. Adds the objects of such entries to the summary."""
        places = [self._writers.new.place(found.id) for found in objects]
        damaged = await threads.call(Kind.ENTRY, _damage, places)
        for number, why in damaged:
            _log.error("object %d is damaged, so its pack stays: %s", number, why)
        self.summary.problems += damaged
        return bool(damaged)

    async def _recode(
        self, found: Object, again: bool, entries: dict[int, Entry], progress: Callable[[int], None]
    ) -> None:
        """Add the entry to write to `entries`. With `again` a worker codes the entry again.

        If that fails, the reason goes to the summary, and the entry stays as it is. Gives back the
        slot that the caller took. Raises OSError.
        """
        try:
            entries[found.id] = await self._entry(found, again)
        except OSError:
            raise
        except Exception as error:
            unforeseen = None if isinstance(error, FsmountError) else error
            _log.error("object %d is not coded again: %s", found.id, error, exc_info=unforeseen)
            self.summary.problems.append((found.id, readable(str(error) or repr(error))))
            with suppress(Damaged):
                entries |= await self._read([found])
        finally:
            self._slots.release()
        progress(1)

    async def _read(self, objects: Sequence[Object]) -> dict[int, Entry]:
        """Read the entries of objects, as they are. Raises :class:`Damaged`."""
        return {
            found.id: await threads.call(Kind.ENTRY, mover.read, self._writers.new.place(found.id))
            for found in objects
        }

    async def _entry(self, found: Object, again: bool) -> Entry:
        """Code the entry of an object again if `again`. Else, or if the worker dies, read it.

        Raises what the worker raises, and :class:`Damaged`.
        """
        place = self._writers.new.place(found.id)
        if again and found.id in self.known:
            return self.known.pop(found.id)
        if again and self._workers is not None:
            needs = tuple(map(self._writers.new.place, found.needs))
            with suppress(WorkerDied):
                return await self._layers.run(
                    self._workers, recode, place, needs, found.sha256, places=needs, slow=True
                )
        return (await self._read([found]))[found.id]

    async def _move(self, batch: list[Object], entries: dict[int, Entry]) -> None:
        """Write the entries of a batch and commit. Then remove the packs that are empty.

        Raises OSError, FsmountError.
        """
        emptied: list[int] = []
        moved = await self._mover.relocate(batch, entries, lambda moved: self._turn(moved, emptied))
        self.summary.moved += len(moved)
        pairs = zip(batch, moved, strict=True)
        self.summary.smaller += sum(new.length < old.length for old, new in pairs)
        if emptied:
            async with self._mover.left():
                layout = self._files.layout
                paths = [f(number) for number in emptied for f in (layout.pack, layout.parity)]
                await threads.call(Kind.PACK, self._unlink, paths)

    def _unlink(self, paths: Iterable[Path]) -> None:
        """Remove files. Runs in a thread. Raises OSError."""
        for path in paths:
            self._files.disk.unlink(path)

    def _turn(self, moved: Sequence[Object], emptied: list[int]) -> None:
        """Update the rows of packs, and add the numbers of dropped packs to `emptied`.

        Runs inside the transaction; does not await.
        """
        ends: dict[int, int] = {}
        for new in moved:
            ends[new.pack] = max(ends.get(new.pack, 0), new.offset + new.length)
        for number, end in ends.items():
            self._index.set_repacked(number, end)
        emptied += self._emptied()
        for number in emptied:
            self._index.drop_pack(number)
