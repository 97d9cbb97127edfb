"""What changed between two pictures, and when a folder's pictures changed at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fsmount.codec.png import png
from fsmount.codec.png.samples import Frame, Layout
from fsmount.errors import FsmountError, NotExact
from fsmount.store.index import Inode
from fsmount.store.store import Store
from fsmount.store.transfer.exporting import below
from fsmount.store.transfer.tree import find, slices

Mask = npt.NDArray[np.bool_]
Rectangle = tuple[int, int, int, int]
"""x, y, width, height in pixels."""

TILE = 16
# More rectangles than this say less than the one around them all.
_MOST_RECTANGLES = 200
# What a picture stores when nothing but a clock and a graph moved: measured on an idle desktop.
IDLE_BYTES = 4096


@dataclass(frozen=True)
class Change:
    """A picture against the one before it in its folder.

    `before`: that one's path, None for the first or where the shapes differ; `rectangles`
    are disjoint; `picture`: PNG, RGBA, transparent where nothing changed.
    """

    path: bytes
    before: bytes | None
    size: tuple[int, int]
    rectangles: Sequence[Rectangle]
    picture: bytes


async def change(store: Store, path: bytes) -> Change:
    """Raises FsmountError for what is no picture; the store is running."""
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
    """Disjoint rectangles of tiles (x, y, width, height) that hold all that changed."""
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
    x, y = column * TILE, row * TILE
    return x, y, min(right * TILE, width) - x, min(bottom * TILE, height) - y


async def _pixels(store: Store, path: bytes) -> Frame:
    """A picture as RGBA of 8 bits."""
    inode = find(store, path)
    if inode is None or not stat.S_ISREG(inode.mode):
        raise FsmountError(f"there is no picture {os.fsdecode(path)!r} in {store.path}")
    data = b"".join([part async for part in slices(store, inode.ino)])
    try:
        frame, layout, head = png.read(data)
    except NotExact as error:
        raise FsmountError(f"{os.fsdecode(path)}: {error.detail}") from error
    return _rgba(frame, layout, head)


def _rgba(frame: Frame, layout: Layout, head: bytes) -> Frame:
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


def _before(store: Store, path: bytes) -> bytes | None:
    """The PNG before a path in its folder, by name."""
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
    return stat.S_ISREG(inode.mode) and name.lower().endswith(b".png")


@dataclass(frozen=True)
class Stretch:
    """Consecutive pictures of a folder that are all idle, or all busy. `bytes`: stored for them."""

    idle: bool
    first: bytes
    last: bytes
    pictures: int
    bytes: int


def stretches(store: Store, path: bytes = b"") -> Iterator[Stretch]:
    """Idle runs and busy times below a path, by what each picture added to the store.

    Only the index is read. Pictures that are not encoded yet count as busy.
    """
    folder, parts = b"", list[tuple[bytes, int]]()
    seen: set[int] = set()
    for name, inode in sorted(below(store, path)):
        if not _is_picture(name, inode):
            continue
        if name.rpartition(b"/")[0] != folder:
            yield from _group(parts)
            folder, parts = name.rpartition(b"/")[0], []
        parts.append((name, _added(store, inode, seen)))
    yield from _group(parts)


def _added(store: Store, inode: Inode, seen: set[int]) -> int:
    """Bytes a picture brought into the store: nothing if it equals one before."""
    if inode.object_id is None:
        return inode.size
    if inode.object_id in seen:
        return 0
    seen.add(inode.object_id)
    return store.index.object(inode.object_id).length


def _group(parts: Sequence[tuple[bytes, int]]) -> Iterator[Stretch]:
    start = 0
    for at in range(1, len(parts) + 1):
        idle = parts[start][1] <= IDLE_BYTES
        if at == len(parts) or (parts[at][1] <= IDLE_BYTES) != idle:
            part = parts[start:at]
            yield Stretch(idle, part[0][0], part[-1][0], len(part), sum(size for _, size in part))
            start = at
