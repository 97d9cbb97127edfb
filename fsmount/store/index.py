"""The index: names, attributes, objects and packs in SQLite. All SQL of the project stands here.

The database is opened through ``cksumvfs``, which puts a checksum on each page: plain SQLite
returns wrong rows without an error for two in five single-bit flips. The journal is a write-ahead
log with ``synchronous=NORMAL``: a commit costs no fsync and survives the death of the process;
:meth:`Index.force` makes everything committed so far survive a power cut.

Touched from one task only; no method awaits.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import apsw
import apsw.sqlite_extra

from fsmount.errors import Damaged, NoSuchInode
from fsmount.store.disk import Disk
from fsmount.store.reserve import Reserve

ROOT = 1
_CHECKSUM_BYTES = 8
# Folders in a path: PATH_MAX allows no more than 2048.
_DEEPEST = 4096
_VFS = "cksmvfs"
# Rows that are read at a time where all are gone through.
_PAGE = 1000
_IS_FOLDER = "(%s.mode & 61440) = 16384"
# Keys of meta: this and a pack's number.
_REPACKED = "repacked:"


def _schema() -> list[str]:
    """The canonical description of every table; a row's invariants stand beside it."""
    return [
        # uuid: of the store the index belongs to; opened: how often it was opened for writing;
        # repacked:N: bytes from the start of pack N that `repack` wrote, so need no second look.
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
        # One row per file, folder, link or special file; root is 1. mode has the type bits.
        # Regular files: exactly one of staged (token of a file in staging/) and object (objects.id)
        # is set. size is right for encoded files; for staged ones the staged file itself decides.
        # nlink 0: unlinked while open, removed when the last user goes or at the next start.
        # Times are nanoseconds since 1970, possibly negative.
        "CREATE TABLE inodes (ino INTEGER PRIMARY KEY, mode INTEGER NOT NULL, uid INTEGER NOT NULL,"
        " gid INTEGER NOT NULL, nlink INTEGER NOT NULL, size INTEGER NOT NULL,"
        " rdev INTEGER NOT NULL, atime INTEGER NOT NULL, mtime INTEGER NOT NULL,"
        " ctime INTEGER NOT NULL, object INTEGER, staged INTEGER, target BLOB)",
        "CREATE INDEX inodes_staged ON inodes (staged) WHERE staged IS NOT NULL",
        "CREATE INDEX inodes_orphan ON inodes (nlink) WHERE nlink = 0",
        # Names are bytes. cookie is the readdir offset: stable, never reused within a store.
        "CREATE TABLE dirents (cookie INTEGER PRIMARY KEY AUTOINCREMENT, folder INTEGER NOT NULL,"
        " name BLOB NOT NULL, ino INTEGER NOT NULL)",
        "CREATE UNIQUE INDEX dirents_name ON dirents (folder, name)",
        "CREATE INDEX dirents_folder ON dirents (folder)",
        "CREATE INDEX dirents_ino ON dirents (ino)",
        "CREATE TABLE xattrs (ino INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL,"
        " PRIMARY KEY (ino, name)) WITHOUT ROWID",
        # One row per stored file body. offset and length: the whole entry in the pack, header
        # included. size, sha256: of the file, not of the payload. uses: inodes that show it.
        # needs: ids of the objects whose entries a render reads besides its own, see _pack_ids,
        # little endian, complete (nothing to follow further); layer: those of them that give the
        # pixels it coded itself. reason: why raw, else NULL. sha256 is empty where only the layer
        # is left (see drop_objects), and of vast sparse files.
        "CREATE TABLE objects (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL,"
        " pack INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,"
        " size INTEGER NOT NULL, sha256 BLOB NOT NULL, depth INTEGER NOT NULL,"
        " needs BLOB NOT NULL, layer BLOB NOT NULL, uses INTEGER NOT NULL, reason TEXT)",
        "CREATE INDEX objects_hash ON objects (substr(sha256, 1, 8))",
        # length: bytes of the pack that committed entries fill; what lies behind is dropped.
        "CREATE TABLE packs (id INTEGER PRIMARY KEY, length INTEGER NOT NULL,"
        " sealed INTEGER NOT NULL)",
        # What the planner remembers of recent objects; losing a row costs space, never a byte.
        "CREATE TABLE signatures (object INTEGER PRIMARY KEY, geometry TEXT NOT NULL,"
        " data BLOB NOT NULL)",
    ]


class Inode(NamedTuple):
    """One inode row. Times in ns since 1970; `target` of a symbolic link; see the schema."""

    ino: int
    mode: int
    uid: int
    gid: int
    nlink: int
    size: int
    rdev: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    object_id: int | None
    staged: int | None
    target: bytes | None


@dataclass(frozen=True, slots=True)
class Object:
    """One stored file body, appended to a pack; see the schema."""

    id: int
    kind: str
    pack: int
    offset: int
    length: int
    size: int
    sha256: bytes
    depth: int
    needs: tuple[int, ...] = ()
    layer: tuple[int, ...] = ()
    reason: str | None = None
    uses: int = 0

    @property
    def is_layer_only(self) -> bool:
        """Whether only the pixels it coded itself are left of it: it cannot be rendered."""
        return self.kind != "raw" and not self.sha256

    @property
    def is_kept(self) -> bool:
        """Whether the file lies in ``raw/``: then the entry has only its sums, and is shorter."""
        return self.kind == "raw" and self.length < self.size


_INODE = "ino, mode, uid, gid, nlink, size, rdev, atime, mtime, ctime, object, staged, target"
_I_INODE = ", ".join("i." + column for column in _INODE.split(", "))
_OBJECT = "id, kind, pack, offset, length, size, sha256, depth, needs, layer, reason, uses"
_COLUMNS = {
    "mode": "mode",
    "uid": "uid",
    "gid": "gid",
    "size": "size",
    "atime_ns": "atime",
    "mtime_ns": "mtime",
    "ctime_ns": "ctime",
}


def _pack_ids(ids: Sequence[int]) -> bytes:
    """Ids as the index keeps them: ascending, each as its distance to the one before (the first to
    0) in groups of 7 bits, the lowest first, bit 7 set in all but the last.

    A store of a million pictures has some twenty million of them, most a few hundred apart.
    """
    out = bytearray()
    last = 0
    for number in sorted(set(ids)):
        gap, last = number - last, number
        while gap > 127:
            out.append(gap & 127 | 128)
            gap >>= 7
        out.append(gap)
    return bytes(out)


def _unpack_ids(data: bytes) -> tuple[int, ...]:
    if data and not data[-1]:
        # The form of early stores, 4 bytes each; no distance ends with 0, and no id of theirs
        # was as large as to need its highest byte.
        return tuple(int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4))
    ids: list[int] = []
    last = gap = shift = 0
    for byte in data:
        gap |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            last += gap
            ids.append(last)
            gap = shift = 0
    return tuple(ids)


def _object(row: tuple[Any, ...]) -> Object:
    values = list(row)
    values[8:10] = _unpack_ids(row[8]), _unpack_ids(row[9])
    return Object(*values)


def _address(path: Path, read_only: bool) -> str:
    """The URI of the database file.

    Reading beside a writer takes a file of shared memory. Where the folder cannot be written
    there is no writer, and SQLite must be told so.
    """
    uri = f"file:{quote(os.fsencode(path.absolute()))}"
    log = path.with_name(path.name + "-wal")
    no_log = not log.exists() or not log.stat().st_size
    if read_only and no_log and not os.access(path.parent, os.W_OK):
        return uri + "?immutable=1"
    return uri


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """What SQLite raises as what the rest of the house knows: OSError, or :class:`Damaged`."""
    try:
        yield
    except apsw.FullError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
    except apsw.ReadOnlyError as error:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path)) from error
    except apsw.BusyError as error:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path)) from error
    except apsw.IOError as error:
        if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_DATA:
            raise Damaged(path, reason="a page has a wrong checksum") from error
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path)) from error
    except (apsw.CorruptError, apsw.NotADBError, apsw.CantOpenError, apsw.SQLError) as error:
        # No such table: somebody emptied the file.
        raise Damaged(path, reason=error) from error


def _register_vfs() -> None:
    if _VFS not in apsw.vfs_names():
        apsw.sqlite_extra.load(apsw.Connection(":memory:"), "cksumvfs")


class Index:
    """See the module. Raises :class:`Damaged` where SQLite finds damage, OSError on a full disk."""

    def __init__(self, path: Path, disk: Disk, *, read_only: bool = False) -> None:
        self.file = path
        self.read_only = read_only
        self.dirty = False
        self.suspect = False
        self.reserve: Reserve | None = None
        self._disk = disk
        self._log: int | None = None
        self._forcing = threading.Lock()
        self._depth = 0
        _register_vfs()
        flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE
        flags |= apsw.SQLITE_OPEN_URI
        with _translated(path):
            self._db = apsw.Connection(_address(path, read_only), vfs=_VFS, flags=flags)
            self._db.set_busy_timeout(10_000)
            self._db.pragma("trusted_schema", False)
            if not read_only:
                self._db.pragma("journal_mode", "wal")
                self._db.pragma("synchronous", 1)
            self._db.pragma("cache_size", -8192)
            self._all("SELECT count(*) FROM meta")

    @staticmethod
    def make(path: Path, *, identity: str, uid: int, gid: int, now_ns: int) -> None:
        """Write a new empty index with a root folder owned by `uid` and `gid`.

        `identity`: the store's uuid, which keeps an index from being used with another store.
        """
        _register_vfs()
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        flags |= apsw.SQLITE_OPEN_URI
        db = apsw.Connection(_address(path, False), vfs=_VFS, flags=flags)
        db.reserve_bytes("main", _CHECKSUM_BYTES)
        db.pragma("journal_mode", "wal")
        with db:
            for statement in _schema():
                db.execute(statement)
            db.execute(
                f"INSERT INTO inodes ({_INODE}) VALUES (?,?,?,?,2,0,0,?,?,?,NULL,NULL,NULL)",
                (ROOT, stat.S_IFDIR | 0o755, uid, gid, now_ns, now_ns, now_ns),
            )
            db.execute("INSERT INTO meta VALUES ('uuid', ?), ('opened', 0)", (identity,))
        db.close()

    def close(self) -> None:
        """Close; the write-ahead log is folded into the database where this is the last user."""
        if self._log is not None:
            os.close(self._log)
            self._log = None
        self._db.close()

    def identity(self) -> str:
        """The uuid of the store the index belongs to."""
        row = self._one("SELECT value FROM meta WHERE key = 'uuid'")
        return "" if row is None else str(row[0])

    def opened(self) -> int:
        """How often the store had been opened for writing when this index was last written."""
        row = self._one("SELECT value FROM meta WHERE key = 'opened'")
        return 0 if row is None else int(row[0])

    def set_opened(self, count: int) -> None:
        """Note an opening."""
        with self.transaction():
            self._run("UPDATE meta SET value = ? WHERE key = 'opened'", (count,))

    # -- transactions and durability

    @contextmanager
    def transaction(self, *, deletes: bool = False) -> Iterator[None]:
        """Everything inside is one commit; nests (the outermost commits).

        `deletes`: it makes room, so it may take the last there is.
        """
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        if deletes and self.reserve is not None:
            self.reserve.spend_if_full()
        self._run("BEGIN IMMEDIATE")
        self._depth = 1
        try:
            yield
        except BaseException:
            self._depth = 0
            if self._db.in_transaction:
                self._run("ROLLBACK")
            raise
        self._depth = 0
        try:
            self._run("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._run("ROLLBACK")
            raise
        self.dirty = True

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything read inside is of one moment, whatever another process commits meanwhile."""
        self._run("BEGIN")
        try:
            yield
        finally:
            self._run("ROLLBACK")

    def force(self) -> None:
        """Make all commits so far survive a power cut. Touches no SQLite state: any thread may.

        After a failed fsync nothing is known about what reached the disk, and asking again would
        be answered with a false yes: every further call fails until :meth:`rewrite`.
        """
        # One at a time: the kernel reports a failure to one of those who ask, not to all.
        with self._forcing:
            self._force()

    def _force(self) -> None:
        if self.suspect:
            raise OSError(errno.EIO, "an earlier fsync of the index failed", str(self.file))
        self.dirty = False
        log = self._log
        if log is None:
            path = self.file.with_name(self.file.name + "-wal")
            try:
                log = self._disk.open(path, os.O_RDWR)
            except FileNotFoundError:
                return
            except OSError:
                self.dirty = True
                raise
            self._log = log
        try:
            self._disk.fsync(log)
        except OSError:
            self.dirty = self.suspect = True
            raise

    def rewrite(self) -> None:
        """Write everything in the log to the database file and force that: heals a failed fsync.

        Raises OSError if that fails or a reader stands in the way; the index is suspect then still.
        """
        try:
            busy = self._all("PRAGMA wal_checkpoint(TRUNCATE)")[0][0]
        except apsw.Error as error:
            raise OSError(errno.EIO, str(error), str(self.file)) from error
        if busy:
            raise OSError(errno.EBUSY, "the index has a reader", str(self.file))
        self.suspect = False

    def _run(self, sql: str, values: tuple[Any, ...] = ()) -> apsw.Cursor:
        """Execute; what SQLite raises becomes OSError or :class:`Damaged`."""
        with _translated(self.file):
            return self._db.execute(sql, values)

    def _one(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        with _translated(self.file):
            return self._db.execute(sql, values).fetchone()

    def _all(self, sql: str, *values: Any) -> list[Any]:
        with _translated(self.file):
            return self._db.execute(sql, values).fetchall()

    # -- inodes and names

    def inode(self, ino: int) -> Inode:
        """The row of `ino`; raises :class:`NoSuchInode`."""
        row = self._one(f"SELECT {_INODE} FROM inodes WHERE ino = ?", ino)
        if row is None:
            raise NoSuchInode(ino)
        return Inode(*row)

    def lookup(self, folder: int, name: bytes) -> Inode | None:
        """The inode that `name` in `folder` shows, or None."""
        row = self._one(
            f"SELECT {_I_INODE} FROM dirents d JOIN inodes i ON i.ino = d.ino"
            " WHERE d.folder = ? AND d.name = ?",
            folder,
            name,
        )
        return None if row is None else Inode(*row)

    def children(
        self, folder: int, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, bytes, Inode]]:
        """Entries of a folder with cookies above `after`, in cookie order, attributes included."""
        rows = self._all(
            f"SELECT d.cookie, d.name, {_I_INODE} FROM dirents d JOIN inodes i ON i.ino = d.ino"
            " WHERE d.folder = ? AND d.cookie > ? ORDER BY d.cookie LIMIT ?",
            folder,
            after,
            limit,
        )
        return [(row[0], row[1], Inode._make(row[2:])) for row in rows]

    def next_names(self, folder: int, name: bytes, limit: int = 1) -> list[tuple[bytes, int]]:
        """The entries that follow `name` in name order: (name, ino)."""
        return self._all(
            "SELECT name, ino FROM dirents WHERE folder = ? AND name > ? ORDER BY name LIMIT ?",
            folder,
            name,
            limit,
        )

    def previous_names(self, folder: int, name: bytes, limit: int = 1) -> list[tuple[bytes, int]]:
        """The entries before `name` in name order, nearest first: (name, ino)."""
        return self._all(
            "SELECT name, ino FROM dirents WHERE folder = ? AND name < ?"
            " ORDER BY name DESC LIMIT ?",
            folder,
            name,
            limit,
        )

    def is_empty(self, folder: int) -> bool:
        """Whether a folder has no entries."""
        return self._one("SELECT 1 FROM dirents WHERE folder = ? LIMIT 1", folder) is None

    def folder_of(self, ino: int) -> tuple[int, bytes] | None:
        """One place where `ino` is named: (folder, name)."""
        row = self._one("SELECT folder, name FROM dirents WHERE ino = ? LIMIT 1", ino)
        return None if row is None else (row[0], row[1])

    def path(self, ino: int) -> bytes:
        """One of the paths of `ino` from the root, without a leading slash; b"" for none."""
        parts: list[bytes] = []
        while ino != ROOT:
            place = self.folder_of(ino)
            if place is None:
                return b""
            if len(parts) > _DEEPEST:
                raise Damaged(self.file, reason=f"the folders of inode {ino} form a circle")
            ino = place[0]
            parts.append(place[1])
        return b"/".join(reversed(parts))

    def _touch_folder(self, folder: int, now_ns: int, links: int = 0) -> None:
        self._run(
            "UPDATE inodes SET mtime = ?1, ctime = ?1, nlink = nlink + ?2 WHERE ino = ?3",
            (now_ns, links, folder),
        )

    def create(
        self,
        folder: int,
        name: bytes,
        *,
        mode: int,
        uid: int,
        gid: int,
        now_ns: int,
        rdev: int = 0,
        target: bytes | None = None,
        staged: int | None = None,
        size: int = 0,
    ) -> Inode:
        """A new inode under a new name. The caller has checked that the name is free."""
        links = 2 if stat.S_ISDIR(mode) else 1
        with self.transaction():
            self._run(
                "INSERT INTO inodes (mode, uid, gid, nlink, size, rdev, atime, mtime, ctime,"
                " staged, target) VALUES (?1,?2,?3,?4,?5,?6,?7,?7,?7,?8,?9)",
                (mode, uid, gid, links, size, rdev, now_ns, staged, target),
            )
            ino = self._db.last_insert_rowid()
            self._add_name(folder, name, ino)
            self._touch_folder(folder, now_ns, 1 if stat.S_ISDIR(mode) else 0)
        return self.inode(ino)

    def _add_name(self, folder: int, name: bytes, ino: int) -> None:
        self._run("INSERT INTO dirents (folder, name, ino) VALUES (?,?,?)", (folder, name, ino))

    def _change_links(self, ino: int, change: int, now_ns: int) -> None:
        self._run(
            "UPDATE inodes SET nlink = nlink + ?, ctime = ? WHERE ino = ?", (change, now_ns, ino)
        )

    def link(self, folder: int, name: bytes, ino: int, now_ns: int) -> Inode:
        """One more name for a file."""
        with self.transaction():
            self._add_name(folder, name, ino)
            self._change_links(ino, 1, now_ns)
            self._touch_folder(folder, now_ns)
        return self.inode(ino)

    def unlink(self, folder: int, name: bytes, now_ns: int) -> Inode:
        """Take a name away (of a folder too: it then has nlink 0). The inode's row stays."""
        found = self.lookup(folder, name)
        if found is None:
            raise NoSuchInode(name)
        is_folder = stat.S_ISDIR(found.mode)
        with self.transaction(deletes=True):
            self._run("DELETE FROM dirents WHERE folder = ? AND name = ?", (folder, name))
            self._change_links(found.ino, -2 if is_folder else -1, now_ns)
            self._touch_folder(folder, now_ns, -1 if is_folder else 0)
        return self.inode(found.ino)

    def rename(
        self,
        folder: int,
        name: bytes,
        new_folder: int,
        new_name: bytes,
        now_ns: int,
        *,
        exchange: bool = False,
    ) -> Inode | None:
        """Move a name; a file or empty folder under the new name is replaced and returned.

        With `exchange` both exist and change places (None is returned).
        """
        moved = self.lookup(folder, name)
        other = self.lookup(new_folder, new_name)
        if moved is None:
            raise NoSuchInode(name)
        replaced = None
        with self.transaction(deletes=True):
            if exchange and other is not None:
                self._set_name(folder, name, other.ino)
                self._set_name(new_folder, new_name, moved.ino)
                self._change_links(other.ino, 0, now_ns)
                came, left = stat.S_ISDIR(other.mode), stat.S_ISDIR(moved.mode)
            else:
                if other is not None:
                    replaced = self.unlink(new_folder, new_name, now_ns)
                self._run(
                    "UPDATE dirents SET folder = ?, name = ? WHERE folder = ? AND name = ?",
                    (new_folder, new_name, folder, name),
                )
                came, left = False, stat.S_ISDIR(moved.mode)
            self._change_links(moved.ino, 0, now_ns)
            change = int(left) - int(came) if folder != new_folder else 0
            self._touch_folder(folder, now_ns, -change)
            self._touch_folder(new_folder, now_ns, change)
        return replaced

    def _set_name(self, folder: int, name: bytes, ino: int) -> None:
        self._run("UPDATE dirents SET ino = ? WHERE folder = ? AND name = ?", (ino, folder, name))

    def update(self, ino: int, **fields: int) -> None:
        """Set attributes: mode, uid, gid, size, atime_ns, mtime_ns, ctime_ns."""
        if not fields:
            return
        settings = ", ".join(f"{_COLUMNS[field]} = ?" for field in fields)
        with self.transaction():
            self._run(f"UPDATE inodes SET {settings} WHERE ino = ?", (*fields.values(), ino))

    def purge(self, ino: int) -> int | None:
        """Remove an inode without names for good; the token of its staged file, to be removed."""
        row = self.inode(ino)
        with self.transaction(deletes=True):
            self._run("DELETE FROM xattrs WHERE ino = ?", (ino,))
            self._run("DELETE FROM inodes WHERE ino = ?", (ino,))
            self._use(row.object_id, -1)
        return row.staged

    def orphans(self) -> list[Inode]:
        """Inodes that were unlinked while open when the last process ended."""
        rows = self._all(f"SELECT {_INODE} FROM inodes WHERE nlink = 0")
        return [Inode(*row) for row in rows]

    def staged_inodes(self) -> list[Inode]:
        """All inodes with a staged file."""
        rows = self._all(f"SELECT {_INODE} FROM inodes WHERE staged IS NOT NULL")
        return [Inode(*row) for row in rows]

    def inodes(self) -> Iterator[Inode]:
        """Every inode, by number, read a page at a time."""
        last = 0
        while rows := self._all(
            f"SELECT {_INODE} FROM inodes WHERE ino > ? ORDER BY ino LIMIT ?", last, _PAGE
        ):
            yield from map(Inode._make, rows)
            last = rows[-1][0]

    def names(self) -> Iterator[tuple[int, bytes, int]]:
        """Every entry, in the order they were made, read a page at a time: (folder, name, ino)."""
        last = 0
        while rows := self._all(
            "SELECT cookie, folder, name, ino FROM dirents WHERE cookie > ?"
            " ORDER BY cookie LIMIT ?",
            last,
            _PAGE,
        ):
            yield from (row[1:] for row in rows)
            last = rows[-1][0]

    def by_name(self, folder: int) -> Iterator[tuple[bytes, Inode]]:
        """Entries of a folder in name order, read a page at a time."""
        name = b""
        while rows := self._all(
            f"SELECT d.name, {_I_INODE} FROM dirents d JOIN inodes i ON i.ino = d.ino"
            " WHERE d.folder = ? AND d.name > ? ORDER BY d.name LIMIT ?",
            folder,
            name,
            _PAGE,
        ):
            for name, *inode in rows:
                yield name, Inode._make(inode)

    def walk(self, folder: int = ROOT, path: bytes = b"") -> Iterator[tuple[bytes, Inode]]:
        """Every entry below `folder`, names in order: (path, inode); folders before contents."""
        for name, entry in self.by_name(folder):
            here = path + b"/" + name if path else name
            yield here, entry
            if stat.S_ISDIR(entry.mode):
                yield from self.walk(entry.ino, here)

    # -- extended attributes

    def xattrs(self, ino: int) -> dict[bytes, bytes]:
        """All stored extended attributes of an inode."""
        return dict(self._all("SELECT name, value FROM xattrs WHERE ino = ?", ino))

    def all_xattrs(self) -> list[tuple[int, bytes, bytes]]:
        """Every stored extended attribute: (ino, name, value)."""
        return self._all("SELECT ino, name, value FROM xattrs ORDER BY ino, name")

    def get_xattr(self, ino: int, name: bytes) -> bytes | None:
        """One attribute's value, or None."""
        row = self._one("SELECT value FROM xattrs WHERE ino = ? AND name = ?", ino, name)
        return None if row is None else row[0]

    def set_xattr(self, ino: int, name: bytes, value: bytes) -> None:
        """Set or replace an attribute."""
        with self.transaction():
            self._run("INSERT OR REPLACE INTO xattrs VALUES (?,?,?)", (ino, name, value))

    def remove_xattr(self, ino: int, name: bytes) -> bool:
        """Remove an attribute; whether it was there."""
        with self.transaction():
            self._run("DELETE FROM xattrs WHERE ino = ? AND name = ?", (ino, name))
            return self._db.changes() > 0

    # -- bodies: staged files and objects

    def stage(self, ino: int, token: int, size: int) -> None:
        """The file's body is now the staged file `token`; an object it had is let go."""
        row = self.inode(ino)
        with self.transaction():
            self._run(
                "UPDATE inodes SET staged = ?, object = NULL, size = ? WHERE ino = ?",
                (token, size, ino),
            )
            self._use(row.object_id, -1)

    def encode(self, ino: int, token: int, object_id: int, size: int) -> bool:
        """Turn a row from staged to encoded; False (and no change) if `token` is not its body."""
        with self.transaction():
            self._run(
                "UPDATE inodes SET staged = NULL, object = ?, size = ?"
                " WHERE ino = ? AND staged = ?",
                (object_id, size, ino, token),
            )
            changed = self._db.changes() > 0
            if changed:
                self._use(object_id, 1)
        return changed

    def _use(self, object_id: int | None, change: int) -> None:
        if object_id is not None:
            self._run("UPDATE objects SET uses = uses + ? WHERE id = ?", (change, object_id))

    def add_object(self, new: Object) -> None:
        """The row of an appended object, used by nobody yet."""
        with self.transaction():
            self._run(
                f"INSERT INTO objects ({_OBJECT}) VALUES (?,?,?,?,?,?,?,?,?,?,?,0)",
                (
                    new.id,
                    new.kind,
                    new.pack,
                    new.offset,
                    new.length,
                    new.size,
                    new.sha256,
                    new.depth,
                    _pack_ids(new.needs),
                    _pack_ids(new.layer),
                    new.reason,
                ),
            )

    def object(self, object_id: int) -> Object:
        """The row of an object; one that is absent is damage, never an empty file."""
        found = self.known_object(object_id)
        if found is None:
            raise Damaged(self.file, reason=f"object {object_id} is named but not there")
        return found

    def known_object(self, object_id: int) -> Object | None:
        """The row of an object, or None."""
        row = self._one(f"SELECT {_OBJECT} FROM objects WHERE id = ?", object_id)
        return None if row is None else _object(row)

    def objects(self, ids: Sequence[int]) -> list[Object]:
        """Several rows, in the order of `ids`."""
        return [self.object(i) for i in ids]

    def all_objects(self) -> Iterator[Object]:
        """Every object, by id, read a page at a time."""
        last = 0
        while rows := self._all(
            f"SELECT {_OBJECT} FROM objects WHERE id > ? ORDER BY id LIMIT ?", last, _PAGE
        ):
            yield from map(_object, rows)
            last = rows[-1][0]

    def unneeded_objects(self) -> list[Object]:
        """Objects that no inode shows and no object that is shown is rendered from."""
        unused = self._all(f"SELECT {_OBJECT} FROM objects WHERE uses <= 0")
        if not unused:
            return []
        needed: set[int] = set()
        for row in self._all("SELECT DISTINCT needs FROM objects WHERE uses > 0"):
            needed.update(_unpack_ids(row[0]))
        return [found for found in map(_object, unused) if found.id not in needed]

    def is_used(self, object_id: int) -> bool:
        """Whether an inode shows an object, be it there or not."""
        return self._one("SELECT 1 FROM inodes WHERE object = ? LIMIT 1", object_id) is not None

    def drop_objects(self, dropped: Sequence[int]) -> None:
        """Forget what :meth:`unneeded_objects` named.

        Objects that are not shown, but needed for the pixels they coded, may need some of these to
        be rendered: they keep their layer alone, and have no hash, so that no file finds them.
        """
        gone = set(dropped)
        with self.transaction(deletes=True):
            for object_id in dropped:
                self._run("DELETE FROM signatures WHERE object = ?", (object_id,))
                self._run("DELETE FROM objects WHERE id = ?", (object_id,))
            for row in self._all(f"SELECT {_OBJECT} FROM objects WHERE uses <= 0"):
                found = _object(row)
                if gone.intersection(found.needs):
                    self._run(
                        "UPDATE objects SET needs = layer, sha256 = x'' WHERE id = ?", (found.id,)
                    )

    def move_object(self, moved: Object) -> None:
        """An object's entry lies elsewhere now, perhaps coded anew; it renders to the same."""
        with self.transaction():
            self._run(
                "UPDATE objects SET pack = ?, offset = ?, length = ? WHERE id = ?",
                (moved.pack, moved.offset, moved.length, moved.id),
            )

    def objects_in(self, pack: int) -> list[Object]:
        """The objects of a pack as they lie in it."""
        rows = self._all(f"SELECT {_OBJECT} FROM objects WHERE pack = ? ORDER BY offset", pack)
        return [_object(row) for row in rows]

    def find_object(self, sha256: bytes, size: int) -> int | None:
        """An object that renders to exactly these bytes, if there is one."""
        row = self._one(
            "SELECT id FROM objects WHERE substr(sha256, 1, 8) = ? AND sha256 = ? AND size = ?",
            sha256[:8],
            sha256,
            size,
        )
        return None if row is None else int(row[0])

    def next_object_id(self) -> int:
        """The id that no object has or had."""
        row = self._one("SELECT seq FROM sqlite_sequence WHERE name = 'objects'")
        return 1 if row is None else int(row[0]) + 1

    def names_of(self, object_id: int) -> list[bytes]:
        """Paths of all files that show an object."""
        rows = self._all("SELECT ino FROM inodes WHERE object = ? AND nlink > 0", object_id)
        return [self.path(row[0]) for row in rows]

    # -- packs

    def packs(self) -> dict[int, tuple[int, bool]]:
        """id -> (committed length in bytes, sealed)."""
        rows = self._all("SELECT id, length, sealed FROM packs ORDER BY id")
        return {row[0]: (row[1], bool(row[2])) for row in rows}

    def set_pack(self, pack: int, length: int, sealed: bool) -> None:
        """Record how far a pack is filled with committed entries."""
        with self.transaction():
            self._run(
                "INSERT OR REPLACE INTO packs (id, length, sealed) VALUES (?,?,?)",
                (pack, length, sealed),
            )

    def pack_fill(self) -> dict[int, int]:
        """Bytes of each pack that are entries of objects; packs without any are left out."""
        return dict(self._all("SELECT pack, sum(length) FROM objects GROUP BY pack"))

    def drop_pack(self, pack: int) -> None:
        """Forget a pack that holds no object."""
        with self.transaction(deletes=True):
            self._run("DELETE FROM packs WHERE id = ?", (pack,))
            self._run("DELETE FROM meta WHERE key = ?", (_REPACKED + str(pack),))

    def repacked(self) -> dict[int, int]:
        """How many bytes from its start of each pack `repack` has written; the rest is ingest's."""
        rows = self._all("SELECT key, value FROM meta WHERE key GLOB ?", _REPACKED + "*")
        return {int(key.removeprefix(_REPACKED)): int(value) for key, value in rows}

    def set_repacked(self, pack: int, length: int) -> None:
        """Note that `repack` has written a pack up to `length`."""
        with self.transaction():
            self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_REPACKED + str(pack), length))

    # -- repair

    def restore(
        self,
        inodes: Sequence[Inode],
        names: Sequence[tuple[int, bytes, int]],
        xattrs: Sequence[tuple[int, bytes, bytes]],
        objects: Sequence[Object],
        next_object: int,
    ) -> None:
        """Put rows into an index that has just been made; links and uses are counted anew."""
        with self.transaction():
            self._run("DELETE FROM inodes")
            for node in inodes:
                row = (node.ino, node.mode, node.uid, node.gid, node.nlink, node.size, node.rdev,
                       node.atime_ns, node.mtime_ns, node.ctime_ns, node.object_id, node.staged,
                       node.target)  # fmt: skip
                self._run(f"INSERT INTO inodes ({_INODE}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", row)
            for folder, name, ino in names:
                self._add_name(folder, name, ino)
            for values in xattrs:
                self._run("INSERT INTO xattrs VALUES (?,?,?)", values)
            for found in objects:
                self.add_object(found)
            self._run("DELETE FROM sqlite_sequence WHERE name = 'objects'")
            self._run("INSERT INTO sqlite_sequence VALUES ('objects', ?)", (next_object - 1,))
            self.recount()

    def recount(self) -> None:
        """Set links and uses to what names and inodes say; inodes without a name go."""
        with self.transaction():
            self._run(
                "DELETE FROM inodes WHERE ino != ? AND ino NOT IN (SELECT ino FROM dirents)",
                (ROOT,),
            )
            self._run("DELETE FROM xattrs WHERE ino NOT IN (SELECT ino FROM inodes)")
            self._run(
                "UPDATE inodes SET nlink = CASE WHEN (mode & 61440) = 16384 THEN 2 +"
                " (SELECT count(*) FROM dirents d JOIN inodes i ON i.ino = d.ino"
                "  WHERE d.folder = inodes.ino AND (i.mode & 61440) = 16384)"
                " ELSE (SELECT count(*) FROM dirents d WHERE d.ino = inodes.ino) END"
            )
            self._run(
                "UPDATE objects SET uses = (SELECT count(*) FROM inodes WHERE object = objects.id)"
            )

    def drop_bodies(self, inodes: Sequence[int], objects: Sequence[int]) -> None:
        """Remove files that cannot be read, and objects that nothing can be made of."""
        with self.transaction(deletes=True):
            for ino in inodes:
                self._run("DELETE FROM dirents WHERE ino = ?", (ino,))
            for object_id in objects:
                self._run("DELETE FROM signatures WHERE object = ?", (object_id,))
                self._run("DELETE FROM objects WHERE id = ?", (object_id,))
            self.recount()

    # -- what the planner remembers

    def add_signatures(self, object_id: int, geometry: str, data: bytes, keep: int) -> None:
        """Remember an object's tiles; of each geometry only the newest `keep` stay."""
        with self.transaction():
            self._run(
                "INSERT OR REPLACE INTO signatures VALUES (?,?,?)", (object_id, geometry, data)
            )
            self._run(
                "DELETE FROM signatures WHERE geometry = ?1 AND object <="
                " (SELECT object FROM signatures WHERE geometry = ?1"
                "  ORDER BY object DESC LIMIT 1 OFFSET ?2)",
                (geometry, keep),
            )

    def signatures(self, geometry: str) -> list[tuple[int, bytes]]:
        """(object, data) of one geometry, oldest first."""
        return self._all(
            "SELECT object, data FROM signatures WHERE geometry = ? ORDER BY object", geometry
        )

    # -- rows that contradict others, for `check`

    def object_ids(self) -> Iterator[int]:
        """The id of every object."""
        last = 0
        while rows := self._all("SELECT id FROM objects WHERE id > ? LIMIT ?", last, _PAGE):
            yield from (row[0] for row in rows)
            last = rows[-1][0]

    def shown(self, ids: set[int]) -> Iterator[tuple[int, bytes]]:
        """(object, path) of all names of files that show one of `ids`."""
        for inode in self.inodes():
            if inode.object_id not in ids:
                continue
            for folder, name in self._all(
                "SELECT folder, name FROM dirents WHERE ino = ?", inode.ino
            ):
                above = self.path(folder)
                yield inode.object_id, above + b"/" * bool(above) + name

    def dangling_names(self) -> list[bytes]:
        """Names that show no inode or stand in no folder."""
        rows = self._all(
            "SELECT d.name FROM dirents d LEFT JOIN inodes i ON i.ino = d.ino"
            " LEFT JOIN inodes f ON f.ino = d.folder"
            f" WHERE i.ino IS NULL OR f.ino IS NULL OR NOT {_IS_FOLDER % 'f'}"
        )
        return [row[0] for row in rows]

    def wrong_links(self) -> list[tuple[int, int, int]]:
        """Inodes whose link count is not what the names say: (ino, nlink, what it should be)."""
        names = "(SELECT count(*) FROM dirents d WHERE d.ino = i.ino)"
        folders = (
            "(SELECT count(*) FROM dirents d JOIN inodes c ON c.ino = d.ino"
            f" WHERE d.folder = i.ino AND {_IS_FOLDER % 'c'})"
        )
        return self._all(
            f"SELECT ino, nlink, wanted FROM (SELECT i.ino, i.nlink, CASE WHEN {_IS_FOLDER % 'i'}"
            f" THEN iif(i.ino = {ROOT} OR {names} > 0, 2 + {folders}, 0)"
            f" ELSE {names} END AS wanted FROM inodes i) WHERE nlink != wanted"
        )

    def wrong_uses(self) -> list[tuple[int, int, int]]:
        """Objects whose uses are not counted right: (id, uses, inodes that show it)."""
        return self._all(
            "SELECT o.id, o.uses, coalesce(u.shown, 0) FROM objects o LEFT JOIN"
            " (SELECT object, count(*) AS shown FROM inodes WHERE object IS NOT NULL"
            "  GROUP BY object) u ON u.object = o.id WHERE o.uses != coalesce(u.shown, 0)"
        )

    def wrong_bodies(self) -> list[tuple[Inode, int | None]]:
        """Regular files without exactly one body, or whose object is absent or of another size.

        With each the size of its object, None if that is not there.
        """
        rows = self._all(
            f"SELECT o.size, {_I_INODE} FROM inodes i LEFT JOIN objects o ON o.id = i.object"
            " WHERE (i.mode & 61440) = 32768 AND ((i.staged IS NULL) = (i.object IS NULL)"
            " OR (i.object IS NOT NULL AND o.size IS NOT i.size))"
        )
        return [(Inode._make(row[1:]), row[0]) for row in rows]

    # -- figures

    def totals(self) -> dict[str, Any]:
        """Counts and sums for `stats`: files, logical_bytes, staged, and per kind of objects."""
        files, logical = self._one(
            "SELECT count(*), coalesce(sum(size), 0) FROM inodes"
            " WHERE (mode & 61440) = 32768 AND nlink > 0"
        ) or (0, 0)
        staged = self._one("SELECT count(*) FROM inodes WHERE staged IS NOT NULL AND nlink > 0")
        shown = self._all(
            "SELECT o.kind, count(*) FROM inodes i JOIN objects o ON o.id = i.object"
            " WHERE i.nlink > 0 GROUP BY o.kind"
        )
        reasons = self._all(
            "SELECT o.reason, count(*) FROM inodes i JOIN objects o ON o.id = i.object"
            " WHERE i.nlink > 0 AND o.kind = 'raw' GROUP BY o.reason"
        )
        depth = self._one("SELECT coalesce(max(depth), 0) FROM objects")
        return {
            "files": files,
            "logical_bytes": logical,
            "staged": staged[0] if staged else 0,
            "kinds": dict(shown),
            "reasons": dict(reasons),
            "max_depth": depth[0] if depth else 0,
        }

    def bytes(self) -> int:
        """Size of the database, its journal aside."""
        row = self._one("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        return int(row[0]) if row else 0

    def integrity(self) -> list[str]:
        """What SQLite itself finds wrong (page checksums included); empty if nothing."""
        try:
            rows = self._all("PRAGMA integrity_check")
        except (Damaged, OSError) as error:
            return [str(error)]
        return [str(row[0]) for row in rows if row[0] != "ok"]
