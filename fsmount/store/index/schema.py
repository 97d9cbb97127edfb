"""The tables of the index, and their rows as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

ROOT = 1
# The folder of deleted names. It has no inode; see trash.py.
TRASH = 0
# Rows that a query over a whole table reads at a time.
PAGE = 1000
Ids = npt.NDArray[np.int64]
IS_FOLDER = "(%s.mode & 61440) = 16384"

# Tiles that the planner knows, one row a geometry (see Planner.dump). The row with the highest id
# was written last. A lost row costs space, no bytes.
KNOWN_TILES = (
    "CREATE TABLE known_tiles (id INTEGER PRIMARY KEY, geometry TEXT NOT NULL, data BLOB NOT NULL)"
)


def schema() -> list[str]:
    """The statements that make all tables. Comments give the invariants of each row."""
    return [
        # uuid: the store that the index belongs to. opened: number of openings for writing.
        # dictionary:G: object id of the newest dictionary of geometry G.
        # trimmed:O: how many objects needed object O when it was last trimmed.
        # pruned:at, :files, :bytes: the last run of the policy, and what went.
        # repacked:N: bytes from the start of pack N that `repack` wrote and need not code again.
        # writer: random number of the last process that opened the store for writing.
        # backup: the opening of the store that this index of a backup shows. backup:N: number of
        # pack N of that store in the backup, where it is another one.
        # copied: the opening at whose end names.gz matched the index. copy: CRC-32 of names.gz.
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
        # One row per file, folder, link or special file; root is 1. mode has the type bits.
        # Regular files: exactly one of staged (token of a file in staging/) and object (objects.id)
        # is set. size is exact for encoded files; the size of a staged file may differ from it.
        # nlink 0: unlinked while open; removed when the last user closes it, or at the next start.
        # Times are nanoseconds since 1970, possibly negative.
        "CREATE TABLE inodes (ino INTEGER PRIMARY KEY, mode INTEGER NOT NULL, uid INTEGER NOT NULL,"
        " gid INTEGER NOT NULL, nlink INTEGER NOT NULL, size INTEGER NOT NULL,"
        " rdev INTEGER NOT NULL, atime INTEGER NOT NULL, mtime INTEGER NOT NULL,"
        " ctime INTEGER NOT NULL, object INTEGER, staged INTEGER, target BLOB)",
        "CREATE INDEX inodes_staged ON inodes (staged) WHERE staged IS NOT NULL",
        "CREATE INDEX inodes_orphan ON inodes (nlink) WHERE nlink = 0",
        # Names are bytes. folder 0 is the trash. cookie is the readdir offset: stable, never
        # reused within a store.
        "CREATE TABLE dirents (cookie INTEGER PRIMARY KEY AUTOINCREMENT, folder INTEGER NOT NULL,"
        " name BLOB NOT NULL, ino INTEGER NOT NULL)",
        "CREATE UNIQUE INDEX dirents_name ON dirents (folder, name)",
        "CREATE INDEX dirents_folder ON dirents (folder)",
        "CREATE INDEX dirents_ino ON dirents (ino)",
        "CREATE TABLE xattrs (ino INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL,"
        " PRIMARY KEY (ino, name)) WITHOUT ROWID",
        # One row per stored file body. offset and length: the whole entry in the pack, with its
        # header. size, sha256: of the file, not of the payload. uses: number of inodes that show
        # it. needs: ids of all other objects that a render reads (see pack_ids; transitive).
        # layer: those of them that the object's own pixels depend on. reason: why raw, else NULL.
        # sha256 is empty if only the layer is left (see drop_objects), and for vast sparse files.
        "CREATE TABLE objects (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL,"
        " pack INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,"
        " size INTEGER NOT NULL, sha256 BLOB NOT NULL, depth INTEGER NOT NULL,"
        " needs BLOB NOT NULL, layer BLOB NOT NULL, uses INTEGER NOT NULL, reason TEXT)",
        "CREATE INDEX objects_hash ON objects (substr(sha256, 1, 8))",
        # length: bytes of the pack that committed entries fill. Recovery cuts bytes behind it.
        "CREATE TABLE packs (id INTEGER PRIMARY KEY, length INTEGER NOT NULL,"
        " sealed INTEGER NOT NULL)",
        KNOWN_TILES,
    ]


class Inode(NamedTuple):
    """One row of `inodes`. Times are ns since 1970; `target` is that of a symbolic link."""

    ino: int
    mode: int
    uid: int
    gid: int
    nlink: int
    size: int
    rdev: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    object_id: int | None
    staged: int | None
    target: bytes | None


@dataclass(frozen=True, slots=True)
class Object:
    """One row of `objects`: a stored file body.

    `offset` and `length` are the place of its entry in the pack, and `size` is the size of the
    file, all in bytes.
    """

    id: int
    kind: str
    pack: int
    offset: int
    length: int
    size: int
    sha256: bytes
    depth: int
    needs: tuple[int, ...] = ()
    layer: tuple[int, ...] = ()
    reason: str | None = None
    uses: int = 0

    @property
    def is_layer_only(self) -> bool:
        """Whether only the object's own pixels are left. It cannot be rendered."""
        return self.kind != "raw" and not self.sha256

    @property
    def has_layer(self) -> bool:
        """Whether the object is a frame."""
        return self.kind in ("key", "delta")

    @property
    def is_kept(self) -> bool:
        """Whether the file lies in ``raw/``. Its entry then has only segment hashes."""
        return self.kind == "raw" and self.length < self.size


INODE = "ino, mode, uid, gid, nlink, size, rdev, atime, mtime, ctime, object, staged, target"
I_INODE = ", ".join("i." + column for column in INODE.split(", "))
OBJECT = "id, kind, pack, offset, length, size, sha256, depth, needs, layer, reason, uses"
COLUMNS = {
    "mode": "mode",
    "uid": "uid",
    "gid": "gid",
    "size": "size",
    "atime_ns": "atime",
    "mtime_ns": "mtime",
    "ctime_ns": "ctime",
}


def pack_ids(ids: Sequence[int]) -> bytes:
    """Encode ids for the index as distances.

    The ids ascend. Each is stored as its distance to the one before (the first: to 0) in LEB128,
    that is groups of 7 bits, lowest first, bit 7 set in all groups but the last. A store of a
    million pictures has some twenty million ids, most a few hundred apart.
    """
    out = bytearray()
    last = 0
    for number in sorted(set(ids)):
        gap, last = number - last, number
        while gap > 127:
            out.append(gap & 127 | 128)
            gap >>= 7
        out.append(gap)
    return bytes(out)


def unpack_ids(data: bytes) -> tuple[int, ...]:
    """Decode the ids of :func:`pack_ids`, ascending."""
    if data and not data[-1]:
        # Early stores used 4 bytes for each id. No LEB128 number ends with 0, and no early id
        # was large enough for its highest byte to be set.
        return tuple(int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4))
    ids: list[int] = []
    last = gap = shift = 0
    for byte in data:
        gap |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            last += gap
            ids.append(last)
            gap = shift = 0
    return tuple(ids)


def unpack_many(packed: Sequence[bytes]) -> tuple[Ids, Ids]:
    """Decode the ids of many objects at once: see :func:`unpack_ids`.

    Returns the number of ids of each (int64, one for each of `packed`), and all ids one after the
    other (int64).
    """
    if any(data and not data[-1] for data in packed):
        found = [unpack_ids(data) for data in packed]
        counts = np.array([len(ids) for ids in found], np.int64)
        return counts, np.array([number for ids in found for number in ids], np.int64)
    data = np.frombuffer(b"".join(packed), np.uint8)
    bounds = np.cumsum([0, *map(len, packed)])
    # Each number ends with a byte below 128.
    ended = np.concatenate([[0], np.cumsum(data < 128)])
    counts = np.diff(ended[bounds])
    if not len(data):
        return counts, np.zeros(0, np.int64)
    starts = np.concatenate([[0], np.flatnonzero(data < 128)[:-1] + 1])
    place = np.arange(len(data)) - np.repeat(starts, np.diff(np.append(starts, len(data))))
    gaps = np.add.reduceat((data & 127).astype(np.int64) << (7 * place), starts)
    total = np.cumsum(gaps)
    before = np.concatenate([[0], total])[ended[bounds[:-1]]]
    return counts, total - np.repeat(before, counts)


def object_of(row: tuple[Any, ...]) -> Object:
    """The object of a row with the columns OBJECT."""
    values = list(row)
    values[8:10] = unpack_ids(row[8]), unpack_ids(row[9])
    return Object(*values)
