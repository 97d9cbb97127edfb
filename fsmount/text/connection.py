"""The connection to the database of words: SQLite with page checksums, as the index has.

What is deleted is overwritten. Contract: a connection is used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import apsw

from fsmount.errors import Damaged, FsmountError, TextDamaged
from fsmount.store.index.database import VFS, address, register_vfs, translated

_BUSY_MS = 10_000


class TextConnection:
    """An open database file. Methods raise :class:`TextDamaged` and OSError."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.path = path
        register_vfs()
        flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE
        flags |= apsw.SQLITE_OPEN_URI
        with self._translated():
            where = address(path.parent.resolve() / path.name, read_only)
            self._db = apsw.Connection(where, vfs=VFS, flags=flags)
            try:
                self._db.set_busy_timeout(_BUSY_MS)
                self._db.pragma("trusted_schema", False)
                self._db.pragma("cache_size", -16384)
                self._db.pragma("mmap_size", 0)
                if not read_only:
                    self._db.pragma("synchronous", 1)
                    # What is deleted must be gone from the file.
                    self._db.pragma("secure_delete", True)
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Close the database."""
        with self._translated():
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with translated(self.path):
                yield
        except Damaged as error:
            raise TextDamaged(self.path, reason=error.fields.get("reason", error)) from error
        except apsw.Error as error:
            raise TextDamaged(self.path, reason=error) from error

    def _run(self, sql: str, *values: Any) -> None:
        with self._translated():
            self._db.execute(sql, values)

    def _all(self, sql: str, *values: Any) -> list[Any]:
        with self._translated():
            return self._db.execute(sql, values).fetchall()

    def _one(self, sql: str, *values: Any) -> Any:
        with self._translated():
            return self._db.execute(sql, values).fetchone()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make everything inside the block one commit."""
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            self._undone()
            with suppress(FsmountError, OSError):
                self._run("ROLLBACK")
            raise

    def _undone(self) -> None:
        """Called before a rollback: a subclass drops what it has cached during the transaction."""

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read one state inside the block, whatever another process commits meanwhile."""
        self._run("BEGIN")
        try:
            yield
        finally:
            self._run("ROLLBACK")

    # -- facts

    def fact(self, key: str) -> str | None:
        """Return a value of `meta`, or None."""
        row = self._one("SELECT value FROM meta WHERE key = ?", key)
        return None if row is None else str(row[0])

    def set_fact(self, key: str, value: str) -> None:
        """Set a value of `meta`."""
        self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value)

    def change_count(self) -> tuple[int, int]:
        """Return numbers that differ after another connection has changed the database."""
        row = self._one("PRAGMA data_version")
        return int(row[0]), self._db.total_changes()

    def size(self) -> int:
        """Return the size of the database in bytes, without its log."""
        row = self._one("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        return int(row[0])

    def empty_log(self) -> None:
        """Write the log to the database and empty it, so that no deleted word stays in it."""
        self._all("PRAGMA wal_checkpoint(TRUNCATE)")
