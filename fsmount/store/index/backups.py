"""Queries and changes for backups: what a copy of the index is, and where its packs lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fsmount.store.index import kinds
from fsmount.store.index.audit import Audit

# Keys of meta: the opening that the backup shows; and this and the number of a pack in the store.
_BACKUP = "backup"
_PACK = "backup:"


class Backups(Audit):
    """Rows that only the index of a backup has, and rows that a backup reads."""

    def backup_of(self) -> int | None:
        """The opening of the store that this backup shows; None if it never was a backup."""
        row = self._one("SELECT value FROM meta WHERE key = ?", _BACKUP, of=kinds.NUMBER)
        return None if row is None else int(row[0])

    def backup_packs(self) -> dict[int, int]:
        """Number of a pack in the store -> its number in this backup, where the two differ."""
        statement = "SELECT key, value FROM meta WHERE key GLOB ?"
        rows = self._all(statement, _PACK + "*", of=kinds.TEXT_NUMBER)
        return {int(key.removeprefix(_PACK)): int(value) for key, value in rows}

    def set_backup(self, opened: int, writer: int, packs: Mapping[int, int]) -> None:
        """Turn a copy of the index of a store into that of a backup.

        `opened` is :meth:`Index.opened` of the store. `writer` made the tokens of all staged files.
        `packs` has the new number of each pack that gets another one; a new number may be the old
        one of another pack in `packs`.
        """
        changes = sorted(packs.items())
        with self.transaction():
            self._run("DELETE FROM meta WHERE key GLOB ?", (_PACK + "*",))
            for row in ((_BACKUP, opened), ("writer", writer)):
                self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)
            repacked = self.repacked()
            # By way of negative numbers: two packs never have one number.
            for old, _ in changes:
                self._run("UPDATE packs SET id = -id WHERE id = ?", (old,))
                self._run("UPDATE objects SET pack = -pack WHERE pack = ?", (old,))
                self._run("DELETE FROM meta WHERE key = ?", (f"repacked:{old}",))
            for old, new in changes:
                self._run("UPDATE packs SET id = ? WHERE id = ?", (new, -old))
                self._run("UPDATE objects SET pack = ? WHERE pack = ?", (new, -old))
                self._run("INSERT INTO meta VALUES (?, ?)", (f"{_PACK}{old}", new))
                if old in repacked:
                    self.set_repacked(new, repacked[old])

    def entries(self) -> Iterator[tuple[int, int, int, int]]:
        """The place of each object's entry: (id, pack, offset, length), by id."""
        statement = "SELECT id, pack, offset, length FROM objects WHERE id > ? ORDER BY id LIMIT ?"
        for found in self._pages(statement, of=kinds.FOUR_NUMBERS):
            yield found[0], found[1], found[2], found[3]

    def kept(self) -> Iterator[tuple[int, bytes]]:
        """Id and SHA-256 of each object whose file lies in ``raw/``, by id."""
        statement = (
            "SELECT id, sha256 FROM objects WHERE kind = 'raw' AND length < size AND id > ?"
            " ORDER BY id LIMIT ?"
        )
        for found in self._pages(statement, of=kinds.NUMBER_BLOB):
            yield found[0], found[1]
