"""How much of a picture is new: the share of its tiles that no earlier picture of the store has.

The index does not have this. The record of a picture has the map of its tiles, so the answer costs
the read of an entry, and of the entry of its anchor, which is remembered.
"""

from __future__ import annotations

import os
from functools import cached_property

import numpy as np

from fsmount.codec.delta.record import Record
from fsmount.errors import Damaged, PacksElsewhere
from fsmount.store.elsewhere import Elsewhere, missing
from fsmount.store.frames.records import Records
from fsmount.store.index import Index, Object
from fsmount.store.layout import Layout
from fsmount.store.packs.location import Location


class Novelty:
    """Reads how much of the pictures of a store is new.

    The methods wait for the disk, and raise PacksElsewhere for what is at a URL only.
    """

    def __init__(self, layout: Layout, index: Index) -> None:
        self._layout = layout
        self._index = index
        self._records = Records(self._place)

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

    @cached_property
    def _away(self) -> Elsewhere:
        return missing(self._layout)

    def _record(self, found: Object) -> Record:
        """Return the record of an object. Raises :class:`Damaged`."""
        return self._records.record(self._records.entry(found.id))

    def _place(self, object_id: int) -> Location:
        found = self._index.object(object_id)
        if found.pack in self._away.packs:
            raise PacksElsewhere(self._layout.root, url=self._away.url)
        path = self._layout.pack(found.pack)
        return Location(found.id, str(path), found.offset, found.length, found.has_layer)
