"""A store with pictures of a made-up desktop, for tests and for the pictures of the documentation.

    python -m tests.web.demo STORE [--days 400]

One day has a picture each minute. The days before have small pictures, each five minutes.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import trio
from PIL import Image

from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.store import open_store
from fsmount.store.transfer.importing import Importer
from tests.web.desktop import Desktop, Moment, day

DAY = datetime(2026, 3, 12)
_SMALL = (400, 250)


def name_of(moment: Moment) -> str:
    """The name of the picture of a moment, as a loop of a screenshot tool makes it."""
    return f"{moment.at.isoformat()}.png"


def draw_day(folder: Path, step_min: int) -> list[Moment]:
    """Write the pictures of :data:`DAY`; return its moments."""
    folder.mkdir(parents=True)
    desktop, moments = Desktop(), list(day(DAY, step_min))
    for moment in moments:
        desktop.picture(moment).save(folder / name_of(moment), compress_level=1)
    return moments


def draw_days_before(folder: Path, count: int) -> None:
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
        for moment in day(date, 5, seed=number):
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


def make(store: Path, *, step_min: int = 1, days: int = 0) -> list[Moment]:
    """Make a store with the folder ``screen``. Return the moments of :data:`DAY`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "screen"
        moments = draw_day(folder, step_min)
        parts = [folder]
        if days:
            # Another folder on the disk; they go into the same one of the store.
            before = Path(scratch) / "before" / "screen"
            draw_days_before(before, days)
            parts.insert(0, before)
        config.make(store, Disk())
        trio.run(_import, store, parts)
    return moments


async def _import(store: Path, folders: list[Path]) -> None:
    with open_store(store) as opened:
        async with opened.running() as running:
            importer = Importer(running, lambda files, count: None)
            for folder in folders:
                await importer.add(folder, b"screen")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--days", type=int, default=400)
    parser.add_argument("--step", type=int, default=1)
    chosen = parser.parse_args()
    make(chosen.store, step_min=chosen.step, days=chosen.days)


if __name__ == "__main__":
    main()
