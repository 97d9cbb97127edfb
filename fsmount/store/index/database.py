"""The connection to SQLite: page checksums, transactions, what survives what."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw
import apsw.sqlite_extra

from fsmount.errors import Damaged
from fsmount.folder import readable
from fsmount.store.disk import Disk
from fsmount.store.index.kinds import Kind
from fsmount.store.index.schema import PAGE
from fsmount.store.reserve import Reserve

VFS = "cksmvfs"


def address(path: Path, read_only: bool) -> str:
    """The URI of a database file: an absolute path without links.

    Reading beside a writer takes a file of shared memory. Where the folder cannot be written
    there is no writer, and SQLite must be told so.
    """
    uri = f"file:{quote(os.fsencode(path))}"
    log = path.with_name(path.name + "-wal")
    no_log = not log.exists() or not log.stat().st_size
    if read_only and no_log and not os.access(path.parent, os.W_OK):
        return uri + "?immutable=1"
    return uri


@contextmanager
def translated(path: Path) -> Iterator[None]:
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
        if path.exists() and not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path)) from error
        # No such table: somebody emptied the file.
        raise Damaged(path, reason=error) from error


def register_vfs() -> None:
    if VFS not in apsw.vfs_names():
        apsw.sqlite_extra.load(apsw.Connection(":memory:"), "cksumvfs")


class Database:
    """A file. Raises :class:`Damaged` where SQLite finds damage, OSError on a full disk.

    `dirty`: there are commits that a power cut may take back; `changed`: there have been commits
    since it was opened; `suspect`: a failed fsync; `let_go`: how many bodies files have let go.
    """

    def __init__(self, path: Path, disk: Disk, *, read_only: bool = False) -> None:
        self.file = path
        self.read_only = read_only
        self.dirty = False
        self.changed = False
        self.suspect = False
        self.let_go = 0
        self.reserve: Reserve | None = None
        self._disk = disk
        self._log: int | None = None
        self._forcing = threading.Lock()
        self._depth = 0
        register_vfs()
        flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE
        flags |= apsw.SQLITE_OPEN_URI
        # What SQLite would take, too.
        self._place = path.parent.resolve()
        with translated(path):
            self._db = apsw.Connection(
                address(self._place / path.name, read_only), vfs=VFS, flags=flags
            )
            self._db.set_busy_timeout(10_000)
            self._db.pragma("trusted_schema", False)
            if not read_only:
                self._db.pragma("journal_mode", "wal")
                self._db.pragma("synchronous", 1)
            self._db.pragma("cache_size", -8192)
            self._all("SELECT count(*) FROM meta")
        self._check_opened()

    def _check_opened(self) -> None:
        """Raise OSError, and close, if SQLite may not write what is to be written, or if it may
        have opened files of another folder."""
        if self._is_moved():
            code, text = errno.ESTALE, "the folder was moved while the index was opened"
        elif not self.read_only and self._db.readonly("main"):
            code, text = errno.EACCES, os.strerror(errno.EACCES)
        else:
            return
        self._leave_log()
        self._db.close()
        raise OSError(code, text, str(self.file))

    def close(self) -> None:
        """Close; the write-ahead log is folded into the database where this is the last user."""
        if self._log is not None:
            os.close(self._log)
            self._log = None
        if self._is_moved():
            self._leave_log()
            self._empty_log()
        self._db.close()

    def _is_moved(self) -> bool:
        """Whether the name by which SQLite has opened the database leads to another folder now.

        It keeps the files that it has open. But it removes its log by that name when it closes.
        """
        try:
            return not self.file.parent.samefile(self._place)
        except OSError:
            return True

    def _leave_log(self) -> None:
        """Keep SQLite from folding and removing a log when it closes."""
        self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)

    def _empty_log(self) -> None:
        """Fold the log, which takes no name; where that fails the next user does it."""
        self._db.set_busy_timeout(0)
        with suppress(apsw.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

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
        if deletes:
            self.make_room()
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
        self.dirty = self.changed = True

    def make_room(self) -> None:
        """On a full disk: let the next commits go where the log has been, so that it need not grow.

        The reserve alone would be used up one day, and then nothing could be deleted any more.
        """
        if self.reserve is not None and self.reserve.spend_if_full():
            # A reader, or a database that had to grow, keeps the log as it is.
            with suppress(OSError):
                self._all("PRAGMA wal_checkpoint(PASSIVE)")

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
        with translated(self.file):
            return self._db.execute(sql, values)

    def _one(self, sql: str, *values: Any, of: Kind | None = None) -> tuple[Any, ...] | None:
        """The first row, or None; raises :class:`Damaged` if it is none `of` these kinds."""
        with translated(self.file):
            row = self._db.execute(sql, values).fetchone()
        if row is not None:
            self._check([row], of)
        return row

    def _all(self, sql: str, *values: Any, of: Kind | None = None) -> list[Any]:
        """All rows; raises :class:`Damaged` if one is none `of` these kinds."""
        with translated(self.file):
            rows = self._db.execute(sql, values).fetchall()
        self._check(rows, of)
        return rows

    def _check(self, rows: list[Any], of: Kind | None) -> None:
        if of is not None and not {tuple(map(type, row)) for row in rows} <= of:
            raise Damaged(self.file, reason="rows of another table")

    def _pages(self, sql: str, *values: Any, of: Kind, after: Any = 0) -> Iterator[tuple[Any, ...]]:
        """The rows of a query that is read a page at a time. It ends with what comes before them
        and how many to read: ``… key > ? ORDER BY key LIMIT ?``; the key is the first column."""
        while rows := self._all(sql, *values, after, PAGE, of=of):
            yield from self._ascending(rows, after)
            after = rows[-1][0]

    def _ascending(self, rows: list[Any], after: Any) -> list[Any]:
        """`rows` if their first columns ascend from above `after`. Raises :class:`Damaged`: a page
        in another's place (see :mod:`kinds`) may give what was not asked for, and for ever."""
        for key, *_ in rows:
            if key <= after:
                raise Damaged(self.file, reason="rows are out of order")
            after = key
        return rows

    def bytes(self) -> int:
        """Size of the database, its journal aside."""
        row = self._one("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        return int(row[0]) if row else 0

    def integrity(self) -> list[str]:
        """What SQLite itself finds wrong (page checksums included); empty if nothing."""
        try:
            rows = self._all("PRAGMA integrity_check")
        except (Damaged, OSError) as error:
            return [readable(str(error))]
        return [str(row[0]) for row in rows if row[0] != "ok"]
