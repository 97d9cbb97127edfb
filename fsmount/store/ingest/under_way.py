"""Bounds what is under way: the number of files, and the memory of their pictures.

Everything here belongs to the trio task.
"""

from __future__ import annotations

from collections.abc import Callable

import trio


class UnderWay:
    """Lets files in while fewer than `files()` are under way, with at most `nbytes` of samples.

    How large a picture is becomes known when it is looked at. Until then it counts as large as the
    latest ones. A file is always let in if no other one is under way: a picture that is larger than
    the bound must not wait for ever.
    """

    def __init__(self, files: Callable[[], int], nbytes: int) -> None:
        self._most_files = files
        self._most_bytes = nbytes
        # Bytes of samples by place.
        self._places: dict[Place, int] = {}
        # Bytes that a file counts until it is looked at: the largest of the latest pictures. It
        # shrinks by an eighth with each smaller one.
        self._expected = 0
        self._changed = trio.Event()

    async def enter(self) -> Place:
        """Wait until a file may be let in. Return its place, which the caller leaves."""
        while not self._has_room():
            await self._changed.wait()
        place = Place(self)
        self._places[place] = self._expected
        return place

    def _has_room(self) -> bool:
        fits = sum(self._places.values()) + self._expected <= self._most_bytes
        return not self._places or (fits and len(self._places) < self._most_files())

    def _note(self, place: Place, nbytes: int) -> None:
        self._places[place] = nbytes
        if nbytes:
            self._expected = max(nbytes, self._expected * 7 // 8)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class Place:
    """The place of a file that is under way. Made by :meth:`UnderWay.enter`."""

    def __init__(self, under_way: UnderWay) -> None:
        self._under_way = under_way

    def looked_at(self, nbytes: int) -> None:
        """Note the bytes of samples of the file, 0 if it is no picture."""
        self._under_way._note(self, nbytes)

    def leave(self) -> None:
        """Give the place up. Does not await."""
        del self._under_way._places[self]
        self._under_way._notify()
