"""Reads entries, records and layers of objects from packs. Runs in a worker process."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from fsmount.codec.delta import delta, payload, record
from fsmount.codec.delta.delta import Layer, TileLayout
from fsmount.codec.delta.record import Record
from fsmount.codec.memory import WorkerMemory
from fsmount.codec.png.samples import Frame
from fsmount.codec.zstd import Dictionary
from fsmount.errors import Damaged, NotExact
from fsmount.store.frames.layers import DecodedLayer, Layers
from fsmount.store.frames.pending import PendingObject
from fsmount.store.packs.entries import dictionary_content, layout_of
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import Entry, read_entry
from fsmount.work import machine

_MAX_NESTING = 4
# Bytes of memory that a dictionary takes once something was coded with it, for each of its content.
_PREPARED = 8
_MOST_THREADS = 4


@functools.cache
def _decoders() -> ThreadPoolExecutor | None:
    """The threads that decode images, or None if this process has only one core."""
    cores = machine.cores()
    return ThreadPoolExecutor(min(cores, _MOST_THREADS)) if cores > 1 else None


class _Known(NamedTuple):
    """A dictionary in the cache of a process, and the SHA-256 of its content by its record."""

    dictionary: Dictionary
    sha256: bytes


class Reader:
    """Reads the objects at the locations `places`, and the pending ones.

    memory : caches records from one job to the next.
    layers : has layers that are decoded already, and gets the others.
    pending : objects that have no entry yet.
    dictionary : the entry of a dictionary that no pack has yet, or None.

    One job decodes no layer twice, even if `layers` keeps only some. Packs are read by path, so the
    methods wait for the disk. Contract: one thread uses a reader.
    """

    def __init__(
        self,
        places: Sequence[Location],
        memory: WorkerMemory,
        layers: Layers,
        pending: Sequence[PendingObject] = (),
        dictionary: Entry | None = None,
    ) -> None:
        self._places = {place.id: place for place in places}
        self._pending = {each.about.id: each for each in pending}
        self._new_dictionary = dictionary
        self.memory = memory
        self.layers = layers
        self.begin()

    def begin(self) -> None:
        """Begin another job: drop all that the last job decoded."""
        self._decoded: dict[int, DecodedLayer] = {}
        self._opened: dict[int, tuple[Entry, TileLayout]] = {}
        self._tiles: dict[int, Future[Frame]] = {}
        self._dictionaries: dict[int, Dictionary] = {}

    def place(self, object_id: int) -> Location:
        """Return the location of an object.

        Raises :class:`Damaged` if the object is not in the given `places`.
        """
        try:
            return self._places[object_id]
        except KeyError:
            raise Damaged(f"object {object_id}", reason="needed and not listed") from None

    def entry(self, object_id: int) -> Entry:
        """Read the entry of an object.

        Raises :class:`Damaged` if it is damaged, cannot be read or is that of another object.
        """
        place = self.place(object_id)
        entry = read_entry(Path(place.pack), place.offset, place.length)
        if entry.object_id != object_id:
            raise Damaged(place.pack, reason=f"entry {entry.name} instead of object {object_id}")
        return entry

    def record(self, entry: Entry) -> Record:
        """Unpack the record of an entry. Read the record of its anchor first if it has one.

        Raises :class:`Damaged` if a record is invalid or that of another object, or if the anchor
        has an anchor.
        """
        anchor = record.anchor_of(entry.record)
        found = self._known_anchor(anchor) if anchor else None
        return _named(entry.object_id, record.unpack(entry.record, found))

    def anchor(self, object_id: int) -> Record:
        """Read the record of an object that is the anchor of another record.

        It never comes from a cache: :meth:`record` may use one, and so notices a cache that is
        wrong when a new record is read back. Raises :class:`Damaged`, as :meth:`record`.
        """
        if object_id in self._pending:
            return self._pending[object_id].record()
        stored = self.entry(object_id).record
        if record.anchor_of(stored):
            raise Damaged(f"object {object_id}", reason="an anchor that has an anchor")
        return _named(object_id, record.unpack(stored))

    def assumed_anchor(self, object_id: int) -> bytes:
        """Return the SHA-256 of the stored record that a pending object must get.

        It is the one of :meth:`anchor`. b"" for other objects.
        """
        if object_id not in self._pending:
            return b""
        return hashlib.sha256(record.pack(self.anchor(object_id))).digest()

    def _known_anchor(self, object_id: int) -> Record:
        """As :meth:`anchor`, from the cache of this process if it is there."""
        if object_id in self._pending:
            return self.anchor(object_id)
        key = (self.place(object_id).pack, object_id)
        found = self.memory.records.get_as(key, Record)
        if found is None:
            found = self.anchor(object_id)
            self.memory.records.put(key, found, sum(map(len, found.arrays.values())) + 2000)
        return found

    def dictionary(self, object_id: int) -> Dictionary | None:
        """Return a dictionary, None for object 0.

        A cached one is compared with its hash once in each job. So what encodes and what proves the
        result do not trust the same bytes. Raises :class:`Damaged`.
        """
        if not object_id:
            return None
        if object_id not in self._dictionaries:
            self._dictionaries[object_id] = self._checked_dictionary(object_id)
        return self._dictionaries[object_id]

    def _checked_dictionary(self, object_id: int) -> Dictionary:
        """See :meth:`dictionary`."""
        entry, new = None, self._new_dictionary
        if new is not None and new.object_id == object_id:
            entry, key = new, (hashlib.sha256(new.payload).hexdigest(), object_id)
        else:
            key = self.place(object_id).pack, object_id
        known = self.memory.dictionaries.get_as(key, _Known)
        if known is None:
            entry, found = self._dictionary(object_id, entry)
            known = _Known(Dictionary(dictionary_content(entry, found)), found.arrays["sha256"])
            self.memory.dictionaries.put(key, known, _PREPARED * len(known.dictionary.content))
        if hashlib.sha256(known.dictionary.content).digest() != known.sha256:
            self.memory.dictionaries.discard(key)
            raise Damaged(f"object {object_id}", reason="the dictionary has another hash")
        return known.dictionary

    def _dictionary(self, object_id: int, entry: Entry | None) -> tuple[Entry, Record]:
        """Return the entry and the record of a dictionary. Reads the entry if it is None.

        Raises :class:`Damaged`.
        """
        entry = entry or self.entry(object_id)
        if record.anchor_of(entry.record):
            raise Damaged(f"object {object_id}", reason="a dictionary that has an anchor")
        return entry, _named(object_id, record.unpack(entry.record))

    def layer(self, object_id: int, nesting: int = 0) -> Layer:
        """Return the pixels that an object codes itself. As :meth:`decoded_layer`."""
        return self.decoded_layer(object_id, nesting).layer

    def level(self, object_id: int) -> int:
        """Return the level of an object's layer. As :meth:`decoded_layer`."""
        return self.decoded_layer(object_id).level

    def decoded_layer(self, object_id: int, nesting: int = 0) -> DecodedLayer:
        """Return the layer of an object.

        `nesting` is the number of residuals above this object. Raises :class:`Damaged`, also if
        residuals nest more than four deep.
        """
        found = self._decoded.get(object_id)
        if found is None:
            if object_id in self._pending:
                found = self._pending_layer(object_id)
            else:
                found = self._stored_layer(object_id, nesting)
            self._decoded[object_id] = found
        return found

    def _pending_layer(self, object_id: int) -> DecodedLayer:
        """Return the layer of a pending object. As :meth:`decoded_layer`."""
        try:
            return self._pending[object_id].layer(self.memory)
        except (NotExact, OSError) as error:
            # This says nothing of the file that the job is about.
            raise Damaged(f"object {object_id}", reason=error) from error

    def _stored_layer(self, object_id: int, nesting: int) -> DecodedLayer:
        """Return the layer of an object that has an entry. As :meth:`decoded_layer`."""
        key = (self.place(object_id).pack, object_id)
        found = self.layers.get(key)
        if found is None:
            if nesting > _MAX_NESTING:
                raise Damaged(f"object {object_id}", reason="residuals nest too deep")
            found = DecodedLayer(*self.decode(*self.opened(object_id), nesting))
            self.layers.put(key, found)
        return found

    def known_layer(self, object_id: int) -> DecodedLayer | None:
        """Return the layer of an object with an entry, if it is decoded already."""
        return self.layers.get((self.place(object_id).pack, object_id))

    def keep(self, object_id: int, known: DecodedLayer) -> None:
        """Leave the layer of one of the objects in `layers`, if another frame can copy from it."""
        if len(known.layer.pixels):
            self.layers.put((self.place(object_id).pack, object_id), known)

    def opened(self, object_id: int) -> tuple[Entry, TileLayout]:
        """Return the entry and layout of an object. A job reads them once. Raises Damaged."""
        found = self._opened.get(object_id)
        if found is None:
            entry = self.entry(object_id)
            found = self._opened[object_id] = entry, layout_of(self.record(entry))
        return found

    def prefetch(self, entry: Entry, layout: TileLayout) -> None:
        """Start to decode all images that the frame of an entry needs, on several threads.

        `layout` is the layout of `entry`. No-op if this process has only one core, or if the frame
        needs no other object. Raises :class:`Damaged`.
        """
        threads = _decoders()
        wanted = layout.copied() | layout.predicting()
        if threads is None or not wanted:
            return
        seen = {entry.object_id, *self._pending}
        while True:
            if entry.suffix != payload.NOTHING:
                decode = self._decoding(entry, layout)
                self._tiles[entry.object_id] = threads.submit(decode)
            cold = [self.place(i) for i in wanted - seen]
            cold = [place for place in cold if (place.pack, place.id) not in self.layers]
            if not cold:
                break
            # Start with the largest: a large image that starts last would delay the end.
            largest = max(cold, key=lambda place: place.length).id
            seen.add(largest)
            entry, layout = self.opened(largest)
            wanted |= layout.predicting()

    def decode(self, entry: Entry, layout: TileLayout, nesting: int = 0) -> tuple[Layer, int]:
        """Decode the layer of an entry from its payload. Return the layer and its level.

        The level is that of :class:`DecodedLayer`. `nesting` is the number of residuals above this
        entry. Raises :class:`Damaged`.
        """
        ahead = self._tiles.pop(entry.object_id, None)
        tiles = self._decoding(entry, layout)() if ahead is None else ahead.result()
        others = {i: self.decoded_layer(i, nesting + 1) for i in sorted(layout.predicting())}
        layers = {i: known.layer for i, known in others.items()}
        level = 1 + max((known.level for known in others.values()), default=-1)
        return delta.layer(layout, tiles, layers), level

    def _decoding(self, entry: Entry, layout: TileLayout) -> Callable[[], Frame]:
        """Return a function that decodes the own tiles of an entry, in any thread.

        Raises :class:`Damaged`, as the function does.
        """
        return functools.partial(
            payload.decode,
            entry.images,
            layout.own(),
            layout.shape,
            layout.dtype,
            self.dictionary(entry.dictionary),
        )


def _named(object_id: int, found: Record) -> Record:
    """Return the record. Raises :class:`Damaged` if it is that of another object."""
    if found.header.get("id") != object_id:
        raise Damaged(f"object {object_id}", reason="its record is that of another object")
    return found
