"""Files that wait to be encoded or are being encoded, and their writers.

Everything here belongs to the trio task. A file, by its number (:mod:`inputs`), is in one of four
states:

- *waiting*: the queue orders files by folder and name, as screenshots follow each other;
- *under way*, whole: the pipeline has taken the file, and its body is unchanged;
- *under way*, spoilt: a writer has opened the file since, so the pipeline's result is useless;
- neither: the file is encoded, or a writer holds it and queues it when it closes it.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter

import trio

from fsmount.store.ingest.inputs import Inputs

# After this many failures the encoder still tries a file now and then, but no task waits for it.
_TRIES = 3
# rsync writes .name.XXXXXX and renames at the end.
_RSYNC_NAME = re.compile(rb"\.(.+)\.[A-Za-z0-9]{6}")


class Queue:
    """Decides which file comes next, and counts waiting files."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._order: list[tuple[int, bytes, int]] = []
        self._waiting: set[int] = set()
        # Files under way; True if a writer has spoilt the file since the pipeline took it.
        self._active: dict[int, bool] = {}
        self._held: Counter[int] = Counter()
        self._failures: Counter[int] = Counter()
        self._changed = trio.Event()

    # -- what writers do

    def put(self, ino: int) -> None:
        """Queue a file that is complete for now."""
        if ino in self._waiting or self._held[ino]:
            return
        if ino in self._active:
            self._active[ino] = True
            return
        place = self._inputs.place(ino)
        if place is None:
            return
        heapq.heappush(self._order, (place[0], final_name(place[1]), ino))
        self._waiting.add(ino)
        self.notify()

    def hold(self, ino: int) -> None:
        """Note that a writer opened the file. A running encode of it becomes useless."""
        self._held[ino] += 1
        if ino in self._active:
            self._active[ino] = True

    def unhold(self, ino: int) -> None:
        """Note that one writer closed the file."""
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
        """Take the next file, which is then under way. Waits until there is one."""
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
        """End the file's way. Return whether it was spoilt, or None if it was not under way."""
        return self._active.pop(ino, None)

    def back(self, ino: int, spoilt: bool | None) -> None:
        """Undo a :meth:`leave`."""
        if spoilt is not None:
            self._active[ino] = spoilt

    def failed(self, ino: int) -> None:
        """Count a failure of a file."""
        self._failures[ino] += 1

    def failures(self, ino: int) -> int:
        """Return the number of failures of a file, capped at `_TRIES`."""
        return min(self._failures[ino], _TRIES)

    def forgive(self, ino: int) -> None:
        """Forget a file's failures."""
        self._failures.pop(ino, None)

    # -- how many there are

    def count(self) -> int:
        """Files that wait or are under way."""
        return len(self._waiting) + len(self._active)

    def pending(self) -> int:
        """Return :meth:`count` without the files that failed `_TRIES` times."""
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
        """Wait for the next :meth:`notify`."""
        await self._changed.wait()

    def notify(self) -> None:
        """Wake all tasks that wait in :meth:`change`."""
        self._changed.set()
        self._changed = trio.Event()


def final_name(name: bytes) -> bytes:
    """Return the name that rsync will give a file in the end; for other files their name."""
    found = _RSYNC_NAME.fullmatch(name)
    return found[1] if found else name
