"""What those who write packs and those who read them have in common, in an open store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Packs:
    """The packs of an open store as a whole. Belongs to the trio task.

    `newest`: the highest number a pack has; `turn`: held by the writer that commits; `copies_due`:
    set when what the second copies say should be renewed soon; `largest`: bytes of the largest
    entry that was written.
    """

    def __init__(self, newest: int = 0) -> None:
        self.newest = newest
        self.largest = 0
        self.turn = trio.Lock()
        self.copies_due = trio.Event()
        self._readers: set[trio.Event] = set()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Places of entries that are looked up in the block can be read until its end."""
        ended = trio.Event()
        self._readers.add(ended)
        try:
            yield
        finally:
            self._readers.discard(ended)
            ended.set()

    async def unread(self) -> None:
        """Wait until all that are reading now have ended: those who come later look up anew."""
        for ended in list(self._readers):
            await ended.wait()
