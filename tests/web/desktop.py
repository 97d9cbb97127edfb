"""A desktop that somebody works at, drawn with Pillow's own font, so it looks alike everywhere."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

SIZE = (1280, 800)
_BAR = 28
_WORDS = (
    *("the", "budget", "for", "spring", "review", "of", "every", "chapter", "notes", "about"),
    *("a", "walk", "by", "river", "letters", "to", "Ada", "train", "Lisbon", "at", "noon"),
    *("weather", "map", "coast", "compile", "link", "run", "test", "again", "fixed", "two"),
    *("faults", "in", "parser", "harvest", "figs", "recipe", "with", "lemon", "and", "thyme"),
    *("meeting", "moved", "Friday", "room", "nine"),
)
_CODE = (
    "def render(frame, layers):",
    "    found = {}",
    "    for number, layer in enumerate(layers):",
    "        if layer.is_empty:",
    "            continue",
    "        found[number] = compose(frame, layer)",
    "    return found",
    "",
    "class Window:",
    "    def __init__(self, place, size):",
    "        self.place, self.size = place, size",
    "",
    "    def move(self, dx, dy):",
    "        self.place = self.place[0] + dx, self.place[1] + dy",
)


class Moment(NamedTuple):
    """When a picture is taken, and what somebody does then: editor, browser, mail, photos, idle."""

    at: datetime
    doing: str


def font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font that Pillow has itself."""
    found = ImageFont.load_default(size)
    assert isinstance(found, ImageFont.FreeTypeFont)
    return found


def day(date: datetime, step_min: int = 1, seed: int = 0) -> Iterator[Moment]:
    """Yield the moments of a day of work, with a lunch break and an evening."""
    chance = random.Random(seed)
    parts = (
        ("editor", 8.9, 10.4),
        ("mail", 10.4, 10.8),
        ("editor", 10.8, 12.3),
        ("idle", 12.3, 13.2),
        ("browser", 13.2, 14.6),
        ("editor", 14.6, 16.1),
        ("idle", 16.1, 16.4),
        ("mail", 16.4, 17.2),
        ("idle", 17.2, 20.3),
        ("photos", 20.3, 21.4),
    )
    for doing, start, end in parts:
        minute = round(start * 60 + chance.uniform(-4, 4))
        while minute < end * 60 - 4:
            yield Moment(date + timedelta(minutes=minute, seconds=4), doing)
            minute += step_min


class Desktop:
    """Draws one picture after another. `seed` chooses what is written in the windows."""

    def __init__(self, seed: int = 1, size: tuple[int, int] = SIZE) -> None:
        self._chance = random.Random(seed)
        self._size = size
        self._paper = _wallpaper(size)
        self._letters = font(15)
        self._small = font(13)
        self._large = font(24)
        self._lines = [self._sentence(9) for _ in range(40)]
        self._code = [self._chance.choice(_CODE) for _ in range(60)]
        self._log = ["$ make check"]
        self._photo = 0
        self._showing = "editor"
        self.words: list[tuple[str, tuple[int, int, int, int]]] = []
        """The words of the last picture, and where they are: x, y, width and height."""

    def picture(self, moment: Moment) -> Image.Image:
        """Return the screen at a moment."""
        if moment.doing != "idle":
            self._showing = moment.doing
            self._act(moment.doing)
        self.words = []
        image = self._paper.copy()
        draw = ImageDraw.Draw(image)
        {
            "editor": self._editor,
            "browser": self._browser,
            "mail": self._mail,
            "photos": self._photos,
        }[self._showing](draw)
        width = self._size[0]
        draw.rectangle((0, 0, width, _BAR), fill="#20242c")
        self._write(draw, (12, 5), "Files   Edit   View", fill="#c8ccd4", font=self._letters)
        clock = f"{moment.at:%a %d %b  %H:%M}"
        self._write(draw, (width - 150, 5), clock, fill="white", font=self._letters)
        return image

    def _write(
        self,
        draw: ImageDraw.ImageDraw,
        place: tuple[int, int],
        text: str,
        *,
        fill: str,
        font: ImageFont.FreeTypeFont,
    ) -> None:
        """Draw a line of text, and note where its words are."""
        draw.text(place, text, fill=fill, font=font)
        x, y = place
        for word in re.finditer(r"\S+", text):
            left, right = (font.getlength(text[:at]) for at in word.span())
            top, bottom = font.getbbox("Ag")[1::2]
            box = round(x + left), round(y + top), round(right - left), round(bottom - top)
            self.words.append((word[0], box))

    def _sentence(self, count: int) -> str:
        return " ".join(self._chance.choices(_WORDS, k=count))

    def _act(self, doing: str) -> None:
        if doing == "editor":
            # Somebody scrolls to another place, or writes a line.
            if self._chance.random() < 0.3:
                self._code = [self._chance.choice(_CODE) for _ in range(60)]
            at = self._chance.randrange(30)
            self._code[at] = self._chance.choice(_CODE) + "  # " + self._sentence(2)
            self._log += [f"{self._chance.random():.3f} s  {self._sentence(4)}"] * 2
            del self._log[:-17]
        elif doing == "photos":
            self._photo += 1
        else:
            self._lines.append(self._sentence(9))
            del self._lines[: self._chance.randint(1, 3)]
            while len(self._lines) < 40:
                self._lines.append(self._sentence(9))

    def _window(
        self, draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], title: str, fill: str
    ) -> None:
        x, y, right, bottom = box
        draw.rectangle((x - 1, y - 1, right + 1, bottom + 1), fill="#5a6270")
        draw.rectangle((x, y, right, y + 26), fill="#e4e7ec")
        self._write(draw, (x + 10, y + 4), title, fill="#20242c", font=self._letters)
        for number, colour in enumerate(("#d9756c", "#d9b36c", "#7fb88a")):
            left = right - 22 * (number + 1)
            draw.ellipse((left, y + 7, left + 12, y + 19), fill=colour)
        draw.rectangle((x, y + 27, right, bottom), fill=fill)

    def _editor(self, draw: ImageDraw.ImageDraw) -> None:
        self._window(draw, (40, 60, 800, 760), "render.py - editor", "#1d2330")
        for number, line in enumerate(self._code[:34]):
            y = 96 + 19 * number
            self._write(draw, (52, y), f"{number + 1:3}", fill="#5b6578", font=self._small)
            colour = "#8ec07c" if line.startswith(("def", "class")) else "#d5dae4"
            self._write(draw, (92, y), line, fill=colour, font=self._letters)
        self._window(draw, (830, 300, 1240, 720), "terminal", "#0e1116")
        for number, line in enumerate(self._log):
            self._write(draw, (842, 338 + 21 * number), line[:52], fill="#7fd08f", font=self._small)

    def _browser(self, draw: ImageDraw.ImageDraw) -> None:
        self._window(draw, (60, 50, 1220, 770), "A journal of walks - browser", "#ffffff")
        draw.rectangle((72, 84, 1208, 108), fill="#eef0f3")
        self._write(draw, (84, 88), "journal.example/spring", fill="#57606f", font=self._small)
        self._write(draw, (180, 140), "Spring, along the river", fill="#1b1f27", font=self._large)
        for number, line in enumerate(self._lines[:24]):
            self._write(draw, (180, 190 + 23 * number), line, fill="#30353f", font=self._letters)
        draw.rectangle((900, 190, 1160, 380), fill="#7f9fb5")
        draw.polygon(
            [(900, 380), (990, 250), (1060, 330), (1110, 280), (1160, 380)], fill="#4e6b60"
        )

    def _mail(self, draw: ImageDraw.ImageDraw) -> None:
        self._window(draw, (90, 70, 1190, 750), "Mail", "#fbfbfd")
        draw.rectangle((90, 97, 420, 750), fill="#eceff4")
        for number in range(11):
            y = 110 + 57 * number
            if number == 2:
                draw.rectangle((90, y - 6, 420, y + 46), fill="#cfdcf2")
            self._write(
                draw, (104, y), self._lines[number][:26], fill="#1b1f27", font=self._letters
            )
            begins = self._lines[-number - 1][:34]
            self._write(draw, (104, y + 21), begins, fill="#68707e", font=self._small)
        self._write(draw, (450, 120), "Room nine, on Friday", fill="#1b1f27", font=self._large)
        for number, line in enumerate(self._lines[10:32]):
            self._write(draw, (450, 172 + 24 * number), line, fill="#30353f", font=self._letters)

    def _photos(self, draw: ImageDraw.ImageDraw) -> None:
        self._window(draw, (120, 60, 1160, 760), "Photos", "#15171b")
        hue = self._photo * 37 % 360
        for row in range(12):
            y = 110 + 48 * row
            colour = f"hsl({hue},{35 + row}%,{72 - 4 * row}%)"
            draw.rectangle((200, y, 1080, y + 48), fill=colour)
        peaks = random.Random(self._photo)
        points = [(200, 686)]
        points += [(x, 480 - peaks.randrange(190)) for x in range(200, 1081, 110)]
        draw.polygon([*points, (1080, 686)], fill=f"hsl({(hue + 150) % 360},30%,28%)")


def _wallpaper(size: tuple[int, int]) -> Image.Image:
    """A calm gradient."""
    ramp = Image.linear_gradient("L").resize(size)
    low, high = Image.new("RGB", size, "#31465f"), Image.new("RGB", size, "#8fa9b8")
    return Image.composite(low, high, ramp)
