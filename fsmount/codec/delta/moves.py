"""Finds moved content at any pixel offset: scrolled text, and windows that were dragged.

The search hashes every 16 x 16 window of the pixels that an object coded, and looks the hashes up
among those of the new tiles. It tries each offset that several hits agree on for all new tiles, and
compares the hits as pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fsmount.codec.deflate import engine
from fsmount.codec.delta.delta import TILE, Copy, Layer, join, split
from fsmount.codec.png.samples import Frame

# A copy of fewer tiles than this is not worth an offset of its own. Measured on desktop frames:
# groups of 4 to 12 tiles made payloads larger as often as smaller.
MIN_TILES = 16
MAX_MOVES = 16
# Content at more places than this does not tell where it came from.
_COMMON = 16
_OFFSETS_TRIED = 32
_ENOUGH = 0.15  # the search ends when less than this share of the tiles is left

_Mask = NDArray[np.bool_]
_Hashes = NDArray[np.uint32]


def find(frame: Frame, wanted: _Mask, layers: Mapping[int, Layer]) -> list[tuple[Copy, _Mask]]:
    """Find copies that show tiles of `frame`. Returns each copy with its mask of tiles.

    `frame` is uint8 or uint16, shape (height, width, channels). A mask is bool, shape (tile rows,
    tile columns). The search covers only whole tiles in `wanted`. It
    uses the `layers` (by object id) with the same channels and sample type, one after the other,
    until most tiles are found. No tile is in two copies, and each copy has at least MIN_TILES
    tiles.
    """
    rows, columns = np.nonzero(wanted)
    whole = (rows * TILE + TILE <= frame.shape[0]) & (columns * TILE + TILE <= frame.shape[1])
    rows, columns = rows[whole], columns[whole]
    if len(rows) < MIN_TILES:
        return []
    tops, lefts = rows * TILE, columns * TILE
    hashes = _tiles(split(frame)[rows, columns])
    found: list[tuple[Copy, _Mask]] = []
    free = np.ones(len(rows), bool)
    for number, layer in layers.items():
        same = layer.shape[2] == frame.shape[2] and layer.pixels.dtype == frame.dtype
        if not same or min(layer.shape[:2]) < TILE:
            continue
        candidates = _copies(number, layer, frame, hashes, tops, lefts)
        while candidates and len(found) < MAX_MOVES:
            copy, hit = max(candidates, key=lambda candidate: np.count_nonzero(candidate[1] & free))
            hit = hit & free
            if np.count_nonzero(hit) < MIN_TILES:
                break
            mask = np.zeros(wanted.shape, bool)
            mask[rows[hit], columns[hit]] = True
            found.append((copy, mask))
            free &= ~hit
        if np.count_nonzero(free) < max(MIN_TILES, _ENOUGH * len(rows)):
            break
    return found


def _copies(
    number: int,
    layer: Layer,
    frame: Frame,
    hashes: _Hashes,
    tops: NDArray[np.intp],
    lefts: NDArray[np.intp],
) -> list[tuple[Copy, _Mask]]:
    """Find offsets at which a layer shows some of the tiles at (tops, lefts).

    Returns copies, each with a mask of these tiles.
    """
    coded = layer.index >= 0
    rows, columns = np.flatnonzero(coded.any(axis=1)), np.flatnonzero(coded.any(axis=0))
    if not len(rows):
        return []
    top, left = int(rows[0]) * TILE, int(columns[0]) * TILE
    coded = coded[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    pixels = _canvas(layer, top, left, coded)
    if min(pixels.shape[:2]) < TILE:
        return []
    windows = _windows(pixels)
    found = []
    for dx, dy in _offsets(windows, coded, hashes, tops, lefts):
        down, right = tops + dy, lefts + dx
        inside = (down >= 0) & (right >= 0)
        inside &= (down < windows.shape[0]) & (right < windows.shape[1])
        hit = inside.copy()
        at = down[inside], right[inside]
        hit[inside] = _usable(coded, *at) & (windows[at] == hashes[inside])
        if np.count_nonzero(hit) >= MIN_TILES:
            there = _cut(pixels, down[hit], right[hit])
            equal = (there == _cut(frame, tops[hit], lefts[hit])).all(axis=(1, 2, 3))
            hit[hit] = equal
            found.append((Copy(number, dx + left, dy + top), hit))
    return found


def _canvas(layer: Layer, top: int, left: int, coded: _Mask) -> Frame:
    """Return the part of a layer's frame from (top, left) on that covers the tiles of `coded`.

    Tiles that the layer did not code are zero.
    """
    channels = layer.shape[2]
    tiles = np.zeros((*coded.shape, TILE, TILE, channels), layer.pixels.dtype)
    tiles[coded] = layer.pixels[layer.index[layer.index >= 0]]
    height = min(layer.shape[0] - top, coded.shape[0] * TILE)
    width = min(layer.shape[1] - left, coded.shape[1] * TILE)
    return join(tiles, (height, width, channels))


def _offsets(
    windows: _Hashes,
    coded: _Mask,
    hashes: _Hashes,
    tops: NDArray[np.intp],
    lefts: NDArray[np.intp],
) -> list[tuple[int, int]]:
    """Return the offsets (dx, dy) that most tiles of rare content agree on."""
    values, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    values, first = values[counts == 1], first[counts == 1]
    if not len(values):
        return []
    width = windows.shape[1]
    tiles = np.ascontiguousarray(coded).data
    made = engine.find_windows(windows.data, width, tiles, values.data, _COMMON)
    matches, places = (np.frombuffer(numbers, np.uint32).astype(np.intp) for numbers in made)
    rare = matches <= _COMMON
    found = np.arange(_COMMON) < matches[rare, np.newaxis]
    down, right = np.divmod(places.reshape(-1, _COMMON)[rare][found], width)
    tile = np.repeat(first[rare], matches[rare])
    offsets = np.stack([right - lefts[tile], down - tops[tile]], axis=1)
    distinct, votes = np.unique(offsets, axis=0, return_counts=True)
    best = np.argsort(-votes, kind="stable")[:_OFFSETS_TRIED]
    return [(int(dx), int(dy)) for dx, dy in distinct[best].tolist()]


def _cut(pixels: Frame, tops: NDArray[np.intp], lefts: NDArray[np.intp]) -> Frame:
    """Cut out the windows at these places: (n, channels, TILE, TILE)."""
    windows: Frame = sliding_window_view(pixels, (TILE, TILE), axis=(0, 1))[tops, lefts]
    return windows


def _usable(coded: _Mask, tops: NDArray[np.intp], lefts: NDArray[np.intp]) -> _Mask:
    """Return which of the windows with these upper left corners lie on coded tiles alone."""
    rows = tops // TILE, (tops + TILE - 1) // TILE
    columns = lefts // TILE, (lefts + TILE - 1) // TILE
    corners = [coded[row, column] for row in rows for column in columns]
    return np.asarray(np.logical_and.reduce(corners))


def _windows(pixels: Frame) -> _Hashes:
    """Hash each TILE x TILE window: uint32 (height - 15, width - 15).

    The hash is the sum of mixed pixels times powers of two odd numbers, mod 2^32. The kernel
    computes it from running sums along each axis, and divides the place of the window out again.
    """
    height, width, channels = pixels.shape
    size = pixels.dtype.itemsize
    data = np.ascontiguousarray(pixels).data
    hashes = engine.hash_windows(data, width * channels * size, channels, size)
    return np.frombuffer(hashes, np.uint32).reshape(height - TILE + 1, width - TILE + 1)


def _tiles(tiles: Frame) -> _Hashes:
    """Hash tiles (n, TILE, TILE, channels) as :func:`_windows` does: uint32 (n,)."""
    # One below the other they are a picture; each of its windows at a multiple of TILE is a tile.
    hashes = _windows(tiles.reshape(-1, TILE, tiles.shape[-1]))
    return np.ascontiguousarray(hashes[::TILE, 0])
