"""Entries on the move: appended to another pack, read back, and found there from one commit on."""

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
    """Moves entries to the packs of a writer that is used for nothing else meanwhile."""

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
        """Write the entries of a batch, commit and force it: the objects as they are now.

        `rows` is called inside the transaction with them. Raises OSError, :class:`Damaged`; then
        nothing has moved.
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
        """In the block nobody reads entries where they lay before they were moved."""
        await self._writer.packs.unread()
        # The second copies may be reading from them.
        async with self._writer.packs.turn:
            yield

    def _compare(self, moved: Sequence[Object], entries: Mapping[int, Entry]) -> None:
        """Read back what was written; raises :class:`Damaged` if it is something else."""
        for new in moved:
            path = self._layout.pack(new.pack)
            if read_entry(path, new.offset, new.length) != entries[new.id]:
                raise Damaged(path, reason="it does not hold what was written")

    def _turn(self, moved: Sequence[Object], rows: Callable[[Sequence[Object]], None]) -> None:
        for new in moved:
            self._index.move_object(new)
        rows(moved)


def read(place: Location) -> Entry:
    """The entry of an object as it lies there. Raises :class:`Damaged`."""
    entry = read_entry(Path(place.pack), place.offset, place.length)
    if entry.object_id != place.id:
        raise Damaged(place.pack, reason=f"entry {entry.name} instead of object {place.id}")
    return entry
