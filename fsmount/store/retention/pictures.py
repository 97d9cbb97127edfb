"""The pictures of a store as arrays, read from the index, and what the user said of them.

A picture is a regular file whose name has a suffix of SUFFIXES. Pictures in the trash folders of
desktops and thumbnails beside pictures are left out, as is what the trash of the store has.

A series is the pictures of one folder. Folders whose names are dates or two digits (``2024``,
``2024-06``, ``2024-06-06``, ``06``) count as the folder that they lie in, so that an archive with a
folder for each day is one series.
"""

from __future__ import annotations

import re
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsmount.store.index import Index, Inode
from fsmount.store.index.schema import unpack_many
from fsmount.store.retention.freeing import Objects
from fsmount.store.retention.rules import Bools, Ints, Pictures
from fsmount.store.retention.taken import LocalClock
from fsmount.store.retention.trash import Name

SUFFIXES = (b".png", b".apng", b".jpg", b".jpeg", b".webp", b".avif", b".jxl")
KEEP_XATTR = b"user.fsmount.keep"
"""A file with this extended attribute, of any value, is never pruned."""
_DATE = re.compile(rb"(?:19|20)\d\d(?:[-_.]?\d\d){0,2}|\d\d")

Walk = Callable[[], Iterator[tuple[bytes, int, Inode]]]
"""Yields (path, inode of the folder, inode) of files, always in the same order."""


class KeptList:
    """Names and paths of files that are never pruned, from a file with one on each line.

    A line with a slash is a path from the top of the store, another line is a name. Empty lines and
    those that begin with ``#`` mean nothing.
    """

    def __init__(self, lines: Iterable[bytes] = ()) -> None:
        self._names: set[bytes] = set()
        self._paths: set[bytes] = set()
        for line in lines:
            text = line.rstrip(b"\r\n")
            if text and not text.startswith(b"#"):
                (self._paths if b"/" in text.rstrip(b"/") else self._names).add(text.strip(b"/"))

    @classmethod
    def read(cls, path: Path) -> KeptList:
        """Read a list from a file. Raises OSError."""
        return cls(path.read_bytes().split(b"\n"))

    def has(self, path: bytes) -> bool:
        """Whether the list has a file, by its path from the top of the store."""
        return path in self._paths or path.rpartition(b"/")[2] in self._names


@dataclass(frozen=True)
class Files:
    """Files that may be pruned: arrays (n,) of int64 in the order of the walk.

    pictures : what the rules look at. ino, nlink : of each file. object_id : the object that it
    shows, 0 for none. size : bytes of the file.
    """

    pictures: Pictures
    ino: Ints
    nlink: Ints
    object_id: Ints
    size: Ints

    def __len__(self) -> int:
        """Number of files."""
        return len(self.ino)


def is_picture(path: bytes, inode: Inode) -> bool:
    """Whether an entry is a picture, by its name and type."""
    return stat.S_ISREG(inode.mode) and path.lower().endswith(SUFFIXES)


def series_of(folder: bytes) -> bytes:
    """Return the folder whose name a series has, from the path of a folder."""
    return b"/".join(part for part in folder.split(b"/") if not _DATE.fullmatch(part))


def collect(index: Index, walk: Walk, objects: Objects, kept: KeptList) -> Files:
    """Read what the rules look at of all files that `walk` yields, each name once."""
    names = ("at", "wall", "series", "ino", "nlink", "object", "size")
    columns = {name: array("q") for name in names}
    pinned = array("b")
    clock, numbers = LocalClock(), dict[bytes, int]()
    marked = index.inodes_with(KEEP_XATTR)
    folder, series = None, 0
    for path, _, inode in walk():
        where, _, name = path.rpartition(b"/")
        if where != folder:
            folder = where
            series = numbers.setdefault(series_of(where), len(numbers))
        taken = clock.taken(name, inode.mtime_ns)
        row = (taken.at_us, taken.wall_us, series, inode.ino, inode.nlink, inode.object_id or 0)
        for column, value in zip(columns.values(), (*row, inode.size), strict=True):
            column.append(value)
        pinned.append(inode.ino in marked or kept.has(path))
    found = {name: np.frombuffer(column, np.int64) for name, column in columns.items()}
    new_bytes = _new_bytes(found["at"], found["ino"], found["object"], found["size"], objects)
    return Files(
        Pictures(
            found["at"],
            found["wall"],
            new_bytes,
            found["series"],
            np.frombuffer(pinned, np.bool_),
        ),
        found["ino"],
        found["nlink"],
        found["object"],
        found["size"],
    )


def _new_bytes(at_us: Ints, ino: Ints, object_id: Ints, size: Ints, objects: Objects) -> Ints:
    """Return the bytes that each file added to the store: int64 (n,).

    Of files that show the same object, the oldest added its entry, and the others nothing. A file
    that is not encoded added its size.
    """
    found = size.copy()
    has = np.flatnonzero(object_id)
    if len(has):
        found[has] = 0
        oldest = has[np.lexsort((ino[has], at_us[has]))]
        _, first = np.unique(object_id[oldest], return_index=True)
        rows = objects.rows(object_id[oldest[first]])
        found[oldest[first]] = objects.length[rows] + objects.kept[rows]
    return found


def objects_of(index: Index) -> Objects:
    """Read all objects of a store in columns."""
    parts = [np.array(rows, np.int64) for rows in index.object_rows()]
    table = np.concatenate(parts) if parts else np.zeros((0, 7), np.int64)
    ids, pack, offset, length, kept, uses, has_layer = np.ascontiguousarray(table.T)
    return Objects(ids, pack, offset, length, kept, uses, has_layer.astype(bool))


def needs_of(index: Index) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Read what the objects that files show need: parts as :func:`ranks_of_objects` takes them."""
    for ids, packed in index.needs_of_used():
        counts, needed = unpack_many(packed)
        yield np.array(ids, np.int64), counts, needed


def names_of(walk: Walk, wanted: Bools) -> Iterator[Name]:
    """Yield the names of the files of a walk for which `wanted` is true."""
    for stays, (path, folder, inode) in zip(wanted.tolist(), walk(), strict=True):
        if stays:
            yield Name(folder, path.rpartition(b"/")[2], path, inode.ino)
