"""The database of words, ``STORE/text.sqlite``: its tables of pictures and slots, and its life.

It can be made again from the pictures at any time, and holds nothing else. It is readable by its
owner alone. All its SQL stands here, in ``token_index.py`` and in ``connection.py``.

Contract: a connection is used by one thread at a time. One process at a time writes
(:func:`writing`); others may read meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fsmount.errors import Damaged, TextDamaged, TextLocked
from fsmount.store.index.database import CHECKSUM_BYTES
from fsmount.store.layout import Layout
from fsmount.text import slots
from fsmount.text.slots import Slot
from fsmount.text.token_index import TOKEN_SCHEMA, TokenIndex
from fsmount.text.tokens import tokens

Ints = npt.NDArray[np.int64]

FORMAT = 3
_LOCK_LOOK_S = 0.05

_SCHEMA = (
    # format, store (its uuid), and how the words were read: engine, languages. unwiped: words are
    # deleted, but still in the file.
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
    *TOKEN_SCHEMA,
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
def writing(layout: Layout, wait_s: float = 0.0) -> Iterator[None]:
    """Be the only process that changes the database, inside the block.

    Waits `wait_s` seconds for another one to end. Raises TextLocked, OSError.
    """
    lock = os.open(layout.root / "text.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + wait_s
    try:
        while not _is_locked(lock):
            if time.monotonic() >= until:
                raise TextLocked(layout.root)
            time.sleep(_LOCK_LOOK_S)
        yield
    finally:
        os.close(lock)


def _is_locked(lock: int) -> bool:
    """Take a lock; return whether it is ours."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class TextDatabase(TokenIndex):
    """The open database. Use :func:`open_text`, or :func:`make_text` to write.

    Methods raise :class:`TextDamaged` and OSError.
    """

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

    def has_tables(self) -> bool:
        """Whether the database was made to the end: all its tables come in one commit."""
        return self._one("SELECT 1 FROM sqlite_schema LIMIT 1") is not None

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
        """Remove pictures, but not their words (:meth:`replace_slots`). In a transaction."""
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

    def previous_slot(self, number: int) -> int:
        """Return the slot whose words may go on in one, 0 for none."""
        row = self._one("SELECT previous FROM slots WHERE id = ?", number)
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
        self._add_tokens(number, slot)
        self._run("UPDATE slots SET indexed = 1 WHERE id = ?", number)

    def replace_slots(self, changes: Mapping[int, Slot]) -> None:
        """Put other words in the places of those of some slots; one without pictures goes.

        :meth:`wipe` wipes out what is gone. The caller has a transaction.
        """
        gone: set[str] = set()
        for number, slot in changes.items():
            row = self._one("SELECT data, indexed FROM slots WHERE id = ?", number)
            if row is None:
                continue
            indexed = bool(row[1])
            if indexed:
                gone.update(tokens(self._unpacked(row[0]).text))
                self._replace_tokens(number, slot)
            if slot.pictures:
                self._run(
                    "UPDATE slots SET first = ?, last = ?, pictures = ?, data = ? WHERE id = ?",
                    *_times(slot),
                    slots.pack(slot),
                    number,
                )
            else:
                self._run("DELETE FROM slots WHERE id = ?", number)
                self._run("UPDATE slots SET previous = 0 WHERE previous = ?", number)
        self._forget_tokens(gone)


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


def change_text(layout: Layout, identity: str) -> TextDatabase | None:
    """As :func:`open_text`, for writing. The caller is inside :func:`writing`."""
    path = path_of(layout)
    if not path.exists():
        return None
    found = TextDatabase(path, read_only=False)
    if _fits_store(found, identity):
        return found
    found.close()
    return None


def make_text(layout: Layout, identity: str) -> TextDatabase:
    """Open the database of a store for writing. Makes it anew if there is none that fits.

    The caller is inside :func:`writing`. Raises TextDamaged, OSError.
    """
    path = path_of(layout)
    found = change_text(layout, identity)
    if found is not None:
        return found
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
    """Whether a database has this format, and the words of this store.

    A database whose making was killed has no tables.
    """
    if not found.has_tables():
        return False
    return found.fact("format") == str(FORMAT) and found.fact("store") == identity


def _times(slot: Slot) -> tuple[int, int, int]:
    return int(slot.at_us[0]), int(slot.at_us[-1]), slot.pictures
