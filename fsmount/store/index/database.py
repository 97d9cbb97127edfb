"""The connection to SQLite: page checksums, transactions, what survives what."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
# As SQLite's own default for folding the log.
_FOLD_PAGES = 1000
# How long a statement waits for another process that has the database locked.
_BUSY_MS = 10_000


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
    since it was opened; `suspect`: the disk may lack bytes of the log although the next fsync
    succeeds, since one has failed; `let_go`: how many bodies files have let go.
    `owned` raises OSError once the store is another process's; it is asked before each change, and
    after it, before anybody is told that it is done.

    SQLite folds the log into the database file in place. A power cut in the middle of that leaves
    a damaged file unless the disk has the log. So SQLite never does it by itself here, only
    :meth:`_fold`, which forces the log first and writes it again where an fsync has failed.
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
        # What SQLite would take, too.
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
            # In place of SQLite's own folding.
            self._db.set_wal_hook(self._note_log)
        self._db.pragma("cache_size", -8192)
        self._all("SELECT count(*) FROM meta")
        if not read_only and self._log_bytes():
            # Another process wrote this log. It cannot tell us whether an fsync has failed.
            self.suspect = True
            with suppress(OSError):
                self.rewrite()

    def _check_opened(self) -> None:
        """Raise OSError if SQLite may not write what is to be written, or if it may have opened
        files of another folder."""
        if self._is_moved():
            code, text = errno.ESTALE, "the folder was moved while the index was opened"
        elif not self.read_only and self._db.readonly("main"):
            code, text = errno.EACCES, os.strerror(errno.EACCES)
        else:
            return
        raise OSError(code, text, str(self.file))

    def close(self) -> None:
        """Close; the write-ahead log is folded into the database where this is the last user.

        Raises nothing: where that fails, or in a store of another process, both files stay as
        they are.
        """
        # Readers fold it when they have ended.
        self._db.set_busy_timeout(0)
        folded = self.read_only or self._fold("TRUNCATE")
        if not folded or self._is_moved():
            self._leave_log()
        # A thread may be forcing the log.
        with self._forcing:
            log, self._log = self._log, None
            if log is not None:
                os.close(log)
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

    def _note_log(self, _: apsw.Connection, name: str, pages: int) -> int:
        """SQLite has committed: the log has so many pages now."""
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
        if self._log_pages >= _FOLD_PAGES:
            self._fold()
        self.owned()

    def make_room(self) -> None:
        """On a full disk: let the next commits go where the log has been, so that it need not grow.

        The reserve alone would be used up one day, and then nothing could be deleted any more.
        """
        if self.reserve is not None and self.reserve.is_due():
            # A reader, or a database that had to grow, keeps the log as it is.
            self._fold()

    def _fold(self, how: str = "PASSIVE") -> bool:
        """Force the log, then write what it has to the database file; whether that went well.

        `how`: TRUNCATE waits for readers and leaves an empty log (sqlite.org/pragma.html).
        """
        try:
            self.owned()
            if self.suspect:
                self.rewrite()
            else:
                self.force()
            self._all(f"PRAGMA wal_checkpoint({how})")
        except (OSError, Damaged):
            # SQLite forces the log, too; it does not say whether that is what has failed.
            self.dirty = self.suspect = True
            return False
        self._log_pages = 0
        return True

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
        """Write all bytes of the log once more and force them: heals a failed fsync.

        The kernel may have marked pages clean that the disk has not got; a write makes them dirty
        again. If it has dropped them, their checksums tell (cksumvfs).
        Raises OSError if that fails; the index is still suspect then. Caller is the task that
        commits: a commit between reading and writing would be undone.
        """
        self.owned()
        with self._forcing:
            log = self._open_log()
            if log is not None:
                self._disk.write_again(log)
                self._disk.fsync(log)
            self.suspect = self.dirty = False

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
