"""Frame <-> what is new in it: tiles, where each one comes from, and the pixels coded afresh.

A frame is cut into tiles of 16 x 16 pixels (smaller at the right and lower edge). For every tile
`tiles` names a **slot**: 0 is the object's own image, any other slot a :class:`Copy` from the
tiles that another object coded (at the same place or moved by whole pixels) or a :class:`Fill` of
one colour. Copies name the object that *coded* the pixels, so nothing recurses: a frame touches
exactly the objects in its slots.

The **own image** is the frame without the tile rows and tile columns that hold no own tile; what
is left of foreign tiles in it is zero. Its layout thus follows from `tiles` alone. An own tile may
be coded as residual: its samples minus those of the slot in `prediction`, modulo the sample range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import shake_128

import numpy as np
from numpy.typing import NDArray

from fsmount.codec.samples import Frame
from fsmount.errors import Damaged

TILE = 16
OWN = 0
MAX_SLOTS = 255

Tiles = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Copy:
    """Pixels that `object` coded; the tile at (x, y) shows what stood at (x + dx, y + dy)."""

    object: int
    dx: int = 0
    dy: int = 0


@dataclass(frozen=True, slots=True)
class Fill:
    """One colour: a sample for each channel."""

    colour: tuple[int, ...]


Source = Copy | Fill | None


@dataclass(frozen=True)
class Layout:
    """Where the tiles of a frame come from.

    `shape` (height, width, channels) and `dtype` (uint8 or uint16) of the frame; `tiles` (tile
    rows, tile columns) of slots; `sources[i]` is slot i + 1; `prediction`, same shape as `tiles`,
    has 0 where an own tile is coded as it is.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[np.uint8] | np.dtype[np.uint16]
    tiles: Tiles
    sources: tuple[Source, ...]
    prediction: Tiles

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or self.shape[2] > 4:
            raise Damaged("map", reason=f"no frame is {self.shape}")
        grid = tile_grid(self.shape)
        if self.tiles.shape != grid or self.prediction.shape != grid:
            raise Damaged("map", reason=f"{self.tiles.shape} tiles for a frame of {self.shape}")
        highest = max(int(self.tiles.max()), int(self.prediction.max()))
        if highest > len(self.sources):
            raise Damaged("map", reason=f"slot {highest} of {len(self.sources)}")

    def source(self, slot: int) -> Copy | Fill:
        """What stands in a slot that the map uses; raises :class:`Damaged` for an empty one."""
        found = self.sources[slot - 1]
        if found is None:
            raise Damaged("map", reason=f"slot {slot} is used and empty")
        return found

    def own(self) -> NDArray[np.bool_]:
        """Which tiles the object codes itself."""
        return np.asarray(self.tiles == OWN)

    def predicted(self) -> NDArray[np.bool_]:
        """Which own tiles are coded as residual."""
        return np.asarray(self.own() & (self.prediction != 0))

    def copied(self) -> set[int]:
        """Objects whose pixels the frame shows."""
        return self._objects(np.unique(self.tiles[self.tiles != OWN]))

    def predicting(self) -> set[int]:
        """Objects that residual tiles are predicted from."""
        return self._objects(np.unique(self.prediction[self.predicted()]))

    def _objects(self, slots: NDArray[np.uint8]) -> set[int]:
        found = (self.source(int(slot)) for slot in slots)
        return {source.object for source in found if isinstance(source, Copy)}


@dataclass(frozen=True)
class Layer:
    """The pixels an object coded itself.

    `pixels` (n, TILE, TILE, channels), edge tiles padded with zeros; `index` (tile rows, tile
    columns) int32: which of them stands at a tile, -1 for none.
    """

    shape: tuple[int, int, int]
    pixels: Frame
    index: NDArray[np.int32]

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return int(self.pixels.nbytes + self.index.nbytes)


def tile_grid(shape: Sequence[int]) -> tuple[int, int]:
    """Tile rows and tile columns of a frame of (height, width, ...)."""
    return -(-shape[0] // TILE), -(-shape[1] // TILE)


def split(frame: Frame) -> Frame:
    """(height, width, channels) -> (tile rows, tile columns, TILE, TILE, channels), padded."""
    rows, columns = tile_grid(frame.shape)
    height, width, channels = frame.shape
    padded: Frame = frame
    if (rows * TILE, columns * TILE) != (height, width):
        padded = np.zeros((rows * TILE, columns * TILE, channels), frame.dtype)
        padded[:height, :width] = frame
    return padded.reshape(rows, TILE, columns, TILE, channels).swapaxes(1, 2)


def join(tiles: Frame, shape: tuple[int, int, int]) -> Frame:
    """The inverse of :func:`split`: the frame of `shape`, C-contiguous."""
    rows, columns = tiles.shape[:2]
    whole = tiles.swapaxes(1, 2).reshape(rows * TILE, columns * TILE, shape[2])
    return np.ascontiguousarray(whole[: shape[0], : shape[1]])


_MIX = np.uint64(0x9E3779B97F4A7C15)


def signatures(frame: Frame) -> NDArray[np.uint64]:
    """A 64-bit hash of each tile's samples, (tile rows, tile columns).

    Only a search key: equal signatures are compared as pixels before a payload is accepted.
    """
    tiles = np.ascontiguousarray(split(frame))
    words = tiles.reshape(*tiles.shape[:2], -1).view(np.uint64)
    keys = np.frombuffer(shake_128(b"fsmount tiles").digest(8 * words.shape[2]), "<u8")
    # Shifting high bits down before the products lets a change anywhere reach most of the sum.
    mixed = words ^ (words >> np.uint64(32))
    mixed *= _MIX
    mixed ^= mixed >> np.uint64(29)
    mixed *= keys | np.uint64(1)
    total = mixed.sum(axis=2, dtype=np.uint64)
    return np.asarray(total ^ (total >> np.uint64(32)), np.uint64)


def flat(frame: Frame) -> tuple[NDArray[np.bool_], Frame]:
    """Which tiles have one colour, and the colour of each: (rows, columns), (.., channels)."""
    rows, columns = tile_grid(frame.shape)
    height, width, channels = frame.shape
    padded: Frame = frame
    if (rows * TILE, columns * TILE) != (height, width):
        padded = np.empty((rows * TILE, columns * TILE, channels), frame.dtype)
        padded[:height, :width] = frame
        padded[height:, :width] = frame[-1:]
        padded[:, width:] = padded[:, width - 1 : width]
    tiles = padded.reshape(rows, TILE, columns, TILE, channels)
    same = np.ascontiguousarray(tiles == tiles[:, :1, :, :1])
    # Eight comparisons to a word: numpy is slow at reducing along short axes.
    words = same.reshape(rows, TILE, -1).view(np.uint64)
    down = np.bitwise_and.reduce(words, axis=1).reshape(rows, columns, -1)
    every: NDArray[np.bool_] = np.all(down == np.uint64(0x0101010101010101), axis=2)
    return every, frame[::TILE, ::TILE]


def _kept(own: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))


def own_image(frame: Frame, layout: Layout, layers: Mapping[int, Layer]) -> Frame | None:
    """The pixels to code, (height, width, channels); None where the object codes nothing.

    `layers` has the layers of the objects that residual tiles are predicted from.
    """
    own = layout.own()
    if not own.any():
        return None
    # A copy: where the frame is one tile wide, splitting it makes none.
    tiles = split(frame).copy()
    predicted = layout.predicted()
    if predicted.any():
        tiles[predicted] -= predictions(layout, layers)[predicted]
    tiles[~own] = 0
    rows, columns = _kept(own)
    return join(tiles[np.ix_(rows, columns)], _own_shape(layout, rows, columns))


def _own_shape(
    layout: Layout, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> tuple[int, int, int]:
    """Size of the own image: whole tiles, less what the edge tiles lack."""
    height = len(rows) * TILE - max(0, (int(rows[-1]) + 1) * TILE - layout.shape[0])
    width = len(columns) * TILE - max(0, (int(columns[-1]) + 1) * TILE - layout.shape[1])
    return height, width, layout.shape[2]


def layer(layout: Layout, image: Frame | None, layers: Mapping[int, Layer]) -> Layer:
    """The layer of an object from its decoded own image; the inverse of :func:`own_image`.

    Raises :class:`Damaged` where image, map and predictions do not fit together.
    """
    own = layout.own()
    index = np.full(own.shape, -1, np.int32)
    index[own] = np.arange(np.count_nonzero(own), dtype=np.int32)
    if image is None:
        if own.any():
            raise Damaged("payload", reason="own tiles without an image")
        return Layer(layout.shape, np.zeros((0, TILE, TILE, layout.shape[2]), layout.dtype), index)
    if not own.any():
        raise Damaged("payload", reason="an image without own tiles")
    rows, columns = _kept(own)
    if image.shape != _own_shape(layout, rows, columns) or image.dtype != layout.dtype:
        raise Damaged("payload", reason=f"an image of {image.shape} does not fit its map")
    pixels = split(image)[own[np.ix_(rows, columns)]]
    predicted = layout.predicted()
    if predicted.any():
        pixels[index[predicted]] += predictions(layout, layers)[predicted]
        pixels *= _inside(layout.shape, own)
    return Layer(layout.shape, pixels, index)


def _inside(shape: tuple[int, int, int], own: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """1 for samples of own tiles that lie inside the frame, 0 for padding."""
    return split(np.ones((*shape[:2], 1), np.uint8))[own].astype(np.uint8)


def predictions(layout: Layout, layers: Mapping[int, Layer]) -> Frame:
    """What residual tiles are predicted as; zeros elsewhere."""
    out = np.zeros((*layout.tiles.shape, TILE, TILE, layout.shape[2]), layout.dtype)
    _paint(out, np.where(layout.own(), layout.prediction, 0).astype(np.uint8), layout, layers)
    return out


def compose(layout: Layout, own: Layer, layers: Mapping[int, Layer]) -> Frame:
    """The frame: own tiles, copies from `layers` (by object id) and fills.

    Raises :class:`Damaged` if a copied tile is one that its object never coded.
    """
    out = np.zeros((*layout.tiles.shape, TILE, TILE, layout.shape[2]), layout.dtype)
    mask = layout.own()
    if mask.any():
        out[mask] = own.pixels[own.index[mask]]
    _paint(out, layout.tiles, layout, layers)
    return join(out, layout.shape)


def _paint(out: Frame, slots: Tiles, layout: Layout, layers: Mapping[int, Layer]) -> None:
    """Fill the tiles of `out` whose slot is not 0."""
    for slot in np.unique(slots[slots != OWN]).tolist():
        mask = slots == slot
        source = layout.source(slot)
        if isinstance(source, Fill):
            if len(source.colour) != layout.shape[2]:
                raise Damaged("map", reason="a fill with the wrong number of channels")
            if not all(0 <= sample <= np.iinfo(layout.dtype).max for sample in source.colour):
                raise Damaged("map", reason="a fill with samples out of range")
            out[mask] = np.array(source.colour, layout.dtype)
            continue
        found = layers.get(source.object)
        if found is None:
            raise Damaged("map", reason=f"object {source.object} is not at hand")
        if found.shape[2] != layout.shape[2] or found.pixels.dtype != layout.dtype:
            raise Damaged("map", reason=f"object {source.object} has other samples")
        if source.dx or source.dy or found.shape != layout.shape:
            _paint_moved(out, mask, source, layout, found)
            continue
        wanted = found.index[mask]
        if (wanted < 0).any():
            raise Damaged("map", reason=f"object {source.object} never coded a tile copied from it")
        out[mask] = found.pixels[wanted]


def _paint_moved(
    out: Frame, mask: NDArray[np.bool_], source: Copy, layout: Layout, found: Layer
) -> None:
    """Copies that are not tile on tile: cut from the other object's pixels laid out as a frame."""
    rows, columns = found.index.shape
    canvas = np.zeros((rows, columns, TILE, TILE, found.shape[2]), found.pixels.dtype)
    coded = found.index >= 0
    canvas[coded] = found.pixels[found.index[coded]]
    pixels = join(canvas, found.shape)
    known = coded.repeat(TILE, axis=0).repeat(TILE, axis=1)[: found.shape[0], : found.shape[1]]
    for row, column in np.argwhere(mask).tolist():
        height = min(TILE, layout.shape[0] - row * TILE)
        width = min(TILE, layout.shape[1] - column * TILE)
        top, left = row * TILE + source.dy, column * TILE + source.dx
        if top < 0 or left < 0:
            raise Damaged("map", reason="a copy from outside the frame")
        area = np.s_[top : top + height, left : left + width]
        if known[area].shape != (height, width) or not known[area].all():
            raise Damaged(
                "map", reason=f"object {source.object} never coded an area copied from it"
            )
        out[row, column, :height, :width] = pixels[area]
