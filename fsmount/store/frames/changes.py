"""Which parts of a picture differ from another one, as rectangles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Rectangle = tuple[int, int, int, int]
"""X, y, width and height in pixels."""

TILE = 16
# Beyond this number of rectangles, one bounding rectangle tells the user more.
_MOST_RECTANGLES = 200


def rectangles(changed: Mask) -> list[Rectangle]:
    """Cover all changed pixels with disjoint rectangles (x, y, width, height) in pixels.

    `changed` is bool (height, width). The rectangles consist of whole tiles of TILE x TILE pixels,
    clipped to the picture. Returns the single bounding rectangle of all changed pixels if more than
    `_MOST_RECTANGLES` rectangles would be needed.
    """
    height, width = changed.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = np.zeros((rows * TILE, columns * TILE), bool)
    padded[:height, :width] = changed
    tiles: Mask = np.asarray(padded.reshape(rows, TILE, columns, TILE).any(axis=(1, 3)))
    found: list[Rectangle] = []
    while len(found) < _MOST_RECTANGLES and tiles.any():
        row, column = (int(at[0]) for at in np.nonzero(tiles))
        right = column
        while right < columns and tiles[row, right]:
            right += 1
        bottom = row
        while bottom < rows and tiles[bottom, column:right].all():
            bottom += 1
        tiles[row:bottom, column:right] = False
        found.append(_clip(row, column, bottom, right, width, height))
    if tiles.any():
        used_rows, used_columns = (np.nonzero(changed.any(axis=axis))[0] for axis in (1, 0))
        x, y = int(used_columns[0]), int(used_rows[0])
        return [(x, y, int(used_columns[-1]) - x + 1, int(used_rows[-1]) - y + 1)]
    return found


def _clip(row: int, column: int, bottom: int, right: int, width: int, height: int) -> Rectangle:
    """Convert tile bounds (`bottom`, `right` exclusive) to a rectangle clipped to the picture."""
    x, y = column * TILE, row * TILE
    return x, y, min(right * TILE, width) - x, min(bottom * TILE, height) - y
