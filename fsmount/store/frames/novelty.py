"""How much of a picture is new: the share of its tiles that no earlier picture of the store has.

The index does not have this. The record of a picture has the map of its tiles, so the answer costs
the read of an entry, and of the entry of its anchor, which is remembered.
"""

from __future__ import annotations

import os

import numpy as np

from fsmount.codec.delta import record
from fsmount.codec.delta.record import Record
from fsmount.errors import Damaged
from fsmount.lru import Lru
from fsmount.store.index import Index, Object
from fsmount.store.layout import Layout
from fsmount.store.packs.pack import Entry, read_entry

_ANCHORS_BYTES = 16 << 20


class Novelty:
    """Reads how much of the pictures of a store is new. The methods wait for the disk."""

    def __init__(self, layout: Layout, index: Index) -> None:
        self._layout = layout
        self._index = index
        self._anchors: Lru[int, Record] = Lru(_ANCHORS_BYTES)

    def share(self, found: Object) -> float:
        """Return the share of own tiles of a frame, 0.0 to 1.0.

        1.0 for an object that is no frame, and for one whose record cannot be read. Raises OSError.
        """
        if not found.has_layer:
            return 1.0
        try:
            tiles = np.frombuffer(self._record(found).arrays["tiles"], np.uint8)
        except (Damaged, KeyError):
            return 1.0
        return 1.0 - np.count_nonzero(tiles) / tiles.size if tiles.size else 1.0

    def path(self, found: Object) -> bytes | None:
        """Return the path that the file had for which an object was coded; None if unknown.

        Raises OSError.
        """
        try:
            path = self._record(found).header.get("path")
        except Damaged:
            return None
        return os.fsencode(path) if isinstance(path, str) else None

    def _record(self, found: Object) -> Record:
        """Return the record of an object. Raises :class:`Damaged`."""
        stored = self._entry(found).record
        number = record.anchor_of(stored)
        return record.unpack(stored, self._anchor(number) if number else None)

    def _anchor(self, number: int) -> Record:
        """Return the record of an anchor. Raises :class:`Damaged`."""
        known = self._anchors.get(number)
        if known is None:
            known = record.unpack(self._entry(self._index.object(number)).record)
            self._anchors.put(number, known, sum(map(len, known.arrays.values())) + 2000)
        return known

    def _entry(self, found: Object) -> Entry:
        return read_entry(self._layout.pack(found.pack), found.offset, found.length)
