"""Tile keys: numbers that stand for the position and the content of a tile, and their bytes.

:mod:`fsmount.store.frames.known_tiles` looks tiles up by their keys. The index keeps the keys for
the next start.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fsmount.codec import zstd
from fsmount.codec.delta.delta import Copy
from fsmount.errors import Damaged

# Number of bits of a tile's signature in its key. A false hit costs a second encoding without the
# wrong tiles. With 20 bits this happens to one frame in some hundreds, if as many 1080p tiles are
# known as fit and the frame has some hundred new ones.
KEY_BITS = 20
_HASH = (1 << KEY_BITS) - 1
# Bytes of a step, and of what a row by a build before kept of a signature.
_STEP_BYTES, _OLD_BYTES = 4, 3
# Limit for the keys of one geometry, not compressed, in bytes. The planner keeps far fewer.
_MOST_BYTES = 64 << 20
_LEVEL = 9
# Object id, dx, dy, number of keys.
_COLUMNS = 4


def tile_keys(signatures: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Compute the key of each tile: its position, then KEY_BITS of its signature.

    `signatures` and the result have shape (tile rows, tile columns). The result is int64, and
    ascends in row order.
    """
    places = np.arange(signatures.size, dtype=np.uint64).reshape(signatures.shape)
    keys = places << np.uint64(KEY_BITS) | (signatures & np.uint64(_HASH))
    return keys.astype(np.int64)


def dump_keys(groups: Sequence[tuple[Copy, NDArray[np.int64]]]) -> bytes:
    """Encode tile keys for the index. `groups` has pairs (copy, ascending keys, at least one).

    Format: a zstd frame (RFC 8878) of these parts, little endian. First the number of groups (u32).
    Then object id, dx, dy and number of keys of each group, as four columns (i32). Then for each
    key the distance of its position from the one before in its group (u32), and the lowest two
    bytes of its signature, as planes of bytes. Then the four bits above, two keys to a byte, the
    first in the lower half.
    """
    counts = [len(keys) for _, keys in groups]
    copies = [(copy.object, copy.dx, copy.dy) for copy, _ in groups]
    heads = np.array([(*c, n) for c, n in zip(copies, counts, strict=True)], "<i4")
    keys = np.concatenate([np.empty(0, np.int64), *(each for _, each in groups)])
    places = keys >> KEY_BITS
    steps = np.diff(places, prepend=0)
    starts = np.cumsum([0, *counts[:-1]]) if counts else np.empty(0, np.int64)
    steps[starts] = places[starts]
    # The high bytes of steps are zeros. They compress better beside each other.
    parts = (
        heads.reshape(-1, _COLUMNS).T,
        _planes(steps, _STEP_BYTES),
        _planes(keys, 2),
        _halves(keys >> 16),
    )
    plain = len(groups).to_bytes(4, "little") + b"".join(part.tobytes() for part in parts)
    return zstd.compress(plain, _LEVEL)


def _planes(values: NDArray[np.int64], count: int) -> NDArray[np.uint8]:
    """Return the lowest `count` bytes of each value: shape (count, number of values)."""
    return values.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :count].T


def _halves(values: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the lowest four bits of the values, two values to a byte."""
    halves = np.zeros(len(values) + len(values) % 2, np.uint8)
    halves[: len(values)] = values & 15
    return halves[::2] | halves[1::2] << np.uint8(4)


def load_keys(data: bytes) -> list[tuple[Copy, list[int]]]:
    """Decode the output of :func:`dump_keys`. Return [] for other data."""
    try:
        plain = zstd.decompress(data, _MOST_BYTES)
        count = int(np.frombuffer(plain, "<u4", 1)[0])
        heads = np.frombuffer(plain, "<i4", _COLUMNS * count, 4).reshape(_COLUMNS, count).T
        counts = heads[:, 3].tolist()
        total = sum(counts)
        rest = np.frombuffer(plain, np.uint8, offset=4 + heads.nbytes)
        if min(counts, default=0) < 0:
            return []
        steps = _joined(rest[: _STEP_BYTES * total].reshape(_STEP_BYTES, total))
        contents = _contents(rest[_STEP_BYTES * total :], total)
    except (Damaged, ValueError, IndexError):
        return []
    groups = []
    start = 0
    for number, dx, dy, length in heads.tolist():
        end = start + length
        keys = np.cumsum(steps[start:end]) << KEY_BITS | contents[start:end]
        groups.append((Copy(number, dx, dy), keys.tolist()))
        start = end
    return groups


def _contents(data: NDArray[np.uint8], total: int) -> NDArray[np.int64]:
    """Return KEY_BITS of signature of `total` keys. Raises ValueError for other data."""
    if len(data) == _OLD_BYTES * total:
        return _joined(data.reshape(_OLD_BYTES, total)) & _HASH
    low, high = data[: 2 * total], data[2 * total :]
    if len(high) != (total + 1) // 2:
        raise ValueError("of another length")
    halves = np.stack([high & 15, high >> 4], axis=1).ravel()[:total]
    return _joined(low.reshape(2, total)) | halves.astype(np.int64) << 16


def _joined(planes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Do the inverse of :func:`_planes`."""
    whole = np.zeros((planes.shape[1], 8), np.uint8)
    whole[:, : len(planes)] = planes.T
    return whole.view("<i8").ravel().astype(np.int64)
