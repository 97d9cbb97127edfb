"""Tile keys: numbers that stand for the position and the content of a tile, and their bytes.

The planner looks tiles up by their keys (:class:`~fsmount.store.frames.planner.KnownTiles`). The
index keeps the keys of recent objects for the next start.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fsmount.codec.delta.delta import Copy

# Number of bytes of a tile's signature in its key. A false hit costs a second encoding without the
# wrong tiles. With 24 bits and as many 1080p tiles as fit this happens to one frame in some
# thousands.
KEY_BYTES = 3
_HASH = (1 << 8 * KEY_BYTES) - 1
_HEAD = struct.Struct("<II")
_GROUP = struct.Struct("<IiiI")


def tile_keys(signatures: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Compute the key of each tile: its position, then KEY_BYTES of its signature.

    `signatures` and the result have shape (tile rows, tile columns). The result is int64, and
    ascends in row order.
    """
    places = np.arange(signatures.size, dtype=np.uint64).reshape(signatures.shape)
    keys = places << np.uint64(8 * KEY_BYTES) | (signatures & np.uint64(_HASH))
    return keys.astype(np.int64)


def dump_keys(groups: Sequence[tuple[Copy, list[int]]]) -> bytes:
    """Encode tile keys for the index.

    `groups` has pairs (copy, ascending keys). Object 0 in a copy stands for the object of the row.

    Format, little endian: number of groups (u32) and length of the packed part (u32); the packed
    part (zlib): object id (u32), dx (i32), dy (i32) and number of keys (u32) of each group, then
    for each group the distances of its positions from the ones before (u32, as four planes of
    bytes); then KEY_BYTES of signature for each key.
    """
    heads = [_GROUP.pack(copy.object, copy.dx, copy.dy, len(keys)) for copy, keys in groups]
    every = [np.array(keys, np.uint64) for _, keys in groups]
    steps = [np.diff(keys >> np.uint64(8 * KEY_BYTES), prepend=np.uint64(0)) for keys in every]
    # The high bytes of steps are zeros. They compress better beside each other.
    planes = [step.astype("<u4").view(np.uint8).reshape(-1, 4).T.tobytes() for step in steps]
    packed = zlib.compress(b"".join([*heads, *planes]), 9)
    contents = [keys.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :KEY_BYTES] for keys in every]
    parts = [part.tobytes() for part in contents]
    return b"".join([_HEAD.pack(len(groups), len(packed)), packed, *parts])


def dump_within(
    groups: Sequence[tuple[Copy, list[int]]], is_flat: NDArray[np.bool_], most: int
) -> bytes:
    """As :func:`dump_keys`, with as many keys as fit into `most` bytes. Return b"" if none fits.

    Tiles of one colour are dropped first, because they can be fills instead. `is_flat` (bool,
    shape (tile rows, tile columns)) says whether a tile has one colour.
    """
    data = dump_keys(groups) if groups else b""
    if len(data) <= most:
        return data
    places = np.array([key >> 8 * KEY_BYTES for _, keys in groups for key in keys], np.int64)
    places = places[np.argsort(is_flat.ravel()[places], kind="stable")]
    while len(data) > most:
        # Drop an eighth at least, because the packed part shrinks by less than its share.
        places = places[: min(len(places) * most // len(data), len(places) * 7 // 8)]
        kept = set(places.tolist())
        some = [(c, [key for key in keys if key >> 8 * KEY_BYTES in kept]) for c, keys in groups]
        groups = [(copy, keys) for copy, keys in some if keys]
        data = dump_keys(groups) if groups else b""
    return data


def load_keys(data: bytes) -> list[tuple[Copy, list[int]]]:
    """Decode the output of :func:`dump_keys`. Return [] for other data."""
    try:
        count, length = _HEAD.unpack_from(data)
        plain = zlib.decompress(data[_HEAD.size : _HEAD.size + length])
        heads = list(_GROUP.iter_unpack(plain[: count * _GROUP.size]))
        planes = np.frombuffer(plain, np.uint8, offset=count * _GROUP.size)
        flat = np.frombuffer(data, np.uint8, offset=_HEAD.size + length)
        contents = flat.reshape(-1, KEY_BYTES)
        if len(heads) != count or sum(head[3] for head in heads) != len(contents):
            return []
        return _unpack_groups(heads, planes, contents)
    except (struct.error, zlib.error, ValueError):
        return []


def _unpack_groups(
    heads: Sequence[tuple[int, int, int, int]],
    planes: NDArray[np.uint8],
    contents: NDArray[np.uint8],
) -> list[tuple[Copy, list[int]]]:
    """Join steps and signature bytes to keys, by group. Raises ValueError if `planes` is short."""
    groups = []
    at = 0
    for number, dx, dy, count in heads:
        part = np.ascontiguousarray(planes[4 * at : 4 * (at + count)].reshape(4, count).T)
        places = np.cumsum(part.view("<u4").ravel(), dtype=np.uint64)
        padded = np.zeros((count, 8), np.uint8)
        padded[:, :KEY_BYTES] = contents[at : at + count]
        keys = padded.view("<u8").ravel() | places << np.uint64(8 * KEY_BYTES)
        groups.append((Copy(number, dx, dy), [int(key) for key in keys.tolist()]))
        at += count
    return groups
