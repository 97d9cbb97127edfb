"""Which objects the tiles of a new frame are taken from.

For each geometry (frame shape and sample type) a :class:`Book` remembers from where a tile of which
content at which place can be copied. A tile that any remembered object coded at the same place, or
that an earlier frame took from another place, is not coded again. What a frame may touch is bounded
by :data:`MAX_OBJECTS`: where more objects would be needed, those that cover least are coded afresh.

Where much is new, the worker that encodes the frame looks for it at other places
(:mod:`fsmount.codec.delta.moves`) in the few objects that a plan names as `near`.

Names play no part: a frame is matched by what it shows, so neither temporary names nor several
writers at once mislead the search.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from fsmount.codec.delta.delta import MAX_SLOTS, OWN, Copy, Fill, Layout, Source, Tiles
from fsmount.codec.delta.moves import MIN_TILES
from fsmount.codec.png.samples import Frame

MAX_OBJECTS = 24
# Objects that residuals of one frame are predicted from; a frame that copies from such an object
# reads these, too.
MAX_GUESSES = 4
# Objects that are searched for what has moved, where at least _MANY tiles are new. Of 120 desktop
# frames eight of them make entries 1 % smaller than one does, for half of all time at ingest.
MAX_NEAR = 1
_MANY = 2 * MIN_TILES
# Copies from other places in one frame; those a worker finds come on top.
MAX_MOVED = 32
KEY_SHARE = 0.85
MAX_FILLS = 8
# Memory of a book: about 120 bytes an entry.
MAX_TILES = 150_000
MAX_BOOKS = 4
# Bytes of a tile's signature that are kept. A false hit costs a second encoding without the tiles
# that were wrong; with 24 bits and a full book of 1080p frames that is one frame in some thousands.
KEY_BYTES = 3
_HASH = (1 << 8 * KEY_BYTES) - 1
# Bytes that the index keeps of them for one picture, beyond the size of its file.
INDEX_BYTES = 4096
_HEAD = struct.Struct("<II")
_GROUP = struct.Struct("<IiiI")


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
    """Slots and sources as in :class:`~fsmount.codec.delta.delta.Layout`, and the record's anchor.

    `guess`: for own tiles the slot of the object that last stood there (0: none), a candidate to
    predict residuals from; `anchor` 0: none; `near`: objects to search for what has moved, the
    likeliest first.
    """

    tiles: Tiles
    sources: tuple[Source, ...]
    guess: Tiles
    anchor: int
    near: tuple[int, ...] = ()

    def objects(self) -> set[int]:
        """All objects that encoding it may touch, but for what those rest on."""
        copied = {source.object for source in self.sources if isinstance(source, Copy)}
        return (copied | {self.anchor, *self.near}) - {0}


@dataclass
class Book:
    """What is remembered of one geometry.

    An **origin** is where a tile can be copied from, as one number: the id of the object that coded
    it at the same place, or a negative number that stands for a moved copy in `moved`.
    """

    origin: dict[int, int] = field(default_factory=dict)
    keys_of: OrderedDict[int, list[int]] = field(default_factory=OrderedDict)
    moved: dict[int, Copy] = field(default_factory=dict)
    origin_of: dict[Copy, int] = field(default_factory=dict)
    anchor: int = 0
    anchor_sources: tuple[Source, ...] = ()
    shown: NDArray[np.int64] | None = None
    simple: set[int] = field(default_factory=set)
    # Keys of the newest frame and the origin of each: most are those of the next one, too.
    newest: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    def origins(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """The origin of each tile of a frame, 0: none; a new array of the shape of `keys`."""
        if self.newest is None:
            found, unknown = np.empty_like(keys), np.ones(keys.shape, bool)
        else:
            found, unknown = self.newest[1].copy(), keys != self.newest[0]
        found[unknown] = [self.origin.get(key, 0) for key in keys[unknown].tolist()]
        self.newest = keys, found
        return found.copy()

    def source(self, origin: int) -> Copy:
        """The source that an origin stands for."""
        return Copy(origin) if origin > 0 else self.moved[origin]

    def origin_for(self, copy: Copy) -> int:
        """The origin that stands for a source."""
        if not (copy.dx or copy.dy):
            return copy.object
        if copy not in self.origin_of:
            self.origin_of[copy] = min(self.moved, default=0) - 1
            self.moved[self.origin_of[copy]] = copy
        return self.origin_of[copy]

    def remember(self, copy: Copy, keys: list[int]) -> None:
        """Tiles with these keys can be copied from there."""
        if not keys:
            return
        self.keys_of[copy.object] = self.keys_of.get(copy.object, []) + keys
        number = self.origin_for(copy)
        for key in keys:
            self.origin[key] = number
        if self.newest is not None:
            self.newest[1][np.isin(self.newest[0], keys)] = number
        while len(self.origin) > MAX_TILES and len(self.keys_of) > 1:
            self.forget(next(iter(self.keys_of)))

    def forget(self, object_id: int) -> None:
        """Let no further frame take tiles from an object."""
        gone = {object_id, *(n for n, copy in self.moved.items() if copy.object == object_id)}
        for key in self.keys_of.pop(object_id, []):
            if self.origin.get(key) in gone:
                del self.origin[key]
        for number in gone - {object_id}:
            del self.origin_of[self.moved.pop(number)]
        self.newest = None
        if self.shown is not None:
            self.shown[np.isin(self.shown, list(gone))] = 0
        self.simple.discard(object_id)
        if self.anchor == object_id:
            self.anchor, self.anchor_sources = 0, ()


def tile_keys(signatures: NDArray[np.uint64]) -> NDArray[np.int64]:
    """One number for place and content (KEY_BYTES of it) of each tile: in row order ascending."""
    places = np.arange(signatures.size, dtype=np.uint64).reshape(signatures.shape)
    keys = places << np.uint64(8 * KEY_BYTES) | (signatures & np.uint64(_HASH))
    return keys.astype(np.int64)


def dump_keys(groups: Sequence[tuple[Copy, list[int]]]) -> bytes:
    """Keys as they are kept in the index: (source, keys ascending); object 0 is the row's own.

    Numbers of groups and of bytes in the packed part; packed: the groups, and for each key how far
    its place is from the one before; then KEY_BYTES of content for each key. Little endian.
    """
    heads = [_GROUP.pack(copy.object, copy.dx, copy.dy, len(keys)) for copy, keys in groups]
    every = [np.array(keys, np.uint64) for _, keys in groups]
    steps = [np.diff(keys >> np.uint64(8 * KEY_BYTES), prepend=np.uint64(0)) for keys in every]
    # High bytes of steps are zeros: they pack better beside each other.
    planes = [step.astype("<u4").view(np.uint8).reshape(-1, 4).T.tobytes() for step in steps]
    packed = zlib.compress(b"".join([*heads, *planes]), 9)
    contents = [keys.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :KEY_BYTES] for keys in every]
    parts = [part.tobytes() for part in contents]
    return b"".join([_HEAD.pack(len(groups), len(packed)), packed, *parts])


def dump_within(
    groups: Sequence[tuple[Copy, list[int]]], is_flat: NDArray[np.bool_], most: int
) -> bytes:
    """As :func:`dump_keys`, of as many keys as fit into `most` bytes; b"" if none does.

    Tiles of one colour (`is_flat`, of each place) go first: they can be fills instead.
    """
    data = dump_keys(groups) if groups else b""
    if len(data) <= most:
        return data
    places = np.array([key >> 8 * KEY_BYTES for _, keys in groups for key in keys], np.int64)
    places = places[np.argsort(is_flat.ravel()[places], kind="stable")]
    while len(data) > most:
        # An eighth less at least, since the packed part shrinks by less than its share.
        places = places[: min(len(places) * most // len(data), len(places) * 7 // 8)]
        kept = set(places.tolist())
        some = [(c, [key for key in keys if key >> 8 * KEY_BYTES in kept]) for c, keys in groups]
        groups = [(copy, keys) for copy, keys in some if keys]
        data = dump_keys(groups) if groups else b""
    return data


def load_keys(data: bytes) -> list[tuple[Copy, list[int]]]:
    """The inverse of :func:`dump_keys`; nothing from data that it did not write."""
    try:
        count, length = _HEAD.unpack_from(data)
        plain = zlib.decompress(data[_HEAD.size : _HEAD.size + length])
        heads = list(_GROUP.iter_unpack(plain[: count * _GROUP.size]))
        planes = np.frombuffer(plain, np.uint8, offset=count * _GROUP.size)
        flat = np.frombuffer(data, np.uint8, offset=_HEAD.size + length)
        contents = flat.reshape(-1, KEY_BYTES)
        if len(heads) != count or sum(head[3] for head in heads) != len(contents):
            return []
        return _unpack_groups(heads, planes, contents)
    except (struct.error, zlib.error, ValueError):
        return []


def _unpack_groups(
    heads: Sequence[tuple[int, int, int, int]],
    planes: NDArray[np.uint8],
    contents: NDArray[np.uint8],
) -> list[tuple[Copy, list[int]]]:
    groups = []
    at = 0
    for number, dx, dy, count in heads:
        part = np.ascontiguousarray(planes[4 * at : 4 * (at + count)].reshape(4, count).T)
        places = np.cumsum(part.view("<u4").ravel(), dtype=np.uint64)
        padded = np.zeros((count, 8), np.uint8)
        padded[:, :KEY_BYTES] = contents[at : at + count]
        keys = padded.view("<u8").ravel() | places << np.uint64(8 * KEY_BYTES)
        groups.append((Copy(number, dx, dy), [int(key) for key in keys.tolist()]))
        at += count
    return groups


class Planner:
    """The books, and plans from them. Only the task that owns the store may call it."""

    def __init__(self) -> None:
        self._books: OrderedDict[str, Book] = OrderedDict()

    def clear(self) -> None:
        """Close all books: objects that they name may be gone."""
        self._books.clear()

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
        """Fill a book from what :meth:`encoded` returned, oldest object first."""
        book = self.book(geometry)
        for object_id, data in stored:
            for copy, keys in load_keys(data):
                book.remember(copy if copy.object else Copy(object_id), keys)

    def plan(self, seen: Sighting) -> Plan:
        """Slots for every tile of a frame."""
        book = self.book(seen.geometry)
        owners = book.origins(tile_keys(seen.signatures))
        before = book.shown if book.shown is not None else np.zeros_like(owners)
        near = _near(book, owners, before, seen)
        _keep_largest(book, owners, MAX_OBJECTS - len(near))
        if (owners == 0).mean() > KEY_SHARE:
            owners[:] = 0
        fills = _fills(owners, seen) if owners.any() else {}
        wanted = {int(owner) for owner in np.unique(owners) if owner}
        objects = {book.source(owner).object for owner in wanted}
        guessed = _guesses(owners, before, book.simple, objects | set(near))
        slots, sources = _slots(book, sorted(wanted | guessed), fills)
        tiles = np.zeros(owners.shape, np.uint8)
        for owner in wanted:
            tiles[owners == owner] = slots[owner]
        for colour, mask in fills.items():
            tiles[mask & (owners == 0)] = slots[colour]
        guess = np.zeros(owners.shape, np.uint8)
        for owner in guessed:
            guess[(tiles == OWN) & (before == owner)] = slots[owner]
        return Plan(tiles, sources, guess, book.anchor if wanted else 0, near)

    def encoded(
        self, seen: Sighting, layout: Layout, object_id: int, *, anchor: int, size: int
    ) -> bytes:
        """Note that `object_id` now holds the frame; what to keep for the next start, if anything.

        `layout`: as coded; `anchor`: of its record (0: it is an anchor itself); `size`: bytes of
        the file, which bounds what is kept.
        """
        book = self.book(seen.geometry)
        keys = tile_keys(seen.signatures)
        origins = book.origins(keys)
        own: list[int] = keys[layout.own()].tolist()
        book.remember(Copy(object_id), own)
        if own and not layout.predicted().any():
            book.simple.add(object_id)
        groups = [(Copy(0), own)] if own else []
        shown = np.where(layout.own(), object_id, 0).astype(np.int64)
        for slot, source in enumerate(layout.sources, start=1):
            if isinstance(source, Copy):
                mask = layout.tiles == slot
                number = book.origin_for(source)
                shown[mask] = number
                if source.dx or source.dy:
                    new: list[int] = keys[mask & (origins != number)].tolist()
                    book.remember(source, new)
                    groups += [(source, new)] if new else []
        book.shown = shown
        if not anchor:
            book.anchor, book.anchor_sources = object_id, layout.sources
        return dump_within(groups, seen.is_flat, size + INDEX_BYTES)

    def forget(self, object_id: int) -> None:
        """An object turned out to be unusable: take nothing from it any more."""
        for book in self._books.values():
            book.forget(object_id)


def _keep_largest(book: Book, owners: NDArray[np.int64], most: int) -> None:
    """Set tiles to 0 (coded afresh) whose origin is not among those that cover most: of objects
    `most`, of copies from other places MAX_MOVED."""
    counts = Counter(owners[owners != 0].tolist())
    moved = [owner for owner, _ in counts.most_common() if owner < 0]
    objects: Counter[int] = Counter()
    for owner, count in counts.items():
        objects[book.source(owner).object] += count
    dropped = {number for number, _ in objects.most_common()[most:]}
    gone = {owner for owner in counts if book.source(owner).object in dropped}
    gone.update(moved[MAX_MOVED:])
    if gone:
        owners[np.isin(owners, list(gone))] = 0


def _near(
    book: Book, owners: NDArray[np.int64], before: NDArray[np.int64], seen: Sighting
) -> tuple[int, ...]:
    """The objects to search if much is new: those that what has changed showed before, for what
    was scrolled or dragged; then the newest that coded much, for windows that come back elsewhere.
    """
    if np.count_nonzero((owners == 0) & ~seen.is_flat) < _MANY:
        return ()
    changed = (owners != before) & (before != 0)
    counts: Counter[int] = Counter()
    for owner, count in Counter(before[changed].tolist()).items():
        counts[book.source(owner).object] += count
    found = [number for number, _ in counts.most_common(MAX_NEAR)]
    newest = (n for n in reversed(book.keys_of) if len(book.keys_of[n]) >= _MANY)
    found += islice((n for n in newest if n not in found), MAX_NEAR - len(found))
    return tuple(found)


def _fills(owners: NDArray[np.int64], seen: Sighting) -> dict[tuple[int, ...], NDArray[np.bool_]]:
    """The commonest colours of flat tiles that nobody coded yet."""
    free = seen.is_flat & (owners == 0)
    counts = Counter(map(tuple, seen.colours[free].tolist()))
    return {
        colour: free & (seen.colours == np.array(colour)).all(axis=2)
        for colour, _ in counts.most_common(MAX_FILLS)
    }


def _guesses(
    owners: NDArray[np.int64], before: NDArray[np.int64], simple: set[int], objects: set[int]
) -> set[int]:
    """The few objects worth predicting from, within the bound on objects."""
    counts = Counter(before[(owners == 0) & (before != 0)].tolist())
    found: set[int] = set()
    for owner, _ in counts.most_common():
        fits = owner in objects or len(objects | found) < MAX_OBJECTS
        if owner in simple and fits and len(found) < MAX_GUESSES:
            found.add(owner)
    return found


def _slots(
    book: Book, origins: list[int], fills: Iterable[tuple[int, ...]]
) -> tuple[dict[int | tuple[int, ...], int], tuple[Source, ...]]:
    """A slot for each origin and colour, where the anchor had it if it had it.

    The anchor itself is slot 1, so that maps of frames that show the same agree in most bytes.
    """
    sources: list[Source] = [None] * MAX_SLOTS
    slots: dict[int | tuple[int, ...], int] = {}
    wanted: dict[int | tuple[int, ...], Source] = {owner: book.source(owner) for owner in origins}
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
