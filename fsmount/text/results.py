"""What a search returns: words with their places, and stretches of time in which they were shown.

All rectangles are in pixels of the picture, from its upper left corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Rectangle(NamedTuple):
    """A rectangle in pixels: the upper left corner, width and height."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """The first column behind it."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """The first row below it."""
        return self.y + self.height

    def overlap(self, other: Rectangle) -> int:
        """Return the area that both have in common, in pixels."""
        wide = min(self.right, other.right) - max(self.x, other.x)
        high = min(self.bottom, other.bottom) - max(self.y, other.y)
        return max(0, wide) * max(0, high)


class Word(NamedTuple):
    """A word that a picture shows, as OCR has read it."""

    text: str
    place: Rectangle


class Shown(NamedTuple):
    """A picture of the store. `at_us` is when it was taken, in microseconds since 1970."""

    ino: int
    path: bytes
    at_us: int


@dataclass(frozen=True)
class Hit:
    """A stretch of pictures of one screen that all show what was searched for.

    first, last : its first and its last picture.
    pictures : number of pictures from the first to the last one.
    seconds : time from the first to the last picture: it was visible at least so long.
    snippet : the line of text around the first place in the last picture.
    places : where the last picture shows the words that were searched for.
    """

    first: Shown
    last: Shown
    pictures: int
    seconds: float
    snippet: str
    places: tuple[Rectangle, ...]


@dataclass(frozen=True)
class Found:
    """The result of a search: hits, the newest first.

    instead : if nothing had the words as they were written, the words that were taken instead.
    more : whether there may be more hits than the limit.
    """

    hits: Sequence[Hit] = ()
    instead: tuple[str, ...] = ()
    more: bool = False
