"""The words on a screen, from picture to picture.

A picture keeps the words of the picture before whose pixels did not change. Other tiles are either
new, or copies of tiles that the store has seen before: of a window that comes back, or text that
was scrolled. The words of such copies were read in that other picture; they are taken over if all
their pixels are the same. Only what is left is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from fsmount.codec.delta.delta import OWN, TILE, Copy, tile_grid
from fsmount.errors import Damaged
from fsmount.text import areas
from fsmount.text.areas import Mask
from fsmount.text.engines import Engine, Picture, ReadWord
from fsmount.text.pictures import Seen
from fsmount.text.results import Rectangle, Word

# Words that the engine is less sure of are mostly icons and lines.
_LEAST_CONFIDENCE = 35.0
# A picture with fewer copied tiles of one object than this is not worth decoding that object.
_FEWEST_COPIED = 2
# Height of the bands by which words are looked up, in pixels.
_BAND = 32

Earlier = Callable[[int], tuple[Seen, list[Word]] | None]
"""Returns the picture that an object shows, and its words; None if it was not read.

May raise :class:`Damaged` and OSError.
"""


@dataclass(eq=False)
class Visible:
    """A word on the screen. `since`: a number of the caller, for when it came to this place."""

    word: Word
    since: int = 0

    @property
    def place(self) -> Rectangle:
        """Where it is."""
        return self.word.place


@dataclass
class Effort:
    """What was done: pictures, those with something to read, areas, their pixels, words moved."""

    pictures: int = 0
    read: int = 0
    areas: int = 0
    pixels: int = 0
    moved: int = 0


class Screen:
    """Follows the words of one screen. `hidden`: areas that are not read."""

    def __init__(
        self, engine: Engine, earlier: Earlier, hidden: tuple[Rectangle, ...], effort: Effort
    ) -> None:
        self._engine = engine
        self._earlier = earlier
        self._hidden = hidden
        self._effort = effort
        self._before: Seen | None = None
        self._visible = _Places()

    @property
    def visible(self) -> list[Visible]:
        """The words that the newest picture shows."""
        return list(self._visible)

    def resume(self, before: Seen, words: Iterable[Visible]) -> None:
        """Go on after a picture with these words."""
        self._before, self._visible = before, _Places(words)

    def show(self, seen: Seen, object_id: int) -> None:
        """Update the visible words to those of the next picture, which shows an object.

        A word that stays at its place stays the same object. Raises Damaged, OSError, NoEngine.
        """
        before, self._before = self._before, seen
        self._effort.pictures += 1
        if before is None or before.pixels.shape != seen.pixels.shape:
            changed = np.ones(tile_grid(seen.pixels.shape), bool)
            self._visible = _Places()
        else:
            changed = before.signatures != seen.signatures
            if not changed.any():
                return
            self._visible = _Places(
                each
                for each in self._visible
                if not areas.touched(changed, each.place)
                or _same(before.pixels, each.place, seen.pixels, each.place)
            )
        wanted = changed & areas.has_ink(seen.pixels, changed)
        self._take_over(seen, object_id, wanted)
        for area in self._hidden:
            _unwant(wanted, area)
        if wanted.any():
            self._read(seen.pixels, wanted)

    # -- words that were read before

    def _take_over(self, seen: Seen, object_id: int, wanted: Mask) -> None:
        """Take over the words of copied tiles; remove from `wanted` what they explain."""
        # Tiles of its own were seen before if an equal picture came before.
        own = Copy(object_id)
        layout = seen.layout
        tiles = np.zeros(wanted.shape, np.uint8) if layout is None else layout.tiles
        for slot in np.unique(tiles[wanted]).tolist():
            source = layout.source(slot) if layout is not None and slot != OWN else own
            if not isinstance(source, Copy):
                continue
            mask = wanted & (tiles == slot)
            if np.count_nonzero(mask) < _FEWEST_COPIED:
                continue
            try:
                known = self._earlier(source.object)
            except Damaged:
                known = None
            if known is not None:
                self._copy(seen, known, source, mask, wanted)

    def _copy(
        self, seen: Seen, known: tuple[Seen, list[Word]], source: Copy, mask: Mask, wanted: Mask
    ) -> None:
        """Take over the words of another picture that copied tiles, those in `mask`, show."""
        other, words = known
        wanted &= ~mask
        height, width, _ = seen.pixels.shape
        for word in words:
            x, y = word.place.x - source.dx, word.place.y - source.dy
            place = Rectangle(x, y, word.place.width, word.place.height)
            if x < 0 or y < 0 or place.right > width or place.bottom > height:
                continue
            if not areas.touched(mask, place):
                continue
            if _same(other.pixels, word.place, seen.pixels, place):
                self._add(Word(word.text, place))
                self._effort.moved += 1
            else:
                wanted |= mask & _tiles_of(place, mask.shape)

    # -- words that are read now

    def _read(self, pixels: Picture, wanted: Mask) -> None:
        """Read the wanted tiles, and what belongs to the same words."""
        self._effort.read += 1
        pixels = self._without_known(pixels, wanted)
        for area in areas.to_read(wanted, pixels):
            self._effort.areas += 1
            self._effort.pixels += area.width * area.height
            for found in self._engine.read(pixels[area.y : area.bottom, area.x : area.right]):
                if found.confidence < _LEAST_CONFIDENCE or not any(map(str.isalnum, found.text)):
                    continue
                place = found.place._replace(x=found.place.x + area.x, y=found.place.y + area.y)
                hidden = any(place.overlap(each) for each in self._hidden)
                if areas.touched(wanted, place) and not hidden:
                    self._add(Word(" ".join(found.text.split()), place))

    def _without_known(self, pixels: Picture, wanted: Mask) -> Picture:
        """Return a picture without hidden areas, and without words that are not read again.

        Reading takes as long as there are words. Blank places also end the areas that are read.
        """
        pixels = pixels.copy()
        # A word beside a wanted tile may be a part of a word that goes on there.
        near = wanted.copy()
        near[:, 1:] |= wanted[:, :-1]
        near[:, :-1] |= wanted[:, 1:]
        for each in self._visible:
            if not areas.touched(near, each.place):
                _blank(pixels, each.place)
        for area in self._hidden:
            _blank(pixels, area)
        return pixels

    def _add(self, word: Word) -> None:
        """Add a word. It takes the place of others there, unless one of them is the same."""
        others = self._visible.at(word.place)
        if any(each.word.text == word.text for each in others):
            return
        for each in others:
            self._visible.remove(each)
        self._visible.add(Visible(word))


class _Places:
    """The words on a screen, by their places."""

    def __init__(self, words: Iterable[Visible] = ()) -> None:
        # Insertion order is kept.
        self._words: dict[int, Visible] = {}
        self._bands: dict[int, list[Visible]] = {}
        for each in words:
            self.add(each)

    def __iter__(self) -> Iterator[Visible]:
        return iter(self._words.values())

    def add(self, word: Visible) -> None:
        self._words[id(word)] = word
        for band in _bands(word.place):
            self._bands.setdefault(band, []).append(word)

    def remove(self, word: Visible) -> None:
        del self._words[id(word)]
        for band in _bands(word.place):
            self._bands[band].remove(word)

    def at(self, place: Rectangle) -> list[Visible]:
        """Return the words that cannot be there together with one at `place`."""
        found = {
            id(each): each
            for band in _bands(place)
            for each in self._bands.get(band, ())
            if _is_same_place(each.place, place)
        }
        return list(found.values())


def _bands(place: Rectangle) -> range:
    return range(place.y // _BAND, (place.bottom - 1) // _BAND + 1)


def _is_same_place(one: Rectangle, two: Rectangle) -> bool:
    """Whether two words cannot both be there: half of the smaller one is common."""
    smaller = min(one.width * one.height, two.width * two.height)
    return 2 * one.overlap(two) >= smaller > 0


def _blank(pixels: Picture, area: Rectangle) -> None:
    """Fill an area with the colour that most of its corners have."""
    part = pixels[max(0, area.y) : area.bottom, max(0, area.x) : area.right]
    if part.size:
        part[:] = np.sort(part[[0, 0, -1, -1], [0, -1, 0, -1]], axis=0)[1]


def _same(one: Picture, place: Rectangle, two: Picture, other: Rectangle) -> bool:
    """Whether two pictures show the same pixels at two places of the same size."""
    return np.array_equal(
        one[place.y : place.bottom, place.x : place.right],
        two[other.y : other.bottom, other.x : other.right],
    )


def _tiles_of(place: Rectangle, grid: tuple[int, ...]) -> Mask:
    """Return the mask of the tiles that a rectangle touches."""
    mask = np.zeros(grid, bool)
    mask[place.y // TILE : -(-place.bottom // TILE), place.x // TILE : -(-place.right // TILE)] = (
        True
    )
    return mask


def _unwant(wanted: Mask, area: Rectangle) -> None:
    """Remove the tiles that lie in an area as a whole."""
    wanted[-(-area.y // TILE) : area.bottom // TILE, -(-area.x // TILE) : area.right // TILE] = (
        False
    )


def read_words(engine: Engine, picture: Picture) -> Iterator[ReadWord]:
    """Yield the words that a whole picture has, by the rules of :class:`Screen`."""
    for found in engine.read(picture):
        if found.confidence >= _LEAST_CONFIDENCE and any(map(str.isalnum, found.text)):
            yield found
