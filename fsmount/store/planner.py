"""Which objects the tiles of a new frame are taken from.

For each geometry (frame shape and sample type) a :class:`Book` remembers which object coded a tile
of which content at which place. A tile that any remembered object coded at the same place is not
coded again. What a frame may touch is bounded by :data:`MAX_OBJECTS`: where more objects would be
needed, those that cover least are coded afresh.

Names play no part: a frame is matched by what it shows, so neither temporary names nor several
writers at once mislead the search.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fsmount.codec.delta import MAX_SLOTS, OWN, Copy, Fill, Source, Tiles
from fsmount.codec.samples import Frame

MAX_OBJECTS = 24
# Objects that residuals of one frame are predicted from; a frame that copies from such an object
# reads these, too.
MAX_GUESSES = 4
KEY_SHARE = 0.85
MAX_FILLS = 8
# Memory of a book: about 120 bytes an entry.
MAX_TILES = 150_000
MAX_BOOKS = 4
_PLACE = np.uint64(0xD6E8FEB86659FD93)
# Bytes of a key that are kept. A false hit costs one keyframe; with 40 bits and a full book that is
# one in some 30,000 frames, and saves a seventh of what a remembered tile costs on disk.
KEY_BYTES = 5


@dataclass(frozen=True)
class Sighting:
    """What a worker found out about a frame: all that the planner needs of it.

    `signatures`, `is_flat` (tile rows, tile columns); `colours` (.., channels).
    """

    shape: tuple[int, int, int]
    dtype: str
    signatures: NDArray[np.uint64]
    is_flat: NDArray[np.bool_]
    colours: Frame

    @property
    def geometry(self) -> str:
        """Frames of the same geometry may share tiles."""
        return f"{self.shape[1]}x{self.shape[0]}x{self.shape[2]}:{self.dtype}"


@dataclass(frozen=True)
class Plan:
    """Slots and sources as in :class:`~fsmount.codec.delta.Layout`, and the record's anchor.

    `guess`: for own tiles the slot of the object that last stood there (0: none), a candidate to
    predict residuals from; `anchor` 0: none.
    """

    tiles: Tiles
    sources: tuple[Source, ...]
    guess: Tiles
    anchor: int


@dataclass
class Book:
    """What is remembered of one geometry."""

    coder: dict[int, int] = field(default_factory=dict)
    keys_of: OrderedDict[int, list[int]] = field(default_factory=OrderedDict)
    anchor: int = 0
    anchor_sources: tuple[Source, ...] = ()
    shown: NDArray[np.int64] | None = None
    simple: set[int] = field(default_factory=set)

    def remember(self, object_id: int, keys: list[int], *, simple: bool) -> None:
        """`object_id` coded tiles with these keys; `simple`: without residuals."""
        if not keys:
            return
        self.keys_of[object_id] = keys
        for key in keys:
            self.coder[key] = object_id
        if simple:
            self.simple.add(object_id)
        while len(self.coder) > MAX_TILES and len(self.keys_of) > 1:
            self.forget(next(iter(self.keys_of)))

    def forget(self, object_id: int) -> None:
        """Let no further frame take tiles from an object."""
        for key in self.keys_of.pop(object_id, []):
            if self.coder.get(key) == object_id:
                del self.coder[key]
        self.simple.discard(object_id)
        if self.anchor == object_id:
            self.anchor, self.anchor_sources = 0, ()


def tile_keys(signatures: NDArray[np.uint64]) -> list[int]:
    """One number of KEY_BYTES for content and place of each tile, in row order."""
    places = np.arange(1, signatures.size + 1, dtype=np.uint64) * _PLACE
    keys = (signatures.ravel() ^ places) & np.uint64((1 << 8 * KEY_BYTES) - 1)
    return [int(key) for key in keys.tolist()]


def dump_keys(keys: list[int]) -> bytes:
    """Keys as they are kept in the index."""
    return np.array(keys, "<u8").view(np.uint8).reshape(-1, 8)[:, :KEY_BYTES].tobytes()


def load_keys(data: bytes) -> list[int]:
    """The inverse of :func:`dump_keys`; a rest that is no key is left out."""
    count = len(data) // KEY_BYTES
    padded = np.zeros((count, 8), np.uint8)
    kept = np.frombuffer(data, np.uint8, count * KEY_BYTES)
    padded[:, :KEY_BYTES] = kept.reshape(count, KEY_BYTES)
    return [int(key) for key in padded.view("<u8").ravel().tolist()]


class Planner:
    """The books, and plans from them. Only the task that owns the store may call it."""

    def __init__(self) -> None:
        self._books: OrderedDict[str, Book] = OrderedDict()

    def knows(self, geometry: str) -> bool:
        """Whether a book is open for a geometry (else its signatures may be loaded)."""
        return geometry in self._books

    def book(self, geometry: str) -> Book:
        """The book of a geometry; opening one too many closes the one unused for longest."""
        book = self._books.setdefault(geometry, Book())
        self._books.move_to_end(geometry)
        while len(self._books) > MAX_BOOKS:
            self._books.popitem(last=False)
        return book

    def load(self, geometry: str, stored: Iterable[tuple[int, bytes]]) -> None:
        """Fill a book from what :func:`dump_signatures` wrote, oldest object first."""
        book = self.book(geometry)
        for object_id, data in stored:
            book.remember(object_id, load_keys(data), simple=False)

    def plan(self, seen: Sighting) -> Plan:
        """Slots for every tile of a frame."""
        book = self.book(seen.geometry)
        owners = np.array(
            [book.coder.get(key, 0) for key in tile_keys(seen.signatures)], np.int64
        ).reshape(seen.signatures.shape)
        _keep_largest(owners, MAX_OBJECTS)
        if (owners == 0).mean() > KEY_SHARE:
            owners[:] = 0
        fills = _fills(owners, seen) if owners.any() else {}
        wanted = {int(owner) for owner in np.unique(owners) if owner}
        before = book.shown if book.shown is not None else np.zeros_like(owners)
        guessed = _guesses(owners, before, book.simple, wanted)
        slots, sources = _slots(book, sorted(wanted | guessed), fills)
        tiles = np.zeros(owners.shape, np.uint8)
        for owner in wanted:
            tiles[owners == owner] = slots[owner]
        for colour, mask in fills.items():
            tiles[mask & (owners == 0)] = slots[colour]
        guess = np.zeros(owners.shape, np.uint8)
        for owner in guessed:
            guess[(tiles == OWN) & (before == owner)] = slots[owner]
        return Plan(tiles, sources, guess, book.anchor if wanted else 0)

    def encoded(
        self, seen: Sighting, plan: Plan, tiles: Tiles, object_id: int, *, simple: bool, anchor: int
    ) -> bytes:
        """Note that `object_id` now holds the frame; what to keep for the next start.

        `tiles`: the slots as coded; `anchor`: of its record (0: it is an anchor itself).
        """
        book = self.book(seen.geometry)
        own = (tiles == OWN).ravel()
        keys = tile_keys(seen.signatures)
        own_keys = [keys[i] for i in np.flatnonzero(own).tolist()]
        book.remember(object_id, own_keys, simple=simple)
        shown = np.zeros(tiles.shape, np.int64)
        for slot, source in enumerate(plan.sources, start=1):
            if isinstance(source, Copy):
                shown[tiles == slot] = source.object
        shown[tiles == OWN] = object_id
        book.shown = shown
        if not anchor:
            book.anchor, book.anchor_sources = object_id, plan.sources
        return dump_keys(own_keys)

    def forget(self, object_id: int) -> None:
        """An object turned out to be unusable: take nothing from it any more."""
        for book in self._books.values():
            book.forget(object_id)


def _keep_largest(owners: NDArray[np.int64], most: int) -> None:
    """Set tiles to 0 (coded afresh) whose object is not among the `most` that cover most."""
    counts = Counter(owners[owners != 0].tolist())
    if len(counts) > most:
        dropped = [owner for owner, _ in counts.most_common()[most:]]
        owners[np.isin(owners, dropped)] = 0


def _fills(owners: NDArray[np.int64], seen: Sighting) -> dict[tuple[int, ...], NDArray[np.bool_]]:
    """The commonest colours of flat tiles that nobody coded yet."""
    free = seen.is_flat & (owners == 0)
    counts = Counter(map(tuple, seen.colours[free].tolist()))
    return {
        colour: free & (seen.colours == np.array(colour)).all(axis=2)
        for colour, _ in counts.most_common(MAX_FILLS)
    }


def _guesses(
    owners: NDArray[np.int64], before: NDArray[np.int64], simple: set[int], wanted: set[int]
) -> set[int]:
    """The few objects worth predicting from, within the bound on objects."""
    counts = Counter(before[(owners == 0) & (before != 0)].tolist())
    found: set[int] = set()
    for owner, _ in counts.most_common():
        fits = owner in wanted or len(wanted | found) < MAX_OBJECTS
        if owner in simple and fits and len(found) < MAX_GUESSES:
            found.add(owner)
    return found


def _slots(
    book: Book, objects: list[int], fills: Iterable[tuple[int, ...]]
) -> tuple[dict[int | tuple[int, ...], int], tuple[Source, ...]]:
    """A slot for each object and colour, where the anchor had it if it had it.

    The anchor itself is slot 1, so that maps of frames that show the same agree in most bytes.
    """
    sources: list[Source] = [None] * MAX_SLOTS
    slots: dict[int | tuple[int, ...], int] = {}
    wanted: dict[int | tuple[int, ...], Source] = {owner: Copy(owner) for owner in objects}
    wanted |= {colour: Fill(colour) for colour in fills}
    old: dict[Source, int] = {
        source: i for i, source in enumerate(book.anchor_sources) if source is not None and i
    }
    for name, source in wanted.items():
        place = 0 if name == book.anchor else old.get(source)
        if place is not None:
            slots[name], sources[place] = place + 1, source
    free = (i for i in range(1, MAX_SLOTS) if sources[i] is None)
    for name, source in sorted(wanted.items(), key=lambda item: str(item[0])):
        if name not in slots:
            place = next(free)
            slots[name], sources[place] = place + 1, source
    while sources and sources[-1] is None:
        sources.pop()
    return slots, tuple(sources)
