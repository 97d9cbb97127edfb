"""Removes the words of pictures that a store no longer shows, so that they are in no file.

A search never finds these words. These wipe them out of the database: a prune, the commands that
empty the trash, an idle mount, and each run of `fsmount text`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fsmount.errors import TextDamaged
from fsmount.store.disk.disk import Disk
from fsmount.store.index import TRASH, Index, Inode
from fsmount.store.layout import Layout
from fsmount.store.retention.pictures import is_picture
from fsmount.store.transfer.tree import is_for_desktops
from fsmount.text.database import TextDatabase, change_text, path_of, writing
from fsmount.text.slots import Slot

Ints = npt.NDArray[np.int64]

# Slots that one transaction changes.
_AT_ONCE = 100
# A process that reads text looks for such words at its end. So a moment later the database is free,
# or that process will still look.
_WAIT_S = 1.0
SECONDS = 20.0
"""How long a worker removes words at a time."""


def shown(index: Index) -> Iterator[tuple[bytes, bytes, Inode]]:
    """Yield the pictures that a store shows and that are encoded: (path of folder, name, inode).

    Raises OSError, Damaged.
    """
    folders: dict[int, bytes | None] = {}
    for _, folder, name, inode in index.named_files():
        if folder == TRASH or inode.object_id is None or not is_picture(name, inode):
            continue
        if folder not in folders:
            path = index.path(folder)
            hidden = any(map(is_for_desktops, path.split(b"/")))
            folders[folder] = None if hidden else path
        where = folders[folder]
        if where is not None:
            yield where, name, inode


class Wiped(NamedTuple):
    """Number of pictures whose words were removed, and of those whose words are still there."""

    removed: int
    left: int


def wipe_gone(index: Index, database: TextDatabase, seconds: float = math.inf) -> Wiped:
    """Remove the words of pictures that the store does not show as they were read.

    Stops after about `seconds`. The caller is inside :func:`~fsmount.text.database.writing`. Raises
    TextDamaged, Damaged, OSError.
    """
    until = time.monotonic() + seconds
    gone = _gone(index, database)
    by_slot: dict[int, list[int]] = {}
    for ino, _, slot in gone.tolist():
        by_slot.setdefault(slot, []).append(ino)
    left = len(gone)
    for part in in_parts(sorted(by_slot)):
        if left < len(gone) and time.monotonic() >= until:
            return Wiped(len(gone) - left, left)
        with database.transaction():
            changes = {number: database.slot(number) for number in part if number}
            changes = {n: slot.without(by_slot[n]) for n, slot in changes.items()}
            replace(database, changes)
            for number in part:
                database.forget_pictures(by_slot[number])
                left -= len(by_slot[number])
    database.wipe()
    return Wiped(len(gone), 0)


def wipe_at(root: str, seconds: float = math.inf) -> Wiped:
    """Remove the words of pictures that the store at `root` no longer shows. Runs in a worker.

    Stops after about `seconds`. Raises :class:`TextLocked` if another process reads the text of the
    store: that one will remove them. Raises TextDamaged, Damaged, OSError.
    """
    layout = Layout(Path(root))
    if not path_of(layout).exists():
        return Wiped(0, 0)
    with closing(Index(layout.index, Disk(), read_only=True)) as index, writing(layout, _WAIT_S):
        database = change_text(layout, index.identity())
        if database is None:
            raise TextDamaged(path_of(layout), reason="another store or version of fsmount made it")
        with database:
            return wipe_gone(index, database, seconds)


def _gone(index: Index, database: TextDatabase) -> Ints:
    """Return the pictures that are not shown as they were read: rows of (ino, object, slot)."""
    read = database.pictures()
    if not len(read):
        return read
    pairs = [(inode.ino, inode.object_id or 0) for _, _, inode in shown(index)]
    there = np.unique(np.array(pairs, np.int64).reshape(-1, 2), axis=0)
    if not len(there):
        return read
    at = np.minimum(np.searchsorted(there[:, 0], read[:, 0]), len(there) - 1)
    gone: Ints = read[~(there[at] == read[:, :2]).all(axis=1)]
    return gone


def replace(database: TextDatabase, left: Mapping[int, Slot]) -> None:
    """Put what is left of some slots in their places. The caller has a transaction.

    Words that went on in one of them may end in the slot before now: a search asks in which slot
    they end. Raises TextDamaged, OSError.
    """
    changes = dict(left)
    for number, slot in left.items():
        before = database.previous_slot(number)
        if before:
            earlier = changes[before] if before in changes else database.slot(before)
            now = earlier.going_on_in(slot)
            if (now.carried != earlier.carried).any():
                changes[before] = now
    database.replace_slots(changes)


def in_parts(numbers: list[int]) -> Iterator[list[int]]:
    """Yield slots in portions that one transaction changes."""
    for at in range(0, len(numbers), _AT_ONCE):
        yield numbers[at : at + _AT_ONCE]
