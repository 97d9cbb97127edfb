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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import shake_128

import numpy as np
from numpy.typing import NDArray

from fsmount.codec.deflate import engine
from fsmount.codec.png.samples import Frame
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
        return self._objects(slots(self.tiles))

    def predicting(self) -> set[int]:
        """Objects that residual tiles are predicted from."""
        return self._objects(slots(self.prediction[self.predicted()]))

    def _objects(self, used: Iterable[int]) -> set[int]:
        found = (self.source(slot) for slot in used)
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


def slots(tiles: Tiles) -> list[int]:
    """The slots in a map other than the object's own, ascending."""
    used: list[int] = np.flatnonzero(np.bincount(tiles.ravel(), minlength=1)).tolist()
    return [slot for slot in used if slot != OWN]


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


def equal(frame: Frame, other: Frame) -> bool:
    """Whether two frames are the same in shape, sample type and every sample."""
    if frame.shape != other.shape or frame.dtype != other.dtype:
        return False
    one, two = np.ascontiguousarray(frame).data, np.ascontiguousarray(other).data
    return not any(engine.differing_rows(one, two, frame.nbytes))


def _row_and_tile(frame: Frame) -> tuple[int, int]:
    """Bytes of a row of pixels, and of as much of it as a tile is wide."""
    pixel = frame.shape[2] * frame.itemsize
    return frame.shape[1] * pixel, TILE * pixel


def signatures(frame: Frame) -> NDArray[np.uint64]:
    """A 64-bit hash of each tile's samples, (tile rows, tile columns).

    Only a search key: equal signatures are compared as pixels before a payload is accepted.
    """
    words_per_tile = TILE * TILE * frame.shape[2] * frame.itemsize // 8
    digest = shake_128(b"fsmount tiles").digest(8 * words_per_tile)
    keys = np.frombuffer(digest, "<u8").astype(np.uint64) | np.uint64(1)
    pixels = np.ascontiguousarray(frame)
    found = engine.hash_tiles(pixels.data, *_row_and_tile(frame), keys.data)
    return np.frombuffer(found, np.uint64).reshape(tile_grid(frame.shape))


def flat(frame: Frame) -> tuple[NDArray[np.bool_], Frame]:
    """Which tiles have one colour, and the colour of each: (rows, columns), (.., channels)."""
    found = engine.flat_tiles(np.ascontiguousarray(frame).data, *_row_and_tile(frame))
    return np.frombuffer(found, np.bool_).reshape(tile_grid(frame.shape)), frame[::TILE, ::TILE]


def _kept(own: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))


def _numbered(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The number of each tile among those in `mask`, row by row; -1 for the others."""
    index = np.full(mask.shape, -1, np.int32)
    index[mask] = np.arange(np.count_nonzero(mask), dtype=np.int32)
    return index


def cut(frame: Frame, mask: NDArray[np.bool_]) -> Frame:
    """The tiles in `mask`, row by row: (n, TILE, TILE, channels), padded with zeros."""
    return _cut(frame, _numbered(mask))


def own_image(frame: Frame, layout: Layout, layers: Mapping[int, Layer]) -> Frame | None:
    """The pixels to code, (height, width, channels); None where the object codes nothing.

    `layers` has the layers of the objects that residual tiles are predicted from.
    """
    own = layout.own()
    if not own.any():
        return None
    rows, columns = _kept(own)
    index = _numbered(own)
    pixels = _cut(frame, index)
    predicted = layout.predicted()
    if predicted.any():
        pixels[index[predicted]] -= predictions(layout, layers)
    shape = _own_shape(layout, rows, columns)
    kept = index[np.ix_(rows, columns)]
    image = np.zeros(shape, layout.dtype)
    _put(image, kept, pixels)
    return image


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
    index = _numbered(own)
    if image is None:
        if own.any():
            raise Damaged("payload", reason="own tiles without an image")
        return Layer(layout.shape, np.zeros((0, TILE, TILE, layout.shape[2]), layout.dtype), index)
    if not own.any():
        raise Damaged("payload", reason="an image without own tiles")
    rows, columns = _kept(own)
    if image.shape != _own_shape(layout, rows, columns) or image.dtype != layout.dtype:
        raise Damaged("payload", reason=f"an image of {image.shape} does not fit its map")
    pixels = _cut(image, index[np.ix_(rows, columns)])
    predicted = layout.predicted()
    if predicted.any():
        pixels[index[predicted]] += predictions(layout, layers)
        # What hangs over may have been predicted as a colour.
        height, width, _ = layout.shape
        pixels[index[-1][own[-1]], height - height // TILE * TILE or TILE :] = 0
        pixels[index[:, -1][own[:, -1]], :, width - width // TILE * TILE or TILE :] = 0
    return Layer(layout.shape, pixels, index)


def _cut(image: Frame, index: NDArray[np.int32]) -> Frame:
    """The tiles of an image that have a number in `index`, in that order, padded with zeros."""
    tiles = np.zeros((np.count_nonzero(index >= 0), TILE, TILE, image.shape[2]), image.dtype)
    numbers = np.ascontiguousarray(index)
    engine.cut_tiles(
        np.ascontiguousarray(image).data, *_row_and_tile(image), numbers.data, tiles.data
    )
    return tiles


def _put(frame: Frame, index: NDArray[np.int32], pixels: Frame) -> None:
    """Copy tile `index` of `pixels` to each place in a frame; nothing where it is -1."""
    engine.paint_tiles(
        frame.data,
        *_row_and_tile(frame),
        np.ascontiguousarray(index, np.int32).data,
        np.ascontiguousarray(pixels).data,
    )


def predictions(layout: Layout, layers: Mapping[int, Layer]) -> Frame:
    """What the residual tiles are predicted as, row by row: (n, TILE, TILE, channels)."""
    predicted = layout.predicted()
    index = _numbered(predicted)
    out = np.zeros((np.count_nonzero(predicted), TILE, TILE, layout.shape[2]), layout.dtype)
    for slot in slots(layout.prediction[predicted]):
        mask = predicted & (layout.prediction == slot)
        pixels, numbers = _shown(slot, mask, layout, layers)
        out[index[mask]] = pixels[numbers]
    return out


def copies(layout: Layout, layers: Mapping[int, Layer]) -> Frame:
    """The tiles that are copies or fills, (tile rows, tile columns, ..); zeros elsewhere."""
    out = np.zeros((*layout.tiles.shape, TILE, TILE, layout.shape[2]), layout.dtype)
    for slot in slots(layout.tiles):
        mask = layout.tiles == slot
        pixels, numbers = _shown(slot, mask, layout, layers)
        out[mask] = pixels[numbers]
    return out


def compose(layout: Layout, own: Layer, layers: Mapping[int, Layer]) -> Frame:
    """The frame: own tiles, copies from `layers` (by object id) and fills.

    Raises :class:`Damaged` if a copied tile is one that its object never coded.
    """
    mask = layout.own()
    # Every tile is its own or has a slot, and a slot that shows nothing is an error.
    frame = np.empty(layout.shape, layout.dtype)
    _put(frame, np.where(mask, own.index, -1), own.pixels)
    for slot in slots(layout.tiles):
        mask = layout.tiles == slot
        pixels, numbers = _shown(slot, mask, layout, layers)
        index = np.full(mask.shape, -1, np.int32)
        index[mask] = numbers
        _put(frame, index, pixels)
    return frame


def _shown(
    slot: int, mask: NDArray[np.bool_], layout: Layout, layers: Mapping[int, Layer]
) -> tuple[Frame, NDArray[np.integer]]:
    """What a slot shows at the tiles in `mask`: tiles, and the number among them for each place.

    Raises :class:`Damaged`.
    """
    source = layout.source(slot)
    if isinstance(source, Fill):
        if len(source.colour) != layout.shape[2]:
            raise Damaged("map", reason="a fill with the wrong number of channels")
        if not all(0 <= sample <= np.iinfo(layout.dtype).max for sample in source.colour):
            raise Damaged("map", reason="a fill with samples out of range")
        tile = np.empty((1, TILE, TILE, layout.shape[2]), layout.dtype)
        tile[:] = source.colour
        return tile, np.zeros(np.count_nonzero(mask), np.int32)
    found = layers.get(source.object)
    if found is None:
        raise Damaged("map", reason=f"object {source.object} is not at hand")
    if found.shape[2] != layout.shape[2] or found.pixels.dtype != layout.dtype:
        raise Damaged("map", reason=f"object {source.object} has other samples")
    if source.dx or source.dy or found.shape != layout.shape:
        moved = _moved(source, found, layout, mask)
        return moved, np.arange(len(moved), dtype=np.int32)
    wanted = found.index[mask]
    if (wanted < 0).any():
        raise Damaged("map", reason=f"object {source.object} never coded a tile copied from it")
    return found.pixels, wanted


def _moved(source: Copy, found: Layer, layout: Layout, mask: NDArray[np.bool_]) -> Frame:
    """The tiles in `mask` as a copy that is not tile on tile: (n, TILE, TILE, channels).

    Each is put together from the up to four tiles of the other object's layer it lies on.
    """
    rows, columns = np.nonzero(mask)
    heights = np.minimum(TILE, layout.shape[0] - rows * TILE)
    widths = np.minimum(TILE, layout.shape[1] - columns * TILE)
    tops, lefts = rows * TILE + source.dy, columns * TILE + source.dx
    if (tops < 0).any() or (lefts < 0).any():
        raise Damaged("map", reason="a copy from outside the frame")
    bottoms, rights = tops + heights - 1, lefts + widths - 1
    inside = (bottoms < found.shape[0]) & (rights < found.shape[1])
    if not inside.all():
        raise Damaged("map", reason=f"object {source.object} never coded an area copied from it")
    out = np.zeros((len(rows), TILE, TILE, layout.shape[2]), layout.dtype)
    down, right = source.dy % TILE, source.dx % TILE
    for across, to_y, from_y in (
        (tops, np.s_[: TILE - down], np.s_[down:]),
        (bottoms, np.s_[TILE - down :], np.s_[:down]),
    ):
        for along, to_x, from_x in (
            (lefts, np.s_[: TILE - right], np.s_[right:]),
            (rights, np.s_[TILE - right :], np.s_[:right]),
        ):
            index = found.index[across // TILE, along // TILE]
            if (index < 0).any():
                raise Damaged(
                    "map", reason=f"object {source.object} never coded an area copied from it"
                )
            out[:, to_y, to_x] = found.pixels[:, from_y, from_x][index]
    # What hangs over at the lower and right edge of the frame.
    out *= (np.arange(TILE) < heights[:, None])[:, :, None, None]
    out *= (np.arange(TILE) < widths[:, None])[:, None, :, None]
    return out
