"""Reads entries, records and layers of objects from packs. Runs in a worker process."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from fsmount.codec.delta import delta, record
from fsmount.codec.delta.delta import Layer, TileLayout
from fsmount.codec.delta.record import Record
from fsmount.codec.images import images
from fsmount.codec.memory import WorkerMemory
from fsmount.codec.png.samples import Frame
from fsmount.errors import Damaged
from fsmount.store.frames.layers import DecodedLayer, Layers
from fsmount.store.packs.entries import NO_PAYLOAD, layout_of
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import Entry, read_entry
from fsmount.work import machine

_MAX_NESTING = 4
_MOST_THREADS = 4


class _Opened(NamedTuple):
    """An entry and its layout. `touched` has the ids of the objects that were read for both."""

    entry: Entry
    layout: TileLayout
    touched: frozenset[int]


@functools.cache
def _decoders() -> ThreadPoolExecutor | None:
    """The threads that decode images, or None if this process has only one core."""
    cores = machine.cores()
    return ThreadPoolExecutor(min(cores, _MOST_THREADS)) if cores > 1 else None


class Reader:
    """Reads the objects at the locations `places`.

    memory : caches records from one job to the next.
    layers : has layers that are decoded already, and gets the others.
    touched : ids of all objects whose entries the results of this job depend on, whether they came
        from a cache or not.

    One job decodes no layer twice, even if `layers` keeps only some. Packs are read by path, so the
    methods wait for the disk. Contract: one thread uses a reader.
    """

    def __init__(self, places: Sequence[Location], memory: WorkerMemory, layers: Layers) -> None:
        self._places = {place.id: place for place in places}
        self.memory = memory
        self.layers = layers
        self.begin()

    def begin(self) -> None:
        """Begin another job: clear `touched`, and all that the last job decoded."""
        self.touched: set[int] = set()
        self._decoded: dict[int, DecodedLayer] = {}
        self._opened: dict[int, _Opened] = {}
        self._images: dict[int, Future[Frame]] = {}

    def place(self, object_id: int) -> Location:
        """Return the location of an object and add the object to `touched`.

        Raises :class:`Damaged` if the object is not in the given `places`.
        """
        self.touched.add(object_id)
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
        if not anchor:
            return _named(entry, record.unpack(entry.record))
        place = self.place(anchor)
        key = (place.pack, anchor)
        found = self.memory.records.get_as(key, Record)
        if found is None:
            other = self.entry(anchor)
            if record.anchor_of(other.record):
                raise Damaged(f"object {anchor}", reason="an anchor that has an anchor")
            found = _named(other, record.unpack(other.record))
            self.memory.records.put(key, found, sum(map(len, found.arrays.values())) + 2000)
        return _named(entry, record.unpack(entry.record, found))

    def layer(self, object_id: int, nesting: int = 0) -> Layer:
        """Return the pixels that an object codes itself. As :meth:`decoded_layer`."""
        return self.decoded_layer(object_id, nesting).layer

    def decoded_layer(self, object_id: int, nesting: int = 0) -> DecodedLayer:
        """Return the layer of an object and the objects that it rests on.

        `nesting` is the number of residuals above this object. Raises :class:`Damaged`, also if
        residuals nest more than four deep.
        """
        place = self.place(object_id)
        key = (place.pack, object_id)
        found: DecodedLayer | None = self._decoded.get(object_id) or self.layers.get(key)
        if found is None:
            if nesting > _MAX_NESTING:
                raise Damaged(f"object {object_id}", reason="residuals nest too deep")
            outer, self.touched = self.touched, set()
            try:
                entry, layout = self._open(object_id)
                layer, level = self.decode(entry, layout, nesting)
                found = DecodedLayer(layer, frozenset(self.touched), level)
            finally:
                self.touched |= outer
            self.layers.put(key, found)
        self._decoded[object_id] = found
        self.touched |= found.below
        return found

    def keep(self, object_id: int, known: DecodedLayer) -> None:
        """Leave the layer of one of the objects in `layers`, if another frame can copy from it."""
        if len(known.layer.pixels):
            self.layers.put((self.place(object_id).pack, object_id), known)

    def _open(self, object_id: int) -> tuple[Entry, TileLayout]:
        """Return the entry and layout of an object. A job reads them once."""
        found = self._opened.get(object_id)
        if found is None:
            outer, self.touched = self.touched, set()
            try:
                entry = self.entry(object_id)
                found = _Opened(entry, layout_of(self.record(entry)), frozenset(self.touched))
            finally:
                self.touched |= outer
            self._opened[object_id] = found
        self.touched |= found.touched
        return found.entry, found.layout

    def prefetch(self, entry: Entry, layout: TileLayout) -> None:
        """Start to decode all images that the frame of an entry needs, on several threads.

        `layout` is the layout of `entry`. No-op if this process has only one core, or if the frame
        needs no other object. Does not change `touched`. Raises :class:`Damaged`.
        """
        threads = _decoders()
        wanted = layout.copied() | layout.predicting()
        if threads is None or not wanted:
            return
        seen = {entry.object_id}
        touched = self.touched.copy()
        while True:
            if entry.suffix != NO_PAYLOAD:
                decode = functools.partial(images.decode, entry.suffix, entry.payload)
                self._images[entry.object_id] = threads.submit(decode, layout.shape[2])
            cold = [self.place(i) for i in wanted - seen]
            cold = [place for place in cold if (place.pack, place.id) not in self.layers]
            if not cold:
                break
            # Start with the largest: a large image that starts last would delay the end.
            largest = max(cold, key=lambda place: place.length).id
            seen.add(largest)
            entry, layout = self._open(largest)
            wanted |= layout.predicting()
        # A later use of a layer adds its objects to `touched`.
        self.touched = touched

    def decode(self, entry: Entry, layout: TileLayout, nesting: int = 0) -> tuple[Layer, int]:
        """Decode the layer of an entry from its payload. Return the layer and its level.

        The level is that of :class:`DecodedLayer`. `nesting` is the number of residuals above this
        entry. Raises :class:`Damaged`.
        """
        image = None
        ahead = self._images.pop(entry.object_id, None)
        if ahead is not None:
            image = ahead.result()
        elif entry.suffix != NO_PAYLOAD:
            image = images.decode(entry.suffix, entry.payload, layout.shape[2])
        others = {i: self.decoded_layer(i, nesting + 1) for i in sorted(layout.predicting())}
        layers = {i: known.layer for i, known in others.items()}
        level = 1 + max((known.level for known in others.values()), default=-1)
        return delta.layer(layout, image, layers), level


def _named(entry: Entry, found: Record) -> Record:
    """Return the record. Raises :class:`Damaged` if its id is not the one in the entry's name."""
    if found.header.get("id") != entry.object_id:
        raise Damaged(f"entry {entry.name}", reason="its record is that of another object")
    return found
