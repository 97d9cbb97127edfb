"""Makes screenshots of any size: desktops side by side, with photographs, windows and clocks.

A screen of up to 1920 x 1080 pixels shows one desktop, a larger one several, each with its own
wallpaper. A desktop has a bar with a clock and a graph of the load, a log that scrolls, a text that
grows, and a window that comes and goes. Each run makes the same frames.

The PNGs are those of libpng: its choice of filters, and streams of classic zlib, level 6. The
kernel of fsmount writes these streams from the frame before, in a tenth of zlib's time.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fsmount.codec.deflate.deflate import DeflateParams
from fsmount.codec.memory import WorkerMemory
from fsmount.codec.png.png import assemble
from fsmount.codec.png.recipe import Recipe, Stream
from tests.bench.synthetic import names
from tests.bench.terminals import words
from tests.support.pngs import IEND

_DESKTOP = (1920, 1080)
_BAR = 26
_LINE = 17
_STREAM_BYTES = 1 << 30
# Rows whose filters are chosen at once.
_ROWS = 64

Rows = NDArray[np.uint8]


class Screen:
    """A screen that changes step by step.

    `seed` chooses wallpapers, windows and what happens. :meth:`act` is a step of somebody at work,
    :meth:`tick` one of an idle screen.
    """

    def __init__(
        self, width: int, height: int, photographs: Sequence[Image.Image], seed: int = 1
    ) -> None:
        chance = self._chance = random.Random(seed)
        columns, rows = max(1, width // _DESKTOP[0]), max(1, height // _DESKTOP[1])
        size = width // columns, height // rows
        self._desktops = [
            _Desktop((size[0] * x, size[1] * y), size, chance.choice(photographs), chance)
            for y in range(rows)
            for x in range(columns)
        ]
        self.image = Image.new("RGB", (width, height))
        for desktop in self._desktops:
            desktop.show(self.image)
        self._minute = 0
        self.tick()

    def tick(self) -> None:
        """A minute passes: the clocks and the graphs change."""
        self._minute += 1
        for desktop in self._desktops:
            desktop.tick(self.image, self._minute)

    def act(self) -> None:
        """A minute passes in which somebody uses one of the desktops."""
        desktop = self._chance.choice(self._desktops)
        desktop.act()
        desktop.show(self.image)
        self.tick()


class _Desktop:
    """One desktop of a screen, at `place`."""

    def __init__(
        self,
        place: tuple[int, int],
        size: tuple[int, int],
        photograph: Image.Image,
        chance: random.Random,
    ) -> None:
        self._place, self._size, self._chance = place, size, chance
        self._paper = photograph.resize(size, Image.Resampling.LANCZOS)
        self._log = [words(chance, 12) for _ in range(80)]
        self._text = [words(chance, 9) for _ in range(30)]
        self._third = False
        self._load = [chance.randrange(_BAR - 6) for _ in range(60)]

    def act(self) -> None:
        """Scroll, type, or open or close a window."""
        kind = self._chance.random()
        if kind < 0.45:
            self._log += [words(self._chance, 12) for _ in range(self._chance.randint(1, 8))]
        elif kind < 0.9:
            self._text[-1] += " " + words(self._chance, self._chance.randint(1, 6))
            if len(self._text[-1]) > 90:
                self._text.append("")
        else:
            self._third = not self._third
        del self._log[:-80], self._text[:-60]

    def show(self, image: Image.Image) -> None:
        """Draw the wallpaper and the windows."""
        shown = self._paper.copy()
        draw = ImageDraw.Draw(shown)
        w, h = self._size
        self._window(draw, (w // 30, h // 12, w // 2, 7 * h // 8), self._log, "#101418", "#80d090")
        box = (9 * w // 20, h // 6, 15 * w // 16, 3 * h // 4)
        self._window(draw, box, self._text, "#ffffff", "#202020")
        if self._third:
            box = (w // 4, h // 3, 2 * w // 3, 5 * h // 6)
            self._window(draw, box, self._text[:20], "#f0e8d0", "#503010")
        image.paste(shown, self._place)

    def _window(
        self,
        draw: ImageDraw.ImageDraw,
        box: tuple[int, int, int, int],
        lines: Sequence[str],
        paper: str,
        ink: str,
    ) -> None:
        """Draw a window with a title bar, and as many of the last lines as fit."""
        left, top, right, bottom = box
        draw.rectangle(box, paper, "#808890")
        draw.rectangle((left, top, right, top + 22), "#38424c")
        count = max(0, (bottom - top - 30) // _LINE)
        for number, line in enumerate(lines[-count:] if count else ()):
            x, y = left + 6, top + 26 + _LINE * number
            for word in line[: (right - left) // 9].split():
                mask = _word(word)
                draw.bitmap((x, y), mask, ink)
                x += mask.width + 4

    def tick(self, image: Image.Image, minute: int) -> None:
        """Draw the bar with the clock and the graph."""
        self._load = [*self._load[1:], self._chance.randrange(_BAR - 6)]
        bar = Image.new("RGB", (self._size[0], _BAR), "#202428")
        draw = ImageDraw.Draw(bar)
        for at, load in enumerate(self._load):
            draw.line((8 + 2 * at, _BAR - 4 - load, 8 + 2 * at, _BAR - 4), "#40a0e0")
        clock = f"{minute // 1440:03} {minute // 60 % 24:02}:{minute % 60:02}"
        draw.text((self._size[0] - 90, 5), clock, "white", font=_font())
        image.paste(bar, self._place)


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that comes with Pillow."""
    return ImageFont.load_default(13)


@functools.lru_cache(10_000)
def _word(word: str) -> Image.Image:
    """A word as a mask. Words repeat, and to draw one takes a millisecond."""
    mask = Image.new("L", (max(1, int(_font().getlength(word))), _LINE))
    ImageDraw.Draw(mask).text((0, 0), word, 255, font=_font())
    return mask


class PngWriter:
    """Writes the frames of one screen as PNGs. Each is made from the one before."""

    def __init__(self) -> None:
        self._memory = WorkerMemory()
        self._memory.streams.resize(_STREAM_BYTES)
        self._before: tuple[Rows, Rows] | None = None

    def png(self, image: Image.Image) -> bytes:
        """The PNG of an image of mode RGB."""
        frame = np.asarray(image)
        rows = frame.reshape(len(frame), -1)
        types = self._types(rows)
        recipe = Recipe(
            colour_type=2,
            bit_depth=8,
            opaque=False,
            filters=types.tobytes(),
            streams=(Stream(b"", 0x789C, DeflateParams(6, 1, 8, 15), 8192, b""),),
            tail=IEND,
        )
        return assemble(frame, recipe, memory=self._memory)

    def _types(self, rows: Rows) -> Rows:
        """The filter of each row: as libpng chooses it, the one with the least sum."""
        above = np.vstack((np.zeros_like(rows[:1]), rows[:-1]))
        types = np.zeros(len(rows), np.uint8)
        changed = np.ones(len(rows), np.bool_)
        if self._before is not None and self._before[0].shape == rows.shape:
            types[:] = self._before[1]
            changed = (rows != self._before[0]).any(axis=1)
            changed[1:] |= changed[:-1].copy()
        places = np.flatnonzero(changed)
        for some in (places[at : at + _ROWS] for at in range(0, len(places), _ROWS)):
            types[some] = _cheapest(rows[some], above[some])
        self._before = rows, types
        return types


def _cheapest(rows: Rows, above: Rows) -> Rows:
    """The filter with the least sum of absolute differences, for each row of RGB samples."""
    x, b = rows.astype(np.int16), above.astype(np.int16)
    a, c = np.zeros_like(x), np.zeros_like(b)
    a[:, 3:], c[:, 3:] = x[:, :-3], b[:, :-3]
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    paeth = np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c))
    guesses: tuple[NDArray[np.int16] | int, ...] = (0, a, b, (a + b) // 2, paeth)
    sums = [np.abs((x - guess).astype(np.int8).astype(np.int16)).sum(axis=1) for guess in guesses]
    return np.asarray(np.argmin(sums, axis=0), np.uint8)


def pictures(
    width: int,
    height: int,
    count: int,
    photographs: Sequence[Image.Image],
    *,
    is_idle: Callable[[int], bool] = lambda number: False,
) -> Iterator[bytes]:
    """The PNGs of `count` frames of one screen. In frames that are idle only clocks change."""
    screen, writer = Screen(width, height, photographs), PngWriter()
    for number in range(count):
        yield writer.png(screen.image)
        (screen.tick if is_idle(number) else screen.act)()


def fill(
    folder: Path, width: int, height: int, count: int, photographs: Sequence[Image.Image]
) -> list[Path]:
    """Write the frames of a screen in use to a new folder; returns the files in order."""
    folder.mkdir(parents=True)
    files = [folder / name.decode() for name in names(count)]
    for file, data in zip(files, pictures(width, height, count, photographs), strict=True):
        file.write_bytes(data)
    return files
