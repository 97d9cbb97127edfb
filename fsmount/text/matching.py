"""Which pictures of a slot show what is searched for, and where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fsmount.text.query import Term, Token
from fsmount.text.results import Rectangle
from fsmount.text.slots import Slot
from fsmount.text.tokens import folded, tokens

Bools = npt.NDArray[np.bool_]

# The next word of a line begins at most so many heights of a letter behind a word.
_WIDEST_GAP = 2.5


@dataclass(frozen=True)
class Sighting:
    """Words that show a term, from picture `first` to picture `last` of their slot."""

    words: tuple[int, ...]
    first: int
    last: int


class Matches:
    """The matches of all terms in a slot.

    visible : bool (pictures,): which pictures show all terms.
    """

    def __init__(self, slot: Slot, terms: Sequence[Term]) -> None:
        self.slot = slot
        self.sightings = [list(_sightings(slot, term)) for term in terms]
        self.visible = np.ones(slot.pictures, bool)
        for found in self.sightings:
            shown = np.zeros(slot.pictures, bool)
            for each in found:
                shown[each.first : each.last + 1] = True
            self.visible &= shown

    def stretches(self) -> list[tuple[int, int]]:
        """Return the runs of pictures that show all terms: (first, last)."""
        edges = np.flatnonzero(np.diff(self.visible, prepend=False, append=False))
        return [(int(a), int(b) - 1) for a, b in edges.reshape(-1, 2)]

    def places(self, picture: int) -> tuple[int, ...]:
        """Return the words that show the terms in a picture, by their numbers, in reading order."""
        numbers = {
            word
            for found in self.sightings
            for each in found
            if each.first <= picture <= each.last
            for word in each.words
        }
        boxes = self.slot.boxes
        return tuple(sorted(numbers, key=lambda n: (int(boxes[n, 1]), int(boxes[n, 0]))))


def _sightings(slot: Slot, term: Term) -> Iterator[Sighting]:
    first, *rest = term.tokens
    for number, at in _with(slot, first):
        yield from _following(slot, rest, number, at + 1, (number,))


def _with(slot: Slot, token: Token) -> Iterator[tuple[int, int]]:
    """Yield the words of a slot that have a token: number of the word, and of the token in it."""
    # Few words have it: a look at the text says which to take apart.
    for number, text in enumerate(slot.texts):
        plain = text.lower() if text.isascii() else folded(text)
        if any(part in plain for part in token.texts):
            for at, each in enumerate(tokens(text)):
                if token.matches(each):
                    yield number, at


def _following(
    slot: Slot, rest: Sequence[Token], number: int, at: int, words: tuple[int, ...]
) -> Iterator[Sighting]:
    """Yield the sightings that begin with `words` and go on with the tokens `rest`.

    `at` is the place of the next token in the last word, `number`.
    """
    if not rest:
        first = int(slot.first[list(words)].max())
        last = int(slot.last[list(words)].min())
        if first <= last:
            yield Sighting(words, first, last)
        return
    own = tokens(slot.texts[number])
    if at < len(own):
        if rest[0].matches(own[at]):
            yield from _following(slot, rest[1:], number, at + 1, words)
        return
    for after in _next_words(slot, number):
        own = tokens(slot.texts[after])
        if own and rest[0].matches(own[0]):
            yield from _following(slot, rest[1:], after, 1, (*words, after))


def _next_words(slot: Slot, number: int) -> list[int]:
    """Return the words that follow a word: at its right, else at the start of the next line."""
    x, y, width, height = slot.boxes[number].tolist()
    left, top, _, high = slot.boxes.T
    together = (slot.first <= slot.last[number]) & (slot.first[number] <= slot.last)
    high_enough = np.minimum(top + high, y + height) - np.maximum(top, y)
    in_line = together & (2 * high_enough >= np.minimum(high, height))
    tall = max(height, 8)
    right = in_line & (left >= x + width - tall // 3) & (left <= x + width + _WIDEST_GAP * tall)
    right[number] = False
    if right.any():
        # A word may have been read again with the same place.
        nearest = int(left[right].min())
        return np.flatnonzero(right & (left <= nearest + tall // 2)).tolist()
    start = _line_start(slot, number, np.flatnonzero(in_line))
    below = together & (top > y + height // 2) & (top < y + 3 * tall)
    below &= np.abs(left - start) <= 2 * tall
    if not below.any():
        return []
    nearest = int(top[below].min())
    return np.flatnonzero(below & (top <= nearest + tall // 2)).tolist()


def _line_start(slot: Slot, number: int, line: npt.NDArray[np.intp]) -> int:
    """Return where the line of a word begins, from the words beside it."""
    boxes = slot.boxes
    tall = max(int(boxes[number, 3]), 8)
    start = int(boxes[number, 0])
    for each in sorted(line.tolist(), key=lambda n: -int(boxes[n, 0])):
        end = int(boxes[each, 0] + boxes[each, 2])
        if end <= start + tall // 3 and end >= start - _WIDEST_GAP * tall:
            start = int(boxes[each, 0])
    return start


def line_around(slot: Slot, number: int, picture: int) -> str:
    """Return the line of text around a word in a picture."""
    tall = max(int(slot.boxes[number, 3]), 8)
    y, height = int(slot.boxes[number, 1]), int(slot.boxes[number, 3])
    line = []
    for each in slot.shown_by(picture):
        top, high = int(slot.boxes[each, 1]), int(slot.boxes[each, 3])
        common = min(top + high, y + height) - max(top, y)
        if 2 * common >= min(high, height):
            line.append(each)
    line.sort(key=lambda n: int(slot.boxes[n, 0]))
    at = line.index(number)
    start = end = at
    while start and _gap(slot, line[start - 1], line[start]) <= _WIDEST_GAP * tall:
        start -= 1
    while end + 1 < len(line) and _gap(slot, line[end], line[end + 1]) <= _WIDEST_GAP * tall:
        end += 1
    return " ".join(slot.texts[n] for n in line[start : end + 1])


def _gap(slot: Slot, one: int, two: int) -> int:
    return int(slot.boxes[two, 0] - slot.boxes[one, 0] - slot.boxes[one, 2])


def in_reading_order(places: Sequence[Rectangle]) -> list[list[int]]:
    """Return lines of numbers of rectangles, from top to bottom and from left to right."""
    order = sorted(range(len(places)), key=lambda n: (places[n].y, places[n].x))
    lines: list[list[int]] = []
    for number in order:
        place = places[number]
        for line in reversed(lines[-8:]):
            other = places[line[0]]
            common = min(other.bottom, place.bottom) - max(other.y, place.y)
            if 2 * common >= min(other.height, place.height):
                line.append(number)
                break
        else:
            lines.append([number])
    for line in lines:
        line.sort(key=lambda n: places[n].x)
    return lines


def text_of(texts: Sequence[str], places: Sequence[Rectangle]) -> str:
    """Return words as lines of text, in reading order. A wide gap becomes two spaces."""
    out = []
    for line in in_reading_order(places):
        parts = [texts[line[0]]]
        for one, two in pairwise(line):
            gap = places[two].x - places[one].right
            wide = gap > _WIDEST_GAP * max(places[one].height, 8)
            parts.append(("  " if wide else " ") + texts[two])
        out.append("".join(parts) + "\n")
    return "".join(out)
