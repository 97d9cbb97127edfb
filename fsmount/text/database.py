"""The database of words, ``STORE/text.sqlite``: all its SQL.

It can be made again from the pictures at any time, and holds nothing else. It is readable by its
owner alone. Pages have checksums, as those of the index have.

Contract: a connection is used by one thread at a time. One process at a time writes
(:func:`writing`); others may read meanwhile.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import apsw
import numpy as np
import numpy.typing as npt

from fsmount.errors import Damaged, FsmountError, TextDamaged, TextLocked
from fsmount.store.index.database import CHECKSUM_BYTES, VFS, address, register_vfs, translated
from fsmount.store.layout import Layout
from fsmount.text import slots
from fsmount.text.following import sequences
from fsmount.text.slots import Slot
from fsmount.text.tokens import tokens

Ints = npt.NDArray[np.int64]

FORMAT = 2
CARRIED, THROUGH = "\u2192", "\u2194"
"""Stand before tokens that all pictures of the slot show (THROUGH), and before others that the next
slot goes on to show."""
_BUSY_MS = 10_000
# A part of a word is looked up only in words of this length and more.
_LEAST_VOCABULARY = 4
_MOST_KNOWN = 200_000
_PAGE = 1000

_SCHEMA = (
    # format, store (its uuid), and how the words were read: engine, languages.
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    # A screen: the pictures of one folder (see store/retention/pictures.py) of one size.
    "CREATE TABLE series (id INTEGER PRIMARY KEY, folder BLOB NOT NULL, width INTEGER NOT NULL,"
    " height INTEGER NOT NULL)",
    # Pictures that were read. object: what they showed then. slot: 0 if they have no words.
    "CREATE TABLE pictures (ino INTEGER PRIMARY KEY, object INTEGER NOT NULL,"
    " slot INTEGER NOT NULL)",
    "CREATE INDEX pictures_object ON pictures (object)",
    # first, last: times of the pictures of the slot, in us since 1970. pictures: their number.
    # previous: the slot before if its words may go on in this one, else 0. indexed: whether `words`
    # has it.
    "CREATE TABLE slots (id INTEGER PRIMARY KEY AUTOINCREMENT, series INTEGER NOT NULL,"
    " first INTEGER NOT NULL, last INTEGER NOT NULL, pictures INTEGER NOT NULL,"
    " previous INTEGER NOT NULL, indexed INTEGER NOT NULL, data BLOB NOT NULL)",
    "CREATE INDEX slots_next ON slots (previous) WHERE previous > 0",
    "CREATE INDEX slots_open ON slots (series) WHERE indexed = 0",
    # The tokens of each slot: those that disappear in it, those with CARRIED or THROUGH before
    # them, and what tells which follow each other (following.sequence). `tokens.py` has made them,
    # so they are split at spaces alone.
    "CREATE VIRTUAL TABLE words USING fts5(tokens, content='', detail=none, columnsize=0,"
    " tokenize='ascii')",
    # A page has no room for FTS5's usual leaves of 4,050 bytes, because of its checksum.
    "INSERT INTO words (words, rank) VALUES ('pgsz', 4000)",
    # The distinct tokens, for parts of words.
    "CREATE VIRTUAL TABLE vocabulary USING fts5(token, detail=none, columnsize=0,"
    " tokenize='trigram')",
    "INSERT INTO vocabulary (vocabulary, rank) VALUES ('pgsz', 4000)",
)


class SlotTimes(NamedTuple):
    """Some columns of all slots, by id: int64 (n,) each."""

    id: Ints
    first: Ints
    last: Ints
    pictures: Ints
    previous: Ints


class Series(NamedTuple):
    """A screen: the folder of its pictures, and their size in pixels."""

    folder: bytes
    width: int
    height: int


def path_of(layout: Layout) -> Path:
    """Return the path of the database of a store."""
    return layout.root / "text.sqlite"


@contextmanager
def writing(layout: Layout) -> Iterator[None]:
    """Be the only process that reads text, inside the block. Raises TextLocked, OSError."""
    lock = os.open(layout.root / "text.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TextLocked(layout.root) from error
        yield
    finally:
        os.close(lock)


class TextDatabase:
    """The open database. Use :func:`open_text`, or :func:`make_text` to write.

    Methods raise :class:`TextDamaged` and OSError.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.path = path
        # Tokens that the vocabulary has: to look one up takes long.
        self._known: set[str] = set()
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
            self._known.clear()
            with suppress(FsmountError, OSError):
                self._run("ROLLBACK")
            raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read one state inside the block, whatever another process commits meanwhile."""
        self._run("BEGIN")
        try:
            yield
        finally:
            self._run("ROLLBACK")

    def create(self, identity: str) -> None:
        """Make the tables in an empty database, for the store with this uuid."""
        with self._translated():
            self._db.reserve_bytes("main", CHECKSUM_BYTES)
            self._db.pragma("journal_mode", "wal")
        with self.transaction():
            for statement in _SCHEMA:
                self._run(statement)
            self.set_fact("format", str(FORMAT))
            self.set_fact("store", identity)

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

    # -- pictures

    def series_id(self, series: Series) -> int:
        """Return the number of a screen, which gets one if it has none."""
        row = self._one(
            "SELECT id FROM series WHERE folder = ? AND width = ? AND height = ?", *series
        )
        if row is None:
            row = self._one(
                "INSERT INTO series (folder, width, height) VALUES (?,?,?) RETURNING id", *series
            )
        return int(row[0])

    def pictures(self) -> Ints:
        """Return all pictures that were read: int64 (n, 3) of inode number, object and slot."""
        rows = self._all("SELECT ino, object, slot FROM pictures ORDER BY ino")
        return np.array(rows, np.int64).reshape(-1, 3)

    def slot_of(self, ino: int) -> tuple[int, int] | None:
        """Return the object and the slot of a picture that was read, or None."""
        row = self._one("SELECT object, slot FROM pictures WHERE ino = ?", ino)
        return None if row is None else (int(row[0]), int(row[1]))

    def picture_of(self, object_id: int) -> tuple[int, int] | None:
        """Return a picture that shows an object, and its slot: (ino, slot); None if none is read.

        Prefers one that has a slot.
        """
        row = self._one(
            "SELECT ino, slot FROM pictures WHERE object = ? ORDER BY slot = 0, ino LIMIT 1",
            object_id,
        )
        return None if row is None else (int(row[0]), int(row[1]))

    def add_picture(self, ino: int, object_id: int, slot: int) -> None:
        """Record that a picture was read. The caller has a transaction."""
        self._run("INSERT OR REPLACE INTO pictures VALUES (?,?,?)", ino, object_id, slot)

    def forget_pictures(self, inos: Sequence[int]) -> None:
        """Remove pictures, but not their words (:meth:`replace_slot`). In a transaction."""
        for ino in inos:
            self._run("DELETE FROM pictures WHERE ino = ?", ino)

    # -- slots

    def slot(self, number: int) -> Slot:
        """Return a slot. Raises TextDamaged, also if there is none of this number."""
        row = self._one("SELECT data FROM slots WHERE id = ?", number)
        if row is None:
            raise TextDamaged(self.path, reason=f"slot {number} is missing")
        return self._unpacked(row[0])

    def _unpacked(self, data: bytes) -> Slot:
        try:
            return slots.unpack(data)
        except Damaged as error:
            raise TextDamaged(self.path, reason=error) from error

    def next_slot(self, number: int) -> int:
        """Return the slot that goes on with the words of one, 0 for none."""
        row = self._one("SELECT id FROM slots WHERE previous = ? AND previous > 0", number)
        return 0 if row is None else int(row[0])

    def slot_times(self) -> SlotTimes:
        """Return all slots in columns."""
        rows = self._all("SELECT id, first, last, pictures, previous FROM slots ORDER BY id")
        return SlotTimes(*np.ascontiguousarray(np.array(rows, np.int64).reshape(-1, 5).T))

    def slot_numbers(self) -> list[int]:
        """Return the numbers of all slots."""
        return [row[0] for row in self._all("SELECT id FROM slots ORDER BY id")]

    def open_slots(self) -> list[int]:
        """Return the slots that are not indexed yet: the newest one of each screen, at most."""
        return [row[0] for row in self._all("SELECT id FROM slots WHERE indexed = 0")]

    def open_slot(self, series: int) -> int | None:
        """Return the slot of a screen that is not indexed yet, or None."""
        row = self._one("SELECT max(id) FROM slots WHERE series = ? AND indexed = 0", series)
        return None if row is None or row[0] is None else int(row[0])

    def add_slot(self, series: int, slot: Slot, previous: int) -> int:
        """Add a slot that is not indexed yet; return its number. The caller has a transaction."""
        row = self._one(
            "INSERT INTO slots (series, first, last, pictures, previous, indexed, data)"
            " VALUES (?,?,?,?,?,0,?)"
            " RETURNING id",
            series,
            *_times(slot),
            previous,
            slots.pack(slot),
        )
        return int(row[0])

    def write_slot(self, number: int, slot: Slot, *, final: bool = True) -> None:
        """Write a slot that is not indexed yet. The caller has a transaction.

        `final`: it will not be written again soon.
        """
        self._run(
            "UPDATE slots SET first = ?, last = ?, pictures = ?, data = ?"
            " WHERE id = ? AND indexed = 0",
            *_times(slot),
            slots.pack(slot, fast=not final),
            number,
        )

    def index_slot(self, number: int, slot: Slot) -> None:
        """Write a slot for the last time, and index its words. The caller has a transaction."""
        self.write_slot(number, slot)
        new = [token for token in set(tokens(slot.text)) if self._is_new(token)]
        self._insert_words(number, slot)
        for token in new:
            self._run("INSERT INTO vocabulary (token) VALUES (?)", token)
            self._remember(token)
        self._run("UPDATE slots SET indexed = 1 WHERE id = ?", number)

    def _is_new(self, token: str) -> bool:
        """Whether the vocabulary has to get a token."""
        if len(token) < _LEAST_VOCABULARY or token in self._known:
            return False
        if self.has_term(token):
            self._remember(token)
            return False
        return True

    def _remember(self, token: str) -> None:
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known.add(token)

    def _insert_words(self, number: int, slot: Slot) -> None:
        self._run("INSERT INTO words (rowid, tokens) VALUES (?,?)", number, _indexed(slot))

    def replace_slot(self, number: int, slot: Slot) -> None:
        """Put other words in the place of those of a slot, and wipe out what is gone.

        A slot without pictures goes. The caller has a transaction.
        """
        row = self._one("SELECT data, indexed FROM slots WHERE id = ?", number)
        if row is None:
            return
        was, indexed = self._unpacked(row[0]), bool(row[1])
        gone: set[str] = set()
        if indexed:
            # A deletion in FTS5 marks; with this it removes.
            self._run("INSERT INTO words (words, rank) VALUES ('secure-delete', 1)")
            self._run("INSERT INTO vocabulary (vocabulary, rank) VALUES ('secure-delete', 1)")
            gone = set(tokens(was.text))
            self._run(
                "INSERT INTO words (words, rowid, tokens) VALUES ('delete',?,?)",
                number,
                _indexed(was),
            )
        if slot.pictures:
            self._run("UPDATE slots SET data = ? WHERE id = ?", slots.pack(slot), number)
            self._run(
                "UPDATE slots SET first = ?, last = ?, pictures = ? WHERE id = ?",
                *_times(slot),
                number,
            )
            if indexed:
                self._insert_words(number, slot)
        else:
            self._run("DELETE FROM slots WHERE id = ?", number)
            self._run("UPDATE slots SET previous = 0 WHERE previous = ?", number)
        for token in gone:
            self._known.discard(token)
            if self._is_new(token):
                sql = "SELECT rowid FROM vocabulary WHERE vocabulary MATCH ? AND token = ?"
                for (row_id,) in self._all(sql, _trigrams(token), token):
                    self._run("DELETE FROM vocabulary WHERE rowid = ?", row_id)

    def empty_log(self) -> None:
        """Write the log to the database and empty it, so that no deleted word stays in it."""
        self._all("PRAGMA wal_checkpoint(TRUNCATE)")

    # -- search

    def matching(self, expression: str) -> Ints:
        """Return the slots that match an expression of FTS5, ascending: int64."""
        rows = self._all("SELECT rowid FROM words WHERE words MATCH ?", expression)
        return np.fromiter((row[0] for row in rows), np.int64, len(rows))

    def has_term(self, token: str, *, prefix: bool = False) -> bool:
        """Whether any indexed slot has a token, or with `prefix` one that begins so."""
        sql = "SELECT 1 FROM words WHERE words MATCH ? LIMIT 1"
        return self._one(sql, present(token, prefix=prefix)) is not None

    def with_part(self, part: str, most: int) -> list[str]:
        """Return tokens that have a part of three letters or more inside."""
        rows = self._all(
            "SELECT token FROM vocabulary WHERE vocabulary MATCH ? AND instr(token, ?) LIMIT ?",
            _trigrams(part),
            part,
            most,
        )
        return [row[0] for row in rows]


def open_text(layout: Layout, identity: str) -> TextDatabase | None:
    """Open the database of a store for reading; None if there is none that fits.

    `identity` is the uuid of the store. Raises TextDamaged, OSError.
    """
    path = path_of(layout)
    if not path.exists():
        return None
    found = TextDatabase(path, read_only=True)
    if _fits_store(found, identity):
        return found
    found.close()
    return None


def make_text(layout: Layout, identity: str) -> TextDatabase:
    """Open the database of a store for writing. Makes it anew if there is none that fits.

    The caller is inside :func:`writing`. Raises TextDamaged, OSError.
    """
    path = path_of(layout)
    if path.exists() and path.stat().st_size:
        found = TextDatabase(path, read_only=False)
        if _fits_store(found, identity):
            return found
        found.close()
    remove_text(layout)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    made = TextDatabase(path, read_only=False)
    try:
        made.create(identity)
    except BaseException:
        made.close()
        raise
    return made


def remove_text(layout: Layout) -> None:
    """Remove the database of a store. Raises OSError."""
    for suffix in ("", "-wal", "-shm"):
        path = path_of(layout)
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _fits_store(found: TextDatabase, identity: str) -> bool:
    """Whether a database has this format, and the words of this store."""
    return found.fact("format") == str(FORMAT) and found.fact("store") == identity


def _times(slot: Slot) -> tuple[int, int, int]:
    return int(slot.at_us[0]), int(slot.at_us[-1]), slot.pictures


def _indexed(slot: Slot) -> str:
    """Return what `words` has of a slot: texts with spaces between them."""
    ended: set[str] = set()
    # Token -> the pictures that show it, a bit each.
    shown: dict[str, int] = {}
    spans = (slot.texts, slot.first.tolist(), slot.last.tolist(), slot.carried.tolist())
    for text, first, last, carried in zip(*spans, strict=True):
        pictures = (2 << last) - (1 << first)
        for token in tokens(text):
            shown[token] = shown.get(token, 0) | pictures
            if not carried:
                ended.add(token)
    found = ended | sequences(slot)
    every = (1 << slot.pictures) - 1
    for token, pictures in shown.items():
        if pictures == every:
            found.add(THROUGH + token)
        elif token not in ended:
            found.add(CARRIED + token)
    return " ".join(sorted(found))


def ended(token: str, *, prefix: bool = False) -> str:
    """Return the expression of FTS5 for slots in which a token disappears somewhere."""
    return quote(token) + (" *" if prefix else "")


def present(token: str, *, prefix: bool = False) -> str:
    """Return the expression of FTS5 for slots that have a token."""
    return any_of(ended(mark + token, prefix=prefix) for mark in ("", CARRIED, THROUGH))


def through(token: str, *, prefix: bool = False) -> str:
    """Return the expression of FTS5 for slots all of whose pictures show a token."""
    return ended(THROUGH + token, prefix=prefix)


def _trigrams(part: str) -> str:
    """Return the expression for tokens that have all trigrams of a part of 3 letters or more.

    The vocabulary does not know where in a token they are.
    """
    return " AND ".join(quote(part[at : at + 3]) for at in range(len(part) - 2))


def quote(token: str) -> str:
    """Return a token as FTS5 takes it in an expression."""
    return '"' + token.replace('"', '""') + '"'


def any_of(expressions: Iterable[str]) -> str:
    """Return the expression of FTS5 that matches one of several."""
    return "(" + " OR ".join(expressions) + ")"
