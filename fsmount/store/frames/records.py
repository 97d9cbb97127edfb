"""Reads the records of objects, without a worker's memory: for questions about many objects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fsmount.codec.delta import record
from fsmount.codec.delta.record import Record
from fsmount.errors import Damaged
from fsmount.lru import Lru
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import Entry, read_entry

_ANCHORS_BYTES = 16 << 20


class Records:
    """Reads entries and records. Remembers the records of anchors. The methods wait for the disk.

    `place` gives the location of an object; it may raise :class:`Damaged`.
    """

    def __init__(self, place: Callable[[int], Location]) -> None:
        self._place = place
        self._anchors: Lru[int, Record] = Lru(_ANCHORS_BYTES)

    def entry(self, object_id: int) -> Entry:
        """Read the entry of an object. Raises :class:`Damaged`."""
        place = self._place(object_id)
        entry = read_entry(Path(place.pack), place.offset, place.length)
        if entry.object_id != object_id:
            raise Damaged(place.pack, reason=f"entry {entry.name} instead of object {object_id}")
        return entry

    def record(self, entry: Entry) -> Record:
        """Unpack the record of an entry; reads that of its anchor first. Raises Damaged."""
        number = record.anchor_of(entry.record)
        return record.unpack(entry.record, self._anchor(number) if number else None)

    def _anchor(self, number: int) -> Record:
        """Return the record of an anchor. Raises :class:`Damaged`."""
        known = self._anchors.get(number)
        if known is None:
            known = record.unpack(self.entry(number).record)
            self._anchors.put(number, known, sum(map(len, known.arrays.values())) + 2000)
        return known
