"""What runs in worker processes: look at a staged file, encode a frame, render an object.

Everything that crosses is an immutable value; packs are read by path. Each worker keeps decoded
layers and records of recently used objects within a byte budget that the caller states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fsmount.codec import delta, images, record
from fsmount.codec.cache import Lru
from fsmount.codec.deflate import DeflateParams
from fsmount.codec.delta import Copy, Fill, Layer, Layout, Source
from fsmount.codec.png import Picture, Recipe, assemble, parse
from fsmount.codec.record import Record
from fsmount.codec.samples import Frame
from fsmount.errors import Damaged, NotExact
from fsmount.store.pack import Entry, build_entry, parse_entry, read_entry
from fsmount.store.planner import Plan, Sighting

NO_PAYLOAD = ".nil"
SUMS = ".sums"
_OURS = (NO_PAYLOAD, SUMS, ".rec")
_PNG_ARRAYS = ("filters", "head", "tail", "idat_tail")
_DTYPES: dict[int, np.dtype[np.uint8] | np.dtype[np.uint16]] = {
    8: np.dtype(np.uint8),
    16: np.dtype(np.uint16),
}
_MAX_NESTING = 4
# A standalone record becomes the new anchor where an anchored one saves less than this share.
_ANCHOR_PAYS = 0.6
# Residuals are worth a second encoding where they look this much flatter than the pixels.
_RESIDUAL_LOOKS_BETTER = 0.7


class Place(NamedTuple):
    """Where an object's entry lies."""

    id: int
    pack: str
    offset: int
    length: int


@dataclass(frozen=True)
class Look:
    """What a staged file turned out to be: `picture` and `seen`, or the reason why raw."""

    sha256: bytes
    size: int
    picture: Picture | None
    seen: Sighting | None
    reason: str


@dataclass(frozen=True)
class Order:
    """A frame to encode, and all that is written beside it."""

    id: int
    path: str
    size: int
    mtime_ns: int
    sha256: bytes
    picture: Picture
    plan: Plan
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Encoded:
    """A checked entry; `layer` and `needs` as in the index; `anchor` 0: stands alone."""

    entry: Entry
    kind: str
    depth: int
    layer: tuple[int, ...]
    needs: tuple[int, ...]
    layout: Layout
    anchor: int
    fell_back: bool


def look(path: str, hints: Sequence[DeflateParams]) -> Look:
    """Hash a staged file and, if it is a PNG that can be re-created exactly, take it apart."""
    data = Path(path).read_bytes()
    sha256 = hashlib.sha256(data).digest()
    try:
        picture = parse(data, hints)
    except NotExact as error:
        return Look(sha256, len(data), None, None, str(error.detail))
    frame = picture.frame
    is_flat, colours = delta.flat(frame)
    shape = (frame.shape[0], frame.shape[1], frame.shape[2])
    seen = Sighting(shape, frame.dtype.name, delta.signatures(frame), is_flat, colours)
    return Look(sha256, len(data), picture, seen, "")


def look_raw(path: str, reason: str) -> Look:
    """Hash a staged file that is kept verbatim for a reason known already."""
    data = Path(path).read_bytes()
    return Look(hashlib.sha256(data).digest(), len(data), None, None, reason)


@dataclass(frozen=True)
class _Known:
    """A decoded layer, the objects it took besides its own, and how many residuals it rests on."""

    layer: Layer
    below: frozenset[int]
    level: int


class _Reader:
    """Entries, records and layers of the objects at hand, cached across jobs.

    `touched` collects every object whose entry a result rests on, cached or not.
    """

    records: Lru[tuple[str, int], Record] = Lru(8 << 20)
    layers: Lru[tuple[str, int], _Known] = Lru(0)

    def __init__(self, places: Sequence[Place], budget: int) -> None:
        self._places = {place.id: place for place in places}
        self.touched: set[int] = set()
        if budget != _Reader.layers.budget:
            _Reader.layers = Lru(budget)

    def place(self, object_id: int) -> Place:
        self.touched.add(object_id)
        try:
            return self._places[object_id]
        except KeyError:
            raise Damaged(f"object {object_id}", reason="needed and not listed") from None

    def entry(self, object_id: int) -> Entry:
        place = self.place(object_id)
        entry = read_entry(Path(place.pack), place.offset, place.length)
        if entry.object_id != object_id:
            raise Damaged(place.pack, reason=f"entry {entry.name} instead of object {object_id}")
        return entry

    def record(self, entry: Entry) -> Record:
        """The record of an entry, its anchor's fetched where it has one."""
        anchor = record.anchor_of(entry.record)
        if not anchor:
            return _named(entry, record.unpack(entry.record))
        place = self.place(anchor)
        key = (place.pack, anchor)
        found = self.records.get(key)
        if found is None:
            other = self.entry(anchor)
            if record.anchor_of(other.record):
                raise Damaged(f"object {anchor}", reason="an anchor that has an anchor")
            found = _named(other, record.unpack(other.record))
            self.records.put(key, found, sum(map(len, found.arrays.values())) + 2000)
        return _named(entry, record.unpack(entry.record, found))

    def layer(self, object_id: int, nesting: int = 0) -> Layer:
        """The pixels an object coded itself."""
        return self.known(object_id, nesting).layer

    def known(self, object_id: int, nesting: int = 0) -> _Known:
        """An object's layer and what it rests on."""
        place = self.place(object_id)
        key = (place.pack, object_id)
        found = self.layers.get(key)
        if found is None:
            if nesting > _MAX_NESTING:
                raise Damaged(f"object {object_id}", reason="residuals nest too deep")
            outer, self.touched = self.touched, set()
            try:
                entry = self.entry(object_id)
                layout = _layout(self.record(entry))
                layer, level = self.decode(entry, layout, nesting)
                found = _Known(layer, frozenset(self.touched), level)
            finally:
                self.touched |= outer
            self.layers.put(key, found, layer.nbytes)
        self.touched |= found.below
        return found

    def decode(self, entry: Entry, layout: Layout, nesting: int = 0) -> tuple[Layer, int]:
        """The layer of an entry from its payload, and how many residuals it rests on."""
        image = None
        if entry.suffix != NO_PAYLOAD:
            image = images.decode(entry.suffix, entry.payload, layout.shape[2])
        others = {i: self.known(i, nesting + 1) for i in sorted(layout.predicting())}
        layers = {i: known.layer for i, known in others.items()}
        level = 1 + max((known.level for known in others.values()), default=-1)
        return delta.layer(layout, image, layers), level


def _named(entry: Entry, found: Record) -> Record:
    """The record, if it is the one of the object that the entry's name says."""
    if found.header.get("id") != entry.object_id:
        raise Damaged(f"entry {entry.name}", reason="its record is that of another object")
    return found


def _sources_json(sources: Sequence[Source]) -> list[Any]:
    out: list[Any] = []
    for source in sources:
        if isinstance(source, Copy):
            moved = source.dx or source.dy
            out.append([source.object, source.dx, source.dy] if moved else source.object)
        else:
            out.append(source and {"fill": list(source.colour)})
    return out


def _source(value: Any) -> Source:
    if value is None:
        return None
    if isinstance(value, int):
        return Copy(value)
    if isinstance(value, list):
        number, dx, dy = map(int, value)
        return Copy(number, dx, dy)
    return Fill(tuple(int(sample) for sample in value["fill"]))


def _layout(found: Record) -> Layout:
    """The layout a record describes; raises :class:`Damaged`."""
    try:
        height, width, channels, bits = found.header["frame"]
        shape = (int(height), int(width), int(channels))
        grid = delta.tile_grid(shape)
        tiles = np.frombuffer(found.arrays["tiles"], np.uint8).reshape(grid)
        stored = found.arrays.get("prediction") or bytes(tiles.size)
        prediction = np.frombuffer(stored, np.uint8).reshape(grid)
        sources = tuple(_source(value) for value in found.header.get("sources", ()))
        dtype = _DTYPES[bits]
        if not 1 <= channels <= 4 or min(shape) < 1:
            raise Damaged("record", reason=f"a frame of {shape}")
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise Damaged("record", reason=error) from error
    return Layout(shape, dtype, tiles, sources, prediction)


def _recipe(found: Record) -> Recipe:
    try:
        header = found.header["png"]
    except KeyError as error:
        raise Damaged("record", reason="no recipe") from error
    return Recipe.from_parts(header, [found.arrays.get(name, b"") for name in _PNG_ARRAYS])


@dataclass(frozen=True)
class _Rebuilt:
    """A decoded object: `below` gives its own layer, `depth` as in the index."""

    frame: Frame
    recipe: Recipe
    below: frozenset[int]
    depth: int


def _rebuild(entry: Entry, found: Record, reader: _Reader) -> _Rebuilt:
    """Frame and recipe of an entry, from payloads alone."""
    layout = _layout(found)
    own, level = reader.decode(entry, layout)
    below = frozenset(reader.touched)
    others = {i: reader.known(i) for i in sorted(layout.copied())}
    frame = delta.compose(layout, own, {i: known.layer for i, known in others.items()})
    depth = max([level, *(1 + known.level for known in others.values())])
    return _Rebuilt(frame, _recipe(found), below, depth)


def render(target: Place, places: Sequence[Place], sha256: bytes, budget: int) -> bytes:
    """The bytes of a file, compared with the hash recorded for it; raises :class:`Damaged`.

    `sha256`: what the index says; `budget`: bytes of decoded layers this process may keep.
    """
    reader = _Reader([*places, target], budget)
    entry = reader.entry(target.id)
    found = reader.record(entry)
    if found.header.get("kind") == "raw":
        data = entry.payload
    else:
        rebuilt = _rebuild(entry, found, reader)
        data = assemble(rebuilt.frame, rebuilt.recipe)
    if not hashlib.sha256(data).digest() == sha256 == found.arrays.get("sha256"):
        raise Damaged(f"object {target.id}", reason="the rendered bytes have another hash")
    return data


def encode(order: Order, budget: int) -> Encoded:
    """Encode a frame as planned and prove it by decoding; a keyframe where the plan fails.

    Raises :class:`NotExact` if not even the keyframe comes back exactly.
    """
    try:
        return _encode(order, budget, fell_back=False)
    except Damaged as error:
        if not order.plan.sources:
            raise NotExact(f"decoding gave something else: {error}") from error
    alone = Plan(np.zeros_like(order.plan.tiles), (), np.zeros_like(order.plan.tiles), 0)
    try:
        return _encode(replace(order, plan=alone), budget, fell_back=True)
    except Damaged as error:
        raise NotExact(f"decoding gave something else: {error}") from error


def _encode(order: Order, budget: int, *, fell_back: bool) -> Encoded:
    reader = _Reader(order.places, budget)
    layout, image = _best_image(order, reader)
    suffix, payload = NO_PAYLOAD, b""
    if image is not None:
        suffix, payload = image
    layout = replace(layout, sources=_used_sources(layout))
    stored, anchor = _record(order, layout, reader)
    entry = Entry(f"{order.id:08x}{suffix}", stored, payload)
    fresh = _Reader(order.places, budget)
    parsed, _ = parse_entry(build_entry(entry))
    rebuilt = _rebuild(parsed, fresh.record(parsed), fresh)
    picture = order.picture
    if not np.array_equal(rebuilt.frame, picture.frame) or rebuilt.recipe != picture.recipe:
        raise Damaged(f"object {order.id}", reason="the decoded frame differs")
    return Encoded(
        entry,
        "delta" if layout.sources else "key",
        rebuilt.depth,
        tuple(sorted(rebuilt.below)),
        tuple(sorted(fresh.touched)),
        layout,
        anchor,
        fell_back,
    )


def _used_sources(layout: Layout) -> tuple[Source, ...]:
    """Sources without those that neither a tile nor a prediction uses."""
    used = set(np.unique(layout.tiles).tolist()) | set(np.unique(layout.prediction).tolist())
    kept = [source if i in used else None for i, source in enumerate(layout.sources, start=1)]
    while kept and kept[-1] is None:
        kept.pop()
    return tuple(kept)


def _best_image(order: Order, reader: _Reader) -> tuple[Layout, tuple[str, bytes] | None]:
    """The layout with or without residuals, whichever payload is smaller, and that payload."""
    frame, plan = order.picture.frame, order.plan
    shape = (frame.shape[0], frame.shape[1], frame.shape[2])
    nothing = np.zeros_like(plan.tiles)
    plain = Layout(shape, frame.dtype, plan.tiles, plan.sources, nothing)
    image = delta.own_image(frame, plain, {})
    if image is None:
        return plain, None
    coded = images.encode(image)
    prediction = _worthwhile(plain, plan, frame, reader)
    if prediction.any():
        mixed = replace(plain, prediction=prediction)
        others = {i: reader.layer(i) for i in mixed.predicting()}
        residual = delta.own_image(frame, mixed, others)
        if residual is not None:
            other = images.encode(residual)
            if len(other[1]) < len(coded[1]):
                return mixed, other
    return plain, coded


def _worthwhile(layout: Layout, plan: Plan, frame: Frame, reader: _Reader) -> delta.Tiles:
    """For each own tile the slot to predict it from, 0 where new pixels look as cheap."""
    guess = np.where(layout.own(), plan.guess, 0).astype(np.uint8)
    if not guess.any():
        return guess
    candidate = replace(layout, prediction=guess)
    layers = {i: reader.layer(i) for i in candidate.predicting()}
    for slot in np.unique(guess[guess != 0]).tolist():
        source = candidate.source(slot)
        if isinstance(source, Copy):
            guess[(guess == slot) & (layers[source.object].index < 0)] = 0
    guessed = guess != 0
    tiles = np.ascontiguousarray(delta.split(frame))[guessed]
    predicted = delta.predictions(replace(layout, prediction=guess), layers)[guessed]
    keep = _roughness(tiles - predicted) < _RESIDUAL_LOOKS_BETTER * _roughness(tiles)
    guess[guessed] = np.where(keep, guess[guessed], 0)
    return guess


def _roughness(tiles: Frame) -> NDArray[np.int64]:
    """A rough cost of tiles (n, TILE, TILE, channels): samples that differ from a neighbour."""
    step = tiles[:, :, 1:] != tiles[:, :, :-1]
    first = tiles[:, 1:, 0] != tiles[:, :-1, 0]
    return np.asarray(step.sum(axis=(1, 2, 3)) + first.sum(axis=(1, 2)))


def _record(order: Order, layout: Layout, reader: _Reader) -> tuple[bytes, int]:
    """The stored record and its anchor: alone, or against the anchor where that is smaller."""
    recipe = order.picture.recipe
    header: dict[str, Any] = {
        "id": order.id,
        "kind": "delta" if layout.sources else "key",
        "frame": [*layout.shape, 8 * layout.dtype.itemsize],
        "png": recipe.header(),
        "sources": _sources_json(layout.sources),
        "size": order.size,
        "mtime": order.mtime_ns,
        "path": order.path,
    }
    arrays = {"sha256": order.sha256, "tiles": layout.tiles.tobytes()}
    if layout.prediction.any():
        arrays["prediction"] = layout.prediction.tobytes()
    arrays |= {n: blob for n, blob in zip(_PNG_ARRAYS, recipe.blobs(), strict=True) if blob}
    whole = Record(header, arrays)
    alone = record.pack(whole)
    anchor = order.plan.anchor
    if anchor:
        entry = reader.entry(anchor)
        against = record.pack(whole, anchor, reader.record(entry))
        if len(against) < _ANCHOR_PAYS * len(alone):
            return against, anchor
    return alone, 0


def raw_entry(
    object_id: int, path: str, mtime_ns: int, sha256: bytes, reason: str, payload: bytes
) -> Entry:
    """An entry that keeps a file verbatim."""
    stored = _raw_record(object_id, path, mtime_ns, sha256, reason, len(payload))
    return Entry(f"{object_id:08x}{_raw_suffix(path)}", stored, payload)


def kept_entry(
    object_id: int, path: str, mtime_ns: int, sha256: bytes, reason: str, size: int, sums: bytes
) -> Entry:
    """The entry of a large file that stays a file in ``raw/``; the payload is its segment sums."""
    stored = _raw_record(object_id, path, mtime_ns, sha256, reason, size)
    return Entry(f"{object_id:08x}{SUMS}", stored, sums)


def _raw_record(
    object_id: int, path: str, mtime_ns: int, sha256: bytes, reason: str, size: int
) -> bytes:
    header = {
        "id": object_id,
        "kind": "raw",
        "reason": reason,
        "size": size,
        "mtime": mtime_ns,
        "path": path,
    }
    return record.pack(Record(header, {"sha256": sha256}))


def _raw_suffix(path: str) -> str:
    """The file's own suffix where it is short and plain, so that unzip gives something to open."""
    suffix = Path(path).suffix
    plain = suffix[1:].isascii() and suffix[1:].isalnum() and len(suffix) <= 6
    return suffix.lower() if plain and suffix.lower() not in _OURS else ".bin"
