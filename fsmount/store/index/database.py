"""The connection to SQLite: page checksums, transactions, durability."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw
import apsw.sqlite_extra

from fsmount.errors import Damaged
from fsmount.folder import readable
from fsmount.store.disk.disk import Disk
from fsmount.store.disk.reserve import Reserve
from fsmount.store.index.kinds import Kind
from fsmount.store.index.schema import PAGE

VFS = "cksmvfs"
CHECKSUM_BYTES = 8
# Pages in the log that start a checkpoint; SQLite's own default.
_CHECKPOINT_PAGES = 1000
# How long a statement waits for another process that has the database locked.
_BUSY_MS = 10_000


def address(path: Path, read_only: bool) -> str:
    """The URI of a database file: an absolute path without links.

    A reader beside a writer needs a file of shared memory. If the folder cannot be written, there
    is no writer, and SQLite must be told so (``immutable=1``).
    """
    uri = f"file:{quote(os.fsencode(path))}"
    log = path.with_name(path.name + "-wal")
    no_log = not log.exists() or not log.stat().st_size
    if read_only and no_log and not os.access(path.parent, os.W_OK):
        return uri + "?immutable=1"
    return uri


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn exceptions of SQLite into OSError, PermissionError or :class:`Damaged`."""
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
        # SQLError: a table is missing, so the file was emptied or replaced.
        raise Damaged(path, reason=error) from error


def register_vfs() -> None:
    """Register the page checksum VFS with SQLite, once per process."""
    if VFS not in apsw.vfs_names():
        apsw.sqlite_extra.load(apsw.Connection(":memory:"), "cksumvfs")


def _connect(path: Path) -> apsw.Connection:
    """Open a database for writing, or make it."""
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
    return apsw.Connection(address(path.resolve(), False), vfs=VFS, flags=flags)


def leave_log_mode(path: Path) -> None:
    """Note in a closed database that it has no log. The next opening for writing makes one.

    Readers then make no files beside it. Forces nothing. Raises OSError, :class:`Damaged`.
    """
    with translated(path), closing(_connect(path)) as database:
        database.pragma("synchronous", 0)
        database.pragma("journal_mode", "delete")


class Database:
    """The open database file.

    Methods raise :class:`Damaged` if SQLite finds damage, and OSError on a full disk or I/O error.

    Attributes
    ----------
    dirty : whether a power cut may undo commits.
    changed : whether there have been commits since the opening.
    suspect : whether an fsync of the log has failed, so that the disk may lack bytes of the log
        although the next fsync succeeds.
    let_go : number of bodies that files have given up.
    owned : raises OSError if another process has taken the store over. A change calls it before
        the change, and again before the caller learns that the change is done.

    A checkpoint writes the pages of the log into the database file in place. A power cut in the
    middle leaves a damaged file unless the disk has the whole log. So SQLite's own checkpoints are
    off. :meth:`_checkpoint` forces the log first, and writes it again if an fsync has failed.
    """

    def __init__(self, path: Path, disk: Disk, *, read_only: bool = False) -> None:
        self.file = path
        self.read_only = read_only
        self.dirty = False
        self.changed = False
        self.suspect = False
        self.let_go = 0
        self.reserve: Reserve | None = None
        self.owned: Callable[[], None] = lambda: None
        self._disk = disk
        self._log: int | None = None
        self._log_pages = 0
        self._forcing = threading.Lock()
        self._depth = 0
        register_vfs()
        flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE
        flags |= apsw.SQLITE_OPEN_URI
        # SQLite resolves links as well.
        self._place = path.parent.resolve()
        with translated(path):
            self._db = apsw.Connection(
                address(self._place / path.name, read_only), vfs=VFS, flags=flags
            )
            try:
                self._set_up(read_only=read_only)
                self._check_opened()
            except BaseException:
                self._leave_log()
                self._db.close()
                raise

    def _set_up(self, *, read_only: bool) -> None:
        self._db.set_busy_timeout(_BUSY_MS)
        self._db.pragma("trusted_schema", False)
        if not read_only:
            self._db.pragma("journal_mode", "wal")
            self._db.pragma("synchronous", 1)
            # This replaces SQLite's own checkpoints.
            self._db.set_wal_hook(self._note_log)
        self._db.pragma("cache_size", -8192)
        self._all("SELECT count(*) FROM meta")
        if not read_only and self._log_bytes():
            # Another process wrote this log; one of its fsyncs may have failed.
            self.suspect = True
            with suppress(OSError):
                self.rewrite()

    def _check_opened(self) -> None:
        """Raise OSError if SQLite cannot write, or may have opened files of another folder."""
        if self._is_moved():
            code, text = errno.ESTALE, "the folder was moved while the index was opened"
        elif not self.read_only and self._db.readonly("main"):
            code, text = errno.EACCES, os.strerror(errno.EACCES)
        else:
            return
        raise OSError(code, text, str(self.file))

    def close(self) -> None:
        """Close the database; a checkpoint empties the log if this is the last user.

        Raises nothing: if the checkpoint fails, or another process owns the store, both files stay.
        """
        # Do not wait for readers: the last of them does the checkpoint.
        self._db.set_busy_timeout(0)
        emptied = self.read_only or self._checkpoint("TRUNCATE")
        if not emptied or self._is_moved():
            self._leave_log()
        # A thread may be forcing the log.
        with self._forcing:
            log, self._log = self._log, None
            if log is not None:
                os.close(log)
        self._db.close()

    def _is_moved(self) -> bool:
        """Whether the path that SQLite opened leads to another folder by now.

        SQLite keeps its files open, but removes its log by that path when it closes.
        """
        try:
            return not self.file.parent.samefile(self._place)
        except OSError:
            return True

    def _leave_log(self) -> None:
        """Tell SQLite to keep the log when it closes."""
        self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)

    def _note_log(self, _: apsw.Connection, name: str, pages: int) -> int:
        """Called by SQLite after each commit with the number of pages in the log."""
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _log_path(self) -> Path:
        return self.file.with_name(self.file.name + "-wal")

    def _log_bytes(self) -> int:
        try:
            return self._log_path().stat().st_size
        except FileNotFoundError:
            return 0

    # -- transactions and durability

    @contextmanager
    def transaction(self, *, deletes: bool = False) -> Iterator[None]:
        """Make everything inside one commit. May be nested; the outermost block commits.

        `deletes`: the commit frees space, so it may use the reserve of a full disk.
        """
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        self.owned()
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
        if self._log_pages >= _CHECKPOINT_PAGES:
            self._checkpoint()
        self.owned()

    def make_room(self) -> None:
        """On a full disk, do a checkpoint, so that the next commits reuse the space of the log.

        Otherwise the log would use up the reserve, and no file could be deleted any more.
        """
        if self.reserve is not None and self.reserve.is_due():
            # This has no effect beside a reader, or if the database file had to grow.
            self._checkpoint()

    def _checkpoint(self, how: str = "PASSIVE") -> bool:
        """Force the log, then write its pages to the database file; returns whether that worked.

        `how` is a mode of ``PRAGMA wal_checkpoint`` (https://sqlite.org/pragma.html): TRUNCATE
        waits for readers and leaves an empty log.
        """
        try:
            self.owned()
            if self.suspect:
                self.rewrite()
            else:
                self.force()
            self._all(f"PRAGMA wal_checkpoint({how})")
        except (OSError, Damaged):
            # SQLite forces the log, too, and does not say which call has failed.
            self.dirty = self.suspect = True
            return False
        self._log_pages = 0
        return True

    def version(self) -> int:
        """A number that changes whenever another connection has committed a change.

        Raises Damaged, OSError.
        """
        row = self._one("PRAGMA data_version")
        return 0 if row is None else int(row[0])

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read one state inside the block, whatever other processes commit meanwhile."""
        self._run("BEGIN")
        try:
            yield
        finally:
            self._run("ROLLBACK")

    def copy_to(self, path: Path) -> None:
        """Write one state of the database to a new file, whatever other processes commit meanwhile.

        SQLite reads all pages in one transaction (https://sqlite.org/backup.html), and verifies
        their checksums. Forces nothing. Raises OSError, :class:`Damaged`.
        """
        with translated(path), closing(_connect(path)) as copy:
            # Nobody has seen the copy: a half-written one is written anew.
            copy.pragma("synchronous", 0)
            # The checksum VFS computes checksums from the first page with this number on. Without
            # it, pages that leave a full cache before the first page would have none.
            copy.reserve_bytes("main", CHECKSUM_BYTES)
            copy.execute("CREATE TABLE begun (x)")
            with copy.backup("main", self._db, "main") as work:
                work.step(-1)

    def force(self) -> None:
        """Make all commits so far survive a power cut. Any thread may call it: no SQLite state.

        Raises OSError. After a failed fsync the kernel marks the pages clean, so a second fsync
        would succeed without writing them. So each further call fails until :meth:`rewrite`.
        """
        # One thread at a time: the kernel reports a failure to one caller only.
        with self._forcing:
            self._force()
        self.owned()

    def _force(self) -> None:
        if self.suspect:
            raise OSError(errno.EIO, "an earlier fsync of the index failed", str(self.file))
        self.dirty = False
        log = self._open_log()
        if log is None:
            return
        try:
            self._disk.fsync(log)
        except OSError:
            self.dirty = self.suspect = True
            raise

    def _open_log(self) -> int | None:
        """A descriptor on the log, if there is one. Raises OSError."""
        if self._log is None:
            try:
                self._log = self._disk.open(self._log_path(), os.O_RDWR)
            except FileNotFoundError:
                return None
            except OSError:
                self.dirty = True
                raise
        return self._log

    def rewrite(self) -> None:
        """Write all bytes of the log once more and force them; this heals a failed fsync.

        The kernel may have marked pages clean that the disk lacks; the write makes them dirty
        again. If the kernel has dropped them, page checksums show it.
        Raises OSError if that fails; the index is then still suspect. Only the task that commits
        may call it: a commit between the read and the write would be undone.
        """
        self.owned()
        with self._forcing:
            log = self._open_log()
            if log is not None:
                self._disk.write_again(log)
                self._disk.fsync(log)
            self.suspect = self.dirty = False

    def _run(self, sql: str, values: tuple[Any, ...] = ()) -> apsw.Cursor:
        """Execute a statement. Raises OSError, :class:`Damaged`."""
        with translated(self.file):
            return self._db.execute(sql, values)

    def _one(self, sql: str, *values: Any, of: Kind | None = None) -> tuple[Any, ...] | None:
        """The first row, or None. Raises :class:`Damaged` if its types are not in `of`."""
        with translated(self.file):
            row = self._db.execute(sql, values).fetchone()
        if row is not None:
            self._check([row], of)
        return row

    def _all(self, sql: str, *values: Any, of: Kind | None = None) -> list[Any]:
        """All rows. Raises :class:`Damaged` if the types of one are not in `of`."""
        with translated(self.file):
            rows = self._db.execute(sql, values).fetchall()
        self._check(rows, of)
        return rows

    def _check(self, rows: list[Any], of: Kind | None) -> None:
        if of is not None and not {tuple(map(type, row)) for row in rows} <= of:
            raise Damaged(self.file, reason="rows of another table")

    def _pages(self, sql: str, *values: Any, of: Kind, after: Any = 0) -> Iterator[tuple[Any, ...]]:
        """All rows of a query, read PAGE rows at a time.

        `sql` ends with ``… key > ? ORDER BY key LIMIT ?``; the key is the first column.
        """
        while rows := self._all(sql, *values, after, PAGE, of=of):
            yield from self._ascending(rows, after)
            after = rows[-1][0]

    def _ascending(self, rows: list[Any], after: Any) -> list[Any]:
        """Return `rows` if their first columns ascend from above `after`; else raise Damaged.

        A misplaced page (see :mod:`kinds`) may return other rows than asked for, without end.
        """
        for key, *_ in rows:
            if key <= after:
                raise Damaged(self.file, reason="rows are out of order")
            after = key
        return rows

    def bytes(self) -> int:
        """Size of the database file in bytes, without its log."""
        row = self._one("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        return int(row[0]) if row else 0

    def free_bytes(self) -> int:
        """Bytes of the database file that hold no rows, in whole pages."""
        row = self._one(
            "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size"
        )
        return int(row[0]) if row else 0

    def compact(self) -> None:
        """Write the database anew without free pages.

        Needs memory, and free space on the disk for the log, of the size of all rows. The caller
        has made sure that :meth:`integrity` finds no damage: afterwards it cannot be found any
        more. Raises OSError, :class:`Damaged`; nothing has changed then.
        """
        self.owned()
        # A file for this would lie in a folder for temporary files, outside of the store.
        self._run("PRAGMA temp_store = MEMORY")
        self._run("VACUUM")
        self.dirty = self.changed = True
        self._checkpoint()
        self.owned()

    def integrity(self) -> list[str]:
        """Damage that SQLite finds, page checksums included, one text each."""
        try:
            rows = self._all("PRAGMA integrity_check")
        except (Damaged, OSError) as error:
            return [readable(str(error))]
        return [str(row[0]) for row in rows if row[0] != "ok"]
