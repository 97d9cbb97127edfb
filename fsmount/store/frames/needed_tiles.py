"""Which own tiles of an object other frames take, and the entry of an object without the others.

If no file shows an object, only those of its own tiles matter that other frames take. Its entry
can be written again with zeros in the place of all others. Number, layout and record of the object
stay as they are. So every other entry stays valid, an anchor stays an anchor, and no reader has to
know. The functions here run in worker processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fsmount.codec.delta import payload
from fsmount.codec.delta.delta import OWN, TILE, Copy, TileLayout, tile_grid
from fsmount.codec.delta.payload import Mask, Own
from fsmount.codec.images.pam import Dictionary
from fsmount.errors import Damaged
from fsmount.store.frames.records import Records
from fsmount.store.packs.entries import FRAMES, dictionary_content, layout_of
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import Entry, build_entry, parse_entry

Needed = dict[int, Mask]
"""For some objects, which of their tiles are taken: bool (tile rows, tile columns)."""


def taken_tiles(
    wanted: Sequence[int],
    places: Sequence[Location],
    candidates: frozenset[int],
    known: Mapping[int, Mask],
) -> Needed:
    """Return which tiles of the `candidates` some frames take.

    Parameters
    ----------
    wanted : sequence of int
        Ids of the frames.
    places : sequence of Location
        Where they are, and all objects that they need.
    candidates : frozenset of int
        Ids of the objects whose tiles are asked for.
    known : mapping
        For frames of which only some own tiles matter: which (bool, tile rows, tile columns). All
        tiles of other frames matter.

    Raises
    ------
    Damaged
        If an entry cannot be read.
    """
    at = {place.id: place for place in places}
    records = Records(at.__getitem__)
    grids: dict[int, tuple[int, int]] = {}
    found: Needed = {}
    for object_id in wanted:
        entry = records.entry(object_id)
        about = records.record(entry)
        if about.header.get("kind") not in FRAMES:
            continue
        layout = layout_of(about)
        for target, copy, tiles in _uses(layout, known.get(object_id), candidates):
            if target not in grids:
                other = layout_of(records.record(records.entry(target)))
                grids[target] = tile_grid(other.shape)
            mask = found.setdefault(target, np.zeros(grids[target], bool))
            _mark(mask, copy, tiles)
    return found


def _uses(
    layout: TileLayout, some: Mask | None, candidates: frozenset[int]
) -> Iterator[tuple[int, Copy, Mask]]:
    """Yield (object, copy, which tiles take it) for each source of a frame among `candidates`.

    With `some` only these own tiles of the frame matter, and no tile that it copies.
    """
    if some is None:
        slots = np.where(layout.tiles == OWN, layout.prediction, layout.tiles)
    else:
        slots = np.where(some & layout.own(), layout.prediction, np.uint8(0))
    for number, source in enumerate(layout.sources, start=1):
        if isinstance(source, Copy) and source.object in candidates:
            tiles = np.asarray(slots == number)
            if tiles.any():
                yield source.object, source, tiles


def _mark(mask: Mask, copy: Copy, tiles: Mask) -> None:
    """Mark the tiles that lie below some tiles that are moved as `copy` says."""
    rows, columns = np.nonzero(tiles)
    for dy in (copy.dy // TILE, -(-copy.dy // TILE)):
        for dx in (copy.dx // TILE, -(-copy.dx // TILE)):
            y, x = rows + dy, columns + dx
            inside = (y >= 0) & (y < mask.shape[0]) & (x >= 0) & (x < mask.shape[1])
            mask[y[inside], x[inside]] = True


def without_unneeded(
    object_id: int, places: Sequence[Location], needed: Mask | None
) -> Entry | None:
    """Return the entry of an object with zeros in place of tiles that nobody takes.

    `places` has the object, its anchor and its dictionary. `needed` are the tiles that are taken:
    bool (tile rows, tile columns), None for no tile. Returns None if the entry gets no smaller. As
    a proof, the new entry is decoded and compared. Raises :class:`Damaged`.
    """
    at = {place.id: place for place in places}
    records = Records(at.__getitem__)
    entry = records.entry(object_id)
    layout = layout_of(records.record(entry))
    own, shape, dtype = layout.own(), layout.shape, layout.dtype
    wanted = own & needed if needed is not None else np.zeros_like(own)
    if not own.any() or (wanted == own).all():
        return None
    dictionary: Dictionary | None = None
    tiles = np.zeros((np.count_nonzero(own), TILE, TILE, shape[2]), dtype)
    if wanted.any():
        if entry.dictionary:
            other = records.entry(entry.dictionary)
            dictionary = Dictionary(dictionary_content(other, records.record(other)))
        there = payload.decode(entry.images, own, shape, dtype, dictionary)
        tiles[wanted[own]] = there[wanted[own]]
    again = payload.encode_again(Own(tiles, own, shape), dictionary)
    name = f"{entry.name[:8]}{again.suffix}"
    # The object may name its dictionary also if that is not used; without tiles it needs none.
    smaller = replace(
        entry,
        name=name,
        payload=again.data,
        photographs=again.photographs,
        dictionary=entry.dictionary if wanted.any() else 0,
    )
    data = build_entry(smaller)
    if len(data) >= len(build_entry(entry)):
        return None
    parsed, _ = parse_entry(data)
    if not np.array_equal(payload.decode(parsed.images, own, shape, dtype, dictionary), tiles):
        raise Damaged(f"object {object_id}", reason=f"{again.suffix} gave other pixels")
    return smaller
