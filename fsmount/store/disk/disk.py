"""The system calls that change the store, and nothing else.

Every other module of the store changes files through a :class:`Disk`. So a test can pass a disk
that fails, delays or dies at the n-th call. SQLite makes its own system calls, but the index
forces its files through :meth:`Disk.fsync`, too.

Contract: every call may wait for the disk. The caller runs it in a thread if the trio thread must
not wait. No lock is needed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

from fsmount.store.disk.holes import data_parts

_COPY_BYTES = 1 << 20
# <linux/falloc.h>: FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_PUNCH = 1 | 2


class _Scratch(threading.local):
    """A read buffer for each thread.

    Allocating new memory takes ten times as long as copying the bytes, so the buffer is reused.
    """

    def __init__(self) -> None:
        self._view = memoryview(b"")

    def of(self, length: int) -> memoryview:
        """Return a view of at least `length` bytes. The next call may return the same memory."""
        if len(self._view) < length:
            self._view = memoryview(bytearray(length))
        return self._view


_scratch = _Scratch()


def pread(fd: int, length: int, offset: int) -> bytes:
    """Read `length` bytes at `offset`. Return fewer bytes only at the end of the file.

    If the disk has an error behind the first pages, pread(2) returns the bytes before it. A reader
    would take this short result for the end of the file. So this function reads on, and the next
    pread(2) raises OSError.
    """
    data = os.pread(fd, length, offset)
    while 0 < len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


class Disk:
    """Thin wrappers of system calls. Each raises :class:`OSError` as the kernel reports it."""

    def create(self, path: Path) -> int:
        """Make a new file and open it for reading and writing. Return the descriptor.

        Only the owner can read or write the file. Raises FileExistsError if the path exists.
        """
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def open(self, path: Path, flags: int) -> int:
        """Open an existing file with `flags` (open(2)). Return the descriptor."""
        return os.open(path, flags | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write all of `data` at `offset`. Return the number of bytes.

        After a short write it writes the rest.
        """
        view = memoryview(data)
        done = 0
        while done < len(view):
            done += os.pwrite(fd, view[done:], offset + done)
        return done

    def ftruncate(self, fd: int, size: int) -> None:
        """Cut a file to `size` bytes, or extend it to `size` bytes with a hole."""
        os.ftruncate(fd, size)

    def allocate(self, fd: int, size: int) -> None:
        """Allocate disk space for the first `size` bytes of a file (posix_fallocate(3))."""
        os.posix_fallocate(fd, 0, size)

    def punch(self, fd: int, start: int, length: int) -> None:
        """Turn a run of bytes into a hole, which reads as zeros and takes no space (fallocate(2)).

        Raises OSError EOPNOTSUPP if this filesystem has no holes.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        # A C library without the second name has offsets of 64 bits in the first one.
        fallocate = getattr(libc, "fallocate64", None) or libc.fallocate
        while fallocate(fd, _PUNCH, ctypes.c_int64(start), ctypes.c_int64(length)):
            code = ctypes.get_errno()
            if code != errno.EINTR:
                raise OSError(code, os.strerror(code))

    def fsync(self, fd: int) -> None:
        """Force a file to the disk.

        The caller must never retry a failure on the same descriptor: the kernel may then report
        success although the disk lacks the bytes (fsync(2), NOTES).
        """
        os.fsync(fd)

    def fsync_folder(self, path: Path) -> None:
        """Force the names in a folder to the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        """Rename `old` to `new`. An existing file `new` is replaced."""
        old.rename(new)

    def link(self, old: Path, new: Path) -> None:
        """Give the file `old` the second name `new` (a hard link)."""
        new.hardlink_to(old)

    def unlink(self, path: Path) -> None:
        """Remove a name. No-op if the name does not exist."""
        path.unlink(missing_ok=True)

    def mkdir(self, path: Path, *, parents: bool = False) -> None:
        """Make a folder that only its owner can use.

        With `parents` it makes missing parent folders, and it accepts an existing folder. Without,
        it raises FileExistsError if the path exists.
        """
        path.mkdir(mode=0o700, parents=parents, exist_ok=parents)

    def chmod(self, path: Path, mode: int) -> None:
        """Set the permission bits of a file or folder."""
        path.chmod(mode)

    def set_mtime(self, fd: int, mtime_ns: int) -> None:
        """Set the time of last change of an open file, in ns since 1970, and its access time."""
        os.utime(fd, ns=(mtime_ns, mtime_ns))

    def write_file(self, path: Path, data: bytes) -> None:
        """Write a whole small file and make it durable.

        The bytes go to a scratch file ``<name>.new``, which is forced and then renamed to `path`.
        So `path` never names an incomplete file.
        """
        scratch = path.with_name(path.name + ".new")
        self.unlink(scratch)
        fd = self.create(scratch)
        try:
            self.pwrite(fd, data, 0)
            self.fsync(fd)
        finally:
            self.close(fd)
        self.rename(scratch, path)
        self.fsync_folder(path.parent)

    def read_cached(self, fd: int, length: int, offset: int) -> bytes:
        """Read `length` bytes at `offset` from the page cache, without asking the disk.

        Returns fewer bytes only at the end of the file. Raises OSError EAGAIN if the kernel would
        have to read from the disk, and EOPNOTSUPP if this filesystem cannot tell (preadv2(2),
        RWF_NOWAIT).
        """
        scratch = _scratch.of(length)
        done = 0
        while done < length:
            count = os.preadv(fd, [scratch[done:length]], offset + done, os.RWF_NOWAIT)
            if not count:
                break
            done += count
        return bytes(scratch[:done])

    def write_again(self, fd: int) -> None:
        """Read all bytes of a file and write them again to the same offsets."""
        offset = 0
        while data := pread(fd, _COPY_BYTES, offset):
            offset += self.pwrite(fd, data, offset)

    def copy(
        self,
        source: int,
        target: int,
        size: int,
        read: Callable[[int, int, int], bytes] = pread,
    ) -> int:
        """Copy the first `size` bytes of the open file `source` to the empty open file `target`.

        Holes stay holes. `read(fd, length, offset)` reads the bytes of `source`. Returns the size
        of `target` in bytes. It is smaller than `size` if `source` ends earlier.
        """
        offset = 0
        for start, end in data_parts(source, size):
            offset = start
            while offset < end:
                data = read(source, min(_COPY_BYTES, end - offset), offset)
                if not data:
                    return offset
                offset += self.pwrite(target, data, offset)
        size = min(size, os.fstat(source).st_size)
        if offset < size:
            self.ftruncate(target, size)
        return max(offset, size)
