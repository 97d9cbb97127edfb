"""The index: names, attributes, objects and packs in SQLite. All SQL of the project stands here.

SQLite opens the database through ``cksumvfs`` (https://sqlite.org/cksumvfs.html), which puts a
checksum on each page: plain SQLite returns wrong rows without an error for two in five single-bit
flips. The journal is a write-ahead log with ``synchronous=NORMAL``: a commit costs no fsync and
survives the death of the process. :meth:`Index.force` makes all commits so far survive a power cut.

Contract: only the trio task calls the index, with the exception of :meth:`Index.force`. No method
awaits.

`schema` has the tables, `database` the connection, `tree`, `objects` and `trash` the queries,
`audit` the queries of `check` and repair, `backups` those of backups, `figures` those of
statistics.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import apsw

from fsmount.store.index import kinds
from fsmount.store.index.database import CHECKSUM_BYTES, VFS, address, leave_log_mode, register_vfs
from fsmount.store.index.figures import Figures, FileFigures
from fsmount.store.index.schema import INODE, ROOT, TRASH, Inode, Object, schema
from fsmount.store.index.trash import TRASH_ONLY, Trashed

__all__ = [
    "ROOT",
    "TRASH",
    "FileFigures",
    "Index",
    "Inode",
    "Object",
    "Trashed",
    "glance",
    "leave_log_mode",
]


def glance(path: Path, folder: bytes, start: bytes, most: int) -> list[tuple[bytes, bool]]:
    """Names in a folder that begin with `start`, and whether each is a folder, in name order.

    Leaves no trace: opens the index at `path` without making a file beside it, and waits for
    nobody. So it may miss what a mount has just written. Returns `most` names at most, and none if
    there is no such folder. Raises apsw.Error if the index cannot be read like this.
    """
    register_vfs()
    log = path.with_name(path.name + "-wal")
    # A log with pages has its file of shared memory beside it; SQLite must not make one.
    has_log = log.exists() and log.stat().st_size
    how = "?readonly_shm=1" if has_log else "?immutable=1"
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    db = apsw.Connection(address(path.resolve(), False) + how, vfs=VFS, flags=flags)
    try:
        ino = ROOT
        for name in filter(None, folder.split(b"/")):
            row = db.execute("SELECT ino FROM dirents WHERE folder = ? AND name = ?", (ino, name))
            found = row.fetchone()
            if found is None:
                return []
            ino = found[0]
        rows = db.execute(
            "SELECT d.name, (i.mode & 61440) = 16384 FROM dirents d JOIN inodes i ON i.ino = d.ino"
            " WHERE d.folder = ? AND d.name >= ? ORDER BY d.name LIMIT ?",
            (ino, start, most),
        )
        return [(name, bool(is_dir)) for name, is_dir in rows if name.startswith(start)]
    finally:
        db.close()


class Index(Figures):
    """The index of one store.

    Every method may raise :class:`Damaged` (damage) and OSError (full disk, I/O error).
    """

    @staticmethod
    def make(path: Path, *, identity: str, uid: int, gid: int, now_ns: int) -> None:
        """Write a new empty index with a root folder owned by `uid` and `gid`.

        `identity` is the store's uuid. It keeps an index from being used with another store.
        Times are in nanoseconds since 1970.
        """
        register_vfs()
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        flags |= apsw.SQLITE_OPEN_URI
        db = apsw.Connection(address(path.resolve(), False), vfs=VFS, flags=flags)
        db.reserve_bytes("main", CHECKSUM_BYTES)
        db.pragma("journal_mode", "wal")
        with db:
            for statement in schema():
                db.execute(statement)
            db.execute(
                f"INSERT INTO inodes ({INODE}) VALUES (?,?,?,?,2,0,0,?,?,?,NULL,NULL,NULL)",
                (ROOT, stat.S_IFDIR | 0o755, uid, gid, now_ns, now_ns, now_ns),
            )
            db.execute("INSERT INTO meta VALUES ('uuid', ?), ('opened', 0)", (identity,))
        db.close()

    def identity(self) -> str:
        """The uuid of the store the index belongs to."""
        row = self._one("SELECT value FROM meta WHERE key = 'uuid'", of=kinds.TEXT)
        return "" if row is None else str(row[0])

    def opened(self) -> int:
        """Number of openings for writing when this index was last written."""
        row = self._one("SELECT value FROM meta WHERE key = 'opened'", of=kinds.NUMBER)
        return 0 if row is None else int(row[0])

    def writer(self) -> int:
        """The random number of the last writer; 0 if unknown, or written by an early build.

        Tokens of staged files contain it.
        """
        row = self._one("SELECT value FROM meta WHERE key = 'writer'", of=kinds.NUMBER)
        return 0 if row is None else int(row[0])

    def set_opened(self, count: int, writer: int = 0) -> None:
        """Record an opening for writing and the number of its writer (0: unknown).

        An opening does not count as a change of the index.
        """
        changed = self.changed
        with self.transaction():
            self._run("UPDATE meta SET value = ? WHERE key = 'opened'", (count,))
            self._run("INSERT OR REPLACE INTO meta VALUES ('writer', ?)", (writer,))
        self.changed = changed

    def copied(self) -> int:
        """The opening at whose end the copy of the index was last complete."""
        row = self._one("SELECT value FROM meta WHERE key = 'copied'", of=kinds.NUMBER)
        return 0 if row is None else int(row[0])

    def copy_sum(self) -> int | None:
        """The CRC-32 of ``names.gz`` at that end; None if it was not written."""
        row = self._one("SELECT value FROM meta WHERE key = 'copy'", of=kinds.NUMBER)
        return None if row is None else int(row[0])

    def set_copied(self, copy_sum: int | None = None) -> None:
        """Record that the copy in ``packs/`` matches the index at the end of this opening.

        `copy_sum` is the CRC-32 of ``names.gz`` if that was written.
        """
        values = {"copied": self.opened()} | ({} if copy_sum is None else {"copy": copy_sum})
        with self.transaction():
            for row in values.items():
                self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)

    # -- figures

    def totals(self) -> dict[str, Any]:
        """Counts and sums for `stats`: files, bytes, staged files, and files by kind of object.

        Files in the trash are only counted as `trashed`, with their `trashed_bytes`.
        """
        trashed, trashed_bytes = self.trash_totals()
        shown = f" WHERE i.nlink > 0 AND NOT ({TRASH_ONLY})" if trashed else " WHERE i.nlink > 0"
        files, logical = self._one(
            f"SELECT count(*), coalesce(sum(size), 0) FROM inodes i{shown}"
            " AND (mode & 61440) = 32768"
        ) or (0, 0)
        staged = self._one("SELECT count(*) FROM inodes WHERE staged IS NOT NULL AND nlink > 0")
        objects = f"FROM inodes i JOIN objects o ON o.id = i.object{shown}"
        kinds_shown = self._all(f"SELECT o.kind, count(*) {objects} GROUP BY o.kind")
        reasons = self._all(
            f"SELECT o.reason, count(*) {objects} AND o.kind = 'raw' GROUP BY o.reason"
        )
        depth = self._one("SELECT coalesce(max(depth), 0) FROM objects")
        return {
            "files": files,
            "logical_bytes": logical,
            "trashed": trashed,
            "trashed_bytes": trashed_bytes,
            "staged": staged[0] if staged else 0,
            "kinds": dict(kinds_shown),
            "reasons": dict(reasons),
            "max_depth": depth[0] if depth else 0,
        }
