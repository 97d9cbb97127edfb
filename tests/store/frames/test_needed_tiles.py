"""Which tiles of an object others take: compared with pixels, one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fsmount.codec.delta.delta import TILE, Copy, Fill, TileLayout, tile_grid
from fsmount.store.frames.needed_tiles import _mark, _uses


@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(-50, 50),
    st.integers(-50, 50),
    st.integers(0, 2**32),
)
def test_all_tiles_below_moved_tiles_are_marked(
    height: int, width: int, dx: int, dy: int, seed: int
) -> None:
    rows, columns = tile_grid((height, width))
    tiles = np.random.default_rng(seed).random((rows, columns)) < 0.3
    mask = np.zeros((rows, columns), bool)
    _mark(mask, Copy(1, dx, dy), tiles)
    taken = np.zeros((height, width), bool)
    for row, column in zip(*np.nonzero(tiles), strict=True):
        top, left = row * TILE + dy, column * TILE + dx
        bottom = min(row * TILE + TILE, height) + dy
        right = min(column * TILE + TILE, width) + dx
        taken[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    needed = {(int(y) // TILE, int(x) // TILE) for y, x in zip(*np.nonzero(taken), strict=True)}
    marked = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    assert needed <= marked
    # Not more than the tiles around: an edge tile is smaller than it counts here.
    if dx % TILE == 0 and dy % TILE == 0 and height % TILE == 0 and width % TILE == 0:
        assert needed == marked


def layout() -> TileLayout:
    """Tiles of a frame of 2 by 3 tiles: own ones, with and without residuals, copies, a fill."""
    tiles = np.array([[0, 0, 1], [2, 3, 0]], np.uint8)
    prediction = np.array([[1, 0, 0], [0, 0, 2]], np.uint8)
    sources = Copy(7), Copy(8, 3, 0), Fill((1, 2, 3))
    return TileLayout((32, 48, 3), np.dtype(np.uint8), tiles, sources, prediction)


def used(some: np.ndarray | None, *candidates: int) -> dict[int, list[tuple[int, int]]]:
    found = _uses(layout(), some, frozenset(candidates))
    return {number: [(int(y), int(x)) for y, x in np.argwhere(tiles)] for number, _, tiles in found}


def test_copies_and_residuals_of_a_frame() -> None:
    assert used(None, 7, 8, 9) == {7: [(0, 0), (0, 2)], 8: [(1, 0), (1, 2)]}
    assert used(None, 8) == {8: [(1, 0), (1, 2)]}
    assert used(None) == {}


def test_of_a_hidden_frame_only_residuals_of_needed_tiles_matter() -> None:
    everything = np.ones((1, 1), bool)
    assert used(everything, 7, 8) == {7: [(0, 0)], 8: [(1, 2)]}
    one = np.zeros((2, 3), bool)
    one[0, :] = True
    assert used(one, 7, 8) == {7: [(0, 0)]}
