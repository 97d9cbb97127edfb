"""Whether the store is still this process's own: the one owner of that question.

A lock can be taken from a process that holds it: by a path that does not pass flock(2) on, or by
``--force-lock`` from one that was stopped for a while. Whoever takes it names himself in the lock
file before he looks at anything else. So a writer asks twice at each durable step:

- *before* it changes anything, so that it spoils nothing of the new owner's;
- *after* it, before it acknowledges: then the new owner came later, and has found the change.

Once lost a store stays lost. Every change is answered with EIO, and nothing is removed or cut: what
was acknowledged and is not in the new owner's index lies in ``staging/``.

What no question can prevent: the store is taken between a question and the system call behind it.
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
    """Holds a lock until :meth:`release`, and keeps its heartbeat. Any thread may ask.

    The heartbeat has a thread of its own: opening and closing a large store take longer than one,
    and it tells that the process lives, whatever its tasks wait for.
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
        """The index is open: from now on it has to stay the file that it is, and asks here."""
        found = index.file.stat()
        self._index, self._place = index.file, (found.st_dev, found.st_ino)
        index.owned = self.ask

    @property
    def unproved(self) -> bool:
        """Whether nobody could tell that the writer before has ended."""
        return self._lock.unproved

    @property
    def is_lost(self) -> bool:
        """Whether somebody else was found to have the store. Asks nobody."""
        return bool(self._lost)

    def ask(self) -> None:
        """Raises OSError EIO for ever once the store is another's."""
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
        """Let another process have the store. What another has taken stays as it is."""
        self._released.set()
        self._heart.join()
        self._lock.release()


class OwnedDisk(Disk):
    """A disk that changes nothing in a store that is not ours any more: raises OSError EIO."""

    def __init__(self, disk: Disk, ownership: Ownership) -> None:
        self._disk = disk
        self._ask = ownership.ask

    # What changes nothing that counts.

    def open(self, path: Path, flags: int) -> int:
        """See :class:`Disk`, here and below."""
        return self._disk.open(path, flags)

    def close(self, fd: int) -> None:
        self._disk.close(fd)

    def read_cached(self, fd: int, length: int, offset: int) -> bytes:
        return self._disk.read_cached(fd, length, offset)

    def fsync(self, fd: int) -> None:
        self._disk.fsync(fd)

    def fsync_folder(self, path: Path) -> None:
        self._disk.fsync_folder(path)

    # What does.

    def create(self, path: Path) -> int:
        self._ask()
        return self._disk.create(path)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        self._ask()
        done = self._disk.pwrite(fd, data, offset)
        # It is an acknowledgement: whoever takes the store from here on finds these bytes.
        self._ask()
        return done

    def ftruncate(self, fd: int, size: int) -> None:
        self._ask()
        self._disk.ftruncate(fd, size)

    def allocate(self, fd: int, size: int) -> None:
        self._ask()
        self._disk.allocate(fd, size)

    def rename(self, old: Path, new: Path) -> None:
        self._ask()
        self._disk.rename(old, new)

    def link(self, old: Path, new: Path) -> None:
        self._ask()
        self._disk.link(old, new)

    def unlink(self, path: Path) -> None:
        self._ask()
        self._disk.unlink(path)

    def mkdir(self, path: Path, *, parents: bool = False) -> None:
        self._ask()
        self._disk.mkdir(path, parents=parents)

    def chmod(self, path: Path, mode: int) -> None:
        self._ask()
        self._disk.chmod(path, mode)
