"""Differences between consecutive pictures, and the times at which a folder's pictures change."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fsmount.codec.png import png
from fsmount.codec.png.colours import rgba
from fsmount.codec.png.samples import Frame
from fsmount.errors import FsmountError, NotExact
from fsmount.store.files import StoreFiles
from fsmount.store.frames.changes import Rectangle, rectangles
from fsmount.store.index import Inode
from fsmount.store.read_store import ReadStore
from fsmount.store.retention.rules import IDLE_BYTES
from fsmount.store.transfer.exporting import below
from fsmount.store.transfer.patterns import ALL, Patterns
from fsmount.store.transfer.tree import find, is_for_desktops, slices


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
    return rgba(frame, layout, head)


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
