"""Facts for a repair: the present content of packs, copies, the staging folder and the index.

This module reads and changes nothing. :mod:`merge` plans from the facts.
"""

from __future__ import annotations

import logging
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from fsmount.codec.delta import record
from fsmount.codec.memory import WorkerMemory
from fsmount.errors import Damaged, FsmountError
from fsmount.folder import readable
from fsmount.store import contents
from fsmount.store.disk.disk import Disk
from fsmount.store.frames import jobs
from fsmount.store.frames.layers import LruLayers
from fsmount.store.frames.reader import Reader
from fsmount.store.index import Index, Inode, Object
from fsmount.store.layout import Layout
from fsmount.store.maintenance import copies, second_entries
from fsmount.store.maintenance.copies import IndexRows
from fsmount.store.packs import pack
from fsmount.store.packs.bodies import KeptBody, load_sums
from fsmount.store.packs.entries import DICTIONARY, FRAMES, JPEG, SUMS
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import Entry, read_entry

_log = logging.getLogger(__name__)

_LAYER_BYTES = 64 << 20


# -- a store whose index cannot be read


@dataclass(frozen=True, slots=True)
class EntryPlace:
    """A whole entry: its object, the number of its pack, and its range of bytes there."""

    object_id: int
    pack: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class DescribedFile:
    """The description of a file in its entry, and the objects that a render of it reads.

    `path` and `mtime_ns` are the name and the time that the file had when it was encoded. `size`
    is in bytes. The other fields are the fields of :class:`Object`.
    """

    place: EntryPlace
    path: bytes
    mtime_ns: int
    size: int
    sha256: bytes
    kind: str
    reason: str | None = None
    needs: tuple[int, ...] = ()
    layer: tuple[int, ...] = ()
    depth: int = 0


@dataclass(frozen=True, slots=True)
class UnusableEntry:
    """A whole entry that gives no file. `name`: its path, or the number of its object.

    `row`: the row of its object, if other entries may need it: for its own pixels, or as the anchor
    of their records. It may be that of a deleted file.
    """

    object_id: int
    name: str
    why: str
    row: Object | None = None


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file in the staging folder. `size` is in bytes."""

    token: int
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class StoreFacts:
    """All facts about a store that are known without its index.

    - `copy`: the rows in ``names.gz``, or none.
    - `entries`: all whole entries, in the order of pack numbers.
    - `packs`: for each pack, the offset at which its last whole entry ends.
    - `descriptions`: one of each object that is newer than the copy, in the order of object ids.
    - `opened`: the number of times that the store was opened, from the file ``opened``.
    - `uid`, `gid`, `now_ns`: owner and time for files and folders whose own are unknown.
    """

    copy: IndexRows
    entries: tuple[EntryPlace, ...]
    packs: Mapping[int, int]
    descriptions: tuple[DescribedFile | UnusableEntry, ...]
    staged: tuple[StagedFile, ...]
    opened: int
    uid: int
    gid: int
    now_ns: int


def index_fault(layout: Layout, disk: Disk, identity: str) -> str:
    """The reason why the index cannot be used, or "" if it can. Reads all rows.

    `identity` is the uuid of the store. Opens the index for writing, as a start does.
    """
    try:
        index = Index(layout.index, disk)
    except (FsmountError, OSError) as error:
        return readable(str(error))
    try:
        problems = index.integrity()
        if not problems and index.identity() != identity:
            problems = ["it belongs to another store"]
        return "; ".join(problems[:3]) or _wrong_rows(layout, index)
    except (FsmountError, OSError) as error:
        return readable(str(error))
    finally:
        index.close()


def _wrong_rows(layout: Layout, index: Index) -> str:
    """The reason why rows are wrong, or "". Raises :class:`Damaged` if some cannot be read."""
    # The copy does not have these rows, or SQLite finds them through an SQL index of their own.
    for read in (index.packs, index.repacked, index.staged_inodes, index.orphans):
        read()
    return index.contradiction() or copies.disagreement(layout, index)


def scan_store(layout: Layout, identity: str) -> StoreFacts:
    """Read all facts that a new index can be made from. Raises OSError.

    `identity` is the uuid of the store. Payloads are read one at a time and not kept.
    """
    copy = copies.read_rows(layout, identity) or IndexRows()
    entries, ends = _entries(layout)
    latest = {place.object_id: place for place in entries}
    places = {number: _reader_place(layout, place) for number, place in latest.items()}
    reader = Reader(list(places.values()), WorkerMemory(), LruLayers(_LAYER_BYTES))
    # The copy lists every object below its next number, except dropped ones.
    later = sorted(number for number in latest if number >= copy.next_object)
    return StoreFacts(
        copy=copy,
        entries=tuple(entries),
        packs=ends,
        descriptions=tuple(_describe(layout, latest[number], reader) for number in later),
        staged=tuple(_staged_files(layout)),
        opened=_opened(layout),
        uid=os.getuid(),
        gid=os.getgid(),
        now_ns=time.time_ns(),
    )


def _reader_place(layout: Layout, place: EntryPlace) -> Location:
    return Location(place.object_id, str(layout.pack(place.pack)), place.offset, place.length)


def _entries(layout: Layout) -> tuple[list[EntryPlace], dict[int, int]]:
    """All whole entries, and for each pack the offset at which its last one ends."""
    entries: list[EntryPlace] = []
    ends: dict[int, int] = {}
    names = (entry.name for entry in contents.own(layout.packs, contents.PACKS))
    for number in sorted(int(name[:-4]) for name in names if name.endswith(".zip")):
        ends[number] = 0
        for offset, length, entry in pack.scan(layout.pack(number)):
            entries.append(EntryPlace(entry.object_id, number, offset, length))
            ends[number] = offset + length
    return entries, ends


def _describe(layout: Layout, place: EntryPlace, reader: Reader) -> DescribedFile | UnusableEntry:
    number = place.object_id
    try:
        entry = reader.entry(number)
        found = reader.record(entry)
        path = str(found.header["path"]).encode("utf-8", "surrogateescape")
        mtime_ns, size = int(found.header["mtime"]), int(found.header["size"])
        kind, reason = str(found.header["kind"]), found.header.get("reason")
    except (FsmountError, KeyError, ValueError, TypeError) as error:
        _log.error("object %d: %s", number, error)
        return UnusableEntry(number, f"object {number}", readable(str(error)))
    needs: tuple[int, ...] = ()
    layer: tuple[int, ...] = ()
    depth = 0
    try:
        if kind not in ("raw", JPEG, DICTIONARY):
            needs, layer, depth = jobs.relations_of(_reader_place(layout, place), reader)
        elif kind == "raw" and entry.suffix == SUMS:
            _check_kept(layout.kept(number), size, entry)
    except (FsmountError, OSError, ValueError) as error:
        row = _layer_only(place, kind, size, reader) if kind in FRAMES else None
        return UnusableEntry(number, os.fsdecode(path), readable(str(error)), row)
    sha256 = found.arrays.get("sha256", b"")
    return DescribedFile(place, path, mtime_ns, size, sha256, kind, reason, needs, layer, depth)


def _layer_only(place: EntryPlace, kind: str, size: int, reader: Reader) -> Object:
    """The row of an object of which only the layer is left, or only the record."""
    layer: tuple[int, ...] = ()
    with suppress(FsmountError, OSError, ValueError):
        layer = jobs.layer_relations(place.object_id, reader)
    number, pack_number, offset, length = place.object_id, place.pack, place.offset, place.length
    return Object(number, kind, pack_number, offset, length, size, b"", 0, layer, layer)


def _check_kept(path: Path, size: int, entry: Entry) -> None:
    """Raise :class:`Damaged` unless a large file exists and has its sums and its size."""
    load_sums(entry.payload)
    if not path.exists() or path.stat().st_size != size:
        raise Damaged(path, reason="the file is missing or has another size")


def _staged_files(layout: Layout) -> Iterator[StagedFile]:
    """The files in ``staging/``, in the order of their names."""
    staged = contents.own(layout.staging, contents.STAGED)
    for entry in sorted(staged, key=lambda entry: entry.name):
        info = entry.stat()
        yield StagedFile(int(entry.name), info.st_size, info.st_mtime_ns)


def _opened(layout: Layout) -> int:
    try:
        return int(layout.opened.read_text())
    except (OSError, ValueError):
        return 0


# -- a store whose index can be read


@dataclass(frozen=True, slots=True)
class Replica:
    """The second copy of an entry. `data` are its bytes.

    `is_whole` tells whether the entry in the pack can be read, too.
    """

    found: Object
    data: bytes
    is_whole: bool


class Condition(Enum):
    """The result of reading the stored bytes of one object."""

    WHOLE = auto()
    DAMAGED = auto()
    # The disk has an error. The bytes may still be right.
    DISK_ERROR = auto()


@dataclass(frozen=True)
class IndexFacts:
    """The rows of a readable index, and the files that exist on the disk.

    - `paths`: the paths of each inode that has a name.
    - `staged`: tokens of staged files that exist.
    - `packs`: the committed length of each pack in bytes.
    - `present`: the size of each of these packs in bytes; None if the pack is missing.
    - `conditions`: for the objects that could not be rendered, and the objects that these need.
    """

    objects: Mapping[int, Object]
    inodes: tuple[Inode, ...]
    paths: Mapping[int, tuple[str, ...]]
    staged: frozenset[int]
    packs: Mapping[int, int]
    present: Mapping[int, int | None]
    conditions: Mapping[int, Condition]


def replicas(layout: Layout, index: Index) -> Iterator[Replica]:
    """The second copies of entries whose objects the index knows. Holds one in memory at a time."""
    for object_id, data in second_entries.read(layout):
        try:
            found = index.object(object_id)
        except Damaged:
            continue
        yield Replica(found, data, _is_whole(layout, found))


def _is_whole(layout: Layout, found: Object) -> bool:
    try:
        _read_own_entry(layout, found)
    except Damaged:
        return False
    return True


def scan_index(layout: Layout, index: Index, suspects: Iterable[int]) -> IndexFacts:
    """Read the rows of an index, and look which files exist.

    `suspects`: ids of the objects that could not be rendered. Raises :class:`Damaged` if rows
    cannot be read; also OSError.
    """
    objects = {found.id: found for found in index.all_objects()}
    paths: dict[int, list[str]] = defaultdict(list)
    for folder, name, ino in index.names():
        paths[ino].append(os.fsdecode(index.path_of_name(folder, name)))
    packs = {number: length for number, (length, _) in index.packs().items()}
    involved = {i for suspect in suspects for i in (suspect, *index.object(suspect).needs)}
    return IndexFacts(
        objects=objects,
        inodes=tuple(index.inodes()),
        paths={ino: tuple(sorted(names)) for ino, names in paths.items()},
        staged=frozenset(int(e.name) for e in contents.own(layout.staging, contents.STAGED)),
        packs=packs,
        present={number: _size(layout.pack(number)) for number in packs},
        conditions={number: _condition(layout, index, number) for number in sorted(involved)},
    )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _condition(layout: Layout, index: Index, object_id: int) -> Condition:
    """Read the entry of an object, its record, and its large file in ``raw/`` if it has one."""
    try:
        found = index.object(object_id)
        entry = _read_own_entry(layout, found)
        anchor = record.anchor_of(entry.record)
        other = _read_own_entry(layout, index.object(anchor)).record if anchor else None
        record.unpack(entry.record, None if other is None else record.unpack(other))
        if found.is_kept:
            KeptBody(layout.kept(object_id), found.size, load_sums(entry.payload)).verify()
    except Damaged as error:
        reason = error.fields.get("reason")
        if isinstance(reason, OSError) and not isinstance(reason, FileNotFoundError):
            return Condition.DISK_ERROR
        return Condition.DAMAGED
    return Condition.WHOLE


def _read_own_entry(layout: Layout, found: Object) -> Entry:
    """The entry at the place of an object. Raises :class:`Damaged` if another object's is there."""
    entry = read_entry(layout.pack(found.pack), found.offset, found.length)
    if entry.object_id != found.id:
        raise Damaged(f"object {found.id}", reason=f"its place holds entry {entry.name}")
    return entry
