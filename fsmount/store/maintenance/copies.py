"""The copy of all rows of the index in ``packs/``: the file ``names.gz``.

Each renewal writes a new file under another name and renames it. Only repair and `check` read it.
`docs/format.md` specifies it to the byte. :mod:`~fsmount.store.maintenance.copier` decides when it
is renewed.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fsmount.errors import Damaged
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index, Inode, Object
from fsmount.store.layout import Layout

_log = logging.getLogger(__name__)


@dataclass
class IndexRows:
    """The content of ``names.gz``.

    opened : number of openings for writing at that time.
    next_object : next object id.
    inodes, objects : rows.
    names : (folder inode, name, inode).
    xattrs : (inode, name, value).
    """

    opened: int = 0
    next_object: int = 1
    inodes: list[Inode] = field(default_factory=list)
    names: list[tuple[int, bytes, int]] = field(default_factory=list)
    xattrs: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    objects: list[Object] = field(default_factory=list)


# Number of lines that are compressed at a time.
_AT_ONCE = 1000
# Value of `wbits` with which zlib writes a gzip stream with the largest window.
_GZIP = 31
_FIELDS = [each.name for each in fields(Object)]
_json = json.JSONEncoder(separators=(",", ":")).encode


def _text(value: Any) -> Any:
    """Turn bytes (a hash or a name) into text, one character a byte. Return other values as is."""
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _bytes(value: Any) -> Any:
    """Do the inverse of :func:`_text`. Raises ValueError for characters above 255."""
    return value.encode("latin-1") if isinstance(value, str) else value


def collect(index: Index) -> bytes:
    """Compute the copy from the index. Returns the bytes of the file.

    Raises OSError, and :class:`Damaged` if rows are damaged or missing: an older copy that has
    these rows is worth more than a new one.

    The function keeps no rows in memory. For a million files the bytes take 75 MB.
    """
    why = index.contradiction()
    if why:
        raise Damaged(index.file, reason=why)
    gzipped = zlib.compressobj(6, wbits=_GZIP)
    parts: list[bytes] = []
    some: list[str] = []
    for line in _lines(index):
        some.append(_json(line))
        if len(some) == _AT_ONCE:
            parts.append(gzipped.compress("\n".join((*some, "")).encode()))
            some.clear()
    parts += gzipped.compress("\n".join(some).encode()), gzipped.flush()
    return b"".join(parts)


def collect_beside(path: str) -> bytes:
    """As :func:`collect`, in a process that does not have the index open.

    `path` is the path of the index. Reads a snapshot. Raises OSError, :class:`Damaged`.
    """
    index = Index(Path(path), Disk(), read_only=True)
    try:
        with index.snapshot():
            return collect(index)
    finally:
        index.close()


def _lines(index: Index) -> Iterator[Any]:
    """Yield the lines of ``names.gz`` as JSON values."""
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
        values = [getattr(found, name) for name in _FIELDS]
        values[6] = _text(found.sha256)
        yield ["object", *values]
    yield ["end"]


def disagreement(layout: Layout, index: Index) -> str:
    """Compare the index with its copy. Return a text about the first difference, or "".

    Also returns "" if the copy is from another time. Reads all rows. Raises OSError, and
    :class:`Damaged` if rows cannot be read.
    """
    known = _last_lines(layout, index)
    for line in _lines(index):
        expected = next(known, None)
        # The head is not compared: it also counts openings after which nothing was written.
        is_row = isinstance(line, list)
        if is_row and expected is not None and _json(line).encode() != expected:
            return f"its copy says something else than {_json(line[:3])}"
    return ""


def is_as_left(layout: Layout, index: Index) -> bool:
    """Whether ``names.gz`` still is the file that a clean end wrote last, by CRC-32.

    Raises OSError.
    """
    path = layout.names_copy
    return path.exists() and zlib.crc32(path.read_bytes()) == index.copy_sum()


def _last_lines(layout: Layout, index: Index) -> Iterator[bytes]:
    """Yield the lines of the copy, if nothing was written after its clean end. Else yield none."""
    if index.copied() == index.opened() and is_as_left(layout, index):
        with gzip.GzipFile(fileobj=io.BytesIO(layout.names_copy.read_bytes())) as lines:
            yield from (line.rstrip(b"\n") for line in lines)


def read(data: bytes, identity: str) -> Iterator[tuple[str, list[Any]]]:
    """Yield the lines of ``names.gz`` as (kind, values).

    `data` is the bytes of the file, `identity` the UUID of the store. The head comes as
    ("head", [head]). Raises :class:`Damaged` at a line that makes no sense, at an end that comes
    too soon, and for a file of another store.
    """
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


def load(data: bytes, identity: str) -> IndexRows:
    """Return the rows in ``names.gz``. Arguments as for :func:`read`. Raises Damaged."""
    rows = IndexRows()
    try:
        for kind, values in read(data, identity):
            _take(rows, kind, values)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise Damaged("names.gz", reason=error) from error
    return rows


def _take(rows: IndexRows, kind: str, values: list[Any]) -> None:
    """Add a line to `rows`. Raises ValueError, KeyError, TypeError, IndexError."""
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


def read_rows(layout: Layout, identity: str) -> IndexRows | None:
    """Read the rows from the copy. Return None if the copy is missing or damaged; log the error."""
    try:
        return load(layout.names_copy.read_bytes(), identity)
    except (OSError, Damaged) as error:
        _log.warning("%s: %s", layout.names_copy, error)
        return None


def update(layout: Layout, disk: Disk, names: bytes) -> None:
    """Write the copy if it differs from `names`, its wanted content. Raises OSError.

    The function does not use the index, so it may run in a thread.
    """
    path = layout.names_copy
    if not (path.exists() and path.read_bytes() == names):
        disk.write_file(path, names)
