"""Staged files: files that are written and not yet encoded.

A staged file holds the verbatim bytes of one file. Its name is a number, the token. The upper half
of a token is the number of the writer that made it. Each opening of the store for writing chooses
this number at random. So recovery can distinguish an unreferenced staged file of this writer from
one of another writer, and that writer may have acknowledged its file.

:class:`Staging` is also the only place that knows which staged files have a failed fsync. After a
failed fsync(2) Linux marks the pages clean. The next call then reports success although the disk
lacks the bytes (fsync(2), NOTES; "Can applications recover from fsync failures?", USENIX ATC 2020).
So mount, encoder and durability points all force staged files through this class. It never repeats
a failed fsync, and it keeps the error until the bytes are in another file.
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

# Errors of read_cached() if the kernel lacks a page in memory, or cannot tell.
_NOT_CACHED = (errno.EAGAIN, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_WRITER_BITS = 31
_COUNT_BITS = 32


def new_writer() -> int:
    """Choose a random writer number for an opening: 1 to 2**31 - 1, so most likely a new one."""
    return 1 + secrets.randbelow((1 << _WRITER_BITS) - 1)


def writer_of(token: int) -> int:
    """Return the number of the writer that made a staged file. 0 is an earlier build."""
    return token >> _COUNT_BITS


class Staging:
    """The staging folder of a store.

    No token is used twice while the store is open.

    Contract: any thread may call any method. Unless a method says otherwise, it may wait for the
    disk.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder = folder
        self._disk = disk
        self._lock = threading.Lock()
        # Tokens whose names the folder may lack on the disk.
        self._unforced = set(self.tokens())
        # open() refuses these tokens.
        self._condemned: set[int] = set()
        # Token -> errno of its failed fsync.
        self._failed: dict[int, int] = {}
        # One fsync of a file at a time: the kernel reports a failure to only one of the callers.
        self._forcing: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
        self._forcing_names = threading.Lock()
        self.begin(0)

    def tokens(self) -> list[int]:
        """Return the tokens of all staged files. Raises OSError."""
        return [int(entry.name) for entry in contents.own(self.folder, contents.STAGED)]

    def begin(self, writer: int, known: Iterable[int] = ()) -> None:
        """Start to give out tokens of `writer`.

        None of them has a file, and none is in `known`. Raises OSError.
        """
        used = [token for token in (*self.tokens(), *known) if writer_of(token) == writer]
        with self._lock:
            self._next = max(used, default=writer << _COUNT_BITS) + 1

    def path(self, token: int) -> Path:
        """Return the path of the staged file. Does not ask the disk."""
        return self.folder / str(token)

    def create(self) -> int:
        """Make an empty staged file. Return its token. Raises OSError."""
        token, fd = self.create_open()
        self._disk.close(fd)
        return token

    def create_open(self) -> tuple[int, int]:
        """As :meth:`create`. Return the token and a descriptor for reading and writing."""
        with self._lock:
            token = self._next
            self._next += 1
            self._unforced.add(token)
        return token, self._disk.create(self.path(token))

    def open(self, token: int, flags: int = os.O_RDWR) -> int:
        """Open a staged file with `flags`. Return the descriptor.

        Raises OSError, and FileNotFoundError if :meth:`condemn` was called for the file.
        """
        if token in self._condemned:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path(token)))
        return self._disk.open(self.path(token), flags)

    def size(self, token: int) -> int:
        """Size of the staged file in bytes, by stat(2). Raises OSError.

        The size is right even if the index lags behind after a crash.
        """
        return self.path(token).stat().st_size

    def remove(self, token: int) -> None:
        """Remove a staged file. The index must no longer name it. Raises OSError."""
        self._disk.unlink(self.path(token))
        with self._lock:
            self._unforced.discard(token)
            self._failed.pop(token, None)
            self._forcing.pop(token, None)

    # -- durability

    def has_failed(self, token: int) -> bool:
        """Whether an fsync of the file or of its name has failed. The file may then lack bytes.

        Does not ask the disk.
        """
        return token in self._failed

    def force(self, token: int, fd: int) -> None:
        """Force a staged file and its name to the disk. `fd` is an open descriptor of the file.

        Raises OSError. After a failure each further call raises the same error and does not ask
        the disk.
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
        """As :meth:`force`, with a descriptor that this method opens and closes.

        Raises OSError, and FileNotFoundError if there is no such file.
        """
        fd = self._disk.open(self.path(token), os.O_RDWR)
        try:
            self.force(token, fd)
        finally:
            self._disk.close(fd)

    def fsync_folder(self) -> None:
        """Force the names of all staged files to the disk. Raises OSError."""
        self._disk.fsync_folder(self.folder)

    def _force_names(self, token: int) -> None:
        """Force the names in the folder, unless the name of `token` is forced. Raises OSError."""
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
        """Store the errno for tokens that have no failure yet."""
        with self._lock:
            for token in tokens:
                self._failed.setdefault(token, error.errno or errno.EIO)

    def _raise_failure(self, token: int) -> None:
        """Raise OSError if an fsync of the file has failed."""
        code = self._failed.get(token)
        if code is not None:
            raise OSError(code, os.strerror(code), str(self.path(token)))

    # -- after a failure

    def rescue(self, token: int) -> int | None:
        """Copy a file with a failed fsync to a new staged file and force that. Return its token.

        The copy takes only pages that the kernel still has in memory. A read from the disk would
        return the old content of a page that the disk did not get. Returns None if the kernel
        lacks a page in memory. Raises OSError if the new file fails, too, or the disk is full.
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
        """Copy from the descriptor `source` to the token `fresh`, from memory. Raises OSError."""
        target = self._disk.open(self.path(fresh), os.O_RDWR)
        try:
            size = os.fstat(source).st_size
            if self._disk.copy(source, target, size, self._disk.read_cached) != size:
                raise OSError(errno.EIO, "the file became shorter while it was copied")
            self.force(fresh, target)
        finally:
            self._disk.close(target)

    def condemn(self, token: int) -> None:
        """Make :meth:`open` refuse a file that is about to be set aside. Does not ask the disk."""
        self._condemned.add(token)

    def set_aside(self, token: int) -> Path:
        """Move an unreliable staged file to ``lost/``, where users can examine it.

        Returns the new path. Raises OSError.
        """
        lost = self.folder.parent / "lost"
        if not lost.exists():
            self._disk.mkdir(lost)
        place = lost / f"{self.folder.name}-{token}-{time.time_ns()}"
        self._disk.rename(self.path(token), place)
        return place
