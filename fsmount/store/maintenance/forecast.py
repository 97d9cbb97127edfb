"""Says beforehand what a repack will do: what it gives back, how long it takes, and what it needs.

The index tells which packs a repack looks at, and which bytes in them nothing needs. What coding
again saves depends on the pictures. So the forecast codes a few of them again, as a repack does,
and drops the results or hands them to the repack. Few large entries make half of the bytes in most
stores. So the sample takes large and small entries in turn, and counts each group by itself.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest

import trio

from fsmount import threads
from fsmount.store import config
from fsmount.store.index import Object
from fsmount.store.maintenance.repack import due, reclaimable, recode
from fsmount.store.packs import parity
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import Entry, build_entry
from fsmount.store.read_store import ReadStore
from fsmount.threads import Kind
from fsmount.work import machine

_log = logging.getLogger(__name__)

SECONDS = 10.0
"""Time for the sample, about."""

# Groups of fewer objects than this are not made: the sample takes all of them together.
_FEW = 8
_CODED = ("key", "delta")


@dataclass
class Forecast:
    """What a repack will do. Sizes in bytes.

    packs, objects, bytes : number of packs that it looks at, of needed objects in them, and the
        size of these packs.
    dead_bytes : bytes that nothing needs, and that it gives back for certain, unless a pack has
        damage. What it gives back in the index is not included.
    pictures : number of objects that it codes again.
    sampled : number of them that the forecast has coded.
    saved_bytes, low, high : estimate of what coding again saves, and bounds of it.
    seconds : estimate of the time that the repack takes.
    space_bytes : free space that it needs at most.
    free_bytes : free space on the disk.
    entries : the new entries of the sampled objects, by object id.
    """

    packs: int = 0
    objects: int = 0
    bytes: int = 0
    dead_bytes: int = 0
    pictures: int = 0
    sampled: int = 0
    saved_bytes: int = 0
    low: int = 0
    high: int = 0
    seconds: float = 0.0
    space_bytes: int = 0
    free_bytes: int = 0
    entries: dict[int, Entry] = field(default_factory=dict, repr=False)


@dataclass
class _Group:
    """Objects of about the same size, in the order of sampling.

    weights : bytes of their entries.
    is_large : whether they are the largest objects of all.
    sizes : (bytes before, bytes after) of the entries of the sampled objects.
    seconds : sum of the seconds that the sampled objects took.
    """

    objects: list[Object]
    weights: int
    is_large: bool
    sizes: list[tuple[int, int]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def before(self) -> int:
        """Bytes of the entries of the sampled objects."""
        return sum(before for before, _ in self.sizes)

    def saved(self) -> float:
        """Return the estimate of the bytes that coding again saves."""
        return self._share() * self.weights

    def spread(self) -> float:
        """Return how far the estimate may be off, in bytes, in about 19 of 20 cases.

        This is twice the standard error, or more for a few objects: they tell little about it.
        """
        count, share = len(self.sizes), self._share()
        if count < 2:
            return 0.0 if count == len(self.objects) else float(self.weights)
        squares = sum((before - after - share * before) ** 2 for before, after in self.sizes)
        rest = 1 - count / len(self.objects)
        error = self.weights / self.before * math.sqrt(rest * count * squares / (count - 1))
        return (2 + 4 / (count - 1)) * error

    def _share(self) -> float:
        """Return the share of the sampled entries that coding again has saved."""
        return 1 - sum(after for _, after in self.sizes) / self.before if self.sizes else 0.0

    def takes(self) -> float:
        """Return the estimate of the seconds that it takes, one object after the other.

        The time of a large image goes with its bytes. That of a small one is mostly the proof.
        """
        if not self.sizes:
            return 0.0
        if self.is_large:
            return self.seconds * sum(each.length for each in self.objects) / self.before
        return self.seconds * len(self.objects) / len(self.sizes)


async def forecast(
    store: ReadStore, limit_s: float = SECONDS, progress: Callable[[int], None] = lambda count: None
) -> Forecast:
    """Make the forecast of a repack. Changes nothing.

    Begins no object after `limit_s` seconds, but codes two at least. Calls `progress(1)` after each
    object. Reads all rows. Raises OSError, :class:`Damaged` if the index is damaged.
    """
    index, found = store.index, Forecast()
    dropped = {each.id for each in index.unneeded_objects()}
    done = index.repacked()
    pictures: list[Object] = []
    for number in due(index):
        objects = [each for each in index.objects_in(number) if each.id not in dropped]
        found.packs += 1
        found.objects += len(objects)
        found.bytes += index.packs()[number][0]
        found.space_bytes = max(found.space_bytes, sum(each.length for each in objects))
        pictures += [each for each in objects if _is_coded(each, done.get(number, 0))]
    found.pictures = len(pictures)
    if found.packs or dropped:
        found.dead_bytes = reclaimable(index)
    percent = config.parity_of(config.read(store.layout.root))
    found.space_bytes += parity.size_of(found.space_bytes, percent)
    found.free_bytes = await threads.call(Kind.FREE_SPACE, _free, store)
    large, small = _split(pictures)
    groups = [_Group(part, _weight(part), part is large) for part in (large, small) if part]
    await _Sample(store, groups, limit_s, progress).take(found)
    saved, spread = sum(group.saved() for group in groups), sum(group.spread() for group in groups)
    found.saved_bytes = round(saved)
    found.low = round(max(0.0, saved - spread))
    found.high = round(min(saved + spread, sum(group.weights for group in groups)))
    found.seconds = sum(group.takes() for group in groups) / machine.cores()
    return found


def _is_coded(found: Object, done: int) -> bool:
    """Whether a repack codes an object again, in a pack of which it has written `done` bytes."""
    return found.kind in _CODED and found.offset >= done and not found.is_layer_only


def _free(store: ReadStore) -> int:
    """Return the free bytes on the disk. Runs in a thread. Raises OSError."""
    disk = os.statvfs(store.layout.packs)
    return disk.f_bavail * disk.f_frsize


def _weight(objects: Sequence[Object]) -> int:
    return sum(each.length for each in objects)


def _split(objects: Sequence[Object]) -> tuple[list[Object], list[Object]]:
    """Return the largest objects that make half of the bytes, and the others, each spread."""
    by_size = sorted(objects, key=lambda each: -each.length)
    half, count = sum(each.length for each in objects) / 2, 0
    while half > 0 and len(objects) > _FEW:
        half -= by_size[count].length
        count += 1
    return _spread(by_size[:count]), _spread(by_size[count:])


def _spread(objects: Sequence[Object]) -> list[Object]:
    """Order objects so that the first ones come from all over the sequence, its middle first."""
    bits = max(1, (len(objects) - 1).bit_length())
    order = [int(f"{number:0{bits}b}"[::-1], 2) for number in range(1 << bits)]
    return [objects[at] for at in order[1:] + order[:1] if at < len(objects)]


class _Sample:
    """Codes objects of each group in turn, several at a time, until the time is over."""

    def __init__(
        self,
        store: ReadStore,
        groups: Sequence[_Group],
        limit_s: float,
        progress: Callable[[int], None],
    ) -> None:
        self._store = store
        self._groups = groups
        self._limit_s = limit_s
        self._progress = progress

    async def take(self, found: Forecast) -> None:
        """Code the sample. Adds the new entries to `found`. Raises OSError."""
        slots = trio.Semaphore(machine.cores())
        # The start of a worker must not count as the time of an object.
        await self._store.warm()
        start = time.monotonic()
        async with trio.open_nursery() as nursery:
            for began, (group, each) in enumerate(self._in_turn()):
                await slots.acquire()
                if began >= len(self._groups) and time.monotonic() - start >= self._limit_s:
                    break
                nursery.start_soon(self._code, group, each, found, slots)

    def _in_turn(self) -> Iterator[tuple[_Group, Object]]:
        pairs = ([(group, each) for each in group.objects] for group in self._groups)
        return (pair for pair in chain.from_iterable(zip_longest(*pairs)) if pair is not None)

    async def _code(
        self, group: _Group, each: Object, found: Forecast, slots: trio.Semaphore
    ) -> None:
        """Code an object, and add it to the sums of its group, unless it fails. Raises OSError."""
        start = time.monotonic()
        try:
            entry = await self._recode(each)
        except OSError:
            raise
        except Exception as error:
            # A damaged record can make the code raise any exception. The repack tells the user.
            _log.info("object %d is not in the sample: %r", each.id, error)
            return
        finally:
            slots.release()
        group.seconds += time.monotonic() - start
        group.sizes.append((each.length, len(build_entry(entry))))
        found.sampled += 1
        found.entries[each.id] = entry
        self._progress(1)

    async def _recode(self, each: Object) -> Entry:
        """Code an object in a worker. Raises what the worker raises."""
        place, *needs = map(self._place, (each.id, *each.needs))
        args = place, tuple(needs), each.sha256
        store = self._store
        return await store.layers.run(store.workers, recode, *args, places=needs, slow=True)

    def _place(self, object_id: int) -> Location:
        found = self._store.index.object(object_id)
        path = self._store.layout.pack(found.pack)
        return Location(found.id, str(path), found.offset, found.length, found.has_layer)
