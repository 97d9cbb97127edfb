"""A store with pictures of one screen, and what was read in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.index import ROOT, Index
from fsmount.store.layout import Layout
from fsmount.store.store import open_read_store
from fsmount.text.engines import Picture
from fsmount.text.making import read_text
from fsmount.text.reading import Summary
from fsmount.text.words import open_words
from tests.support.drawn_words import DrawnEngine, save
from tests.support.trees import import_into


class Shots:
    """A store with pictures of one screen, one a minute, and what was read in them."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "store"
        config.make(self.root, Disk())
        self.source = folder / "desk"
        self.source.mkdir()
        self.count = 0
        self.engine = DrawnEngine()

    async def add(self, pictures: Sequence[Picture], start: int | None = None) -> None:
        """Import pictures, the first of them taken in minute `start`."""
        self.count = self.count if start is None else start
        for picture in pictures:
            self.draw(picture)
            self.count += 1
        await self.take_in()

    def draw(self, picture: Picture) -> None:
        """Write a picture of the minute `count`, for :meth:`take_in`."""
        save(picture, self.source / self.name(self.count))

    async def take_in(self) -> None:
        """Import what was drawn."""
        await import_into(self.root, self.source)

    @staticmethod
    def name(minute: int) -> str:
        return f"2024-06-06T{8 + minute // 60:02d}:{minute % 60:02d}:00.png"

    def read(self, most: int | None = None, **more: object) -> Summary:
        """Read the text, of at most so many pictures."""
        self.engine = DrawnEngine()
        left = [10**9 if most is None else most]

        def go_on() -> bool:
            left[0] -= 1
            return left[0] >= 0

        with open_read_store(self.root) as store:
            return read_text(store, lambda: self.engine, go_on=go_on, **more)  # type: ignore[arg-type]

    def words(self, minute: int) -> dict[str, tuple[int, int]]:
        """The words of a picture with the upper left corner of each."""
        with open_read_store(self.root) as store, open_words(store) as words:
            folder = store.index.lookup(ROOT, b"desk")
            assert folder is not None
            found = store.index.lookup(folder.ino, self.name(minute).encode())
            assert found is not None
            return {word.text: (word.place.x, word.place.y) for word in words.of_picture(found.ino)}

    def hits(self, query: str) -> list[tuple[str, str, int]]:
        """First and last name of each hit, and its number of pictures."""
        with open_read_store(self.root) as store, open_words(store) as words:
            return [
                (hit.first.path.decode()[-12:-7], hit.last.path.decode()[-12:-7], hit.pictures)
                for hit in words.search(query).hits
            ]

    def prune(self, minute: int) -> None:
        """Move a picture to the trash."""
        index = Index(Layout(self.root).index, Disk())
        folder = index.lookup(ROOT, b"desk")
        assert folder is not None
        name = self.name(minute).encode()
        index.put_in_trash([(folder.ino, name, b"desk/" + name)], 5)
        index.close()

    def unlink(self, minute: int) -> None:
        """Delete a picture."""
        index = Index(Layout(self.root).index, Disk())
        folder = index.lookup(ROOT, b"desk")
        assert folder is not None
        index.purge(index.unlink(folder.ino, self.name(minute).encode(), 5).ino)
        index.close()
