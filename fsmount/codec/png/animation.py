"""Animated PNGs: where their pictures are, and how one frame holds all of them.

The first picture of an animated PNG is in its IDATs, as in any PNG. Its area is the canvas. Each
further picture has a zlib stream of its own, in chunks fdAT. The chunk fcTL before them says its
size and its place on the canvas (PNG specification, third edition, section 11.3.4).

The frame of such a file is a **sheet** of tiles. Each picture is cut into tiles from its upper left
corner on. A tile of a further picture is **repeated** if it shows what the pictures before, laid
one over the other, show there. The sheet has all other tiles of all pictures, one after the other,
in rows as wide as the canvas. Samples that belong to no picture have the largest value: there, an
alpha channel is opaque.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from struct import unpack
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fsmount.codec.png.samples import Frame, SampleLayout

TILE = 16
"""Pixels of a side of a tile, as in `codec/delta`."""
_LENGTH_AND_TYPE = b"\0\0\0\x1afcTL"
_CHUNK = 4 + 4 + 26 + 4
_FIELDS = slice(8, 8 + 20)

Mask = npt.NDArray[np.bool_]


class Control(NamedTuple):
    """The first fields of a chunk fcTL: sequence number, size, and place on the canvas."""

    sequence: int
    width: int
    height: int
    x: int
    y: int


def control(before: bytes) -> Control:
    """Read the chunk fcTL that ends the bytes before an fdAT. Raises ValueError if it is none."""
    chunk = before[-_CHUNK:]
    if len(chunk) < _CHUNK or not chunk.startswith(_LENGTH_AND_TYPE):
        raise ValueError("no fcTL before fdAT")
    return Control(*unpack(">5I", chunk[_FIELDS]))


def layout_of(canvas: SampleLayout, place: Control) -> SampleLayout:
    """Return the layout of a further picture. Raises ValueError if it leaves the canvas."""
    _, width, height, x, y = place
    if not width or not height or x + width > canvas.width or y + height > canvas.height:
        raise ValueError("a picture outside of the canvas")
    return replace(canvas, width=width, height=height)


def sheet_of(layouts: Sequence[SampleLayout]) -> SampleLayout:
    """Return the layout of a sheet that has all tiles of the pictures."""
    _, columns = tile_grid(layouts[0])
    count = sum(rows * columns for rows, columns in map(tile_grid, layouts))
    width, height = columns * TILE, -(-count // columns) * TILE
    return replace(layouts[0], width=width, height=height, interlaced=False)


def tile_grid(layout: SampleLayout) -> tuple[int, int]:
    """Return the number of tile rows and tile columns of a picture."""
    return -(-layout.height // TILE), -(-layout.width // TILE)


def to_sheet(
    pictures: Iterable[Frame], canvas: SampleLayout, places: Sequence[Control]
) -> tuple[Frame, bytes]:
    """Return the sheet of pictures, and which tiles of the further pictures are repeated.

    The pictures are uint8 or uint16, shape (height, width, channels), with all channels of the
    layout `canvas`. So is the sheet. `places` are those of all pictures but the first. The second
    result has a bit for each tile, packed; it is empty if no tile is repeated.
    """
    shown = _blank((canvas.height, canvas.width, canvas.channels), canvas)
    tiles: list[Frame] = []
    masks = []
    for picture, area in zip(pictures, _areas(canvas, places), strict=True):
        new = _cut(picture, canvas)
        repeated: Mask = (new == _cut(shown[area], canvas)).all(axis=(2, 3, 4)) & bool(tiles)
        tiles.append(new[~repeated])
        masks.append(repeated.ravel())
        shown[area] = picture
    _, columns = tile_grid(canvas)
    tiles.append(_blank((-sum(map(len, tiles)) % columns, TILE, TILE, canvas.channels), canvas))
    sheet = np.concatenate(tiles)
    tiles.clear()
    bits = np.concatenate(masks[1:])
    packed = np.packbits(bits).tobytes() if bits.any() else b""
    return _join(sheet.reshape(-1, columns, *sheet.shape[1:])), packed


def from_sheet(
    sheet: Frame, canvas: SampleLayout, places: Sequence[Control], repeated: bytes
) -> Iterator[Frame]:
    """Return the pictures of a sheet; the inverse of :func:`to_sheet`.

    The sheet may lack the last channel, alpha. A picture is valid until the next one is asked for.
    Raises ValueError if sheet, places and repeated tiles do not fit together.
    """
    grids = [tile_grid(canvas), *(tile_grid(layout_of(canvas, place)) for place in places)]
    first, *others = (rows * columns for rows, columns in grids)
    count, there = sum(others), sheet.shape[0] * sheet.shape[1] // TILE**2
    # This check bounds the memory of all that follows.
    if first > there or count > (8 * len(repeated) or there):
        raise ValueError("more tiles than the sheet has")
    stored = repeated or bytes(-(-count // 8))
    mask = np.unpackbits(np.frombuffer(stored, np.uint8), count=count) == 1
    rows, columns = -(-(first + np.count_nonzero(~mask)) // grids[0][1]), grids[0][1]
    if len(stored) != -(-count // 8) or sheet.shape[:2] != (rows * TILE, columns * TILE):
        raise ValueError("a sheet of other pictures")
    kept = ~np.concatenate((np.zeros(first, np.bool_), mask))
    return _pictures(sheet, canvas, places, kept)


def _pictures(
    sheet: Frame, canvas: SampleLayout, places: Sequence[Control], kept: Mask
) -> Iterator[Frame]:
    """Yield the pictures of a sheet. `kept`: which tiles of all pictures the sheet has."""
    tiles = _cut(sheet, canvas).reshape(-1, TILE, TILE, sheet.shape[2])
    shown = np.zeros((canvas.height, canvas.width, sheet.shape[2]), sheet.dtype)
    for area in _areas(canvas, places):
        picture = _cut(shown[area], canvas)
        grid = picture.shape[:2]
        new, kept = np.split(kept, [grid[0] * grid[1]])
        picture[new.reshape(grid)], tiles = np.split(tiles, [np.count_nonzero(new)])
        height, width, _ = shown[area].shape
        shown[area] = _join(picture)[:height, :width]
        yield shown[area]


def _areas(canvas: SampleLayout, places: Sequence[Control]) -> Iterator[tuple[slice, slice]]:
    """Yield the area of each picture on the canvas."""
    yield np.s_[: canvas.height, : canvas.width]
    for _, width, height, x, y in places:
        yield np.s_[y : y + height, x : x + width]


def _blank(shape: tuple[int, ...], layout: SampleLayout) -> Frame:
    """Return samples of the largest value."""
    return np.full(shape, layout.maximum, layout.dtype)


def _cut(picture: Frame, layout: SampleLayout) -> Frame:
    """Cut a picture into tiles: (tile rows, tile columns, TILE, TILE, channels)."""
    height, width, channels = picture.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = picture
    if (rows * TILE, columns * TILE) != (height, width):
        padded = _blank((rows * TILE, columns * TILE, channels), layout)
        padded[:height, :width] = picture
    return padded.reshape(rows, TILE, columns, TILE, channels).swapaxes(1, 2)


def _join(tiles: Frame) -> Frame:
    """Join tiles, as :func:`_cut` returns them, to a frame of whole tiles."""
    rows, columns, _, _, channels = tiles.shape
    return tiles.swapaxes(1, 2).reshape(rows * TILE, columns * TILE, channels)
