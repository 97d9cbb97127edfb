"""A store with pictures of a made-up desktop, for tests and for the pictures of the documentation.

    python -m tests.web.demo STORE [--days 400]

One day has a picture each minute. The days before have small pictures, each five minutes.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import trio
from PIL import Image

from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.index import ROOT, Index
from fsmount.store.layout import Layout
from fsmount.store.store import open_store
from fsmount.store.transfer.importing import Importer
from fsmount.text import slots
from fsmount.text.database import Series, make_text
from fsmount.text.results import Rectangle, Word
from tests.web.desktop import SIZE, Desktop, Moment, day

Written = tuple[str, tuple[int, int, int, int]]
"""A word, and where it is: x, y, width and height."""
Drawn = list[Written]
DAY = datetime(2026, 3, 12)
_SMALL = (400, 250)


def name_of(moment: Moment) -> str:
    """The name of the picture of a moment, as a loop of a screenshot tool makes it."""
    return f"{moment.at.isoformat()}.png"


def draw_day(folder: Path, step_min: int) -> list[tuple[str, Drawn]]:
    """Write the pictures of :data:`DAY`; return their names and words, in order."""
    folder.mkdir(parents=True)
    desktop, found = Desktop(), list[tuple[str, Drawn]]()
    for moment in day(DAY, step_min):
        desktop.picture(moment).save(folder / name_of(moment), compress_level=1)
        found.append((name_of(moment), desktop.words))
    return found


def draw_days_before(folder: Path, count: int, step_min: int) -> None:
    """Write small pictures of the days before, fewer on weekends and none on some days."""
    folder.mkdir(parents=True)
    chance = random.Random(3)
    desktop = Desktop(seed=2)
    for number in range(count, 0, -1):
        date = DAY - timedelta(days=number)
        if chance.random() < (0.6 if date.weekday() > 4 else 0.07):
            continue
        share = chance.uniform(0.15, 0.4) if date.weekday() > 4 else chance.uniform(0.45, 1.0)
        shown: dict[str, Image.Image] = {}
        for moment in day(date, step_min, seed=number):
            doing = "idle" if chance.random() > share else moment.doing
            if doing not in shown and (doing != "idle" or not shown):
                small = desktop.picture(moment).resize(_SMALL, Image.Resampling.LANCZOS)
                shown[doing] = small
            image = shown.get(doing) or next(reversed(shown.values()))
            if doing != "idle":
                # What was read or written: letters that no earlier picture has.
                image = image.copy()
                noise = Image.frombytes("RGB", (400, 8), chance.randbytes(400 * 8 * 3))
                image.paste(noise, (0, 242))
                shown[doing] = image
            image.save(folder / name_of(moment), compress_level=1)


def add(store: Path, folder: Path) -> None:
    """Import a folder under its own name."""
    trio.run(_import, store, [folder], os.fsencode(folder.name))


def make(store: Path, *, step_min: int = 1, days: int = 0, words: bool = True) -> list[str]:
    """Make a store with the folder ``screen``. Return the names of the pictures of :data:`DAY`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "screen"
        drawn = draw_day(folder, step_min)
        parts = [folder]
        if days:
            # Another folder on the disk; they go into the same one of the store.
            before = Path(scratch) / "before" / "screen"
            draw_days_before(before, days, max(5, step_min))
            parts.insert(0, before)
        config.make(store, Disk())
        trio.run(_import, store, parts)
    if words:
        write_words(store, drawn)
    return [name for name, _ in drawn]


def write_words(store: Path, drawn: Sequence[tuple[str, Drawn]]) -> None:
    """Write a database of the words of some pictures in ``screen``, as if they had been read."""
    layout = Layout(store)
    index = Index(layout.index, Disk())
    folder = index.lookup(ROOT, b"screen")
    assert folder is not None
    found = [index.lookup(folder.ino, name.encode()) for name, _ in drawn]
    pictures = [
        (inode.ino, _at_us(name))
        for (name, _), inode in zip(drawn, found, strict=True)
        if inode is not None
    ]
    database = make_text(layout, index.identity())
    slot = slots.make(pictures, _lasting([words for _, words in drawn]))
    with database.transaction():
        series = database.series_id(Series(b"screen", *SIZE))
        number = database.add_slot(series, slot, 0)
        database.index_slot(number, slot)
        for inode in found:
            if inode is not None:
                database.add_picture(inode.ino, inode.object_id or 0, number)
    database.close()
    index.close()


def _at_us(name: str) -> int:
    """When a picture was taken, by its name, as local time."""
    return round(datetime.fromisoformat(name.removesuffix(".png")).timestamp()) * 10**6


def _lasting(pictures: Sequence[Drawn]) -> list[tuple[Word, int, int, bool]]:
    """Each word with the first and the last picture that shows it at its place."""
    ended, going = list[tuple[Word, int, int, bool]](), dict[Written, int]()
    for number, words in enumerate([*pictures, []]):
        shown = set(words)
        for word in [word for word in going if word not in shown]:
            first = going.pop(word)
            ended.append((Word(word[0], Rectangle(*word[1])), first, number - 1, False))
        for word in words:
            going.setdefault(word, number)
    return ended


async def _import(store: Path, folders: list[Path], target: bytes = b"screen") -> None:
    with open_store(store) as opened:
        async with opened.running() as running:
            importer = Importer(running, lambda files, count: None)
            for folder in folders:
                await importer.add(folder, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--days", type=int, default=400)
    parser.add_argument("--step", type=int, default=1)
    chosen = parser.parse_args()
    make(chosen.store, step_min=chosen.step, days=chosen.days)


if __name__ == "__main__":
    main()
