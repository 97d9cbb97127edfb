"""Moves entries to other packs.

A mover appends a batch of entries to another pack and reads them back. One commit then turns all
their rows to the new pack.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fsmount import threads
from fsmount.errors import Damaged
from fsmount.store.index import Index, Object
from fsmount.store.layout import Layout
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import Entry, read_entry
from fsmount.store.packs.writer import Writer
from fsmount.threads import Kind


class Mover:
    """Moves entries to the packs of `writer`. Nothing else uses this writer during a move.

    Contract: belongs to the trio task.
    """

    def __init__(self, layout: Layout, index: Index, writer: Writer) -> None:
        self._layout = layout
        self._index = index
        self._writer = writer

    async def relocate(
        self,
        batch: Sequence[Object],
        entries: Mapping[int, Entry],
        rows: Callable[[Sequence[Object]], None],
    ) -> list[Object]:
        """Move the entries of a batch. Return its objects with their new locations.

        `entries` has the entry to write for each object of `batch`, by object id. The method
        appends them, reads them back, commits, and forces the commit to the disk. Inside the
        transaction it calls `rows` with the moved objects. Raises OSError, :class:`Damaged`. If
        appending, reading back or committing fails, it gives up the appended entries, and nothing
        has moved.
        """
        moved: list[Object] = []
        try:
            for found in batch:
                moved.append(await self._writer.append_again(found, entries[found.id]))
            await threads.call(Kind.ENTRY, self._compare, moved, entries)
            await self._writer.commit(lambda: self._turn(moved, rows))
        except BaseException:
            await self._writer.give_up()
            raise
        for new in moved:
            self._writer.forget(new.id)
        await self._writer.force()
        return moved

    @asynccontextmanager
    async def left(self) -> AsyncIterator[None]:
        """In the block no task reads an entry at the location that it had before its move.

        The block runs with `PackSet.turn` held.
        """
        await self._writer.packs.unread()
        # The copier reads entries of packs while it holds this lock.
        async with self._writer.packs.turn:
            yield

    def _compare(self, moved: Sequence[Object], entries: Mapping[int, Entry]) -> None:
        """Read the new entries back. Runs in a thread.

        Raises :class:`Damaged` if one differs from the entry in `entries`.
        """
        for new in moved:
            path = self._layout.pack(new.pack)
            if read_entry(path, new.offset, new.length) != entries[new.id]:
                raise Damaged(path, reason="it does not hold what was written")

    def _turn(self, moved: Sequence[Object], rows: Callable[[Sequence[Object]], None]) -> None:
        """Turn the rows of moved objects, then call `rows`. Runs inside the transaction."""
        for new in moved:
            self._index.move_object(new)
        rows(moved)


def read(place: Location) -> Entry:
    """Read the entry of an object from its location. May wait for the disk.

    Raises :class:`Damaged` if the entry is damaged, cannot be read or is that of another object.
    """
    entry = read_entry(Path(place.pack), place.offset, place.length)
    if entry.object_id != place.id:
        raise Damaged(place.pack, reason=f"entry {entry.name} instead of object {place.id}")
    return entry
