"""Pictures whose words a simple engine reads without a mistake, and the engine.

A word is a bar of 12 rows: a red column, and 6 columns for each letter. Where any pixel of it is
missing there is no word, as if OCR had failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fsmount.text.engines import Picture, ReadWord
from fsmount.text.results import Rectangle

HEIGHT, LETTER = 12, 6
WIDE, HIGH = 480, 320
_START = (255, 1, 1)


def blank(width: int = WIDE, height: int = HIGH) -> Picture:
    """Return a white picture."""
    return np.full((height, width, 3), 255, np.uint8)


def draw(picture: Picture, text: str, x: int, y: int) -> Rectangle:
    """Draw the words of a line; return the place of the first one."""
    first = None
    for word in text.split(" "):
        place = Rectangle(x, y, 1 + LETTER * len(word), HEIGHT)
        first = first or place
        bar = picture[y : place.bottom, x : place.right]
        bar[:] = 0
        bar[:, 0] = _START
        for number, letter in enumerate(word):
            bar[:, 1 + LETTER * number] = (ord(letter), 7, 9)
        x = place.right + 14
    assert first is not None
    return first


def screen(lines: Sequence[tuple[str, int, int]]) -> Picture:
    """Return a picture with some lines: (words, x, y)."""
    made = blank()
    for text, x, y in lines:
        draw(made, text, x, y)
    return made


def save(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a picture as PNG."""
    Image.fromarray(picture).save(path)


class DrawnEngine:
    """Reads such words. `areas`: the shapes of what it was given, (height, width)."""

    name = "drawn"

    def __init__(self) -> None:
        self.areas: list[tuple[int, int]] = []
        self.texts: list[str] = []

    def read(self, picture: Picture) -> list[ReadWord]:
        self.areas.append(picture.shape[:2])
        starts = (picture == np.array(_START, np.uint8)).all(axis=2)
        starts[1:] &= ~starts[:-1]
        found = []
        for y, x in zip(*map(list, np.nonzero(starts)), strict=True):
            word = self._word(picture, int(x), int(y))
            if word is not None:
                found.append(word)
                self.texts.append(word.text)
        return found

    def _word(self, picture: Picture, x: int, y: int) -> ReadWord | None:
        letters = ""
        at = x + 1
        while at + LETTER <= picture.shape[1] and tuple(picture[y, at, 1:].tolist()) == (7, 9):
            letters += chr(picture[y, at, 0])
            at += LETTER
        bar = picture[y : y + HEIGHT, x:at]
        if not letters or bar.shape[0] < HEIGHT or (bar != bar[:1]).any():
            return None
        return ReadWord(letters, Rectangle(x, y, at - x, HEIGHT), 90.0)

    def close(self) -> None:
        return
