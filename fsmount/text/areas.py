"""Which areas of a picture are read, so that its new tiles are read with whole words.

A mask of tiles is bool (tile rows, tile columns), of tiles of TILE x TILE pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from fsmount.codec.delta.delta import TILE
from fsmount.text.engines import Picture
from fsmount.text.results import Rectangle

Mask = npt.NDArray[np.bool_]

# Tiles whose brightness differs by less than this hold no text.
_LEAST_CONTRAST = 24
# An area grows until it ends between two words, or two lines, but by no more pixels than this.
_MOST_ASIDE, _MOST_ABOVE = 192, 32
# A run of so many blank columns lies between two words; one blank row between two lines.
_BLANK_COLUMNS, _BLANK_ROWS = 10, 2
# Brightness in a blank row or column differs by less.
_BLANK = 20
# Tiles so near to each other are read together.
_NEAR = 3
# If more than this share of a picture is to be read, it is read as a whole.
_WHOLE = 0.7


def has_ink(pixels: Picture, mask: Mask) -> Mask:
    """Return which of the tiles in a mask may hold a part of a letter."""
    found = np.zeros_like(mask)
    rows, columns = np.nonzero(mask)
    whole = (rows * TILE + TILE <= pixels.shape[0]) & (columns * TILE + TILE <= pixels.shape[1])
    # Tiles at the edge of the picture are few: they count as text.
    found[rows[~whole], columns[~whole]] = True
    rows, columns = rows[whole], columns[whole]
    windows = sliding_window_view(pixels, (TILE, TILE), axis=(0, 1))
    tiles = windows[rows * TILE, columns * TILE].reshape(len(rows), 3, -1)
    contrast = tiles.max(axis=2) - tiles.min(axis=2)
    found[rows, columns] = contrast.max(axis=1, initial=0) >= _LEAST_CONTRAST
    return found


def touched(mask: Mask, place: Rectangle) -> bool:
    """Whether a rectangle touches a tile in a mask."""
    return bool(mask[_tiles_below(place)].any())


def _tiles_below(place: Rectangle) -> tuple[slice, slice]:
    return (
        slice(max(0, place.y // TILE), max(0, -(-place.bottom // TILE))),
        slice(max(0, place.x // TILE), max(0, -(-place.right // TILE))),
    )


def to_read(mask: Mask, pixels: Picture) -> list[Rectangle]:
    """Return the areas to read, so that all words that touch tiles in `mask` are read whole.

    They do not overlap.
    """
    height, width, _ = pixels.shape
    whole = Rectangle(0, 0, width, height)
    areas = [_grown(_pixels(box, whole), pixels) for box in _boxes(mask)]
    areas = _merged(areas)
    if sum(area.width * area.height for area in areas) > _WHOLE * width * height:
        return [whole]
    return areas


def _boxes(mask: Mask) -> list[tuple[int, int, int, int]]:
    """Return boxes around tiles near to each other: (top, left, bottom, right), in tiles."""
    boxes: list[list[int]] = []
    for row in np.flatnonzero(mask.any(axis=1)).tolist():
        columns = np.flatnonzero(mask[row])
        cuts = np.flatnonzero(np.diff(columns) > _NEAR)
        starts = columns[np.concatenate([[0], cuts + 1])]
        ends = columns[np.concatenate([cuts, [len(columns) - 1]])] + 1
        for left, right in zip(starts.tolist(), ends.tolist(), strict=True):
            box = [row, left, row + 1, right]
            for other in [each for each in boxes if _is_near(each, box)]:
                boxes.remove(other)
                box = [
                    min(box[0], other[0]),
                    min(box[1], other[1]),
                    max(box[2], other[2]),
                    max(box[3], other[3]),
                ]
            boxes.append(box)
    return [(top, left, bottom, right) for top, left, bottom, right in boxes]


def _is_near(box: list[int], other: list[int]) -> bool:
    """Whether two boxes touch, or are a few tiles apart in a row."""
    apart = max(box[1], other[1]) - min(box[3], other[3])
    below = max(box[0], other[0]) - min(box[2], other[2])
    return below <= 0 and apart <= _NEAR


def _pixels(box: tuple[int, int, int, int], whole: Rectangle) -> Rectangle:
    top, left, bottom, right = (each * TILE for each in box)
    return Rectangle(left, top, min(right, whole.right) - left, min(bottom, whole.bottom) - top)


def _grown(area: Rectangle, pixels: Picture) -> Rectangle:
    """Return an area that ends in blank rows and columns, as far as there are some nearby."""
    height, width, _ = pixels.shape
    x, y, right, bottom = area.x, area.y, area.right, area.bottom
    columns = slice(max(0, x - TILE), right + TILE)
    above = pixels[max(0, y - _MOST_ABOVE) : y + 1, columns][::-1]
    below = pixels[bottom - 1 : bottom + _MOST_ABOVE, columns]
    y = max(0, y - _growth(above.swapaxes(0, 1), _BLANK_ROWS))
    bottom = min(height, bottom + _growth(below.swapaxes(0, 1), _BLANK_ROWS))
    before = pixels[y:bottom, max(0, x - _MOST_ASIDE) : x + 1][:, ::-1]
    behind = pixels[y:bottom, right - 1 : right + _MOST_ASIDE]
    x = max(0, x - _growth(before, _BLANK_COLUMNS))
    right = min(width, right + _growth(behind, _BLANK_COLUMNS))
    return Rectangle(x, y, right - x, bottom - y)


def _growth(strip: Picture, least: int) -> int:
    """Return by how many columns an area grows along a strip.

    `strip` is (n, columns, 3); its first column is the last one of the area. The area ends in the
    middle of the first `least` columns in a row that are blank, or where the strip ends.
    """
    if not strip.size:
        return 0
    contrast = (strip.max(axis=0) - strip.min(axis=0)).max(axis=1)
    run = 0
    for at, blank in enumerate((contrast < _BLANK).tolist()):
        run = run + 1 if blank else 0
        if run == least:
            return max(0, at - least // 2)
    return int(strip.shape[1]) - 1


def _merged(areas: list[Rectangle]) -> list[Rectangle]:
    """Return areas that do not overlap."""
    found: list[Rectangle] = []
    for area in areas:
        grown = area
        while others := [each for each in found if each.overlap(grown)]:
            for other in others:
                found.remove(other)
                x, y = min(grown.x, other.x), min(grown.y, other.y)
                right, bottom = max(grown.right, other.right), max(grown.bottom, other.bottom)
                grown = Rectangle(x, y, right - x, bottom - y)
        found.append(grown)
    return found
