"""Staged files that wait to be encoded, those under way, and what a writer has to do with them.

Belongs to the trio task. A file is in one of four states, by inode number:

- *waiting*: its turn comes by folder and name, which is how screenshots follow each other;
- *under way*, whole: taken from the queue, its body still the one that was taken;
- *under way*, spoilt: a writer has opened it since, so what is made of it is of no use;
- neither: encoded, or held by a writer, which queues it when it closes it.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter

import trio

from fsmount.store.index import Index

# After this many failures a file is still tried now and then, but nobody waits for it.
_TRIES = 3
# rsync writes .name.XXXXXX and renames at the end.
_RSYNC_NAME = re.compile(rb"\.(.+)\.[A-Za-z0-9]{6}")


class Queue:
    """Which staged file comes next; counts of those to come."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._order: list[tuple[int, bytes, int]] = []
        self._waiting: set[int] = set()
        # Under way, and whether a writer has spoilt it since it was taken.
        self._active: dict[int, bool] = {}
        self._held: Counter[int] = Counter()
        self._failures: Counter[int] = Counter()
        self._changed = trio.Event()

    # -- what writers do

    def put(self, ino: int) -> None:
        """A staged file is complete for now: encode it when its turn comes."""
        if ino in self._waiting or self._held[ino]:
            return
        if ino in self._active:
            self._active[ino] = True
            return
        place = self._index.folder_of(ino)
        if place is None:
            return
        heapq.heappush(self._order, (place[0], final_name(place[1]), ino))
        self._waiting.add(ino)
        self.notify()

    def hold(self, ino: int) -> None:
        """A writer opened the file: encode it later, and drop what is being encoded."""
        self._held[ino] += 1
        if ino in self._active:
            self._active[ino] = True

    def unhold(self, ino: int) -> None:
        """One writer less."""
        self._held[ino] -= 1
        if self._held[ino] <= 0:
            del self._held[ino]

    def held(self) -> list[int]:
        """Inodes that have a writer."""
        return list(self._held)

    def is_held(self, ino: int) -> bool:
        """Whether a writer has the file."""
        return self._held[ino] > 0

    # -- what the encoder does

    async def take(self) -> int:
        """The next file, which is under way from now on; waits for one."""
        while not self._order:
            await self.change()
        ino = heapq.heappop(self._order)[2]
        self._waiting.discard(ino)
        self._active[ino] = False
        return ino

    def is_whole(self, ino: int) -> bool:
        """Whether a file is under way and no writer has spoilt it."""
        return not self._active.get(ino, True)

    def leave(self, ino: int) -> bool | None:
        """The file is not under way any more: whether it was spoilt, None if it was not."""
        return self._active.pop(ino, None)

    def back(self, ino: int, spoilt: bool | None) -> None:
        """Undo a :meth:`leave`."""
        if spoilt is not None:
            self._active[ino] = spoilt

    def failed(self, ino: int) -> None:
        """Count a failure of a file."""
        self._failures[ino] += 1

    def failures(self, ino: int) -> int:
        """How often a file has failed, as far as it counts: what more there are say no more."""
        return min(self._failures[ino], _TRIES)

    def forgive(self, ino: int) -> None:
        """Forget a file's failures."""
        self._failures.pop(ino, None)

    # -- how many there are

    def count(self) -> int:
        """Files that wait or are under way."""
        return len(self._waiting) + len(self._active)

    def pending(self) -> int:
        """As :meth:`count`, less those that failed again and again."""
        given_up = sum(
            count >= _TRIES and (ino in self._waiting or ino in self._active)
            for ino, count in self._failures.items()
        )
        return self.count() - given_up

    async def drain(self) -> None:
        """Wait until nothing is pending."""
        while self.pending():
            await self.change()

    async def change(self) -> None:
        """Wait for a :meth:`notify`: files come, go on or go."""
        await self._changed.wait()

    def notify(self) -> None:
        """Wake all who wait for a change."""
        self._changed.set()
        self._changed = trio.Event()


def final_name(name: bytes) -> bytes:
    """What a file will be called when rsync has renamed it; else its name."""
    found = _RSYNC_NAME.fullmatch(name)
    return found[1] if found else name
