"""What each file costs, for statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

from fsmount.store.index import kinds
from fsmount.store.index.backups import Backups
from fsmount.store.index.schema import PAGE, TRASH


class FileFigures(NamedTuple):
    """A name of a regular file and what it shows.

    folder : inode number of its folder.
    size : bytes of the file.
    links : number of its names.
    object_id, kind, uses : of its object; None, "" and 0 for a staged file.
    stored : bytes that the object, or the staged file, takes in the store.
    """

    folder: int
    name: bytes
    ino: int
    size: int
    mtime_ns: int
    links: int
    object_id: int | None
    kind: str
    uses: int
    stored: int


# Packs that one query names.
_PACKS = 500


class Figures(Backups):
    """Queries over all files with their objects."""

    def beyond(self, there: Mapping[int, int]) -> tuple[int, int]:
        """Files, and their bytes, that are not in copies of packs; staged files are in none.

        `there` are the bytes from the start of each pack that the copy of it has.
        """
        row = self._one("SELECT count(*), coalesce(sum(size), 0) FROM inodes WHERE staged NOT NULL")
        files, nbytes = row or (0, 0)
        short = [
            (number, there.get(number, 0))
            for number, (length, _) in self.packs().items()
            if length > there.get(number, 0)
        ]
        for at in range(0, len(short), _PACKS):
            some = short[at : at + _PACKS]
            is_there = " OR ".join(["(pack = ? AND offset + length <= ?)"] * len(some))
            found = self._one(
                "SELECT coalesce(sum(uses), 0), coalesce(sum(uses * size), 0) FROM objects"
                f" WHERE pack IN ({','.join('?' * len(some))}) AND uses > 0 AND NOT ({is_there})",
                *(number for number, _ in some),
                *chain.from_iterable(some),
            )
            if found is not None:
                files, nbytes = files + found[0], nbytes + found[1]
        return files, nbytes

    def file_figures(self) -> Iterator[FileFigures]:
        """Every name of a regular file that is not in the trash.

        They come in the order in which the names were made.
        """
        return (found for _, found in self.figures_by_creation())

    def figures_by_creation(self, after: int = 0) -> Iterator[tuple[int, FileFigures]]:
        """As :meth:`file_figures`, each with its cookie. `after`: only higher cookies."""
        statement = (
            "SELECT d.cookie, d.folder, d.name, i.ino, i.size, i.mtime, i.nlink, i.object,"
            " coalesce(o.kind, ''), coalesce(o.uses, 0),"
            " CASE WHEN o.id IS NULL THEN i.size"
            "      WHEN o.kind = 'raw' THEN max(o.length, o.size) ELSE o.length END"
            " FROM dirents d JOIN inodes i ON i.ino = d.ino LEFT JOIN objects o ON o.id = i.object"
            " WHERE (i.mode & 61440) = 32768 AND d.folder != ? AND d.cookie > ?"
            " ORDER BY d.cookie LIMIT ?"
        )
        for row in self._pages(statement, TRASH, of=kinds.FIGURES, after=after):
            yield row[0], FileFigures._make(row[1:])

    def picture_pages(self, after: int = 0) -> Iterator[list[tuple[Any, ...]]]:
        """As :meth:`figures_by_creation`, a page of rows at a time, with fewer columns.

        cookie, folder, name, mtime_ns, object (0 for none), stored, size.
        """
        statement = (
            "SELECT d.cookie, d.folder, d.name, i.mtime, coalesce(i.object, 0),"
            " CASE WHEN o.id IS NULL THEN i.size"
            "      WHEN o.kind = 'raw' THEN max(o.length, o.size) ELSE o.length END, i.size"
            " FROM dirents d JOIN inodes i ON i.ino = d.ino LEFT JOIN objects o ON o.id = i.object"
            " WHERE (i.mode & 61440) = 32768 AND d.folder != ? AND d.cookie > ?"
            " ORDER BY d.cookie LIMIT ?"
        )
        while rows := self._all(statement, TRASH, after, PAGE, of=kinds.PICTURE):
            yield self._ascending(rows, after)
            after = rows[-1][0]
