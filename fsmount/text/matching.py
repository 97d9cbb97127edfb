"""Which pictures of a slot show what is searched for, and where."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fsmount.text.following import WIDEST_GAP, followers, may_follow
from fsmount.text.query import Term, Token
from fsmount.text.results import Rectangle
from fsmount.text.slots import Ints, Slot
from fsmount.text.tokens import is_spaceless

# So many tokens are not looked up one by one.
_MANY = 30
_IN_TOKEN = np.array([chr(code).isalnum() for code in range(128)])


class _Sightings(NamedTuple):
    """Where a slot shows a term: its words, and the first and last picture that shows all of them.

    words : numbers of words, one tuple or int for each sighting. first, last : int64 (n,).
    """

    words: Sequence[int] | Sequence[tuple[int, ...]]
    first: Ints
    last: Ints


class Matches:
    """The matches of all terms in a slot.

    visible : bool (pictures,): which pictures show all terms.
    """

    def __init__(self, slot: Slot, terms: Sequence[Term]) -> None:
        self.slot = slot
        self.visible = np.ones(slot.pictures, bool)
        self._sightings: list[_Sightings] = []
        for term in terms:
            found = _sightings(slot, term)
            self._sightings.append(found)
            change = np.zeros(slot.pictures + 1, np.int64)
            np.add.at(change, found.first, 1)
            np.add.at(change, found.last + 1, -1)
            self.visible &= np.cumsum(change[:-1]) > 0
            if not self.visible.any():
                break

    def stretches(self) -> list[tuple[int, int]]:
        """Return the runs of pictures that show all terms: (first, last)."""
        if self.visible.all():
            return [(0, self.slot.pictures - 1)] if self.slot.pictures else []
        edges = np.flatnonzero(np.diff(self.visible, prepend=False, append=False))
        return [(int(a), int(b) - 1) for a, b in edges.reshape(-1, 2)]

    def places(self, picture: int) -> tuple[int, ...]:
        """Return the words that show the terms in a picture, by their numbers, in reading order."""
        numbers: set[int] = set()
        for found in self._sightings:
            shown = np.flatnonzero((found.first <= picture) & (picture <= found.last))
            for at in shown.tolist():
                words = found.words[at]
                numbers.update((words,) if isinstance(words, int) else words)
        boxes = self.slot.boxes
        return tuple(sorted(numbers, key=lambda n: (int(boxes[n, 1]), int(boxes[n, 0]))))


def _sightings(slot: Slot, term: Term) -> _Sightings:
    if len(term.tokens) == 1:
        numbers = _words_with(slot, term.tokens[0])
        return _Sightings(numbers.tolist(), slot.first[numbers], slot.last[numbers])
    found = _sequences(slot, term.tokens)
    spans = [
        (int(slot.first[list(words)].max()), int(slot.last[list(words)].min())) for words in found
    ]
    kept = [at for at, (begin, end) in enumerate(spans) if begin <= end]
    table = np.array([spans[at] for at in kept], np.int64).reshape(-1, 2)
    return _Sightings([found[at] for at in kept], table[:, 0], table[:, 1])


def _words_with(slot: Slot, token: Token) -> Ints:
    """Return the words of a slot that have a token, ascending."""
    if len(token.texts) > _MANY and not token.part:
        found = [n for n in range(slot.count) if any(map(token.matches, slot.tokens(n)))]
        return np.array(found, np.int64)
    parts = (token.part,) if token.part else token.texts
    places = np.concatenate([_found(slot, part, token) for part in parts])
    words: Ints = np.searchsorted(slot.starts, places, side="right") - 1
    if len(parts) > 1:
        words.sort()
    return words[np.diff(words, prepend=-1) > 0]


def _found(slot: Slot, part: str, token: Token) -> Ints:
    """Return where a part stands in the folded text, as a token or as the beginning of one."""
    plain = slot.plain
    # In a script without spaces any part is a token.
    anywhere = bool(token.part) or is_spaceless(part)
    if not anywhere and plain.isascii() and part.isascii():
        # A pattern that begins with letters is looked for quickly.
        end = "" if token.prefix else "(?![a-z0-9])"
        places = re.finditer(re.escape(part) + end, plain)
        starts = np.fromiter((place.start() for place in places), np.int64)
        kept: Ints = starts[~_IN_TOKEN[slot.letters[starts - 1]]]
        return kept
    found = []
    at, size = plain.find(part), len(part)
    while at >= 0:
        if anywhere or (
            not _goes_on(plain[at - 1]) and (token.prefix or not _goes_on(plain[at + size]))
        ):
            found.append(at)
        at = plain.find(part, at + 1)
    return np.array(found, np.int64)


def _goes_on(letter: str) -> bool:
    """Whether a letter beside a run of letters belongs to the same token."""
    return letter.isalnum() and not is_spaceless(letter)


def _sequences(slot: Slot, wanted: Sequence[Token]) -> list[tuple[int, ...]]:
    """Return the words that show some tokens after each other."""
    chain = _chain(slot, wanted)
    # The words of each sequence so far, and the place of its next token in the last of them.
    found: list[tuple[tuple[int, ...], int]] = [
        ((number,), at + 1)
        for number in chain[0].tolist()
        for at, each in enumerate(slot.tokens(number))
        if wanted[0].matches(each)
    ]
    for token, words_of_token in zip(wanted[1:], chain[1:], strict=True):
        after: dict[int, list[int]] = {}
        one, two = followers(slot, sorted({words[-1] for words, _ in found}))
        for number, other in zip(one.tolist(), two.tolist(), strict=True):
            after.setdefault(number, []).append(other)
        starting = set(words_of_token.tolist())
        longer: list[tuple[tuple[int, ...], int]] = []
        for words, at in found:
            own = slot.tokens(words[-1])
            if at < len(own):
                if token.matches(own[at]):
                    longer.append((words, at + 1))
                continue
            for number in after.get(words[-1], ()):
                if number in starting and token.matches(slot.tokens(number)[0]):
                    longer.append(((*words, number), 1))
        found = longer
    return [words for words, _ in found]


def _chain(slot: Slot, wanted: Sequence[Token]) -> list[Ints]:
    """Return for each token the words that may have it in a sequence of all tokens.

    Most slots have none, although they have all tokens.
    """
    chain = [_words_with(slot, token) for token in wanted]
    # Few words of one token leave few of its neighbours.
    pairs = sorted(range(len(chain) - 1), key=lambda at: len(chain[at]) * len(chain[at + 1]))
    for at in pairs:
        ones, twos = chain[at : at + 2]
        # A word may have several tokens.
        step = (ones[:, None] == twos) | may_follow(slot, ones, twos)
        chain[at], chain[at + 1] = ones[step.any(axis=1)], twos[step.any(axis=0)]
    return chain


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
    while start and _gap(slot, line[start - 1], line[start]) <= WIDEST_GAP * tall:
        start -= 1
    while end + 1 < len(line) and _gap(slot, line[end], line[end + 1]) <= WIDEST_GAP * tall:
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
            wide = gap > WIDEST_GAP * max(places[one].height, 8)
            parts.append(("  " if wide else " ") + texts[two])
        out.append("".join(parts) + "\n")
    return "".join(out)
