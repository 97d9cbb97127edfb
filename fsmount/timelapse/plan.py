"""Which pictures a time lapse shows, and when: from the index alone.

The clock of a time lapse runs `speed` times as fast as that of the pictures. It jumps over pauses:
of a longer one it shows only the first minutes. Idle pictures may be left out with their time. If
pictures follow each other more quickly than frames may, some are left out.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fsmount.store.files import StoreFiles
from fsmount.store.index import Inode
from fsmount.store.retention.rules import IDLE_BYTES
from fsmount.store.retention.taken import LocalClock
from fsmount.store.transfer.tree import is_for_desktops

_KINDS = ("key", "delta", "jpeg")
# Seconds of a pause that are shown, and those that the last picture stays.
_LONGEST_PAUSE_S, _LAST_S = 300.0, 1.0


class Shot(NamedTuple):
    """A picture of a time lapse.

    ino : its inode number in the store.
    wall_us : when it was taken, see :class:`Taken`.
    start_ms, duration_ms : when and how long the time lapse shows it.
    """

    ino: int
    wall_us: int
    start_ms: int
    duration_ms: int


@dataclass(frozen=True)
class Plan:
    """The shots of a time lapse, in arrays of one item for each; see :class:`Shot`.

    found : number of pictures that were chosen.
    idle : number of them that are left out because nothing happens.
    """

    ino: NDArray[np.int64]
    wall_us: NDArray[np.int64]
    start_ms: NDArray[np.int64]
    duration_ms: NDArray[np.int64]
    found: int
    idle: int

    def __iter__(self) -> Iterator[Shot]:
        """Yield the shots in order."""
        columns = self.ino, self.wall_us, self.start_ms, self.duration_ms
        for row in zip(*columns, strict=True):
            yield Shot(*map(int, row))

    @property
    def count(self) -> int:
        """Number of shots."""
        return len(self.ino)

    @property
    def length_ms(self) -> int:
        """Length of the time lapse."""
        return int(self.start_ms[-1] + self.duration_ms[-1]) if self.count else 0


def plan(
    store: StoreFiles,
    entries: Iterable[tuple[bytes, Inode]],
    *,
    speed: float,
    most_per_second: float,
    skip_idle: bool = False,
) -> Plan:
    """Plan a time lapse of the pictures among `entries` (path, inode).

    `speed` is how many times as fast time runs. `most_per_second` bounds the frames in a second.
    `skip_idle` leaves out pictures that brought next to nothing new, and their time. Holds 25 bytes
    for each picture. Raises :class:`Damaged`, OSError.
    """
    taken = np.array(list(_pictures(store, entries)), np.int64).reshape(-1, 4)
    if not len(taken):
        none = np.empty(0, np.int64)
        return Plan(none, none, none, none, 0, 0)
    at_us, wall_us, ino, idle = taken[np.lexsort((taken[:, 2], taken[:, 0]))].T
    pauses = np.minimum(np.diff(at_us) / 1e6, _LONGEST_PAUSE_S)
    shown = (idle == 0) if skip_idle else np.ones(len(ino), bool)
    shown[:1] = True
    lengths = np.append(pauses, 0.0) / speed * shown
    # In ms of the time lapse.
    starts = np.rint((np.cumsum(lengths) - lengths) * 1000).astype(np.int64)
    kept = np.array(list(_spaced(np.flatnonzero(shown), starts, 1000 / most_per_second)), np.int64)
    begin = starts[kept]
    last = round(max(_LAST_S, 1 / most_per_second) * 1000)
    ends = np.append(begin[1:], begin[-1:] + last)
    left_out = int(np.count_nonzero(~shown))
    return Plan(ino[kept], wall_us[kept], begin, ends - begin, len(ino), left_out)


def _spaced(places: NDArray[np.int64], starts: NDArray[np.int64], least_ms: float) -> Iterator[int]:
    """Yield those of some places whose starts lie at least `least_ms` apart, rounded down."""
    last: int | None = None
    for place in places:
        start = int(starts[place])
        if last is None or start - last >= int(least_ms):
            yield int(place)
            last = start


def _pictures(
    store: StoreFiles, entries: Iterable[tuple[bytes, Inode]]
) -> Iterator[tuple[int, int, int, int]]:
    """Yield each picture: when it was taken (at_us, wall_us), its inode, and whether it is idle.

    Leaves out thumbnails beside pictures, and the trash of desktops.
    """
    clock = LocalClock()
    seen: set[int] = set()
    for path, inode in entries:
        if not stat.S_ISREG(inode.mode) or any(map(is_for_desktops, path.split(b"/"))):
            continue
        found = None if inode.object_id is None else store.index.known_object(inode.object_id)
        kind = "" if found is None else found.kind
        if kind not in _KINDS and not path.lower().endswith(b".png"):
            continue
        stored = inode.size if found is None else found.length
        if found is not None and found.uses > 1:
            # An equal picture brings nothing new.
            stored = 0 if found.id in seen else stored
            seen.add(found.id)
        taken = clock.taken(path.rpartition(b"/")[2], inode.mtime_ns)
        yield *taken, inode.ino, int(stored <= IDLE_BYTES)
