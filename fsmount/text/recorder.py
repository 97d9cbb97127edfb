"""Writes what a screen shows into slots, picture by picture.

Each picture is a commit: a process that is killed has lost no more than the picture under way. The
newest slot of a screen is open: it is rewritten with each picture, and indexed when the next slot
begins, because only then it is known which of its words go on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from fsmount.text import slots
from fsmount.text.database import TextDatabase
from fsmount.text.results import Word
from fsmount.text.screen import Visible
from fsmount.text.slots import Slot

# A slot has the pictures of a quarter of an hour, and not many words.
_SLOT_US = 15 * 60 * 10**6
_MOST_PICTURES, _MOST_WORDS = 64, 4000
# After a longer pause nothing says that the words stayed.
_PAUSE_US = 30 * 60 * 10**6

Row = tuple[Word, int, int, bool]


class Taken(NamedTuple):
    """A picture: inode number, object, and when it was taken in us since 1970."""

    ino: int
    object: int
    at_us: int


class Recorder:
    """Writes the slots of one screen, `series`. Resumes the open one, if there is one."""

    def __init__(self, database: TextDatabase, series: int) -> None:
        self._database = database
        self._series = series
        self._number: int | None = None
        self._pictures: list[tuple[int, int]] = []
        self._ended: list[Row] = []
        self._visible: list[Visible] = []
        self._resume()

    def _resume(self) -> None:
        number = self._database.open_slot(self._series)
        if number is None:
            return
        slot = self._database.slot(number)
        if not slot.pictures:
            return
        self._number = number
        self._pictures = list(zip(slot.ino.tolist(), slot.at_us.tolist(), strict=True))
        for at, text in enumerate(slot.texts):
            word = Word(text, slot.place(at))
            first, last = int(slot.first[at]), int(slot.last[at])
            if last == slot.pictures - 1:
                self._visible.append(Visible(word, first))
            else:
                self._ended.append((word, first, last, False))

    @property
    def last(self) -> tuple[int, int] | None:
        """The newest picture of the open slot: inode number and time in us; None for none."""
        return self._pictures[-1] if self._pictures else None

    @property
    def visible(self) -> list[Visible]:
        """The words that it shows."""
        return self._visible

    def follows(self, at_us: int) -> bool:
        """Whether the words of the newest picture may go on in a picture of this time."""
        if not self._pictures:
            return False
        last = self._pictures[-1][1]
        return last <= at_us <= last + _PAUSE_US and _day(last) == _day(at_us)

    def add(self, picture: Taken, visible: Sequence[Visible]) -> None:
        """Record a picture with its words. Objects that were visible before have stayed."""
        goes_on = self.follows(picture.at_us)
        with self._database.transaction():
            if not goes_on or self._is_full(picture.at_us):
                self._begin(picture, visible, goes_on=goes_on)
            else:
                self._extend(picture, visible)
            assert self._number is not None
            self._database.add_picture(picture.ino, picture.object, self._number)

    def close(self) -> None:
        """Index the open slot: nothing follows it."""
        with self._database.transaction():
            self._index(frozenset())
        self._number, self._pictures, self._ended, self._visible = None, [], [], []

    def _is_full(self, at_us: int) -> bool:
        return (
            at_us - self._pictures[0][1] >= _SLOT_US
            or len(self._pictures) >= _MOST_PICTURES
            or len(self._ended) + len(self._visible) >= _MOST_WORDS
        )

    def _extend(self, picture: Taken, visible: Sequence[Visible]) -> None:
        """Add a picture to the open slot."""
        here = len(self._pictures)
        self._end_others(visible)
        self._pictures.append((picture.ino, picture.at_us))
        known = set(map(id, self._visible))
        for each in visible:
            if id(each) not in known:
                each.since = here
        self._visible = list(visible)
        assert self._number is not None
        self._database.write_slot(self._number, self._slot(frozenset()), final=False)

    def _begin(self, picture: Taken, visible: Sequence[Visible], *, goes_on: bool) -> None:
        """Index the open slot, and open another one with a picture."""
        stayed = frozenset(map(id, visible)) if goes_on else frozenset()
        previous = self._index(stayed)
        self._pictures = [(picture.ino, picture.at_us)]
        self._ended, self._visible = [], list(visible)
        for each in visible:
            each.since = 0
        slot = self._slot(frozenset())
        self._number = self._database.add_slot(self._series, slot, previous if goes_on else 0)

    def _index(self, stayed: frozenset[int]) -> int:
        """Index the open slot; return its number, 0 if there is none. `stayed`: ids of words."""
        if self._number is None:
            return 0
        self._database.index_slot(self._number, self._slot(stayed))
        return self._number

    def _end_others(self, visible: Sequence[Visible]) -> None:
        """Note the words that the newest picture was the last to show."""
        stayed = set(map(id, visible))
        last = len(self._pictures) - 1
        self._ended += [
            (each.word, each.since, last, False) for each in self._visible if id(each) not in stayed
        ]

    def _slot(self, stayed: frozenset[int]) -> Slot:
        last = len(self._pictures) - 1
        rows = self._ended + [
            (each.word, each.since, last, id(each) in stayed) for each in self._visible
        ]
        rows.sort(key=lambda row: (row[1], row[0].place.y // 8, row[0].place.x))
        return slots.make(self._pictures, rows)


def _day(at_us: int) -> int:
    """Return the local day of a time, as a number."""
    return time.localtime(at_us / 1e6).tm_yday
