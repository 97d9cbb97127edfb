"""Files written and not yet encoded: verbatim bytes, one file each, named by a number (token).

The upper half of a token says which writer made it: a number that is chosen at random at each
opening of the store for writing. So a staged file that no row names can be told from one that
another writer has made, which may have acknowledged it.

:class:`Staging` is also the one place that knows which files an fsync has failed for. After a
failed fsync(2) Linux marks the pages clean, so that the next call reports success although the
disk has not got them (fsync(2), NOTES; "Can applications recover from fsync failures?", USENIX
ATC 2020). Mount, encoder and durability points therefore all force staged files here: a failed
fsync is never repeated, and the error stays until the bytes are in another file.
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from fsmount.store import contents
from fsmount.store.disk.disk import Disk

# What read_cached() raises where the kernel has not got a page, or cannot tell.
_NOT_CACHED = (errno.EAGAIN, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_WRITER_BITS = 31
_COUNT_BITS = 32


def new_writer() -> int:
    """A number for an opening that no other has had."""
    return 1 + secrets.randbelow((1 << _WRITER_BITS) - 1)


def writer_of(token: int) -> int:
    """Which writer made a staged file; 0: an earlier build."""
    return token >> _COUNT_BITS


class Staging:
    """The staging folder of a store. Tokens are never used twice while the store is open.

    All methods may be called from any thread.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder = folder
        self._disk = disk
        self._lock = threading.Lock()
        # Tokens whose names the folder may not have on the disk yet.
        self._unforced = set(self.tokens())
        # Nobody may open these any more.
        self._condemned: set[int] = set()
        # Token -> errno of the fsync that failed.
        self._failed: dict[int, int] = {}
        # One fsync of a file at a time: the kernel reports a failure to one of those who ask.
        self._forcing: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
        self._forcing_names = threading.Lock()
        self.begin(0)

    def tokens(self) -> list[int]:
        """All tokens that have a file now."""
        return [int(entry.name) for entry in contents.own(self.folder, contents.STAGED)]

    def begin(self, writer: int, known: Iterable[int] = ()) -> None:
        """Hand out tokens of `writer` from here on, none of which has a file or is `known`."""
        used = [token for token in (*self.tokens(), *known) if writer_of(token) == writer]
        with self._lock:
            self._next = max(used, default=writer << _COUNT_BITS) + 1

    def path(self, token: int) -> Path:
        """Where the bytes of `token` lie."""
        return self.folder / str(token)

    def create(self) -> int:
        """A new empty staged file; its token."""
        token, fd = self.create_open()
        self._disk.close(fd)
        return token

    def create_open(self) -> tuple[int, int]:
        """As :meth:`create`: the token, and a descriptor to read and write."""
        with self._lock:
            token = self._next
            self._next += 1
            self._unforced.add(token)
        return token, self._disk.create(self.path(token))

    def open(self, token: int, flags: int = os.O_RDWR) -> int:
        """A descriptor on a staged file. Raises OSError, FileNotFoundError if it was condemned."""
        if token in self._condemned:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path(token)))
        return self._disk.open(self.path(token), flags)

    def size(self, token: int) -> int:
        """Bytes in the staged file (it is right even where the index lags behind a crash)."""
        return self.path(token).stat().st_size

    def remove(self, token: int) -> None:
        """Drop a staged file; the index must no longer name it."""
        self._disk.unlink(self.path(token))
        with self._lock:
            self._unforced.discard(token)
            self._failed.pop(token, None)
            self._forcing.pop(token, None)

    # -- durability

    def has_failed(self, token: int) -> bool:
        """Whether an fsync of the file or of its name has failed: it may have lost bytes."""
        return token in self._failed

    def force(self, token: int, fd: int) -> None:
        """Force a staged file, open as `fd`, and its name to the disk.

        Raises OSError; after a failure the same error each time, without asking the disk again.
        """
        with self._lock:
            forcing = self._forcing[token]
        with forcing:
            self._raise_failure(token)
            try:
                self._disk.fsync(fd)
            except OSError as error:
                self._note_failure({token}, error)
                raise
        self._force_names(token)
        self._raise_failure(token)

    def force_by_name(self, token: int) -> None:
        """As :meth:`force`, with a descriptor of its own. Raises FileNotFoundError, too."""
        fd = self._disk.open(self.path(token), os.O_RDWR)
        try:
            self.force(token, fd)
        finally:
            self._disk.close(fd)

    def fsync_folder(self) -> None:
        """Make the names of new staged files durable. Raises OSError."""
        self._disk.fsync_folder(self.folder)

    def _force_names(self, token: int) -> None:
        with self._forcing_names:
            with self._lock:
                if token not in self._unforced:
                    return
                going = set(self._unforced)
            try:
                self.fsync_folder()
            except OSError as error:
                self._note_failure(going, error)
                raise
            finally:
                with self._lock:
                    self._unforced -= going

    def _note_failure(self, tokens: set[int], error: OSError) -> None:
        with self._lock:
            for token in tokens:
                self._failed.setdefault(token, error.errno or errno.EIO)

    def _raise_failure(self, token: int) -> None:
        code = self._failed.get(token)
        if code is not None:
            raise OSError(code, os.strerror(code), str(self.path(token)))

    # -- after a failure

    def rescue(self, token: int) -> int | None:
        """Copy a file whose fsync failed into a new one, and force that; its token.

        Only what the kernel still has in memory is taken: read from the disk, the pages that it
        did not get would come back as what was there before. None if the kernel has not got
        everything. Raises OSError where the new file fails, too, or finds no room.
        """
        source = self._disk.open(self.path(token), os.O_RDONLY)
        try:
            fresh = self.create()
            try:
                self._copy_cached(source, fresh)
            except OSError as error:
                self.remove(fresh)
                if error.errno in _NOT_CACHED:
                    return None
                raise
            return fresh
        finally:
            self._disk.close(source)

    def _copy_cached(self, source: int, fresh: int) -> None:
        target = self._disk.open(self.path(fresh), os.O_RDWR)
        try:
            size = os.fstat(source).st_size
            if self._disk.copy(source, target, size, self._disk.read_cached) != size:
                raise OSError(errno.EIO, "the file became shorter while it was copied")
            self.force(fresh, target)
        finally:
            self._disk.close(target)

    def condemn(self, token: int) -> None:
        """From now on nobody opens a file that is about to be set aside. Asks no disk."""
        self._condemned.add(token)

    def set_aside(self, token: int) -> Path:
        """Move a file that must not be believed to ``lost/``, where people may look at it."""
        lost = self.folder.parent / "lost"
        if not lost.exists():
            self._disk.mkdir(lost)
        place = lost / f"{self.folder.name}-{token}-{time.time_ns()}"
        self._disk.rename(self.path(token), place)
        return place
