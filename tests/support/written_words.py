"""Databases of words that tests write by hand, for stores whose pictures have no pixels."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.index import ROOT, Index
from fsmount.store.layout import Layout
from fsmount.store.store import open_read_store
from fsmount.text import slots
from fsmount.text.database import Series, TextDatabase, make_text
from fsmount.text.results import Rectangle, Word
from fsmount.text.slots import Slot
from fsmount.text.words import Words, open_words

MINUTE_US = 60 * 10**6
START_US = 1_700_000_000 * 10**6

Line = tuple[str, int, int] | tuple[str, int, int, int] | tuple[str, int, int, int, bool]
"""Words in a line, the first and last picture that show it, its y, and whether it is carried."""


def words_of(lines: Sequence[Line]) -> list[tuple[Word, int, int, bool]]:
    """Return the words of some lines, 8 pixels a letter, as :func:`slots.make` takes them."""
    found = []
    for number, line in enumerate(lines):
        text, first, last = line[:3]
        y = line[3] if len(line) > 3 else 20 * number
        carried = line[4] if len(line) > 4 else False
        x = 10
        for part in text.split(" "):
            place = Rectangle(x, y, 8 * len(part), 12)
            found.append((Word(part, place), first, last, carried))
            x += 8 * len(part) + 6
    return found


class WrittenWords:
    """A store with made-up pictures, one a minute, and their words."""

    def __init__(self, root: Path) -> None:
        config.make(root, Disk())
        self.root = root
        self.layout = Layout(root)
        self.index = Index(self.layout.index, Disk())
        self.database: TextDatabase = make_text(self.layout, self.index.identity())
        self.screen = self.database.series_id(Series(b"desk", 1600, 900))
        self.folder = self.index.create(
            ROOT, b"desk", mode=stat.S_IFDIR | 0o755, uid=0, gid=0, now_ns=1
        ).ino

    def close(self) -> None:
        self.database.close()
        self.index.close()

    def picture(self, minute: int, folder: int | None = None) -> int:
        """Make the picture of a minute; return its inode number. Its object has the number too."""
        name = b"%06d.png" % minute
        made = self.index.create(
            self.folder if folder is None else folder,
            name,
            mode=stat.S_IFREG | 0o644,
            uid=0,
            gid=0,
            now_ns=(START_US + minute * MINUTE_US) * 1000,
        )
        with self.index.transaction():
            self.index._run("UPDATE inodes SET object = ? WHERE ino = ?", (made.ino, made.ino))
        return made.ino

    def slot(
        self,
        minutes: range,
        lines: Sequence[Line],
        *,
        previous: int = 0,
        indexed: bool = True,
        screen: int | None = None,
    ) -> int:
        """Write the words of new pictures, one a minute. Returns the number of the slot."""
        pictures = [(self.picture(minute), START_US + minute * MINUTE_US) for minute in minutes]
        made = slots.make(pictures, words_of(lines))
        with self.database.transaction():
            series = self.screen if screen is None else screen
            number = self.database.add_slot(series, made, previous)
            if indexed:
                self.database.index_slot(number, made)
            for ino, _ in pictures:
                self.database.add_picture(ino, ino, number)
        return number

    def inos(self, number: int) -> list[int]:
        return [int(ino) for ino in self.read(number).ino]

    def read(self, number: int) -> Slot:
        return self.database.slot(number)

    @contextmanager
    def words(self) -> Iterator[Words]:
        with self.opened() as store, open_words(store) as found:
            yield found

    @contextmanager
    def opened(self) -> Iterator[StoreFiles]:
        with open_read_store(self.root) as store:
            yield store
