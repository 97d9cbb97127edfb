"""Animated PNGs: where their pictures are, and how one frame holds all of them.

The first picture of an animated PNG is in its IDATs, as in any PNG. Its area is the canvas. Each
further picture has a zlib stream of its own, in chunks fdAT. The chunk fcTL before them says its
size and its place on the canvas (PNG specification, third edition, section 11.3.4).

The frame of such a file is a **sheet** as wide as the canvas. It holds all pictures: in rows from
left to right, each at a multiple of TILE. A tile of a further picture is **repeated** if it shows
what the pictures before, laid one over the other, show there. The sheet does not hold such a tile.
Where the sheet holds no picture, its samples have the largest value: there, an alpha channel is
opaque.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
_FIELDS = 8, 8 + 20

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
    return Control(*unpack(">5I", chunk[slice(*_FIELDS)]))


def layout_of(canvas: SampleLayout, place: Control) -> SampleLayout:
    """Return the layout of a further picture. Raises ValueError if it leaves the canvas."""
    _, width, height, x, y = place
    if not width or not height or x + width > canvas.width or y + height > canvas.height:
        raise ValueError("a picture outside of the canvas")
    return replace(canvas, width=width, height=height)


def arrange(layouts: Sequence[SampleLayout]) -> tuple[list[tuple[int, int]], int]:
    """Return the upper left corner (y, x) of each picture in the sheet, and the sheet's height.

    `layouts` are those of the pictures. The first one is the canvas.
    """
    corners = []
    x = y = bottom = 0
    for one in layouts:
        if x + one.width > layouts[0].width:
            x, y = 0, bottom
        corners.append((y, x))
        x += _up(one.width)
        bottom = max(bottom, y + _up(one.height))
    return corners, bottom


def views(
    sheet: Frame, canvas: SampleLayout, places: Sequence[Control]
) -> Iterator[tuple[Frame, Frame]]:
    """Yield for each further picture views of its area in the sheet, and of its place on a canvas.

    `sheet` has the shape (height, width, channels), and contains the first picture. The caller
    calls :func:`put` or :func:`take` with the views before it asks for the next ones.
    """
    shown = sheet[: canvas.height].copy()
    corners, _ = arrange([canvas, *(layout_of(canvas, place) for place in places)])
    for (_, width, height, x, y), corner in zip(places, corners[1:], strict=True):
        top, left = corner
        area = sheet[top : top + height, left : left + width]
        yield area, shown[y : y + height, x : x + width]


def put(picture: Frame, area: Frame, shown: Frame) -> Mask:
    """Put a further picture into the sheet and onto the canvas.

    All three have the shape of the picture. Leaves the area as it is in repeated tiles. Returns
    which tiles are repeated: bool (tile rows, tile columns).
    """
    same = (picture == shown).all(axis=2)
    down, across = (np.arange(0, side, TILE) for side in same.shape)
    repeated: Mask = np.logical_and.reduceat(
        np.logical_and.reduceat(same, down, axis=0), across, axis=1
    )
    kept = ~_pixels(repeated, same.shape)
    area[kept] = picture[kept]
    shown[...] = picture
    return repeated


def take(area: Frame, shown: Frame, repeated: Mask) -> Frame:
    """Return a further picture from the sheet, as a part of the canvas.

    `area` and `shown` have its shape. `repeated`: as :func:`put` returns it.
    """
    kept = ~_pixels(repeated, area.shape)
    shown[kept] = area[kept]
    return shown


def tile_grid(layout: SampleLayout) -> tuple[int, int]:
    """Return the number of tile rows and tile columns of a picture."""
    return _up(layout.height) // TILE, _up(layout.width) // TILE


def _pixels(tiles: Mask, shape: Sequence[int]) -> Mask:
    """Return a mask of pixels, (height, width), from one of tiles. `shape`: that of the pixels."""
    return tiles.repeat(TILE, axis=0).repeat(TILE, axis=1)[: shape[0], : shape[1]]


def _up(side: int) -> int:
    """Round up to whole tiles."""
    return -(-side // TILE) * TILE
