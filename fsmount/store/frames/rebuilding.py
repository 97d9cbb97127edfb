"""Reads objects whose entries are damaged, with bytes that the parity of their packs gives back.

An entry may be damaged where no checksum of its own covers it. So a job of this module compares
every block of every entry with the checksums in the parity. The hash of the file decides in the
end, so wrong parity gives no wrong file.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fsmount.codec.memory import WorkerMemory
from fsmount.errors import Damaged
from fsmount.store.frames import jobs
from fsmount.store.frames.layers import JobLayers, Loan
from fsmount.store.frames.reader import Reader
from fsmount.store.packs import parity
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import Entry, parse_entry, read_entry


@dataclass(frozen=True)
class Rebuilt:
    """Bytes of a pack that are damaged, and were rebuilt for a reader.

    pack : path of the pack.
    offset, length : range of the damaged blocks in bytes.
    """

    pack: str
    offset: int
    length: int


def render(
    target: Location, places: Sequence[Location], sha256: bytes
) -> tuple[bytes, list[Rebuilt]]:
    """Render the file of an object from rebuilt entries. As :func:`jobs.render`.

    Uses nothing that another job has read. Returns the bytes of the file and what was rebuilt.
    Raises :class:`Damaged`, also if there was nothing to rebuild.
    """
    reader = _Reader([*places, target], WorkerMemory(), JobLayers(Loan()))
    data = jobs.rendered(reader.entry(target.id), reader, sha256)
    if not reader.rebuilt:
        raise Damaged(f"object {target.id}", reason="its entries are as their parity knows them")
    return data, reader.rebuilt


def entry(place: Location) -> tuple[Entry, list[Rebuilt]]:
    """Read an entry. Use the parity of its pack if it is damaged. May wait for the disk.

    Returns the entry and what was rebuilt. Raises :class:`Damaged`.
    """
    try:
        found = read_entry(Path(place.pack), place.offset, place.length)
        if found.object_id != place.id:
            raise Damaged(place.pack, reason=f"entry {found.name} instead of object {place.id}")
    except Damaged:
        with suppress(Damaged, OSError):
            return _from_parity(place)
        raise
    return found, []


class _Reader(Reader):
    """A reader that compares each entry with the parity of its pack.

    rebuilt : what it has rebuilt so far.
    """

    rebuilt: list[Rebuilt]

    def begin(self) -> None:
        """See :meth:`Reader.begin`."""
        super().begin()
        self.rebuilt = []

    def entry(self, object_id: int) -> Entry:
        """See :meth:`Reader.entry`."""
        place = self.place(object_id)
        try:
            found, rebuilt = _from_parity(place)
        except (Damaged, OSError):
            # The parity is missing, damaged or older than the entry. This says nothing of the
            # entry.
            return super().entry(object_id)
        self.rebuilt += rebuilt
        return found


def _from_parity(place: Location) -> tuple[Entry, list[Rebuilt]]:
    """Read an entry, with rebuilt bytes where a block is not as the parity knows it.

    Raises OSError, and :class:`Damaged` if the parity gives no whole entry of this object.
    """
    path = Path(place.pack)
    known = parity.load_of(path)
    with parity.reading(path) as fd:
        data, bad = known.read(fd, place.offset, place.length)
    found, end = parse_entry(data)
    if end != place.length or found.object_id != place.id:
        raise Damaged(known.path, reason="it is older than the entry")
    runs = parity.stretches(bad)
    size = parity.BLOCK
    return found, [Rebuilt(place.pack, first * size, count * size) for first, count in runs]
