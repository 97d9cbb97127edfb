"""Which words follow each other on a screen, and an index of that.

OCR gives words with their places, and no text that runs through them. A word is followed by the
next one at its right, and at the end of a line by the first one of the next line.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from zlib import crc32

import numpy as np

from fsmount.text.slots import Bools, Ints, Slot
from fsmount.text.tokens import tokens

WIDEST_GAP = 2.5
"""The next word of a line begins at most so many heights of a letter behind a word."""
_LEAST_TALL = 8
_SEQUENCE = "\u21a6"
# A slot of 2,000 words has a given sequence by chance in 3 of 100. With more sequences, an entry of
# the index would take two bytes instead of one: the distance to the slot before that has it.
_SEQUENCES = 1 << 16


def sequence(one: str, two: str) -> str:
    """Return what the index of words has for two tokens that follow each other.

    Others have the same: 65,536 such texts stand for all pairs.
    """
    return f"{_SEQUENCE}{crc32(f'{one} {two}'.encode()) % _SEQUENCES:x}"


def sequences(slot: Slot) -> set[str]:
    """Return :func:`sequence` of all tokens that follow each other in a slot."""
    words = [tokens(text) for text in slot.texts]
    found = {pair for own in words for pair in pairwise(own)}
    one, two = followers(slot, range(slot.count))
    for before, after in zip(one.tolist(), two.tolist(), strict=True):
        if words[before] and words[after]:
            found.add((words[before][-1], words[after][0]))
    return {sequence(*pair) for pair in found}


def followers(slot: Slot, numbers: Iterable[int]) -> tuple[Ints, Ints]:
    """Return which words follow some words of a slot, at a time at which both are shown.

    Returns
    -------
    (one, two) : int64 (m,) each
        Word `two[n]` follows word `one[n]`.
    """
    chosen = np.fromiter(numbers, np.int64)
    if not len(chosen):
        return chosen, chosen
    near = _Near(slot, chosen)
    right = near.at_right()
    ends = np.setdiff1d(chosen, near.one[right])
    kept = right | near.below(ends)
    return near.one[kept], near.two[kept]


class _Near:
    """Pairs of words near each other: those of `chosen` with all that are not far above or below.

    one, two : int64 (m,): the words of each pair. in_line : bool (m,): both stand in one line.
    """

    def __init__(self, slot: Slot, chosen: Ints) -> None:
        self._left, self._top, self._width, self._height = np.ascontiguousarray(slot.boxes.T)
        self._tall = np.maximum(self._height, _LEAST_TALL)
        order = np.argsort(self._top, kind="stable")
        tops = self._top[order]
        first = np.searchsorted(tops, self._top[chosen] - int(self._height.max()))
        reach = np.maximum(self._height, 3 * self._tall)[chosen]
        counts = np.searchsorted(tops, self._top[chosen] + reach) - first
        self.one = np.repeat(chosen, counts)
        steps = np.arange(len(self.one)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.two = order[np.repeat(first, counts) + steps]
        together = slot.first[self.two] <= slot.last[self.one]
        together &= slot.first[self.one] <= slot.last[self.two]
        together &= self.one != self.two
        self.one, self.two = self.one[together], self.two[together]
        one, two = self.one, self.two
        bottom = self._top + self._height
        common = np.minimum(bottom[one], bottom[two]) - np.maximum(self._top[one], self._top[two])
        self.in_line = 2 * common >= np.minimum(self._height[one], self._height[two])

    def at_right(self) -> Bools:
        """Return which second words are the next in the line of the first."""
        one, two = self.one, self.two
        gap = self._left[two] - self._left[one] - self._width[one]
        right = self.in_line & (gap >= -(self._tall[one] // 3))
        right &= gap <= WIDEST_GAP * self._tall[one]
        return self._nearest(right, self._left)

    def below(self, ends: Ints) -> Bools:
        """Return which second words begin the line below that of the first, one of `ends`."""
        one, two = self.one, self.two
        ending = np.isin(one, ends)
        lines: dict[int, list[int]] = {number: [] for number in ends.tolist()}
        line = self.in_line & ending
        for number, other in zip(one[line].tolist(), two[line].tolist(), strict=True):
            lines[number].append(other)
        start = np.zeros(len(self._left), np.int64)
        for number, others in lines.items():
            start[number] = self._line_start(number, others)
        down = self._top[two] - self._top[one]
        below = ending & (down > self._height[one] // 2) & (down < 3 * self._tall[one])
        below &= np.abs(self._left[two] - start[one]) <= 2 * self._tall[one]
        return self._nearest(below, self._top)

    def _nearest(self, kept: Bools, places: Ints) -> Bools:
        """Return the `kept` pairs whose second word is the nearest of its first, or almost so."""
        nearest = np.full(len(places), np.iinfo(np.int64).max >> 1)
        np.minimum.at(nearest, self.one[kept], places[self.two[kept]])
        # A word may have been read again with the same place.
        near: Bools = places[self.two] <= (nearest + self._tall // 2)[self.one]
        return kept & near

    def _line_start(self, number: int, line: list[int]) -> int:
        """Return where the line of a word begins, from the words beside it."""
        tall = int(self._tall[number])
        start = int(self._left[number])
        for each in sorted(line, key=lambda n: -int(self._left[n])):
            end = int(self._left[each] + self._width[each])
            if start - WIDEST_GAP * tall <= end <= start + tall // 3:
                start = int(self._left[each])
        return start


def may_follow(slot: Slot, ones: Ints, twos: Ints) -> Bools:
    """Return which of the words `twos` may follow which of `ones`: bool (len(ones), len(twos)).

    It does not look at what lies between two words, so it takes a fraction of the time of
    :func:`followers`. No pair of that is false here.
    """
    left, top, width, height = slot.boxes[ones].T[:, :, None]
    other_left, other_top, _, other_height = slot.boxes[twos].T[:, None]
    tall = np.maximum(height, _LEAST_TALL)
    gap, down = other_left - left - width, other_top - top
    near = (gap >= -(tall // 3)) & (gap <= WIDEST_GAP * tall)
    near &= (down <= height) & (-down <= other_height)
    # The line below begins no further to the right than the word, and a little.
    near |= (down > height // 2) & (down < 3 * tall) & (other_left <= left + 3 * tall)
    near &= slot.first[twos] <= slot.last[ones][:, None]
    near &= slot.first[ones][:, None] <= slot.last[twos]
    found: Bools = near
    return found
