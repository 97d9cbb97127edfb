"""Makes a corpus without real screenshots: a made-up desktop of terminals, written by Pillow.

    python -m tests.bench.terminals FOLDER [--frames 120]

The frames are 1280 x 800, RGB. They show a wallpaper with noise, a log that scrolls by some lines a
frame, a text that grows by a few words, a window that comes and goes, and a clock that ticks. Some
frames repeat the one before. Each run makes the same frames. Real screenshots differ; this corpus
serves as a second opinion.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

_WIDTH, _HEIGHT = 1280, 800
_WORDS = [
    "the",
    "of",
    "and",
    "error",
    "warning",
    "request",
    "served",
    "in",
    "ms",
    "from",
    "cache",
    "200",
    "404",
    "GET",
    "/index.html",
]


def wallpaper() -> Image.Image:
    """A colour gradient with the noise of a photograph."""
    across, down = np.meshgrid(np.linspace(0, 90, _WIDTH), np.linspace(0, 90, _HEIGHT))
    slope = np.stack((40 + across, 60 + down, 150 - across), axis=2)
    noise = np.random.default_rng(1).normal(0, 3, slope.shape)
    return Image.fromarray(np.clip(slope + noise, 0, 255).astype(np.uint8))


def words(chance: random.Random, count: int) -> str:
    """`count` random words, as a line of a log or of a text."""
    return " ".join(chance.choice(_WORDS) for _ in range(count))


def window(image: Image.Image, box: tuple[int, int, int, int], lines: list[str], ink: str) -> None:
    """Draw a dark window with a title bar, and as many of the last lines as fit."""
    left, top, right, bottom = box
    draw = ImageDraw.Draw(image)
    draw.rectangle(box, "#101418", "#808890")
    draw.rectangle((left, top, right, top + 18), "#38424c")
    for number, line in enumerate(lines[-((bottom - top - 24) // 13) :]):
        draw.text((left + 6, top + 22 + 13 * number), line, ink)


def frames(count: int) -> list[Image.Image]:
    """All frames of the corpus, in order."""
    chance = random.Random(1)
    paper = wallpaper()
    log = [words(chance, 9) for _ in range(60)]
    text = [words(chance, 7) for _ in range(20)]
    made: list[Image.Image] = []
    for number in range(count):
        if made and chance.random() < 0.15:
            made.append(made[-1])
            continue
        log += [words(chance, 9) for _ in range(chance.choice((0, 1, 2, 5)))]
        text[-1] += " " + words(chance, chance.choice((0, 1, 2)))
        if len(text[-1]) > 70:
            text.append("")
        image = paper.copy()
        window(image, (40, 60, 640, 620), log, "#80d090")
        window(image, (600, 120, 1180, 700), text, "#d8d8d8")
        if number // 7 % 3 == 1:
            window(image, (300, 300, 800, 560), text[:12], "#e0c070")
        clock = f"{number // 60:02}:{number % 60:02}"
        ImageDraw.Draw(image).text((_WIDTH - 60, 8), clock, "white")
        made.append(image)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=120)
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(frames(chosen.frames)):
        image.save(chosen.folder / f"{number:06}.png")


if __name__ == "__main__":
    main()
