"""Trims objects that no file shows: what nobody takes of them goes.

Deleted pictures leave objects that other pictures still take pixels from. An old keyframe would
stay as a whole for a few tiles. So its entry is written again with zeros in place of the tiles that
nobody takes (:mod:`fsmount.store.frames.needed_tiles`). Its old entry becomes garbage of its pack.

To know what is taken, all frames that need such an object have to be looked at. That costs some
0.2 ms for each of them. So an object is looked at again only if it has lost a tenth of the objects
that need it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trio

from fsmount.codec.delta.payload import Mask
from fsmount.errors import Damaged, FsmountError, WorkerDied
from fsmount.store.disk.disk import Disk
from fsmount.store.frames.needed_tiles import Needed, taken_tiles, without_unneeded
from fsmount.store.index import Index
from fsmount.store.index.schema import unpack_many
from fsmount.store.layout import Layout
from fsmount.store.packs.location import Location
from fsmount.store.packs.mover import Mover
from fsmount.store.packs.pack import Entry, build_entry
from fsmount.store.retention.freeing import Objects
from fsmount.store.retention.pictures import objects_of
from fsmount.store.retention.rules import Bools
from fsmount.work.workers import Workers

_log = logging.getLogger(__name__)

# Smaller entries are left alone.
_LEAST_BYTES = 1024
# An object is looked at again if it is needed by at most this share of the objects as last time.
_FEWER = 0.9
# Frames that one job looks at.
_AT_ONCE = 64
# Bytes of entries between two commits.
_BATCH_BYTES = 16 << 20


@dataclass(frozen=True)
class Hidden:
    """Objects that no file shows and others need, and what needs them.

    ids : of the objects that are worth a look. shown, unshown : ids of the frames that need one of
    them, and that files show or not. needed_by, lengths : by object of `ids`, the number of objects
    that need it, and the bytes of its entry.
    """

    ids: frozenset[int]
    shown: list[int]
    unshown: list[int]
    needed_by: dict[int, int]
    lengths: dict[int, int]


def find_hidden(index: Index, objects: Objects, shown: Bools, stays: Bools) -> Hidden:
    """Find the objects to trim. `shown` and `stays` are bool (n,): shown by a file, not dropped.

    Reads the needs of all objects. Raises OSError, Damaged.
    """
    worth = stays & ~shown & objects.has_layer & (objects.length >= _LEAST_BYTES)
    candidates = objects.ids[worth]
    counts = np.zeros(len(candidates), np.int64)
    found: list[int] = []
    alive = np.asarray(objects.ids[stays])
    for ids, packed in index.needs_of_frames() if len(candidates) else ():
        sizes, needed = unpack_many(packed)
        at = np.minimum(np.searchsorted(candidates, needed), len(candidates) - 1)
        hits = candidates[at] == needed
        owner = np.repeat(np.array(ids, np.int64), sizes)
        place = np.minimum(np.searchsorted(alive, owner), len(alive) - 1)
        hits &= alive[place] == owner
        np.add.at(counts, at[hits], 1)
        found += np.unique(owner[hits]).tolist()
    last = index.trimmed()
    due = {
        number: count
        for number, count in zip(candidates.tolist(), counts.tolist(), strict=True)
        if number not in last or count <= last[number] * _FEWER
    }
    lengths = dict(zip(candidates.tolist(), objects.length[worth].tolist(), strict=True))
    in_view = set(objects.ids[stays & shown].tolist())
    return Hidden(
        frozenset(due),
        [number for number in found if number in in_view],
        [number for number in found if number not in in_view],
        due,
        {number: lengths[number] for number in due},
    )


def find_hidden_at(path: str) -> Hidden:
    """Find the objects to trim in the index at `path`. Runs in a worker process."""
    index = Index(Path(path), Disk(), read_only=True)
    try:
        return find_hidden_in(index)
    finally:
        index.close()


def find_hidden_in(index: Index) -> Hidden:
    """Find the objects to trim, of all that an index has. Reads all rows."""
    objects = objects_of(index)
    stays = np.ones(len(objects.ids), bool)
    return find_hidden(index, objects, np.asarray(objects.uses > 0), stays)


class Trimming:
    """Finds the tiles that others take of hidden objects, and makes their smaller entries.

    at_once : number of jobs at a time.

    Contract: belongs to the trio task.
    """

    def __init__(self, layout: Layout, index: Index, workers: Workers, at_once: int) -> None:
        self._layout = layout
        self._index = index
        self._workers = workers
        self._slots = trio.Semaphore(at_once)
        self.at_once = at_once

    async def needed(self, found: Hidden) -> tuple[Needed, set[int]]:
        """Return the tiles that others take, and objects of which this is unknown: damage.

        An object that is in neither is not taken at all. Raises OSError.
        """
        needed: Needed = {}
        unknown: set[int] = set()
        hidden = found.unshown
        await self._take(found.shown, found, {}, needed, unknown)
        # Of a hidden frame, only the tiles matter that are taken themselves. Those that are not
        # looked at count as a whole.
        await self._take([n for n in hidden if n not in found.ids], found, None, needed, unknown)
        looked = [number for number in hidden if number in found.ids]
        before: dict[int, int] = {}
        # Each round may add tiles of objects that an earlier round has looked at.
        while grown := [n for n in looked if _count(needed.get(n)) > before.get(n, 0)]:
            before = {number: _count(needed.get(number)) for number in looked}
            await self._take(grown, found, needed, needed, unknown)
        return needed, unknown

    async def _take(
        self,
        wanted: Sequence[int],
        found: Hidden,
        known: Needed | None,
        needed: Needed,
        unknown: set[int],
    ) -> None:
        """Add the tiles that some frames take to `needed`.

        `known`: which own tiles of these frames matter; None: all own tiles of them, and no others.
        """
        async with trio.open_nursery() as nursery:
            for start in range(0, len(wanted), _AT_ONCE):
                await self._slots.acquire()
                some = wanted[start : start + _AT_ONCE]
                nursery.start_soon(self._take_some, some, found, known, needed, unknown)

    async def _take_some(
        self,
        wanted: Sequence[int],
        found: Hidden,
        known: Needed | None,
        needed: Needed,
        unknown: set[int],
    ) -> None:
        """Run one job of :meth:`_take`. Gives back the slot that the caller took."""
        try:
            objects = {number: self._index.object(number) for number in wanted}
            ids = {each for number in wanted for each in (number, *objects[number].needs)}
            places = self._places(ids)
            if known is None:
                mattering = {number: np.ones((1, 1), bool) for number in wanted}
            else:
                mattering = {number: known[number] for number in wanted if number in known}
            taken = await self._workers.run(
                taken_tiles, tuple(wanted), places, found.ids, mattering
            )
        except (FsmountError, KeyError) as error:
            _log.warning("objects %d to %d: not trimmed: %s", wanted[0], wanted[-1], error)
            unknown.update(n for number in wanted for n in self._needs_of(number) if n in found.ids)
            return
        finally:
            self._slots.release()
        for number, mask in taken.items():
            needed[number] = needed[number] | mask if number in needed else mask

    def _needs_of(self, number: int) -> tuple[int, ...]:
        found = self._index.known_object(number)
        return () if found is None else found.needs

    async def smaller(self, number: int, needed: Needed) -> Entry | None:
        """Return the smaller entry of an object, or None. Logs damage. Raises OSError."""
        try:
            places = self._places({number, *self._index.object(number).layer})
            mask = needed.get(number)
            return await self._workers.run(without_unneeded, number, places, mask)
        except (Damaged, WorkerDied, KeyError) as error:
            _log.warning("object %d is not trimmed: %s", number, error)
            return None

    def _places(self, ids: Collection[int]) -> tuple[Location, ...]:
        """Return where objects are. Leaves out those that do not exist."""
        rows = filter(None, map(self._index.known_object, sorted(ids)))
        path = self._layout.pack
        return tuple(
            Location(row.id, str(path(row.pack)), row.offset, row.length, row.has_layer)
            for row in rows
        )


def _count(mask: Mask | None) -> int:
    """Return the number of tiles in a mask."""
    return 0 if mask is None else int(np.count_nonzero(mask))


async def trim(
    index: Index, found: Hidden, trimming: Trimming, mover: Mover, go_on: Callable[[], bool]
) -> int:
    """Trim all hidden objects that are due. Returns how many got smaller.

    The caller has dropped what nobody needs, makes sure that nothing is encoded meanwhile, and lets
    the encoder plan afresh. Stops between two commits when `go_on` says no. Raises OSError,
    Damaged.
    """
    if not found.ids:
        return 0
    needed, unknown = await trimming.needed(found)
    count = 0
    for batch in _batches(sorted(found.ids - unknown), found.lengths):
        if not go_on():
            break
        entries: dict[int, Entry] = {}
        async with trio.open_nursery() as nursery:
            for number in batch:
                nursery.start_soon(_code, trimming, number, needed, entries)
        rows = [index.object(number) for number in batch if number in entries]
        looked = {number: found.needed_by[number] for number in batch}
        if rows:
            ids = [row.id for row in rows]
            await mover.relocate(rows, entries, lambda _, ids=ids: index.trim_objects(ids))  # type: ignore[misc]
        index.set_trimmed(looked)
        count += len(rows)
    return count


async def forecast(
    trimming: Trimming, index: Index, found: Hidden, limit_s: float
) -> dict[int, int]:
    """Return the lengths that entries will have after :func:`trim`, by object id, in bytes.

    Codes entries for `limit_s` seconds at most, and at least two; those of the others are
    estimated. Changes nothing. Raises OSError, Damaged.
    """
    if not found.ids:
        return {}
    needed, unknown = await trimming.needed(found)
    ids = sorted(found.ids - unknown)
    # Spread over all of them: neighbours are alike.
    order = sorted(ids, key=lambda number: (number * 2654435761) & 0xFFFFFFFF)
    sizes: dict[int, int] = {}
    before = after = 0
    start = time.monotonic()
    for at in range(0, len(order), trimming.at_once):
        if at and time.monotonic() - start >= limit_s:
            break
        entries: dict[int, Entry] = {}
        async with trio.open_nursery() as nursery:
            for number in order[at : at + trimming.at_once]:
                nursery.start_soon(_code, trimming, number, needed, entries)
        for number in order[at : at + trimming.at_once]:
            length = index.object(number).length
            sizes[number] = len(build_entry(entries[number])) if number in entries else length
            before, after = before + length, after + sizes[number]
    for number in order[len(sizes) :]:
        sizes[number] = index.object(number).length * after // max(before, 1)
    return sizes


async def _code(trimming: Trimming, number: int, needed: Needed, entries: dict[int, Entry]) -> None:
    """Add the smaller entry of an object to `entries`, if there is one."""
    entry = await trimming.smaller(number, needed)
    if entry is not None:
        entries[number] = entry


def _batches(ids: Sequence[int], lengths: Mapping[int, int]) -> Iterator[list[int]]:
    """Split objects into batches: each has one at least, and a limit of bytes of entries."""
    batch: list[int] = []
    size = 0
    for number in ids:
        if batch and (size + lengths[number] > _BATCH_BYTES or len(batch) >= _AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(number)
        size += lengths[number]
    if batch:
        yield batch
