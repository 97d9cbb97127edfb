"""The system calls that change the store, and nothing else.

Every other module of the store changes files through a :class:`Disk`, so that a test can hand in
one that fails, delays or dies at the n-th call. SQLite makes its own system calls; what the index
forces to the disk goes through :meth:`Disk.fsync` here all the same.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from fsmount.store.disk.holes import data_parts

_COPY_BYTES = 1 << 20


class _Scratch(threading.local):
    """Memory to read into, of each thread: new memory takes ten times as long as the bytes do."""

    def __init__(self) -> None:
        self._view = memoryview(b"")

    def of(self, length: int) -> memoryview:
        """At least `length` bytes."""
        if len(self._view) < length:
            self._view = memoryview(bytearray(length))
        return self._view


_scratch = _Scratch()


def pread(fd: int, length: int, offset: int) -> bytes:
    """`length` bytes at `offset`; fewer only at the end of the file.

    Where the disk has an error behind the first pages, pread(2) says how far it came. That is not
    the end, for which a reader would take it: the next call raises.
    """
    data = os.pread(fd, length, offset)
    while 0 < len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


class Disk:
    """Thin names over the calls; each raises :class:`OSError` as the kernel reports it."""

    def create(self, path: Path) -> int:
        """A new file, readable by its owner only, open for reading and writing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def open(self, path: Path, flags: int) -> int:
        """An existing file."""
        return os.open(path, flags | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write all of `data` at `offset` (short writes are continued); the count written."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            done += os.pwrite(fd, view[done:], offset + done)
        return done

    def ftruncate(self, fd: int, size: int) -> None:
        """Cut or extend (with a hole) to `size` bytes."""
        os.ftruncate(fd, size)

    def allocate(self, fd: int, size: int) -> None:
        """Make sure that `size` bytes from the start have their place on the disk."""
        os.posix_fallocate(fd, 0, size)

    def fsync(self, fd: int) -> None:
        """Force a file to the disk. A failure must never be retried on the same descriptor."""
        os.fsync(fd)

    def fsync_folder(self, path: Path) -> None:
        """Force a folder's names to the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        """Rename, replacing `new`."""
        old.rename(new)

    def link(self, old: Path, new: Path) -> None:
        """A second name for a file."""
        new.hardlink_to(old)

    def unlink(self, path: Path) -> None:
        """Remove a name; one that is gone already is fine."""
        path.unlink(missing_ok=True)

    def mkdir(self, path: Path, *, parents: bool = False) -> None:
        """A new folder, open to its owner only; with `parents` one that is there is fine."""
        path.mkdir(mode=0o700, parents=parents, exist_ok=parents)

    def chmod(self, path: Path, mode: int) -> None:
        """Set permissions."""
        path.chmod(mode)

    def write_file(self, path: Path, data: bytes) -> None:
        """A whole small file, durable, under its name only when complete."""
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
        """`length` bytes at `offset` out of the kernel's memory, without asking the disk.

        Raises OSError EAGAIN where the kernel would have to read, EOPNOTSUPP where this
        filesystem cannot tell (preadv2(2), RWF_NOWAIT).
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
        """Write the bytes that a file has once more, in their places."""
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
        """Copy `size` bytes from the start of one open file to the start of another, an empty one.

        Holes stay holes. Returns how many bytes `target` has: fewer if `source` ends before.
        `read(fd, length, offset)` gives the bytes.
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
