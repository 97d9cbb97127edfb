"""Whether this process still owns the store.

Another process can take the lock while this one runs: by a path that does not pass flock(2) on, or
by ``--force-lock`` while this process was stopped. The new owner writes its name into the lock file
before it reads anything else. So a writer asks twice at each durable step:

- *before* a change, so that it does not damage files of the new owner;
- *after* it, before it acknowledges the change: then the new owner came later and has seen it.

A lost store stays lost. Each change raises EIO, and nothing is removed or cut: acknowledged bytes
that the new owner's index does not know stay in ``staging/``.

This cannot cover the time between a question and the system call that follows it.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from fsmount.store import lock as lock_module
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index
from fsmount.store.lock import Lock

_log = logging.getLogger(__name__)


class Ownership:
    """Holds a lock until :meth:`release`, and writes its heartbeat. Any thread may ask.

    The heartbeat has its own thread: opening and closing a large store take longer than one beat,
    and the process is alive whatever its tasks wait for.
    """

    def __init__(self, lock: Lock) -> None:
        self.when_lost: Callable[[], None] = lambda: None
        self._lock = lock
        self._index: Path | None = None
        self._place = (0, 0)
        self._lost = ""
        self._losing = threading.Lock()
        self._released = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._heart.start()

    def watch(self, index: Index) -> None:
        """Watch an open index: its path must lead to the same file, and it asks before changes."""
        found = index.file.stat()
        self._index, self._place = index.file, (found.st_dev, found.st_ino)
        index.owned = self.ask

    @property
    def unproved(self) -> bool:
        """Whether the previous writer may still run."""
        return self._lock.unproved

    @property
    def is_lost(self) -> bool:
        """Whether an earlier question found another owner. Does not read the lock file."""
        return bool(self._lost)

    def ask(self) -> None:
        """Raise OSError EIO if another process has, or ever had, taken the store over."""
        if not self._lost and not self._is_ours():
            self._lose()
        if self._lost:
            raise OSError(errno.EIO, self._lost, str(self._index or self._lock.path))

    def _is_ours(self) -> bool:
        if not self._lock.is_ours():
            return False
        if self._index is None:
            return True
        try:
            found = self._index.stat()
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._place

    def _lose(self) -> None:
        with self._losing:
            if self._lost:
                return
            self._lost = f"another fsmount has taken this store over ({self._lock.other()})"
        _log.critical(
            "%s: %s. This process changes nothing any more: programs get EIO. What it accepted"
            " is in the index that the other one has found, or in staging/",
            self._lock.path.parent,
            self._lost,
        )
        self.when_lost()

    def _beat(self) -> None:
        while not self._released.wait(lock_module.BEAT_S):
            try:
                self.ask()
                self._lock.beat()
            except OSError as error:
                if self._lost:
                    return
                _log.warning("the heartbeat in %s: %s", self._lock.path, error)

    def release(self) -> None:
        """Release the lock, unless another process has taken it."""
        self._released.set()
        self._heart.join()
        self._lock.release()


class OwnedDisk(Disk):
    """A disk that raises OSError EIO instead of changing a store that this process lost.

    Each method does what the method of :class:`Disk` does. Calls that change no stored bytes ask
    nothing; all others ask who owns the store before they change anything.
    """

    def __init__(self, disk: Disk, ownership: Ownership) -> None:
        self._disk = disk
        self._ask = ownership.ask

    # Calls that change no stored bytes.

    def open(self, path: Path, flags: int) -> int:
        """Open an existing file. Does not ask."""
        return self._disk.open(path, flags)

    def close(self, fd: int) -> None:
        """Close a descriptor. Does not ask."""
        self._disk.close(fd)

    def read_cached(self, fd: int, length: int, offset: int) -> bytes:
        """Read `length` bytes at byte `offset` from the page cache. Does not ask."""
        return self._disk.read_cached(fd, length, offset)

    def fsync(self, fd: int) -> None:
        """Force a file to the disk. Does not ask: bytes that are forced belong to either owner."""
        self._disk.fsync(fd)

    def fsync_folder(self, path: Path) -> None:
        """Force the names in a folder to the disk. Does not ask."""
        self._disk.fsync_folder(path)

    # Calls that change the store ask first.

    def create(self, path: Path) -> int:
        """Make a new file. Raises OSError EIO if the store is lost."""
        self._ask()
        return self._disk.create(path)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write all of `data` at byte `offset`.

        Raises OSError EIO if the store is lost, also if it was lost during the write.
        """
        self._ask()
        done = self._disk.pwrite(fd, data, offset)
        # The return acknowledges the write: a later owner must find these bytes.
        self._ask()
        return done

    def ftruncate(self, fd: int, size: int) -> None:
        """Cut or extend a file to `size` bytes. Raises OSError EIO if the store is lost."""
        self._ask()
        self._disk.ftruncate(fd, size)

    def allocate(self, fd: int, size: int) -> None:
        """Allocate the first `size` bytes. Raises OSError EIO if the store is lost."""
        self._ask()
        self._disk.allocate(fd, size)

    def punch(self, fd: int, start: int, length: int) -> None:
        """Make a stretch of a file a hole. Raises OSError EIO if the store is lost."""
        self._ask()
        self._disk.punch(fd, start, length)

    def rename(self, old: Path, new: Path) -> None:
        """Rename a file. Raises OSError EIO if the store is lost."""
        self._ask()
        self._disk.rename(old, new)

    def link(self, old: Path, new: Path) -> None:
        """Give a file a second name. Raises OSError EIO if the store is lost."""
        self._ask()
        self._disk.link(old, new)

    def unlink(self, path: Path) -> None:
        """Remove a name. Raises OSError EIO if the store is lost."""
        self._ask()
        self._disk.unlink(path)

    def mkdir(self, path: Path, *, parents: bool = False) -> None:
        """Make a folder. Raises OSError EIO if the store is lost."""
        self._ask()
        self._disk.mkdir(path, parents=parents)

    def chmod(self, path: Path, mode: int) -> None:
        """Set permission bits. Raises OSError EIO if the store is lost."""
        self._ask()
        self._disk.chmod(path, mode)

    def set_mtime(self, fd: int, mtime_ns: int) -> None:
        """Set the time of last change of a file. Raises OSError EIO if the store is lost."""
        self._ask()
        self._disk.set_mtime(fd, mtime_ns)
