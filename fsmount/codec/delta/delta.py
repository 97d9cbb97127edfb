"""Frame <-> its new parts: tiles, the source of each tile, and the pixels coded anew.

A frame is cut into tiles of 16 x 16 pixels (smaller at the right and lower edge). For every tile,
`tiles` names a **slot**. Slot 0 is the object's own image. Any other slot is a :class:`Copy` from
tiles that another object coded (at the same place, or moved by whole pixels), or a :class:`Fill` of
one colour. A copy names the object that *coded* the pixels, so nothing recurses: a frame needs
exactly the objects in its slots.

The **own image** is the frame without the tile rows and tile columns that hold no own tile. In it,
the places of other tiles are zero. So the layout of the own image follows from `tiles` alone. An
own tile may be coded as a residual: its samples minus the samples of the slot in `prediction`,
modulo the sample range.

Arrays of pixels here have the dtype of their frame, uint8 or uint16, and the shape of a frame,
(height, width, channels), unless a function says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    """Pixels that `object` coded. The tile at (x, y) shows the pixels at (x + dx, y + dy)."""

    object: int
    dx: int = 0
    dy: int = 0

    def __reduce__(self) -> tuple[type[Copy], tuple[int, int, int]]:
        # The jobs of a picture name hundreds. What dataclasses do to pickle one takes far longer.
        return Copy, (self.object, self.dx, self.dy)


@dataclass(frozen=True, slots=True)
class Fill:
    """One colour: a sample for each channel."""

    colour: tuple[int, ...]


Source = Copy | Fill | None


@dataclass(frozen=True)
class TileLayout:
    """The source of each tile of a frame.

    `shape` is (height, width, channels) and `dtype` uint8 or uint16, both of the frame. `tiles` is
    uint8 (tile rows, tile columns) of slots. `sources[i]` is slot i + 1. `prediction` has the shape
    of `tiles`, and is 0 for an own tile that is not coded as a residual.

    The constructor raises :class:`Damaged` if the fields do not fit together.
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
        """Return the source in a slot that the map uses.

        Raises :class:`Damaged` if the slot is empty.
        """
        found = self.sources[slot - 1]
        if found is None:
            raise Damaged("map", reason=f"slot {slot} is used and empty")
        return found

    def own(self) -> NDArray[np.bool_]:
        """Which tiles the object codes itself: bool, shape (tile rows, tile columns)."""
        return np.asarray(self.tiles == OWN)

    def predicted(self) -> NDArray[np.bool_]:
        """Which own tiles are coded as residuals: bool, shape (tile rows, tile columns)."""
        return np.asarray(self.own() & (self.prediction != 0))

    def copied(self) -> set[int]:
        """Ids of the objects whose pixels the frame shows."""
        return self._objects(slots(self.tiles))

    def predicting(self) -> set[int]:
        """Ids of the objects that predict residual tiles."""
        return self._objects(slots(self.prediction[self.predicted()]))

    def without_unused_sources(self) -> TileLayout:
        """Return the layout with None for each source that no tile and no prediction uses."""
        used = {*slots(self.tiles), *slots(self.prediction)}
        kept = [source if i in used else None for i, source in enumerate(self.sources, start=1)]
        while kept and kept[-1] is None:
            kept.pop()
        return replace(self, sources=tuple(kept))

    def _objects(self, used: Iterable[int]) -> set[int]:
        """Ids of the objects that the copies in these slots name."""
        found = (self.source(slot) for slot in used)
        return {source.object for source in found if isinstance(source, Copy)}


@dataclass(frozen=True)
class Layer:
    """The pixels that an object coded itself.

    `pixels` is (n, TILE, TILE, channels), with edge tiles padded with zeros. `index` is int32 (tile
    rows, tile columns): the number in `pixels` of the tile at each place, or -1.
    """

    shape: tuple[int, int, int]
    pixels: Frame
    index: NDArray[np.int32]

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return int(self.pixels.nbytes + self.index.nbytes)


def tile_grid(shape: Sequence[int]) -> tuple[int, int]:
    """Return the number of tile rows and tile columns of a frame of (height, width, ...)."""
    return -(-shape[0] // TILE), -(-shape[1] // TILE)


def slots(tiles: Tiles) -> list[int]:
    """Return the slots in `tiles` (uint8, any shape) without the own one, in ascending order."""
    used: list[int] = np.flatnonzero(np.bincount(tiles.ravel(), minlength=1)).tolist()
    return [slot for slot in used if slot != OWN]


def split(frame: Frame) -> Frame:
    """Split a frame into tiles: shape (tile rows, tile columns, TILE, TILE, channels).

    The dtype stays. Pads edge tiles with zeros.
    """
    rows, columns = tile_grid(frame.shape)
    height, width, channels = frame.shape
    padded: Frame = frame
    if (rows * TILE, columns * TILE) != (height, width):
        padded = np.zeros((rows * TILE, columns * TILE, channels), frame.dtype)
        padded[:height, :width] = frame
    return padded.reshape(rows, TILE, columns, TILE, channels).swapaxes(1, 2)


def join(tiles: Frame, shape: tuple[int, int, int]) -> Frame:
    """Join tiles to a C-contiguous frame of `shape`; undoes :func:`split`. The dtype stays."""
    rows, columns = tiles.shape[:2]
    whole = tiles.swapaxes(1, 2).reshape(rows * TILE, columns * TILE, shape[2])
    return np.ascontiguousarray(whole[: shape[0], : shape[1]])


def equal(frame: Frame, other: Frame) -> bool:
    """Whether two frames have the same shape, dtype and samples."""
    if frame.shape != other.shape or frame.dtype != other.dtype:
        return False
    one, two = np.ascontiguousarray(frame).data, np.ascontiguousarray(other).data
    return not any(engine.differing_rows(one, two, frame.nbytes))


def same_layer(one: Layer, other: Layer) -> bool:
    """Whether two layers have the same tiles at the same places."""
    return (
        one.shape == other.shape
        and np.array_equal(one.index, other.index)
        and one.pixels.dtype == other.pixels.dtype
        and np.array_equal(one.pixels, other.pixels)
    )


def _row_and_tile(frame: Frame) -> tuple[int, int]:
    """Return the bytes of a row of pixels, and of one pixel row of a tile."""
    pixel = frame.shape[2] * frame.itemsize
    return frame.shape[1] * pixel, TILE * pixel


def signatures(frame: Frame) -> NDArray[np.uint64]:
    """Return a 64-bit hash of the samples of each tile: uint64, shape (tile rows, tile columns).

    A hash is only a search key: before a payload is accepted, tiles with equal hashes are compared
    as pixels.
    """
    words_per_tile = TILE * TILE * frame.shape[2] * frame.itemsize // 8
    digest = shake_128(b"fsmount tiles").digest(8 * words_per_tile)
    keys = np.frombuffer(digest, "<u8").astype(np.uint64) | np.uint64(1)
    pixels = np.ascontiguousarray(frame)
    found = engine.hash_tiles(pixels.data, *_row_and_tile(frame), keys.data)
    return np.frombuffer(found, np.uint64).reshape(tile_grid(frame.shape))


def flat(frame: Frame) -> tuple[NDArray[np.bool_], Frame]:
    """Return which tiles have one colour, and the colour of each tile.

    Shapes: (tile rows, tile columns) of dtype bool, and (tile rows, tile columns, channels) of the
    dtype of `frame`.
    """
    found = engine.flat_tiles(np.ascontiguousarray(frame).data, *_row_and_tile(frame))
    return np.frombuffer(found, np.bool_).reshape(tile_grid(frame.shape)), frame[::TILE, ::TILE]


def _kept(own: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the tile rows and the tile columns that hold an own tile."""
    return np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))


def _numbered(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number the tiles in `mask`, row by row; -1 for the other tiles."""
    index = np.full(mask.shape, -1, np.int32)
    index[mask] = np.arange(np.count_nonzero(mask), dtype=np.int32)
    return index


def cut(frame: Frame, mask: NDArray[np.bool_]) -> Frame:
    """Cut out the tiles in `mask`, row by row: shape (n, TILE, TILE, channels), padded with zeros.

    `mask` is bool, shape (tile rows, tile columns). The result has the dtype of `frame`.
    """
    return _cut(frame, _numbered(mask))


def layer_in(frame: Frame, own: NDArray[np.bool_]) -> Layer:
    """Return the layer of an object that shows `frame` and codes the tiles in `own` itself.

    `own` is bool, shape (tile rows, tile columns). Equal to the result of :func:`layer` for each
    own image that :func:`own_image` makes of these tiles.
    """
    height, width, channels = frame.shape
    index = _numbered(own)
    return Layer((height, width, channels), _cut(frame, index), index)


def own_tiles(frame: Frame, layout: TileLayout, layers: Mapping[int, Layer]) -> Frame:
    """Return the tiles to code, row by row: shape (n, TILE, TILE, channels), dtype of `frame`.

    `layers` maps object ids to the layers that predict residual tiles. Raises :class:`Damaged` if
    map and layers do not fit together.
    """
    index = _numbered(layout.own())
    pixels = _cut(frame, index)
    predicted = layout.predicted()
    if predicted.any():
        pixels[index[predicted]] -= predictions(layout, layers)
    return pixels


def layer(layout: TileLayout, tiles: Frame, layers: Mapping[int, Layer]) -> Layer:
    """Return the layer of an object from its decoded tiles; the inverse of :func:`own_tiles`.

    `tiles` is writable, and becomes a part of the result. It has the dtype and the channels of the
    layout. Raises :class:`Damaged` if tiles, map and predictions do not fit together.
    """
    index = _numbered(layout.own())
    shape = (np.count_nonzero(index >= 0), TILE, TILE, layout.shape[2])
    if tiles.shape != shape or tiles.dtype != layout.dtype:
        raise Damaged("payload", reason=f"tiles of {tiles.shape} do not fit their map")
    predicted = layout.predicted()
    if predicted.any():
        tiles[index[predicted]] += predictions(layout, layers)
        # A fill may have predicted the padding of edge tiles.
        own, (height, width, _) = layout.own(), layout.shape
        tiles[index[-1][own[-1]], height - height // TILE * TILE or TILE :] = 0
        tiles[index[:, -1][own[:, -1]], :, width - width // TILE * TILE or TILE :] = 0
    return Layer(layout.shape, tiles, index)


def arrange(tiles: Frame, mask: NDArray[np.bool_], shape: tuple[int, int, int]) -> Frame:
    """Arrange tiles as one image: the frame without the rows and columns of tiles that hold none.

    `tiles` is (n, TILE, TILE, channels): the tiles in `mask` (bool, shape (tile rows, tile
    columns)) of a frame of `shape`, row by row, n at least 1. The places of other tiles are zero.
    The image has the dtype of `tiles`.
    """
    kept = np.ix_(*_kept(mask))
    image = np.zeros(_arranged_shape(mask, shape), tiles.dtype)
    _put(image, _numbered(mask)[kept], tiles)
    return image


def arranged(image: Frame, mask: NDArray[np.bool_], shape: tuple[int, int, int]) -> Frame:
    """Return the tiles of an image that :func:`arrange` made, padded with zeros.

    Raises :class:`Damaged` if the image has another shape.
    """
    if not mask.any() or image.shape != _arranged_shape(mask, shape):
        raise Damaged("payload", reason=f"an image of {image.shape} does not fit its map")
    return _cut(image, _numbered(mask)[np.ix_(*_kept(mask))])


def _arranged_shape(mask: NDArray[np.bool_], shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the shape of the image of tiles: whole tiles, without the padding of edge tiles."""
    rows, columns = _kept(mask)
    height = len(rows) * TILE - max(0, (int(rows[-1]) + 1) * TILE - shape[0])
    width = len(columns) * TILE - max(0, (int(columns[-1]) + 1) * TILE - shape[1])
    return height, width, shape[2]


def _cut(image: Frame, index: NDArray[np.int32]) -> Frame:
    """Cut out the tiles that have a number in `index`, in that order, padded with zeros."""
    tiles = np.zeros((np.count_nonzero(index >= 0), TILE, TILE, image.shape[2]), image.dtype)
    numbers = np.ascontiguousarray(index)
    engine.cut_tiles(
        np.ascontiguousarray(image).data, *_row_and_tile(image), numbers.data, tiles.data
    )
    return tiles


def _put(frame: Frame, index: NDArray[np.int32], pixels: Frame) -> None:
    """Copy the tile of `pixels` that `index` names to each place of a frame.

    Leaves a place as it is if its index is -1.
    """
    engine.paint_tiles(
        frame.data,
        *_row_and_tile(frame),
        np.ascontiguousarray(index, np.int32).data,
        np.ascontiguousarray(pixels).data,
    )


def predictions(layout: TileLayout, layers: Mapping[int, Layer]) -> Frame:
    """Return the predictions of the residual tiles, row by row: shape (n, TILE, TILE, channels).

    The dtype is that of the layout. Raises :class:`Damaged` if map and layers do not fit together.
    """
    predicted = layout.predicted()
    index = _numbered(predicted)
    out = np.zeros((np.count_nonzero(predicted), TILE, TILE, layout.shape[2]), layout.dtype)
    for slot in slots(layout.prediction[predicted]):
        mask = predicted & (layout.prediction == slot)
        pixels, numbers = _shown(slot, mask, layout, layers)
        out[index[mask]] = pixels[numbers]
    return out


def copies(layout: TileLayout, layers: Mapping[int, Layer]) -> Frame:
    """Return the tiles that are copies or fills, of the dtype of the layout.

    Shape: (tile rows, tile columns, TILE, TILE, channels). All other tiles are zero. Raises
    :class:`Damaged` if map and layers do not fit together.
    """
    out = np.zeros((*layout.tiles.shape, TILE, TILE, layout.shape[2]), layout.dtype)
    for slot in slots(layout.tiles):
        mask = layout.tiles == slot
        pixels, numbers = _shown(slot, mask, layout, layers)
        out[mask] = pixels[numbers]
    return out


def compose(layout: TileLayout, own: Layer, layers: Mapping[int, Layer]) -> Frame:
    """Compose the frame from own tiles, copies from `layers` (by object id), and fills.

    It has the shape and the dtype of the layout. Raises :class:`Damaged` if the frame copies a tile
    that the named object never coded.
    """
    mask = layout.own()
    # Every tile is an own tile or has a slot, and an empty slot is an error: no pixel stays unset.
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
    slot: int, mask: NDArray[np.bool_], layout: TileLayout, layers: Mapping[int, Layer]
) -> tuple[Frame, NDArray[np.integer]]:
    """Return the tiles that a slot shows in `mask`: tiles, and a number among them for each place.

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
        raise Damaged("map", reason=f"object {source.object} is not available")
    if found.shape[2] != layout.shape[2] or found.pixels.dtype != layout.dtype:
        raise Damaged("map", reason=f"object {source.object} has other channels or samples")
    if source.dx or source.dy or found.shape != layout.shape:
        moved = _moved(source, found, layout, mask)
        return moved, np.arange(len(moved), dtype=np.int32)
    wanted = found.index[mask]
    if (wanted < 0).any():
        raise Damaged("map", reason=f"object {source.object} never coded a tile copied from it")
    return found.pixels, wanted


def _moved(source: Copy, found: Layer, layout: TileLayout, mask: NDArray[np.bool_]) -> Frame:
    """Return the tiles in `mask` of a copy that does not map tile to tile.

    Shape: (n, TILE, TILE, channels). Each tile is composed from up to four tiles of the other
    object's layer. Raises :class:`Damaged`.
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
    # Clear the padding at the lower and right edge of the frame.
    out *= (np.arange(TILE) < heights[:, None])[:, :, None, None]
    out *= (np.arange(TILE) < widths[:, None])[:, None, :, None]
    return out
