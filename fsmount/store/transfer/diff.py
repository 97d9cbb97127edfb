"""Differences between consecutive pictures, and the times at which a folder's pictures change."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fsmount.codec.png import png
from fsmount.codec.png.samples import Frame, SampleLayout
from fsmount.errors import FsmountError, NotExact
from fsmount.store.files import StoreFiles
from fsmount.store.index import Inode
from fsmount.store.read_store import ReadStore
from fsmount.store.retention.rules import IDLE_BYTES
from fsmount.store.transfer.exporting import below
from fsmount.store.transfer.patterns import ALL, Patterns
from fsmount.store.transfer.tree import find, is_for_desktops, slices

Mask = npt.NDArray[np.bool_]
Rectangle = tuple[int, int, int, int]
"""X, y, width and height in pixels."""

TILE = 16
# Beyond this number of rectangles, one bounding rectangle tells the user more.
_MOST_RECTANGLES = 200


@dataclass(frozen=True)
class Change:
    """Difference between a picture and the previous picture of its folder.

    `before` is the path of the previous picture. It is None for the first picture of a folder, and
    if the two shapes differ. `size` is (width, height) in pixels. `rectangles` are disjoint.
    `picture` is a PNG in RGBA, transparent where nothing changed.
    """

    path: bytes
    before: bytes | None
    size: tuple[int, int]
    rectangles: Sequence[Rectangle]
    picture: bytes


async def change(store: ReadStore, path: bytes) -> Change:
    """Compare the picture at `path` with the previous picture of its folder.

    The whole picture counts as changed if there is no previous picture or its shape differs. The
    caller keeps the store running. Raises FsmountError if either file is not a picture or is
    damaged, and OSError.
    """
    frame = await _pixels(store, path)
    before = _before(store, path)
    height, width = frame.shape[:2]
    changed = np.ones((height, width), bool)
    if before is not None:
        other = await _pixels(store, before)
        if other.shape == frame.shape:
            changed = (frame != other).any(axis=2)
        else:
            before = None
    boxes = rectangles(changed)
    shown = np.zeros((height, width, 4), np.uint8)
    for x, y, wide, high in boxes:
        shown[y : y + high, x : x + wide] = frame[y : y + high, x : x + wide]
    return Change(path, before, (width, height), boxes, png.canonical(shown))


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


async def _pixels(store: ReadStore, path: bytes) -> Frame:
    """Read a picture as RGBA of 8 bits: uint8 (height, width, 4).

    Raises FsmountError if there is no regular file at `path`, or if it is damaged or not a PNG.
    Raises OSError.
    """
    inode = find(store, path)
    if inode is None or not stat.S_ISREG(inode.mode):
        raise FsmountError(f"there is no picture {os.fsdecode(path)!r} in {store.path}")
    data = b"".join([part async for part in slices(store, inode.ino)])
    try:
        frame, layout, head = png.read(data)
    except NotExact as error:
        raise FsmountError(f"{os.fsdecode(path)}: {error.detail}") from error
    return _rgba(frame, layout, head)


def _rgba(frame: Frame, layout: SampleLayout, head: bytes) -> Frame:
    """Convert a frame with all channels to RGBA of 8 bits: uint8 (height, width, 4).

    `head` contains the chunks before the first IDAT. PLTE in it gives the colours of a palette
    picture.
    """
    out = np.full((*frame.shape[:2], 4), 255, np.uint8)
    if layout.bit_depth == 16:
        frame = (frame >> np.uint16(8)).astype(np.uint8)
    if layout.colour_type == 3:
        at = head.index(b"PLTE")
        table = np.zeros((256, 3), np.uint8)
        colours = np.frombuffer(
            head[at + 4 :][: int.from_bytes(head[at - 4 : at], "big")], np.uint8
        )
        table[: len(colours) // 3] = colours.reshape(-1, 3)
        out[..., :3] = table[frame[..., 0]]
        return out
    if layout.bit_depth < 8:
        frame = frame * np.uint8(255 // layout.maximum)
    channels = frame.shape[2]
    out[..., :3] = frame[..., :1] if channels < 3 else frame[..., :3]
    if layout.has_alpha:
        out[..., 3] = frame[..., -1]
    return out


def _before(store: StoreFiles, path: bytes) -> bytes | None:
    """Return the path of the previous PNG in the same folder, by name; None for the first."""
    folder, _, name = path.rpartition(b"/")
    top = find(store, folder)
    assert top is not None
    names = []
    cookie = 0
    while page := store.index.children(top.ino, cookie):
        cookie = page[-1][0]
        names += [other for _, other, inode in page if _is_picture(other, inode) and other < name]
    if not names:
        return None
    return folder + b"/" + max(names) if folder else max(names)


def _is_picture(name: bytes, inode: Inode) -> bool:
    """Whether an entry is a regular file whose name ends in `.png`, in any case."""
    return stat.S_ISREG(inode.mode) and name.lower().endswith(b".png")


@dataclass(frozen=True)
class Stretch:
    """Consecutive pictures of a folder that are all idle, or all busy.

    `first` and `last` are paths from the root, `pictures` is their number. `bytes` is the number of
    bytes that the store keeps for them.
    """

    idle: bool
    first: bytes
    last: bytes
    pictures: int
    bytes: int


def stretches(store: StoreFiles, path: bytes = b"", chosen: Patterns = ALL) -> Iterator[Stretch]:
    """Yield idle and busy stretches of the chosen pictures below a path, by the bytes they added.

    A picture is idle if it added at most IDLE_BYTES. Deleted pictures in the trash folders of
    desktops, and thumbnails beside pictures, are left out, unless `path` is in such a folder.
    Reads only the index. A picture that is not encoded yet adds its full size. Raises FsmountError
    if there is no entry at `path`.
    """
    folder, parts = b"", list[tuple[bytes, int]]()
    seen: set[int] = set()
    for name, inode in sorted(below(store, path, chosen)):
        inside = name.removeprefix(path).split(b"/")
        if not _is_picture(name, inode) or any(map(is_for_desktops, inside)):
            continue
        if name.rpartition(b"/")[0] != folder:
            yield from _group(parts)
            folder, parts = name.rpartition(b"/")[0], []
        parts.append((name, _added(store, inode, seen)))
    yield from _group(parts)


def _added(store: StoreFiles, inode: Inode, seen: set[int]) -> int:
    """Bytes that a picture added to the store: 0 if it equals an earlier one. Updates `seen`."""
    if inode.object_id is None:
        return inode.size
    if inode.object_id in seen:
        return 0
    seen.add(inode.object_id)
    return store.index.object(inode.object_id).length


def _group(parts: Sequence[tuple[bytes, int]]) -> Iterator[Stretch]:
    """Split (path, bytes) pairs of one folder into stretches."""
    start = 0
    for at in range(1, len(parts) + 1):
        idle = parts[start][1] <= IDLE_BYTES
        if at == len(parts) or (parts[at][1] <= IDLE_BYTES) != idle:
            part = parts[start:at]
            yield Stretch(idle, part[0][0], part[-1][0], len(part), sum(size for _, size in part))
            start = at
