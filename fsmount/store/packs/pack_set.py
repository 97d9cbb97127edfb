"""State that writers and readers of packs share in an open store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class PackSet:
    """The packs of an open store as a whole.

    newest : highest number of a pack.
    turn : lock. The writer that commits holds it, and so does a task that closes, cuts or removes
        packs.
    copies_due : event. It is set when the copy of the index should be renewed soon.
    parity_due : event. It is set when packs may need parity.
    away : numbers of the packs that are at a URL only. Nothing new may rest on them.
    largest : length in bytes of the largest entry that was written since the store was opened.

    Contract: belongs to the trio task.
    """

    def __init__(self, newest: int = 0, away: frozenset[int] = frozenset()) -> None:
        self.newest = newest
        self.away = away
        self.largest = 0
        self.turn = trio.Lock()
        self.copies_due = trio.Event()
        self.parity_due = trio.Event()
        self._readers: set[trio.Event] = set()

    def renew_copies(self) -> None:
        """Ask for a new copy of the index."""
        self.copies_due.set()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """In the block, entries can be read at each location that was looked up in the block."""
        ended = trio.Event()
        self._readers.add(ended)
        try:
            yield
        finally:
            self._readers.discard(ended)
            ended.set()

    async def unread(self) -> None:
        """Wait until all :meth:`reading` blocks end that are open now.

        Blocks that begin later need no wait, because they look up the new locations.
        """
        for ended in list(self._readers):
            await ended.wait()
