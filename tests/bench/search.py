"""Search in a generated year of words: size of the database, and how long a query takes.

Run it with ``python -m tests.bench.search [--days N]``. A day has 1,440 pictures and 164,000 new
words, so a year has 60 million. Words have the frequencies of a language (Zipf), and 3 of 100 are
there only once: numbers, names of files, misread words.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index
from fsmount.store.layout import Layout
from fsmount.store.store import open_read_store
from fsmount.text import slots
from fsmount.text.database import Series, TextDatabase, make_text, path_of
from fsmount.text.slots import Slot
from fsmount.text.words import Words, open_words

_SLOTS_A_DAY, _PICTURES = 96, 15
_NEW_WORDS, _STEADY_WORDS = 1712, 150
_LANGUAGE = 120_000
_ONCE = 0.03
_START_US = 1_700_000_000 * 10**6
_MINUTE_US = 60 * 10**6
_TALL, _DEEP = frozenset("bdfhklt0123456789"), frozenset("gjpqy")
_SYLLABLES = [a + b for a in "bcdfghjklmnprstvwz" for b in ("a", "e", "i", "o", "u", "an", "er")]


class Year:
    """Generates the slots of a screen, and remembers what can be asked."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._rng = np.random.default_rng(seed)
        made: dict[str, None] = {}
        while len(made) < _LANGUAGE:
            syllables = self._random.choices(_SYLLABLES, k=self._random.randint(1, 4))
            made["".join(syllables)] = None
        self.language = np.array(list(made), dtype=object)
        weights = 1.0 / np.arange(1, _LANGUAGE + 1)
        self._edges = np.cumsum(weights / weights.sum())
        self._reach: dict[str, tuple[int, int]] = {}
        self._steady = self._words(_STEADY_WORDS)
        self.phrases: list[str] = []
        self.text_bytes = 0

    def _words(self, count: int) -> list[str]:
        ranks = np.searchsorted(self._edges, self._rng.random(count))
        found: list[str] = list(self.language[np.minimum(ranks, _LANGUAGE - 1)])
        return found

    def _edges_of(self, text: str) -> tuple[int, int]:
        """Return how far letters of a word reach above and below the small ones, in pixels."""
        found = self._reach.get(text)
        if found is None:
            found = 3 * (not _TALL.isdisjoint(text)), 3 * (not _DEEP.isdisjoint(text))
            if len(self._reach) < 2 * _LANGUAGE:
                self._reach[text] = found
        return found

    def slot(self, number: int) -> Slot:
        """Return the slot of a quarter of an hour, all of whose pictures have new words."""
        new = self._words(_NEW_WORDS)
        for at in self._rng.integers(0, _NEW_WORDS, int(_ONCE * _NEW_WORDS)).tolist():
            new[at] = f"{self._random.choice(_SYLLABLES)}{self._random.getrandbits(40):x}"
        self.text_bytes += sum(map(len, new)) + len(new)
        if number % 16 == 0:
            at = self._random.randrange(0, _NEW_WORDS - 12) // 10 * 10
            self.phrases.append(" ".join(new[at + 2 : at + 5]))
        texts = self._steady + new
        count = len(texts)
        first = np.concatenate(
            [np.zeros(_STEADY_WORDS, np.int64), np.arange(_NEW_WORDS) * _PICTURES // _NEW_WORDS]
        )
        stay = self._rng.geometric(0.3, count) - 1
        last = np.minimum(first + stay, _PICTURES - 1)
        last[:_STEADY_WORDS] = _PICTURES - 1
        width = np.array([7 * len(text) for text in texts], np.int64)
        width += self._rng.integers(-1, 2, count)
        # Lines of ten words. The places of a box depend on the letters, as those of OCR do.
        gaps = np.where(np.arange(count) % 10 == 0, 0, 5 + self._rng.integers(0, 3, count))
        ends = np.cumsum(width + gaps)
        line = np.arange(count) // 10
        starts = np.concatenate([[0], ends[9::10]])[line]
        x = 20 + ends - width - starts
        above, below = np.array([self._edges_of(text) for text in texts], np.int64).T
        height = 7 + above + below
        y = 30 + line % 45 * 19 + 12 - above
        carried = last == _PICTURES - 1
        inos = np.arange(_PICTURES) + 2 + number * _PICTURES
        at_us = _START_US + (np.arange(_PICTURES) + number * _PICTURES) * _MINUTE_US
        boxes = np.stack([x, y, width, height], axis=1).astype(np.int64)
        return Slot(inos, at_us, texts, boxes, first, last, carried)


def fill(database: TextDatabase, year: Year, days: int) -> None:
    """Write the slots of some days."""
    series = database.series_id(Series(b"desk", 1600, 900))
    nothing = slots.make([(0, 0)], [])
    previous = 0
    for day in range(days):
        with database.transaction():
            for at in range(_SLOTS_A_DAY):
                slot = year.slot(day * _SLOTS_A_DAY + at)
                number = database.add_slot(series, nothing, previous if at else 0)
                database.index_slot(number, slot)
                for ino in slot.ino.tolist():
                    database.add_picture(ino, ino, number)
                previous = number
        if day % 30 == 0:
            print(f"day {day}", file=sys.stderr, flush=True)


def make(root: Path, year: Year, days: int) -> None:
    """Make a store with the words of some days."""
    config.make(root, Disk())
    layout = Layout(root)
    began = time.process_time()
    index = Index(layout.index, Disk())
    _pretend(index, days * _SLOTS_A_DAY * _PICTURES)
    identity = index.identity()
    index.close()
    with make_text(layout, identity) as database:
        fill(database, year, days)
        database.empty_log()
    print(f"written in {time.process_time() - began:.0f} s of CPU time")


def queries(year: Year, count: int) -> Iterator[tuple[str, str]]:
    """Yield (kind, query)."""
    source = random.Random(2)
    language = year.language

    def word() -> str:
        # Any rank is as likely as ten times that rank: frequent words and rare ones.
        return str(language[int(10 ** source.uniform(0, np.log10(_LANGUAGE)))])

    kinds: list[tuple[str, int, Callable[[], str]]] = [
        ("a word", 40, word),
        ("two words", 20, lambda: f"{word()} {word()}"),
        ("a phrase", 15, lambda: f'"{source.choice(year.phrases)}"'),
        ("a beginning", 12, lambda: word()[:4] + "*"),
        ("a part", 6, lambda: "*" + word()[1:5]),
        ("a wrong letter", 7, lambda: word()[:-1] + "q"),
    ]
    names, weights, makers = zip(*kinds, strict=True)
    for _ in range(count):
        at = source.choices(range(len(kinds)), weights)[0]
        yield names[at], makers[at]()


def ask(words: Words, year: Year, count: int) -> None:
    """Print how long queries take."""
    taken: dict[str, list[tuple[float, float]]] = {}
    for kind, query in queries(year, count):
        began, cpu = time.perf_counter(), time.process_time()
        words.search(query)
        spent = time.perf_counter() - began, time.process_time() - cpu
        taken.setdefault(kind, []).append(spent)
        taken.setdefault("all", []).append(spent)
    print(f"{'query':<16}{'number':>7}{'p50 ms':>9}{'p99 ms':>9}{'CPU p50':>9}{'CPU p99':>9}")
    for kind, each in taken.items():
        table = np.array(each) * 1000
        p50, p99 = np.percentile(table, [50, 99], axis=0)
        print(f"{kind:<16}{len(each):>7}{p50[0]:9.1f}{p99[0]:9.1f}{p50[1]:9.1f}{p99[1]:9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument(
        "--folder", type=Path, help="Keep the database there, or ask the one of an earlier run."
    )
    chosen = parser.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="fsmount-search-", dir="/var/tmp"))
    root = folder / "store"
    year = Year()
    try:
        if root.exists():
            for number in range(chosen.days * _SLOTS_A_DAY):
                year.slot(number)  # It remembers what can be asked.
        else:
            make(root, year, chosen.days)
        size = path_of(Layout(root)).stat().st_size
        words = chosen.days * _SLOTS_A_DAY * _NEW_WORDS
        print(
            f"{chosen.days} days, {words / 1e6:.1f} million words, {year.text_bytes / 1e6:.0f} MB"
        )
        print(f"database {size / 1e6:.0f} MB, {size / year.text_bytes:.2f} times the text")
        with open_read_store(root) as store, open_words(store) as found:
            ask(found, year, chosen.queries)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"memory of the whole run {most:.0f} MB")
    finally:
        if chosen.folder is None:
            shutil.rmtree(folder)


def _pretend(index: Index, count: int) -> None:
    """Give the index a row and a name for each picture, without bodies."""
    for start in range(0, count, 20_000):
        numbers = range(start + 2, min(start + 20_000, count) + 2)
        with index.transaction():
            for ino in numbers:
                index._run(
                    "INSERT INTO inodes (ino, mode, uid, gid, nlink, size, rdev, atime, mtime,"
                    " ctime, object) VALUES (?1, 33188, 0, 0, 1, 9, 0, 0, 0, 0, ?1)",
                    (ino,),
                )
                index._run(
                    "INSERT INTO dirents (folder, name, ino) VALUES (1, ?, ?)",
                    (b"%012d.png" % ino, ino),
                )


if __name__ == "__main__":
    main()
