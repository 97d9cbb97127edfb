"""How an object relates to others: what its entry names, and the columns of its row.

An entry names the objects that its tiles are copied from, those that its residuals are predicted
from, the anchor of its record, and the dictionary of its payload. The columns `needs` and `layer`
also have the objects that these rest on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from fsmount.codec.delta import record
from fsmount.codec.delta.delta import TileLayout
from fsmount.store.packs.pack import Entry


class References(NamedTuple):
    """The objects that an entry names: ids, ascending.

    copied : the objects that tiles are copied from.
    predicting : the objects that residuals are predicted from.
    anchor : the anchor of the record, 0 for none.
    dictionary : the dictionary of the payload, 0 for none.
    """

    copied: tuple[int, ...]
    predicting: tuple[int, ...]
    anchor: int
    dictionary: int = 0

    def layers(self) -> set[int]:
        """Return the objects whose layers the frame is made of."""
        return {*self.copied, *self.predicting}


class Below(NamedTuple):
    """What an object's layer rests on.

    layer : the column of its row.
    level : number of residual layers in its longest path
        (:class:`~fsmount.store.frames.layers.DecodedLayer`).
    """

    layer: tuple[int, ...]
    level: int


class Relations(NamedTuple):
    """Columns of an object's row.

    needs : ids of all other objects whose entries are read to render the object's file, ascending.
    layer : ids of all other objects whose entries are read to decode its layer, ascending.
    depth : number of layers in the longest path from its frame down; 0 for a keyframe.
    """

    needs: tuple[int, ...]
    layer: tuple[int, ...]
    depth: int


def references(layout: TileLayout, entry: Entry) -> References:
    """Return what an entry with this layout names. Raises :class:`Damaged`."""
    copied, predicting = sorted(layout.copied()), sorted(layout.predicting())
    anchor = record.anchor_of(entry.record)
    return References(tuple(copied), tuple(predicting), anchor, entry.dictionary)


def relations(found: References, below: Mapping[int, Below]) -> Relations:
    """Compute the columns of an object whose entry names `found`.

    `below` has each of `found.layers()`. Raises KeyError for one that is missing.
    """
    direct = {found.anchor, found.dictionary} - {0}
    layer = direct | _with_below(found.predicting, below)
    level = 1 + max((below[i].level for i in found.predicting), default=-1)
    depth = max([level, *(1 + below[i].level for i in found.copied)])
    needs = layer | _with_below(found.copied, below)
    return Relations(tuple(sorted(needs)), tuple(sorted(layer)), depth)


def _with_below(ids: Iterable[int], below: Mapping[int, Below]) -> set[int]:
    """Return some objects and all that their layers rest on."""
    return {each for i in ids for each in (i, *below[i].layer)}
