"""Planner: chooses the objects that the tiles of a new frame are copied from.

For each geometry (frame shape and sample type)
:class:`~fsmount.store.frames.known_tiles.KnownTiles` maps the position and content of
a tile to the place that it can be copied from. The planner does not code a tile again that a known
object coded at the same position, or that an earlier frame copied from another position. A frame
touches at most :data:`MAX_OBJECTS` objects. If it would need more, the tiles of the objects that
cover least are coded afresh.

A frame is planned in three steps. :meth:`Planner.plan` looks every tile up. If many tiles are new,
a worker searches for them at other positions (:mod:`fsmount.codec.delta.moves`), in the few objects
that the plan names as `near`. :meth:`Planner.note` then makes the tiles of the frame known. So the
next frame can be planned while this one is still being coded.

File names play no part. The planner matches a frame by its pixels, so neither temporary names nor
several writers at the same time mislead it.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from fsmount.codec.delta import delta
from fsmount.codec.delta.delta import MAX_SLOTS, OWN, Copy, Fill, Source, TileLayout, Tiles
from fsmount.codec.delta.moves import MIN_TILES
from fsmount.codec.delta.payload import LARGE
from fsmount.store.frames.features import FrameFeatures
from fsmount.store.frames.known_tiles import KnownTiles
from fsmount.store.frames.tile_keys import tile_keys

MAX_OBJECTS = 24
# Number of objects that residuals of one frame are predicted from. A later frame that copies from
# this frame's object reads these objects, too.
MAX_GUESSES = 4
# Highest level of a layer (:class:`~fsmount.store.frames.layers.DecodedLayer`). A layer of level 3
# needs three others, one below the other. For two desktops 3 gave fewer bytes than 1, 2 and 4.
MAX_LEVEL = 3
# Number of objects in which a worker searches for moved tiles, if at least _MANY tiles are new. For
# 120 desktop frames, eight objects make entries 1 % smaller than one object does, and take half of
# the whole ingest time.
MAX_NEAR = 1
_MANY = 2 * MIN_TILES
# Number of copies from other positions in the plan of one frame. A worker may add more.
MAX_MOVED = 32
# If the share of tiles without origin is larger than this, the plan copies no tile at all.
KEY_SHARE = 0.85
MAX_FILLS = 8
# Number of geometries whose tiles the planner keeps.
MAX_GEOMETRIES = 4
# The tiles of a geometry are due to be saved after so many frames. A crash makes the planner forget
# the tiles of frames behind the last save, and the next frames code those that they show again.
SAVE_EVERY = 256
# A plan with fewer own tiles than this names the dictionary. A search for moved tiles may leave few
# of them.
_MAY_BE_SMALL = 4 * LARGE


@dataclass(frozen=True)
class Plan:
    """The plan for one frame.

    tiles, sources : as in :class:`~fsmount.codec.delta.delta.TileLayout`.
    guess : for each own tile, the slot of the object that the frame before showed there; 0: none.
        The object is a candidate to predict a residual from. (tile rows, tile columns), uint8.
    anchor : object id of the anchor for the record. 0: none, so that later records may be packed
        against this one.
    near : ids of the objects to search for moved tiles, the likeliest first.
    dictionary : id of the dictionary for few own tiles; 0: none.
    """

    tiles: Tiles
    sources: tuple[Source, ...]
    guess: Tiles
    anchor: int
    near: tuple[int, ...] = ()
    dictionary: int = 0

    def objects(self) -> set[int]:
        """Return the ids of the objects that the plan names.

        Encoding touches these, and the objects that their layers rest on.
        """
        copied = {source.object for source in self.sources if isinstance(source, Copy)}
        return (copied | {self.anchor, self.dictionary, *self.near}) - {0}


class Planner:
    """Keeps the known tiles of each geometry and makes plans from them.

    Contract: belongs to the trio task that owns the store. No method awaits or asks the disk.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, KnownTiles] = OrderedDict()

    def clear(self) -> None:
        """Forget all tiles. The caller may have dropped objects that they name."""
        self._known.clear()

    def knows(self, geometry: str) -> bool:
        """Whether tiles of a geometry are known. If not, the caller may :meth:`load` them."""
        return geometry in self._known

    def known_tiles(self, geometry: str) -> KnownTiles:
        """Return the known tiles of a geometry, none at first."""
        known = self._known.setdefault(geometry, KnownTiles())
        self._known.move_to_end(geometry)
        return known

    def load(self, geometry: str, data: bytes, is_there: Callable[[int], bool]) -> None:
        """Take the tiles of a geometry from the result of :meth:`dump`.

        `is_there` tells whether an object still exists.
        """
        self.known_tiles(geometry).load(data, is_there)

    def dump(self, geometry: str, is_there: Callable[[int], bool]) -> bytes:
        """Encode the known tiles of a geometry for :meth:`load`; from here on they count as saved.

        `is_there` tells whether an object exists. One that does not exist yet may never do, so its
        tiles are left out, and do not count as saved.
        """
        return self._known[geometry].dump(is_there)

    def to_save(self, *, everything: bool = False) -> list[str]:
        """Return the geometries that are due to be saved; `everything`: all with unsaved tiles.

        A surplus geometry is due, too: :meth:`drop` it when it is saved.
        """
        least = 1 if everything else SAVE_EVERY
        due = [name for name, known in self._known.items() if known.unsaved >= least]
        return due + [name for name in self.surplus() if name not in due]

    def surplus(self) -> list[str]:
        """Return the geometries unused for longest, if there are more than MAX_GEOMETRIES."""
        return list(self._known)[: max(0, len(self._known) - MAX_GEOMETRIES)]

    def drop(self, geometry: str) -> None:
        """Forget a geometry."""
        del self._known[geometry]

    def plan(self, features: FrameFeatures) -> Plan:
        """Make the plan for a frame from its features: a slot for every tile.

        Changes nothing that later plans see, but for caches.
        """
        known = self.known_tiles(features.geometry)
        owners = known.origins(tile_keys(features.signatures))
        before = known.shown if known.shown is not None else np.zeros_like(owners)
        near = _near(known, owners, before, features)
        _keep_largest(known, owners, MAX_OBJECTS - len(near))
        if (owners == 0).mean() > KEY_SHARE:
            owners[:] = 0
        fills = _fills(owners, features) if owners.any() else {}
        wanted = {int(owner) for owner in np.unique(owners) if owner}
        objects = {known.source(owner).object for owner in wanted}
        guessed = _guesses(owners, before, known.bounds, objects | set(near))
        slots, sources = _slots(known, sorted(wanted | guessed), fills)
        tiles = np.zeros(owners.shape, np.uint8)
        for owner in wanted:
            tiles[owners == owner] = slots[owner]
        for colour, mask in fills.items():
            tiles[mask & (owners == 0)] = slots[colour]
        guess = np.zeros(owners.shape, np.uint8)
        for owner in guessed:
            guess[(tiles == OWN) & (before == owner)] = slots[owner]
        anchor = known.anchor if wanted else 0
        is_small = features.dtype == "uint8" and 0 < np.count_nonzero(tiles == OWN) < _MAY_BE_SMALL
        return Plan(tiles, sources, guess, anchor, near, known.dictionary if is_small else 0)

    def note(self, features: FrameFeatures, plan: Plan, object_id: int) -> Plan:
        """Note that the object `object_id` will have the frame, coded as planned.

        Returns the plan as it is to be coded. It has no anchor if the frame shall be one.
        """
        known = self.known_tiles(features.geometry)
        keys = tile_keys(features.signatures)
        origins = known.origins(keys)
        is_own = plan.tiles == OWN
        own: list[int] = keys[is_own].tolist()
        known.remember(Copy(object_id), own)
        if own:
            known.bounds[object_id] = _level(known.bounds, plan.sources, plan.guess)
        if 0 < len(own) < LARGE and features.dtype == "uint8":
            known.small.append(object_id)
            known.fresh += 1
        known.unsaved += 1
        shown = np.where(is_own, object_id, 0).astype(np.int64)
        for slot, source in enumerate(plan.sources, start=1):
            mask = plan.tiles == slot
            if isinstance(source, Copy) and mask.any():
                number = known.origin_for(source)
                shown[mask] = number
                if source.object in known.keys_of:
                    known.keys_of.move_to_end(source.object)
                if source.dx or source.dy:
                    new: list[int] = keys[mask & (origins != number)].tolist()
                    known.remember(source, new)
        known.shown = shown
        if plan.anchor and not known.keeps_anchor(plan.tiles):
            plan = replace(plan, anchor=0)
        if not plan.anchor:
            known.anchor, known.anchor_sources = object_id, plan.sources
            known.anchor_tiles, known.nearest, known.spent = plan.tiles, math.inf, 0.0
        return plan

    def coded(
        self, features: FrameFeatures, plan: Plan, layout: TileLayout, object_id: int
    ) -> None:
        """Note how the object `object_id` was coded in the end.

        Its own tiles can be more than planned: the signatures of some were equal to those of others
        by chance. It may have no residuals although the plan allowed some.
        """
        known = self._known.get(features.geometry)
        if known is None:
            return
        if layout.own().any():
            known.levels[object_id] = _level(known.levels, layout.sources, layout.prediction)
        more = layout.own() & (plan.tiles != OWN)
        known.remember(Copy(object_id), tile_keys(features.signatures)[more].tolist())

    def for_dictionary(self, geometry: str) -> tuple[int, ...]:
        """Return the objects to make a new dictionary from, oldest first; () if none is due."""
        return self.known_tiles(geometry).for_dictionary()

    def use_dictionary(self, geometry: str, object_id: int, *, is_new: bool) -> int:
        """Let later plans name a dictionary. Return the one that they named before, or 0.

        `is_new`: it is made from the newest objects.
        """
        return self.known_tiles(geometry).use_dictionary(object_id, is_new=is_new)

    def drop_dictionary(self, geometry: str, object_id: int, before: int) -> None:
        """Let later plans name the dictionary `before` in place of one that could not be made."""
        known = self._known.get(geometry)
        if known is not None and known.dictionary == object_id:
            known.dictionary = before

    def level(self, geometry: str, object_id: int) -> int | None:
        """Return the level of the layer of an object that is coded; None if it is not known."""
        known = self._known.get(geometry)
        return None if known is None else known.levels.get(object_id)

    def forget(self, object_id: int) -> None:
        """Forget an unusable object in all geometries."""
        for known in self._known.values():
            known.forget(object_id)


def _level(levels: Mapping[int, int], sources: Sequence[Source], prediction: Tiles) -> int:
    """Return the level of a layer whose own tiles may be predicted from these slots.

    `levels` has the levels of the objects in `sources`. `prediction` has shape (tile rows, tile
    columns); 0: no prediction.
    """
    used = (sources[slot - 1] for slot in delta.slots(prediction))
    below = [levels.get(each.object, 0) for each in used if isinstance(each, Copy)]
    return 1 + max(below) if below else 0


def _keep_largest(known: KnownTiles, owners: NDArray[np.int64], most: int) -> None:
    """Set the origin of tiles to 0 (coded afresh) so that few objects and moved copies are left.

    `most` objects and MAX_MOVED moved copies stay: the ones that cover most tiles.
    """
    counts = Counter(owners[owners != 0].tolist())
    moved = [owner for owner, _ in counts.most_common() if owner < 0]
    objects: Counter[int] = Counter()
    for owner, count in counts.items():
        objects[known.source(owner).object] += count
    dropped = {number for number, _ in objects.most_common()[most:]}
    gone = {owner for owner in counts if known.source(owner).object in dropped}
    gone.update(moved[MAX_MOVED:])
    if gone:
        owners[np.isin(owners, list(gone))] = 0


def _near(
    known: KnownTiles, owners: NDArray[np.int64], before: NDArray[np.int64], features: FrameFeatures
) -> tuple[int, ...]:
    """Choose the objects to search for moved tiles. Return () if few tiles are new.

    First come the objects that the changed tiles showed before: something may have been scrolled or
    dragged. Then come the newest objects that coded many tiles: a window may have come back at
    another position.
    """
    if np.count_nonzero((owners == 0) & ~features.is_flat) < _MANY:
        return ()
    changed = (owners != before) & (before != 0)
    counts: Counter[int] = Counter()
    for owner, count in Counter(before[changed].tolist()).items():
        counts[known.source(owner).object] += count
    found = [number for number, _ in counts.most_common(MAX_NEAR)]
    newest = (n for n in sorted(known.keys_of, reverse=True) if len(known.keys_of[n]) >= _MANY)
    found += islice((n for n in newest if n not in found), MAX_NEAR - len(found))
    return tuple(found)


def _fills(
    owners: NDArray[np.int64], features: FrameFeatures
) -> dict[tuple[int, ...], NDArray[np.bool_]]:
    """Find the commonest colours of flat tiles without origin. Return a mask of tiles by colour."""
    free = features.is_flat & (owners == 0)
    counts = Counter(map(tuple, features.colours[free].tolist()))
    return {
        colour: free & (features.colours == np.array(colour)).all(axis=2)
        for colour, _ in counts.most_common(MAX_FILLS)
    }


def _guesses(
    owners: NDArray[np.int64],
    before: NDArray[np.int64],
    bounds: Mapping[int, int],
    objects: set[int],
) -> set[int]:
    """Choose the few objects to predict residuals from. `objects` are used by the plan already.

    Objects whose level is surely below MAX_LEVEL qualify. The plan stays within MAX_OBJECTS.
    """
    counts = Counter(before[(owners == 0) & (before != 0)].tolist())
    found: set[int] = set()
    for owner, _ in counts.most_common():
        fits = owner in objects or len(objects | found) < MAX_OBJECTS
        if bounds.get(owner, MAX_LEVEL) < MAX_LEVEL and fits and len(found) < MAX_GUESSES:
            found.add(owner)
    return found


def _slots(
    known: KnownTiles, origins: list[int], fills: Iterable[tuple[int, ...]]
) -> tuple[dict[int | tuple[int, ...], int], tuple[Source, ...]]:
    """Choose a slot for each origin and colour. Return (slot by origin or colour, sources).

    Each source gets the slot that it has in the anchor, if it has one there. The anchor itself is
    slot 1. So the maps of frames that show the same are equal in most bytes.
    """
    sources: list[Source] = [None] * MAX_SLOTS
    slots: dict[int | tuple[int, ...], int] = {}
    wanted: dict[int | tuple[int, ...], Source] = {owner: known.source(owner) for owner in origins}
    wanted |= {colour: Fill(colour) for colour in fills}
    old: dict[Source, int] = {
        source: i for i, source in enumerate(known.anchor_sources) if source is not None and i
    }
    for name, source in wanted.items():
        place = 0 if name == known.anchor else old.get(source)
        if place is not None:
            slots[name], sources[place] = place + 1, source
    free = (i for i in range(1, MAX_SLOTS) if sources[i] is None)
    for name, source in sorted(wanted.items(), key=lambda item: str(item[0])):
        if name not in slots:
            place = next(free)
            slots[name], sources[place] = place + 1, source
    while sources and sources[-1] is None:
        sources.pop()
    return slots, tuple(sources)
