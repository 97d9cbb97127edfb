"""The file ``second.entries`` in ``packs/``: second copies of the entries that many objects need.

The file has entries in the format of packs, one after the other. New copies are appended. A copy is
of no use any more if repack has made the entry smaller, because a repair writes a copy over the
entry, or if hardly any object needs the object now. If too much of the file is of no use, it is
written anew under another name, forced, and renamed. A copy that is left out then has a whole entry
in a pack, or belongs to an object that was dropped.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fsmount.errors import Damaged
from fsmount.store.disk.disk import Disk, pread
from fsmount.store.index import Object
from fsmount.store.layout import Layout
from fsmount.store.packs.pack import build_entry, read_entry, scan

_log = logging.getLogger(__name__)

WASTE = 1 / 16
"""The file is written anew if more than this share of it is of no use.

So a mount that repacks writes the whole file a few times at most while all of it gets smaller.
"""


@dataclass(frozen=True, slots=True)
class Copy:
    """A whole entry in ``second.entries``: its object, and its range of bytes there."""

    object_id: int
    offset: int
    length: int


@dataclass(frozen=True)
class Wanted:
    """The wanted content of the file.

    many : ids of the objects that many others need.
    rows : the rows of these objects, and of all others that have a copy, as far as they exist.
    waste : share of the file that may be of no use.
    """

    many: Collection[int]
    rows: Mapping[int, Object]
    waste: float = WASTE


def read(layout: Layout) -> Iterator[tuple[int, bytes]]:
    """Yield (object id, bytes of the entry) of the objects that are kept twice. Raises OSError."""
    if layout.second_entries.exists():
        for _, _, entry in scan(layout.second_entries):
            yield entry.object_id, build_entry(entry)


def held(layout: Layout) -> tuple[Copy, ...]:
    """Return the whole entries of the file, in their order. Raises OSError."""
    path = layout.second_entries
    found = scan(path) if path.exists() else ()
    return tuple(Copy(entry.object_id, at, length) for at, length, entry in found)


def superseded(layout: Layout) -> int:
    """Return the bytes of copies of which the file has a later copy. Raises OSError.

    Returns 0 if they are too few for a new file.
    """
    there = held(layout)
    latest = {copy.object_id: copy for copy in there}
    old = sum(copy.length for copy in there if latest[copy.object_id] is not copy)
    return old if old > WASTE * sum(copy.length for copy in there) else 0


def update(layout: Layout, disk: Disk, there: Sequence[Copy], wanted: Wanted) -> None:
    """Bring the file up to date. `there` is the result of :func:`held`.

    The caller makes sure that no pack is cut or removed in the meantime. Raises OSError.
    """
    rows = [wanted.rows[number] for number in wanted.many if number in wanted.rows]
    size = layout.second_entries.stat().st_size if layout.second_entries.exists() else 0
    useful = {(row.id, row.length) for row in rows}
    used = sum(length for _, length in useful & {(c.object_id, c.length) for c in there})
    waste = size - used
    if waste and waste > wanted.waste * size:
        try:
            _write_anew(layout, disk, there, wanted)
        except OSError as error:
            # For example, the disk has no space for a whole file. A few new copies may fit.
            _log.warning("%s is not written anew: %s", layout.second_entries, error)
        else:
            return
    end = _end(there)
    before = {(copy.object_id, copy.length) for copy in there if copy.offset < end}
    missing = [row for row in rows if (row.id, row.length) not in before]
    if missing or size != end:
        _append(layout, disk, missing, end)


def _end(there: Sequence[Copy]) -> int:
    """Return the offset of the first damage, or else the end of the last copy."""
    end = 0
    for copy in there:
        if copy.offset != end:
            # The file is damaged here. The entries from here on are written again.
            break
        end += copy.length
    return end


def _append(layout: Layout, disk: Disk, missing: Sequence[Object], end: int) -> None:
    """Cut the file to `end` bytes, and append the entries of objects. Raises OSError."""
    path = layout.second_entries
    fd = disk.open(path, os.O_RDWR) if path.exists() else disk.create(path)
    try:
        disk.ftruncate(fd, end)
        for row in missing:
            end += disk.pwrite(fd, _entry(layout, row), end)
        disk.fsync(fd)
    finally:
        disk.close(fd)
    disk.fsync_folder(layout.packs)


def _entry(layout: Layout, row: Object) -> bytes:
    """Return the entry of an object from its pack, or b"" if it is damaged. Logs the damage."""
    path = layout.pack(row.pack)
    try:
        entry = read_entry(path, row.offset, row.length)
        if entry.object_id != row.id:
            raise Damaged(path, reason=f"entry {entry.name} instead of object {row.id}")
    except Damaged as error:
        _log.error("%s", error)
        return b""
    return build_entry(entry)


def _write_anew(layout: Layout, disk: Disk, there: Sequence[Copy], wanted: Wanted) -> None:
    """Write a new file with all copies that are of use, in place of the file. Raises OSError."""
    path = layout.second_entries
    scratch = path.with_name(path.name + ".new")
    disk.unlink(scratch)
    try:
        fd = disk.create(scratch)
        try:
            end = 0
            for number in sorted({*wanted.many, *(copy.object_id for copy in there)}):
                end += disk.pwrite(fd, _useful(layout, there, wanted, number), end)
            disk.fsync(fd)
        finally:
            disk.close(fd)
        if end:
            disk.rename(scratch, path)
    except OSError:
        with suppress(OSError):
            disk.unlink(scratch)
        raise
    if not end:
        disk.unlink(scratch)
        disk.unlink(path)
    disk.fsync_folder(layout.packs)


def _useful(layout: Layout, there: Sequence[Copy], wanted: Wanted, number: int) -> bytes:
    """Return the copy of object `number` for a new file, b"" if it needs none.

    If the entry in the pack is damaged, or has lost its row, this is the copy that exists.
    """
    row, is_wanted = wanted.rows.get(number), number in wanted.many
    if row is None and not is_wanted:
        return b""
    if row is not None and (entry := _entry(layout, row)):
        return entry if is_wanted else b""
    copies = [copy for copy in there if copy.object_id == number]
    # A repair needs the copy that has the length of the entry.
    copies.sort(key=lambda copy: row is not None and copy.length == row.length)
    return _bytes(layout.second_entries, copies[-1]) if copies else b""


def _bytes(path: Path, copy: Copy) -> bytes:
    """Return the bytes of a copy. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        return pread(file.fileno(), copy.length, copy.offset)
