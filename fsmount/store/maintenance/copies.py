"""Second copies, in ``packs/``: the rows of the index, and the objects many pictures hang on.

``names.gz`` is written anew, under another name and renamed; ``second.entries`` has entries as
packs have them, one after the other, and only grows. Both are read by repair and `check` alone
(`docs/format.md` has them to the byte). When they are renewed is :mod:`copier`'s business.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fsmount.errors import Damaged
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index, Inode, Object
from fsmount.store.layout import Layout
from fsmount.store.packs.pack import build_entry, read_entry, scan

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


# Lines that are compressed at a time.
_AT_ONCE = 1000
# zlib's word for a gzip stream with the largest window.
_GZIP = 31
_FIELDS = [each.name for each in fields(Object)]
_json = json.JSONEncoder(separators=(",", ":")).encode


def _text(value: Any) -> Any:
    """Bytes as text: hashes and names alike, one character a byte."""
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _bytes(value: Any) -> Any:
    return value.encode("latin-1") if isinstance(value, str) else value


@dataclass(frozen=True)
class Copies:
    """What the copies are to say: the bytes of one, and the objects the other must have."""

    names: bytes
    many: tuple[int, ...]


def collect(index: Index) -> Copies:
    """What the copies should be as the index is now. Raises OSError, :class:`Damaged`: also where
    rows are missing, since an older copy that has them is worth more.

    Nothing is kept of a row: of a million files the bytes take 75 MB, and the counts four.
    """
    why = index.contradiction()
    if why:
        raise Damaged(index.file, reason=why)
    needed = array("I", bytes(4 * index.next_object_id()))
    gzipped = zlib.compressobj(6, wbits=_GZIP)
    parts: list[bytes] = []
    some: list[str] = []
    for line in _lines(index, needed):
        some.append(_json(line))
        if len(some) == _AT_ONCE:
            parts.append(gzipped.compress("\n".join((*some, "")).encode()))
            some.clear()
    parts += gzipped.compress("\n".join(some).encode()), gzipped.flush()
    many = tuple(number for number, count in enumerate(needed) if count >= MANY)
    return Copies(b"".join(parts), many)


def collect_beside(path: str) -> Copies:
    """:func:`collect`, in another process than the one that has the index open at `path`."""
    index = Index(Path(path), Disk(), read_only=True)
    try:
        with index.snapshot():
            return collect(index)
    finally:
        index.close()


def _lines(index: Index, needed: array[int]) -> Iterator[Any]:
    """The lines of ``names.gz``; `needed` counts for each object how many others need it."""
    yield {
        "format": 1,
        "uuid": index.identity(),
        "opened": index.opened(),
        "next_object": index.next_object_id(),
    }
    for node in index.inodes():
        yield ["inode", *node[:-1], _text(node.target)]
    for folder, name, ino in index.names():
        yield ["name", folder, _text(name), ino]
    for ino, name, value in index.all_xattrs():
        yield ["xattr", ino, _text(name), _text(value)]
    for found in index.all_objects():
        for number in found.needs:
            if number != found.id and number < len(needed):
                needed[number] += 1
        values = [getattr(found, name) for name in _FIELDS]
        values[6] = _text(found.sha256)
        yield ["object", *values]
    yield ["end"]


def disagreement(layout: Layout, index: Index) -> str:
    """How the index differs from its copy; "" if it does not, or the copy is of another time.

    Goes through all rows. Raises :class:`Damaged` if some cannot be read, OSError.
    """
    known = _last_lines(layout, index)
    for line in _lines(index, array("I")):
        expected = next(known, None)
        # The head tells of openings, too, after which nothing was written.
        is_row = isinstance(line, list)
        if is_row and expected is not None and _json(line).encode() != expected:
            return f"its copy says something else than {_json(line[:3])}"
    return ""


def is_as_left(layout: Layout, index: Index) -> bool:
    """Whether ``names.gz`` is the one that the last clean end which wrote it has left."""
    path = layout.names_copy
    return path.exists() and zlib.crc32(path.read_bytes()) == index.copy_sum()


def _last_lines(layout: Layout, index: Index) -> Iterator[bytes]:
    """The lines of the copy if nothing was written since the clean end that it is of, else none."""
    if index.copied() == index.opened() and is_as_left(layout, index):
        with gzip.GzipFile(fileobj=io.BytesIO(layout.names_copy.read_bytes())) as lines:
            yield from (line.rstrip(b"\n") for line in lines)


def read(data: bytes, identity: str) -> Iterator[tuple[str, list[Any]]]:
    """The lines of ``names.gz``, the head as ("head", [it]); raises :class:`Damaged` where they
    end too soon or make no sense, and for those of another store."""
    try:
        last: tuple[str, list[Any]] = "", []
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as lines:
            head = json.loads(lines.readline())
            if head["format"] != 1 or head["uuid"] != identity:
                raise Damaged("names.gz", reason="of another store")
            yield "head", [head]
            for line in lines:
                kind, *values = json.loads(line)
                last = kind, values
                yield last
        if last != ("end", []):
            raise Damaged("names.gz", reason="cut off")
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, zlib.error) as error:
        raise Damaged("names.gz", reason=error) from error


def load(data: bytes, identity: str) -> Rows:
    """The rows in ``names.gz``; raises :class:`Damaged`."""
    rows = Rows()
    try:
        for kind, values in read(data, identity):
            _take(rows, kind, values)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise Damaged("names.gz", reason=error) from error
    return rows


def _take(rows: Rows, kind: str, values: list[Any]) -> None:
    if kind == "head":
        rows.opened, rows.next_object = int(values[0]["opened"]), int(values[0]["next_object"])
    elif kind == "inode":
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


def update(layout: Layout, disk: Disk, names: bytes, many: Sequence[Object]) -> None:
    """Bring the copies up to date; touches no index. Raises OSError."""
    _second_entries(layout, disk, many)
    path = layout.names_copy
    if not (path.exists() and path.read_bytes() == names):
        disk.write_file(path, names)


def _second_entries(layout: Layout, disk: Disk, many: Sequence[Object]) -> None:
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
