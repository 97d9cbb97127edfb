"""Second copies, in ``packs/``: the rows of the index, and the objects many pictures hang on.

``names.gz`` is written anew, under another name and renamed, when a pack is sealed and at a clean
end; ``second.entries`` has entries as packs have them, one after the other, and only grows. Both
are read by repair alone (`docs/format.md` has them to the byte). A failure to write them is logged
and costs nothing now.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from fsmount.errors import Damaged
from fsmount.store.config import Layout
from fsmount.store.disk import Disk
from fsmount.store.index import Index, Inode, Object
from fsmount.store.pack import build_entry, read_entry, scan

_log = logging.getLogger(__name__)

# An object that so many others need is kept twice. One damaged entry costs at most the files of
# so many objects, as far as they are older than the last copy.
MANY = 128


@dataclass
class Rows:
    """What the index held: `opened`, `next_object` and the rows."""

    opened: int = 0
    next_object: int = 1
    inodes: list[Inode] = field(default_factory=list)
    names: list[tuple[int, bytes, int]] = field(default_factory=list)
    xattrs: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    objects: list[Object] = field(default_factory=list)


def rows_of(index: Index) -> Rows:
    """All rows of an index but those of packs and signatures."""
    return Rows(
        index.opened(),
        index.next_object_id(),
        list(index.inodes()),
        list(index.names()),
        index.all_xattrs(),
        list(index.all_objects()),
    )


_FIELDS = [each.name for each in fields(Object)]


def _text(value: Any) -> Any:
    """Bytes as text: hashes and names alike, one character a byte."""
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _bytes(value: Any) -> Any:
    return value.encode("latin-1") if isinstance(value, str) else value


def dump(rows: Rows, identity: str) -> bytes:
    """The bytes of ``names.gz``."""
    head = {"format": 1, "uuid": identity, "opened": rows.opened, "next_object": rows.next_object}
    lines: list[Any] = [head]
    lines += [["inode", *map(_text, node)] for node in rows.inodes]
    lines += [["name", *map(_text, row)] for row in rows.names]
    lines += [["xattr", *map(_text, row)] for row in rows.xattrs]
    for found in rows.objects:
        values = [getattr(found, name) for name in _FIELDS]
        values[6] = _text(found.sha256)
        lines.append(["object", *values])
    lines.append(["end"])
    text = "\n".join(json.dumps(line, separators=(",", ":")) for line in lines)
    return gzip.compress(text.encode(), 6, mtime=0)


def load(data: bytes, identity: str) -> Rows:
    """The inverse of :func:`dump`; raises :class:`Damaged`, also for that of another store."""
    try:
        lines = [json.loads(line) for line in gzip.decompress(data).split(b"\n")]
        head = lines[0]
        if head["format"] != 1 or head["uuid"] != identity or lines[-1] != ["end"]:
            raise Damaged("names.gz", reason="of another store, or cut off")
        rows = Rows(int(head["opened"]), int(head["next_object"]))
        for kind, *values in lines[1:-1]:
            _take(rows, kind, values)
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, zlib.error) as error:
        raise Damaged("names.gz", reason=error) from error
    return rows


def _take(rows: Rows, kind: str, values: list[Any]) -> None:
    if kind == "inode":
        values[-1] = _bytes(values[-1])
        rows.inodes.append(Inode(*values))
    elif kind == "name":
        rows.names.append((values[0], _bytes(values[1]), values[2]))
    elif kind == "xattr":
        rows.xattrs.append((values[0], _bytes(values[1]), _bytes(values[2])))
    elif kind == "object":
        values[6] = _bytes(values[6])
        values[8:10] = tuple(values[8]), tuple(values[9])
        rows.objects.append(Object(*values))


def read_rows(layout: Layout, identity: str) -> Rows | None:
    """What the copy says, or None if there is none that can be read."""
    try:
        return load(layout.names_copy.read_bytes(), identity)
    except (OSError, Damaged) as error:
        _log.warning("%s: %s", layout.names_copy, error)
        return None


@dataclass(frozen=True)
class Copies:
    """What the copies are to say: the bytes of one, and the objects the other must have."""

    names: bytes
    many: tuple[Object, ...]


def collect(index: Index) -> Copies:
    """What the copies should be as the index is now. Raises OSError, :class:`Damaged`."""
    rows = rows_of(index)
    needed = Counter(i for found in rows.objects for i in found.needs if i != found.id)
    many = tuple(found for found in rows.objects if needed[found.id] >= MANY)
    return Copies(dump(rows, index.identity()), many)


def update(layout: Layout, disk: Disk, wanted: Copies) -> None:
    """Bring the copies up to date; touches no index. Failures are logged."""
    try:
        _second_entries(layout, disk, wanted.many)
        path = layout.names_copy
        if not (path.exists() and path.read_bytes() == wanted.names):
            disk.write_file(path, wanted.names)
    except OSError as error:
        _log.warning("the copy of the index is not renewed: %s", error)


def _second_entries(layout: Layout, disk: Disk, many: tuple[Object, ...]) -> None:
    path = layout.second_entries
    end, there = 0, set[tuple[int, int]]()
    for at, length, entry in scan(path) if path.exists() else ():
        if at != end:
            # Damaged in the middle: what follows is written again.
            break
        there.add((entry.object_id, length))
        end = at + length
    # An entry that `repack` made smaller is another one.
    missing = [found for found in many if (found.id, found.length) not in there]
    if not missing and (not path.exists() or path.stat().st_size == end):
        return
    fd = disk.open(path, os.O_RDWR) if path.exists() else disk.create(path)
    try:
        disk.ftruncate(fd, end)
        for found in missing:
            try:
                entry = read_entry(layout.pack(found.pack), found.offset, found.length)
            except Damaged as error:
                _log.error("%s", error)
                continue
            end += disk.pwrite(fd, build_entry(entry), end)
        disk.fsync(fd)
    finally:
        disk.close(fd)
    disk.fsync_folder(layout.packs)


def second(layout: Layout) -> Iterator[tuple[int, bytes]]:
    """The objects kept twice: (id, bytes of the entry)."""
    if layout.second_entries.exists():
        for _, _, entry in scan(layout.second_entries):
            yield entry.object_id, build_entry(entry)
