"""The tiles that are known of one geometry, and where each can be copied from.

The planner (:mod:`fsmount.store.frames.planner`) looks the tiles of a new frame up here, and notes
which ones it codes.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fsmount.codec.delta.delta import Copy, Source, Tiles
from fsmount.store.frames.tile_keys import dump_keys, load_keys

# Number of known tiles of a geometry. Each takes about 120 bytes of memory, and 2.6 in the index.
MAX_TILES = 150_000
# Bytes of a record, estimated: without an anchor, and with one. Each is a number of bytes without
# the map of tiles, and the share of the quickly compressed map that counts. They were fitted to the
# records of 507 pictures of two desktops.
_ALONE, _ALONE_MAP = 270, 0.8
_ANCHORED, _ANCHORED_MAP = 110, 0.55
# A dictionary is made from the newest _SMALL_KEPT objects with few own tiles: when there are
# _FIRST_DUE, and again when there are _DUE_AGAIN times as many new ones as before, or _MOST_DUE.
# Each costs 5 to 10 KB. Dictionaries after 8, 32 and 128 objects made the objects of two desktops
# smaller by a half, and 4 % smaller than dictionaries after 16 and 64.
_FIRST_DUE, _DUE_AGAIN, _MOST_DUE = 8, 3, 512
_SMALL_KEPT = 64


@dataclass
class KnownTiles:
    """The known tiles of one geometry.

    An **origin** is a number that says where a tile can be copied from. A positive origin is the id
    of the object that coded the tile at the same position. A negative origin is a key of `moved`: a
    copy from another position.

    origin : origin by tile key (:func:`tile_keys`).
    keys_of : tile keys by object id, first the object that frames took no tile from for longest.
    moved, origin_of : copy by negative origin, and the inverse.
    anchor, anchor_sources, anchor_tiles : object id of the newest anchor (0: none), and its plan.
    nearest, spent : the fewest bytes that a record took against the newest anchor, and how many
        more than that all records together took. Both are estimates.
    shown : origins that the newest frame shows, (tile rows, tile columns); 0: none.
    bounds : the highest level that the layer of an object with own tiles may get, by object id
        (:class:`~fsmount.store.frames.layers.DecodedLayer`).
    levels : the levels of objects that are coded, by object id.
    dictionary : object id of the newest dictionary; 0: none.
    small : the newest objects with few own tiles, oldest first.
    fresh : number of objects with few own tiles since the dictionary was made.
    due : number of them from which a new dictionary is due.
    unsaved : number of frames since the tiles were saved.
    """

    origin: dict[int, int] = field(default_factory=dict)
    keys_of: OrderedDict[int, list[int]] = field(default_factory=OrderedDict)
    moved: dict[int, Copy] = field(default_factory=dict)
    origin_of: dict[Copy, int] = field(default_factory=dict)
    anchor: int = 0
    anchor_sources: tuple[Source, ...] = ()
    anchor_tiles: Tiles | None = None
    nearest: float = 0.0
    spent: float = 0.0
    shown: NDArray[np.int64] | None = None
    bounds: dict[int, int] = field(default_factory=dict)
    levels: dict[int, int] = field(default_factory=dict)
    dictionary: int = 0
    small: deque[int] = field(default_factory=lambda: deque(maxlen=_SMALL_KEPT))
    fresh: int = 0
    due: int = field(default_factory=lambda: _FIRST_DUE)
    unsaved: int = 0
    # Tile keys of the newest frame and their origins. Most are equal in the next frame.
    newest: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    def origins(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the origin of each tile key, 0 for none, as a new int64 array shaped as `keys`.

        `keys` become the keys of the newest frame.
        """
        if self.newest is None:
            found, unknown = np.empty_like(keys), np.ones(keys.shape, bool)
        else:
            found, unknown = self.newest[1].copy(), keys != self.newest[0]
        found[unknown] = [self.origin.get(key, 0) for key in keys[unknown].tolist()]
        self.newest = keys, found
        return found.copy()

    def source(self, origin: int) -> Copy:
        """Return the copy that an origin stands for."""
        return Copy(origin) if origin > 0 else self.moved[origin]

    def origin_for(self, copy: Copy) -> int:
        """Return the origin that stands for a copy. A new moved copy gets a new negative number."""
        if not (copy.dx or copy.dy):
            return copy.object
        if copy not in self.origin_of:
            self.origin_of[copy] = min(self.moved, default=0) - 1
            self.moved[self.origin_of[copy]] = copy
        return self.origin_of[copy]

    def remember(self, copy: Copy, keys: list[int]) -> None:
        """Note that tiles with these keys can be copied from `copy`.

        If there are more than :data:`MAX_TILES` tiles, forget the objects that no frame took a tile
        from for longest.
        """
        if not keys:
            return
        self.keys_of[copy.object] = self.keys_of.get(copy.object, []) + keys
        number = self.origin_for(copy)
        for key in keys:
            self.origin[key] = number
        if self.newest is not None:
            self.newest[1][np.isin(self.newest[0], keys)] = number
        while len(self.origin) > MAX_TILES and len(self.keys_of) > 1:
            self.forget(next(iter(self.keys_of)))

    def keeps_anchor(self, tiles: Tiles) -> bool:
        """Whether a record with these tiles, (tile rows, tile columns), is to have the anchor.

        A new anchor costs bytes once. An old one costs some in each record, because more tiles have
        changed since. The new one is due when the old one has cost as many bytes as the new one
        costs. So both together are at most twice the best (the rule of ski rental: Karlin et al.,
        Competitive Snoopy Caching, 1988).
        """
        if self.anchor_tiles is None:
            return False
        alone = _ALONE + _ALONE_MAP * len(zlib.compress(tiles.tobytes(), 1))
        changed = (tiles ^ self.anchor_tiles).tobytes()
        against = _ANCHORED + _ANCHORED_MAP * len(zlib.compress(changed, 1))
        self.nearest = min(self.nearest, against)
        self.spent += against - self.nearest
        return self.spent < alone - against

    def forget(self, object_id: int) -> None:
        """Forget an object: no later plan copies tiles from it."""
        gone = {object_id, *(n for n, copy in self.moved.items() if copy.object == object_id)}
        for key in self.keys_of.pop(object_id, []):
            if self.origin.get(key) in gone:
                del self.origin[key]
        for number in gone - {object_id}:
            del self.origin_of[self.moved.pop(number)]
        self.newest = None
        if self.shown is not None:
            self.shown[np.isin(self.shown, list(gone))] = 0
        self.bounds.pop(object_id, None)
        self.levels.pop(object_id, None)
        self.small = deque((i for i in self.small if i != object_id), _SMALL_KEPT)
        if self.dictionary == object_id:
            self.dictionary = 0
        if self.anchor == object_id:
            self.anchor, self.anchor_sources, self.anchor_tiles = 0, (), None

    def load(self, data: bytes, is_there: Callable[[int], bool]) -> None:
        """See :meth:`~fsmount.store.frames.planner.Planner.load`."""
        for copy, keys in load_keys(data):
            if is_there(copy.object):
                self.remember(copy, keys)

    def dump(self, is_there: Callable[[int], bool]) -> bytes:
        """See :meth:`~fsmount.store.frames.planner.Planner.dump`."""
        keys = np.fromiter(self.origin.keys(), np.int64, len(self.origin))
        origins = np.fromiter(self.origin.values(), np.int64, len(self.origin))
        groups: dict[int, list[tuple[Copy, NDArray[np.int64]]]] = {}
        for origin in np.unique(origins).tolist():
            copy = self.source(origin)
            groups.setdefault(copy.object, []).append((copy, np.sort(keys[origins == origin])))
        there = [number for number in self.keys_of if number in groups and is_there(number)]
        self.unsaved = len(groups) - len(there)
        return dump_keys([group for number in there for group in groups[number]])

    def for_dictionary(self) -> tuple[int, ...]:
        """Return the objects to make a new dictionary from, oldest first; () if none is due."""
        return tuple(self.small) if self.fresh >= self.due else ()

    def use_dictionary(self, object_id: int, *, is_new: bool) -> int:
        """See :meth:`~fsmount.store.frames.planner.Planner.use_dictionary`."""
        before, self.dictionary, self.fresh = self.dictionary, object_id, 0
        self.due = min(_DUE_AGAIN * self.due, _MOST_DUE) if is_new else _MOST_DUE
        return before
