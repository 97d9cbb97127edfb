"""Copies objects from one store to another without decoding a picture.

Payloads are taken as they are. A record names other objects by their ids: its own, those of its
sources, that of its anchor. So it is unpacked, the ids are exchanged for those of the copies, and
it is packed again. What an object needs is copied before it.

An object that only gives pixels, or a record, to others is copied without what only its own file
needs (a *layer-only* object, as a repack leaves). Its record may name objects that are not copied.
They get ids at once, which no other object gets, so the object is completed when its file is copied
later.

Equal files are one object in the target, however either store has coded them. As a source of
pixels an object of the target takes the place of a copy (a *twin*) if it shows the same file and
codes the same tiles in the same way: then its pixels are the same, and residuals nest as deep. So a
run that was stopped goes on where it was.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import trio

from fsmount.codec.delta import record
from fsmount.codec.delta.record import Record
from fsmount.errors import Damaged
from fsmount.lru import Lru
from fsmount.store.files import StoreFiles
from fsmount.store.frames import rebuilding
from fsmount.store.index import Object
from fsmount.store.packs.bodies import KeptBody, load_sums
from fsmount.store.packs.entries import DICTIONARY, FileFacts
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import Entry, build_entry, read_entry
from fsmount.store.writable_store import WritableStore

# Bytes of entries, and number of objects, that one commit holds at most.
_BATCH_BYTES, _BATCH = 16 << 20, 256
_ANCHOR_BYTES = 8 << 20
# Keys of a header that say nothing about the coding.
_NAMES = ("id", "path", "mtime", "sources")


def exchanged(found: Record, ids: Callable[[int], int], object_id: int, path: str | None) -> Record:
    """Return the record of a copy: `ids` gives the new id of each object that it names.

    `object_id` is the id of the copy. `path` is the path of its file, None to leave it. Raises what
    `ids` raises, and :class:`Damaged` if a source is none.
    """
    header = {**found.header, "id": object_id}
    if path is not None and "path" in header:
        header["path"] = path
    if "sources" in header:
        header["sources"] = [_source(value, ids) for value in header["sources"]]
    return Record(header, found.arrays)


def _source(value: Any, ids: Callable[[int], int]) -> Any:
    """Exchange the id in one source of a record (`docs/format.md`, Frames). Raises Damaged."""
    if value is None or isinstance(value, dict):
        return value
    if isinstance(value, int):
        return ids(value)
    if isinstance(value, list) and len(value) == 3:
        return [ids(value[0]), *value[1:]]
    raise Damaged("record", reason=f"a source {value!r}")


class _Read(NamedTuple):
    """An entry, its record, and the id of its anchor (0 for none)."""

    entry: Entry
    record: Record
    anchor: int


class _Reader:
    """Reads entries and records of a store. `place` gives the location of an object.

    Methods wait for the disk.
    """

    def __init__(self, place: Callable[[int], Location]) -> None:
        self._place = place
        self._anchors: Lru[int, Record] = Lru(_ANCHOR_BYTES)

    def read(self, object_id: int) -> _Read:
        """Read an object, with the parity of its pack if it is damaged.

        Raises :class:`Damaged`.
        """
        entry = self._entry(object_id)
        anchor = record.anchor_of(entry.record)
        known = self.anchor(anchor) if anchor else None
        if anchor and known is None:
            raise Damaged(f"object {anchor}", reason="an anchor that has an anchor")
        return _Read(entry, record.unpack(entry.record, known), anchor)

    def anchor(self, object_id: int) -> Record | None:
        """Read the record of an anchor; None if the object has an anchor itself. Raises Damaged."""
        known = self._anchors.get(object_id)
        if known is None:
            stored = self._entry(object_id).record
            if record.anchor_of(stored):
                return None
            known = record.unpack(stored)
            self._anchors.put(object_id, known, sum(map(len, known.arrays.values())))
        return known

    def _entry(self, object_id: int) -> Entry:
        """Read an entry, also if a repack in another process moves it meanwhile. Raises Damaged."""
        while True:
            place = self._place(object_id)
            try:
                return rebuilding.entry(place)[0]
            except Damaged:
                if self._place(object_id) == place:
                    raise


class ObjectCopier:
    """Copies objects of `source` to `target`, which does not encode meanwhile.

    Contract: belongs to the trio task. Nothing else appends to `target`. It waits for the disk in
    the trio task, because that serves nobody else: a copy is a command of its own.
    """

    def __init__(self, source: StoreFiles, target: WritableStore) -> None:
        self._source = source
        self._target = target
        self._writer = target.writer
        self._from = _Reader(self._source_place)
        self._to = _Reader(target.writer.place)
        # Id in the source -> id of the copy or the twin in the target.
        self._copies: dict[int, int] = {}
        # The same for objects that are not copied yet, and that records of the target name.
        self._reserved: dict[int, int] = {}
        # Rows that come with the next commit: new ones, and those that get what their file needs.
        self._new: list[Object] = []
        self._completed: list[Object] = []
        self._entries: dict[int, Entry] = {}
        self._bytes = 0
        # Copies of files in raw/ that no committed row names yet.
        self._kept: list[Path] = []
        self._layers: dict[bytes, list[int]] | None = None
        self.copied = 0

    def _source_place(self, object_id: int) -> Location:
        found = self._source.index.object(object_id)
        path = str(self._source.layout.pack(found.pack))
        return Location(found.id, path, found.offset, found.length, found.has_layer)

    @property
    def is_full(self) -> bool:
        """Whether a commit is due."""
        return self._bytes >= _BATCH_BYTES or len(self._new) + len(self._completed) >= _BATCH

    async def file(self, object_id: int, path: bytes) -> int:
        """Return the object of the target that shows the file of an object, copied if need be.

        `path` is the path of the file in the target. The object counts from the next
        :meth:`commit` on. Raises :class:`Damaged`, OSError.
        """
        found = self._source.index.object(object_id)
        if found.is_layer_only:
            raise Damaged(f"object {object_id}", reason="it cannot be rendered")
        twin = self._writer.find(found.sha256, found.size) if found.sha256 else None
        if twin is not None:
            return twin
        for needed in found.needs:
            await self._layer(needed)
        known = self._from.read(object_id)
        copy = self._copies.get(object_id) or self._twin(known)
        if copy is None or not self._is_exact(known, copy):
            return await self._append(found, known, os.fsdecode(path))
        self._copies[object_id] = copy
        row = self._writer.object(copy)
        self._completed.append(replace(row, needs=self._needs(found.needs), sha256=found.sha256))
        return copy

    async def _layer(self, object_id: int) -> None:
        """Make the target have the pixels of an object, and its record."""
        if object_id in self._copies:
            return
        found = self._source.index.object(object_id)
        for needed in found.layer:
            await self._layer(needed)
        known = self._from.read(object_id)
        twin = self._twin(known)
        if twin is not None:
            self._copies[object_id] = twin
            self._reserve(known.record, self._to.read(twin).record)
        elif found.kind == DICTIONARY:
            await self._append(found, known, None)
        else:
            await self._append(replace(found, needs=found.layer, sha256=b""), known, None)

    # -- ids

    def _id(self, object_id: int) -> int:
        """The id of a copy or twin. Raises :class:`Damaged` if the index does not list it."""
        try:
            return self._copies[object_id]
        except KeyError:
            raise Damaged(f"object {object_id}", reason="needed and not listed") from None

    def _named(self, object_id: int) -> int:
        """The id for an object that a record names, whether it is copied or not."""
        known = self._copies.get(object_id) or self._reserved.get(object_id)
        if known is None:
            known = self._reserved[object_id] = self._target.new_id()
        return known

    def _reserve(self, mine: Record, other: Record) -> None:
        """Take over ids that the record of a twin has for objects that are not copied yet."""
        pairs = zip(_ids(mine), _ids(other), strict=False)
        for object_id, there in pairs:
            if object_id not in self._copies and self._target.index.known_object(there) is None:
                self._reserved.setdefault(object_id, there)

    def _needs(self, ids: Iterable[int]) -> tuple[int, ...]:
        """The ids of copies and twins, and all that their layers need."""
        found = set(map(self._id, ids))
        below = {number for each in found for number in self._writer.object(each).layer}
        return tuple(sorted(found | below))

    # -- twins

    def _twin(self, known: _Read) -> int | None:
        """An object of the target that codes the same pixels in the same way, or None."""
        sha256 = known.record.arrays.get("sha256", b"")
        for candidate in (*self._target.index.objects_of(sha256), *self._layers_of(sha256)):
            try:
                other = self._to.read(candidate)
            except Damaged:
                continue
            if self._is_twin(known.record, other.record) and self._has_pixels(known, other):
                return candidate
        return None

    def _is_twin(self, mine: Record, other: Record) -> bool:
        """Whether two objects of one file code the same tiles, predicted from the same objects."""
        if mine.arrays != other.arrays or _coding(mine) != _coding(other):
            return False
        used = set(mine.arrays.get("prediction", b"")) - {0}
        sources, others = mine.header.get("sources", ()), other.header.get("sources", ())
        try:
            return all(_source(sources[n - 1], self._id) == others[n - 1] for n in used)
        except (IndexError, Damaged):
            return False

    def _has_pixels(self, mine: _Read, other: _Read) -> bool:
        """Whether an object of the target has the pixels of all tiles that it codes.

        One that can be rendered has. A layer-only one may have been trimmed: its record says
        nothing of that, so it must have the very same payload.
        """
        if not self._writer.object(other.entry.object_id).is_layer_only:
            return True
        one, two = mine.entry, other.entry
        dictionary = self._copies.get(one.dictionary, 0)
        payload = one.suffix, one.payload, one.photographs, dictionary
        return payload == (two.suffix, two.payload, two.photographs, two.dictionary)

    def _is_exact(self, known: _Read, copy: int) -> bool:
        """Whether the record of a copy or twin names copies in all its sources."""
        try:
            wanted = exchanged(known.record, self._id, copy, None)
            return wanted.header.get("sources") == self._to.read(copy).record.header.get("sources")
        except Damaged:
            return False

    def _layers_of(self, sha256: bytes) -> list[int]:
        """Layer-only objects of the target whose record has this hash. The index has none."""
        if self._layers is None:
            self._layers = defaultdict(list)
            for found in self._target.index.all_objects():
                if found.is_layer_only:
                    with suppress(Damaged):
                        known = self._to.read(found.id).record
                        self._layers[known.arrays.get("sha256", b"")].append(found.id)
        return self._layers.get(sha256, [])

    # -- new copies

    async def _append(self, found: Object, known: _Read, path: str | None) -> int:
        """Append a copy of an object with the needs and the hash of `found`. Return its id."""
        for named in filter(None, (*_ids(known.record), known.entry.dictionary)):
            # These ids come before that of the copy, so no later opening gives them again.
            self._named(named)
        new_id = self._reserved.pop(found.id, None) or self._target.new_id()
        fresh = exchanged(known.record, self._named, new_id, path)
        anchor = self._id(known.anchor) if known.anchor else 0
        anchor_record = self._to.anchor(anchor) if anchor else None
        if anchor_record is None:
            # A twin may have an anchor itself. The record then stands alone.
            anchor = 0
        stored = record.pack(fresh, anchor, anchor_record)
        if record.unpack(stored, anchor_record) != fresh:
            raise Damaged(f"object {found.id}", reason="its record does not come back")
        entry = replace(
            known.entry,
            name=f"{new_id:08x}{known.entry.suffix}",
            record=stored,
            # Of an object that is only an anchor, the dictionary may be dropped.
            dictionary=self._named(known.entry.dictionary) if known.entry.dictionary else 0,
        )
        if found.is_kept:
            self._keep(found, new_id, load_sums(entry.payload))
        header = fresh.header
        about = FileFacts(
            new_id, header.get("path", ""), header.get("mtime", 0), found.sha256, found.size
        )
        done = await self._writer.append(
            entry,
            about,
            kind=found.kind,
            depth=found.depth,
            needs=self._needs(found.needs),
            layer=self._needs(found.layer),
            reason=found.reason,
        )
        assert done is not None
        self._copies[found.id] = new_id
        self._new.append(done)
        self._entries[new_id] = entry
        self._bytes += done.length
        self.copied += 1
        return new_id

    def _keep(self, found: Object, new_id: int, sums: dict[int, bytes]) -> None:
        """Copy a file of ``raw/``, force it and compare it with its sums.

        Raises :class:`Damaged`, OSError.
        """
        disk, place = self._target.disk, self._target.layout.kept(new_id)
        try:
            source = disk.open(self._source.layout.kept(found.id), os.O_RDONLY)
        except FileNotFoundError as error:
            raise Damaged(self._source.layout.kept(found.id), reason="it is missing") from error
        try:
            target = disk.create(place)
            try:
                disk.copy(source, target, found.size)
                disk.fsync(target)
            finally:
                disk.close(target)
            KeptBody(place, found.size, sums).verify()
        except BaseException:
            disk.unlink(place)
            raise
        finally:
            disk.close(source)
        self._kept.append(place)
        disk.fsync_folder(place.parent)

    async def commit(self, rows: Callable[[], None]) -> None:
        """Read all new entries back, then commit them. `rows` adds rows in the same transaction.

        Raises what the disk, the index or a comparison raises. Then the target has none of the
        copies since the last commit, and the caller calls :meth:`give_up`.
        """
        for new in self._new:
            self._compare(new)
        await self._writer.commit(lambda: self._turn(rows))
        for new in self._new:
            self._writer.forget(new.id)
        self._forget()
        await self._writer.force()

    def _compare(self, new: Object) -> None:
        """Read a new entry back. Raises :class:`Damaged` if it is not what was written."""
        path = self._target.layout.pack(new.pack)
        wanted = self._entries[new.id]
        if read_entry(path, new.offset, new.length) != wanted:
            raise Damaged(path, reason="it does not hold what was written")
        if len(build_entry(wanted)) != new.length:
            raise Damaged(path, reason="an entry of another length")

    def _turn(self, rows: Callable[[], None]) -> None:
        """Add and complete the rows of objects. Runs inside the transaction."""
        for new in self._new:
            self._target.index.add_object(new)
        for row in self._completed:
            self._target.index.complete_object(row)
        rows()

    def _forget(self) -> None:
        self._new, self._completed, self._entries = [], [], {}
        self._kept, self._bytes = [], 0

    async def give_up(self) -> None:
        """Remove what was copied since the last commit. The copier is not used any more."""
        kept = self._kept
        self._forget()
        with trio.CancelScope(shield=True):
            await self._writer.give_up()
        for path in kept:
            self._target.disk.unlink(path)


def _coding(found: Record) -> dict[str, Any]:
    """The part of a header that says how pixels become the file."""
    return {key: value for key, value in found.header.items() if key not in _NAMES}


def _ids(found: Record) -> list[int]:
    """The ids in the sources of a record, in their order."""
    ids: list[int] = []

    def note(object_id: int) -> int:
        ids.append(object_id)
        return object_id

    for value in found.header.get("sources", ()):
        _source(value, note)
    return ids
