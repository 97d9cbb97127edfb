"""Plans a prune: which files go by a set of rules, and what that frees.

A plan reads the index alone, and changes nothing. :meth:`WritableStore.prune` carries it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fsmount.store.index import Index
from fsmount.store.packs import parity
from fsmount.store.retention import freeing
from fsmount.store.retention.freeing import DEAD, Objects
from fsmount.store.retention.pictures import (
    Files,
    KeptList,
    Walk,
    collect,
    names_of,
    needs_of,
    objects_of,
)
from fsmount.store.retention.rules import KEPT, Bools, Ints, Rules, ranks
from fsmount.store.retention.trash import Name

WASTE = 0.1
"""A pack is left alone if less than this share of it is garbage."""
# Bytes of an object in the central directory of its pack.
_DIRECTORY_BYTES = 60
_DAY_US = 86400 * 10**6
_MONTH_DAYS = 365.25 / 12
# The growth of a store is that of its newest pictures.
_GROWTH_DAYS = 30


@dataclass(frozen=True)
class Plan:
    """What a prune does. Sizes in bytes.

    walk : yields the files, in the order of `dropped`.
    dropped : which of them go, bool (n,).
    file_bytes, dropped_bytes : sizes of the files, and of the dropped ones.
    objects : all objects of the store.
    gone, shown : which objects are dropped when these files have left the trash, and which ones
        files show then: bool, one for each object.
    packed, percent : lengths of the packs, and the share of their parity.
    left_bytes : what the store takes then, at most.
    budget : the budget of the rules, if there is one.
    month_bytes : what the newest pictures added in a month; 0 if that is unknown.
    """

    walk: Walk
    dropped: Bools
    file_bytes: int
    dropped_bytes: int
    objects: Objects
    gone: Bools
    dead: Bools
    shown: Bools
    packed: dict[int, int]
    percent: int
    left_bytes: int
    budget: int | None
    month_bytes: int

    def freed_bytes(self, trimmed: Mapping[int, int] | None = None) -> int:
        """Return what packs, parity and ``raw/`` get smaller by when the files have left the trash.

        `trimmed` has the new lengths of entries that are trimmed then, by object id. What goes
        although no file goes is not included.
        """
        after = freed_bytes(self.objects, self.gone, self.packed, self.percent, trimmed)
        return after - freed_bytes(self.objects, self.dead, self.packed, self.percent)

    @property
    def files(self) -> int:
        """Number of files that the rules looked at."""
        return len(self.dropped)

    @property
    def count(self) -> int:
        """Number of files that go."""
        return int(np.count_nonzero(self.dropped))

    @property
    def is_over_budget(self) -> bool:
        """Whether the store takes more than the budget, although all goes that may go."""
        return self.budget is not None and self.left_bytes > self.budget

    @property
    def months_left(self) -> float | None:
        """After how many months the budget is full, or None if that is unknown."""
        if self.budget is None or not self.month_bytes:
            return None
        return max(0.0, (self.budget - self.left_bytes) / self.month_bytes)

    def names(self) -> Iterator[Name]:
        """Yield the names of the files that go."""
        return names_of(self.walk, self.dropped)


def plan(index: Index, walk: Walk, rules: Rules, kept: KeptList, percent: int) -> Plan:
    """Plan a prune by the index. `percent` is the share of the parity of packs. Reads all rows.

    Raises OSError, Damaged.
    """
    objects = objects_of(index)
    files = collect(index, walk, objects, kept)
    wanted = ranks(files.pictures, rules)
    of_use = _ranks_of_use(index, objects, files, wanted)
    of_objects = freeing.ranks_of_objects(objects, of_use, needs_of(index))
    packed = {number: length for number, (length, _) in index.packs().items()}
    costs = np.asarray((objects.length + _DIRECTORY_BYTES) * (100 + percent) // 100 + objects.kept)
    limit = 0
    if rules.budget is not None:
        limit = freeing.least_rank(of_objects, costs, max(0, rules.budget - index.bytes()))
    dropped = np.asarray(wanted <= limit)
    gone = np.asarray(of_objects <= limit)
    return Plan(
        walk,
        dropped,
        int(files.size.sum()),
        int(files.size[dropped].sum()),
        objects,
        gone,
        np.asarray(of_objects == DEAD),
        np.asarray(of_use > limit),
        packed,
        percent,
        int(costs[~gone].sum()) + index.bytes(),
        rules.budget,
        month_bytes(files),
    )


def _ranks_of_use(index: Index, objects: Objects, files: Files, wanted: Ints) -> Ints:
    """Return with which rank no file shows an object any more. A file has its last name's rank."""
    ino, first, names = np.unique(files.ino, return_index=True, return_counts=True)
    of_file = np.full(len(ino), DEAD, np.int64)
    np.maximum.at(of_file, np.searchsorted(ino, files.ino), wanted)
    of_file[names < files.nlink[first]] = KEPT
    shown = files.object_id[first]
    encoded = shown > 0
    return freeing.ranks_of_use(objects, shown[encoded], of_file[encoded], index.trash_uses())


def freed_bytes(
    objects: Objects,
    gone: Bools,
    packed: Mapping[int, int],
    percent: int,
    trimmed: Mapping[int, int] | None = None,
) -> int:
    """Return the bytes that packs, their parity and ``raw/`` get smaller by when objects go.

    `packed` has the length of each pack. `trimmed` has the new lengths of entries that are written
    again. A pack of which less than WASTE is garbage then stays. Of another pack, the entries up to
    the first garbage stay, and the others move to a new pack.
    """
    moves = np.zeros(len(objects.ids), bool)
    moved = 0
    for number, length in (trimmed or {}).items():
        row = int(objects.rows(np.array([number]))[0])
        if length < objects.length[row]:
            moves[row] = True
            moved += length
    stays = np.asarray(~gone & ~moves)
    before = sum(packed.values())
    parity_before = sum(parity.size_of(length, percent) for length in packed.values())
    after = parity_after = 0
    order = np.lexsort((objects.offset, objects.pack))
    pack, offset, length_of = objects.pack[order], objects.offset[order], objects.length[order]
    left = int(np.count_nonzero(gone))
    for number, length in packed.items():
        start, end = np.searchsorted(pack, [number, number + 1])
        here = stays[order[start:end]]
        filled = int(length_of[start:end][here].sum())
        prefix = length
        if filled <= (1 - WASTE) * length:
            at, size = offset[start:end][here], length_of[start:end][here]
            whole = np.cumsum(size) == at + size
            prefix = int(size[: len(whole) if whole.all() else int(np.argmin(whole))].sum())
            moved += filled - prefix
        else:
            left -= int(np.count_nonzero(gone[order[start:end]]))
        after += prefix
        parity_after += parity.size_of(prefix, percent)
    freed = before + parity_before - after - parity_after
    freed -= moved + parity.size_of(moved, percent)
    return freed + int(objects.kept[gone].sum()) + _DIRECTORY_BYTES * left


def month_bytes(files: Files) -> int:
    """Return the bytes that the newest pictures added to the store in a month; 0 if unknown."""
    at_us = files.pictures.at_us
    if len(at_us) < 2:
        return 0
    newest = int(at_us.max())
    newer = at_us > newest - _GROWTH_DAYS * _DAY_US
    days = (newest - int(at_us[newer].min())) / _DAY_US
    # Less than a day tells nothing about a month.
    if days < 1:
        return 0
    return int(files.pictures.new_bytes[newer].sum() / days * _MONTH_DAYS)
