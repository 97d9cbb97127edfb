"""A generated day on a desktop, whose text is known: typing, scrolling, windows, dialogs, a clock.

Pictures come one a minute. Somebody works for some minutes, and then only the clock changes for as
many. The same seed gives the same day.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fsmount.text.engines import Picture
from fsmount.text.results import Rectangle, Word

WIDTH, HEIGHT = 1366, 768
_PANEL, _TITLE, _LINE = 28, 30, 24
_START = datetime(2024, 6, 6, 8, 0)
_TEXT = (
    "the of and to in is that for it as with was on are by this from at which have or an they you"
    " were their one all we can her has there been if more when will would who so no time people"
    " report budget invoice meeting project window server network storage picture screen window"
    " morning evening summer holiday ticket travel hotel garden kitchen recipe letter number"
    " quarter revenue customer contract delivery schedule deadline review version release branch"
    " commit function variable pointer memory thread process kernel driver filesystem directory"
    " archive backup restore delete create update search find replace format convert compress"
    " history science physics chemistry biology geology astronomy mathematics language grammar"
    " Monday Tuesday Wednesday Thursday Friday January February March April October November"
    " 2023 2024 1,250 3.14 42% 17:30 user@example.org /usr/share/doc README.md v2.1.0 #1042"
)
_WORDS = _TEXT.split()
_DIALOG = [["Save", "changes", "before", "closing?"], ["Cancel", "Discard", "Save"]]
# Minutes at a stretch in which somebody works, or does not.
_BUSY, _IDLE = (5, 40), (5, 40)


@dataclass
class Shot:
    """A picture, when it was taken, and the words in it that can be read as a whole."""

    at: datetime
    picture: Picture
    words: list[Word]


@dataclass
class _Page:
    """Lines of a document, and how far it is scrolled in pixels."""

    title: str
    lines: list[list[str]]
    dark: bool = False
    offset: int = 0
    image: Image.Image | None = None
    words: list[Word] = field(default_factory=list)


class Day:
    """Generates a day. `count` pictures of `seed`."""

    def __init__(self, count: int, seed: int = 1) -> None:
        self._count = count
        self._random = random.Random(seed)
        self._font = ImageFont.load_default(15)
        self._pages = [
            _Page("Browser - Encyclopedia", self._lines(120)),
            _Page("Terminal - build log", self._lines(90), dark=True),
            _Page("Notes - today", [self._sentence()]),
            _Page("Mail - inbox", self._lines(60)),
        ]

    def shots(self) -> Iterator[Shot]:
        """Yield the pictures."""
        front, dialog = 0, 0
        busy, left = True, self._random.randint(*_BUSY)
        for number in range(self._count):
            if not left:
                busy, left = not busy, self._random.randint(*(_IDLE if busy else _BUSY))
            left -= 1
            if not busy:
                yield self._shot(number, self._pages[front], dialog)
                continue
            chance = self._random.random()
            page = self._pages[front]
            if page.title.startswith("Notes"):
                self._type(page)
            if chance < 0.12:
                front = self._random.randrange(len(self._pages))
            elif chance < 0.32 and not page.title.startswith("Notes"):
                most = max(0, len(page.lines) * _LINE - 500)
                step = self._random.choice((-120, 37, 72, 120, 240, 411))
                page.offset = min(max(0, page.offset + step), most)
            elif chance < 0.36:
                dialog = self._random.randint(1, 3)
            yield self._shot(number, self._pages[front], dialog)
            dialog = max(0, dialog - 1)

    def _lines(self, count: int) -> list[list[str]]:
        return [self._sentence() for _ in range(count)]

    def _sentence(self) -> list[str]:
        return self._random.choices(_WORDS, k=self._random.randint(6, 14))

    def _type(self, page: _Page) -> None:
        """Add some words to the last line."""
        page.image = None
        for _ in range(self._random.randint(1, 6)):
            if len(page.lines[-1]) >= 13:
                page.lines.append([])
            page.lines[-1].append(self._random.choice(_WORDS))
        page.lines = page.lines[-24:]

    def _rendered(self, page: _Page) -> Image.Image:
        """Return the whole document as a picture, and note its words."""
        if page.image is None:
            paper, ink = ((32, 34, 40), (220, 220, 214)) if page.dark else ("white", (20, 20, 20))
            size = (WIDTH - 240, max(600, len(page.lines) * _LINE + 40))
            page.image = Image.new("RGB", size, paper)
            page.words = list(self._drawn(page.image, page.lines, ink))
        return page.image

    def _drawn(
        self, image: Image.Image, lines: list[list[str]], ink: tuple[int, int, int]
    ) -> Iterator[Word]:
        pen = ImageDraw.Draw(image)
        for number, line in enumerate(lines):
            x, y = 16.0, 12 + number * _LINE
            for text in line:
                pen.text((x, y), text, ink, self._font)
                box = pen.textbbox((x, y), text, self._font)
                left, top, right, bottom = map(round, box)
                yield Word(text, Rectangle(left, top, right - left, bottom - top))
                x = round(x + pen.textlength(text + " ", self._font) + 1)

    def _shot(self, number: int, page: _Page, dialog: int) -> Shot:
        at = _START + timedelta(minutes=number)
        screen = Image.new("RGB", (WIDTH, HEIGHT), (58, 110, 140))
        words: list[Word] = []
        document = self._rendered(page)
        view = Rectangle(120, _PANEL + _TITLE + 20, document.width, 620)
        part = document.crop((0, page.offset, document.width, page.offset + view.height))
        screen.paste(part, (view.x, view.y))
        for word in page.words:
            place = word.place._replace(x=word.place.x + view.x, y=word.place.y + view.y)
            place = place._replace(y=place.y - page.offset)
            if view.y <= place.y and place.bottom <= view.bottom:
                words.append(Word(word.text, place))
        words += self._bar(screen, view.y - _TITLE, view.x, document.width, page.title)
        clock = f"{at:%H:%M}"
        words += self._bar(screen, 0, 0, WIDTH, f"Applications Places System {clock}")
        if dialog:
            box = Rectangle(480, 300, 400, 130)
            ImageDraw.Draw(screen).rectangle(
                (box.x, box.y, box.right - 1, box.bottom - 1), (236, 236, 236), (90, 90, 90)
            )
            words = [word for word in words if not word.place.overlap(box)]
            text = Image.new("RGB", (box.width - 20, 100), (236, 236, 236))
            for word in self._drawn(text, _DIALOG, (10, 10, 10)):
                place = word.place._replace(
                    x=word.place.x + box.x + 10, y=word.place.y + box.y + 10
                )
                words.append(Word(word.text, place))
            screen.paste(text, (box.x + 10, box.y + 10))
        return Shot(at, np.asarray(screen), words)

    def _bar(self, screen: Image.Image, y: int, x: int, width: int, text: str) -> Iterator[Word]:
        """Draw a bar with a title."""
        bar = Image.new("RGB", (width, _TITLE - 2), (214, 214, 210))
        pen = ImageDraw.Draw(bar)
        at = 10.0
        for part in text.split():
            pen.text((at, 5), part, (30, 30, 30), self._font)
            left, top, right, bottom = map(round, pen.textbbox((at, 5), part, self._font))
            yield Word(part, Rectangle(left + x, top + y, right - left, bottom - top))
            at = round(at + pen.textlength(part + " ", self._font) + 1)
        screen.paste(bar, (x, y))
