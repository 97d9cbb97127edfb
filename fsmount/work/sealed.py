"""Memory that one process fills and other processes read: sealed memory of memfd_create(2).

A :class:`Sealed` owns a descriptor. A message to another process takes it along (see
:mod:`fsmount.work.worker_process`), and the receiver owns a descriptor of its own. So the memory
exists exactly as long as a process has it open or maps it. Its name says what it holds: a reader
names what it expects.
The memory counts once, however many processes map it. It needs no /dev/shm.

Seals forbid every change. So no process can spoil what another one reads.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections.abc import Sequence


class Sealed:
    """Sealed memory of `size` bytes under a descriptor that this object owns.

    It can be a part of a message to a worker and of an answer, but cannot be pickled otherwise.
    """

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size

    @classmethod
    def of(cls, parts: Sequence[memoryview], name: str) -> Sealed | None:
        """Copy contiguous `parts`, one behind the other, into new memory and seal it.

        `name` says what they are, in at most 249 bytes of ASCII.

        Returns None if the system has no such memory, or has none left.
        """
        if not hasattr(os, "memfd_create"):
            return None
        try:
            fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError:
            return None
        made = cls(fd, sum(part.nbytes for part in parts))
        try:
            for part in parts:
                view = part.cast("B")
                while view:
                    view = view[os.write(fd, view) :]
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _seals())
        except OSError:
            return None
        return made

    @property
    def inode(self) -> int:
        """The number of the memory: no other one has it while somebody has or maps this one.

        -1 if the memory is not available here.
        """
        try:
            return os.fstat(self.fd).st_ino
        except OSError:
            return -1

    def map(self, name: str, *, whole: bool = True) -> memoryview:
        """Map the memory, read-only. The mapping lives as long as the result or a view of it.

        `whole`: all of it will be read. To map all pages at once takes a third of a millisecond for
        4 MiB; for a few tiles it is better to map the pages that are read.

        Raises OSError if the memory is not available here, is not sealed (it must not change under
        a reader), or has another name or size.
        """
        if self.fd < 0:
            raise OSError("this memory did not arrive")
        if fcntl.fcntl(self.fd, fcntl.F_GET_SEALS) != _seals():
            raise OSError("this memory is not sealed")
        if os.readlink(f"/proc/self/fd/{self.fd}") != f"/memfd:{name} (deleted)":
            raise OSError("this memory holds something else")
        if os.fstat(self.fd).st_size != self.size:
            raise OSError("this memory has another size")
        if not self.size:
            return memoryview(b"")
        # Before Linux 6.7 the kernel refused MAP_SHARED for memory that is sealed like this.
        flags = mmap.MAP_PRIVATE | (mmap.MAP_POPULATE if whole else 0)
        return memoryview(mmap.mmap(self.fd, self.size, flags=flags, prot=mmap.PROT_READ))

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("sealed memory goes to other processes in messages only")

    def __del__(self) -> None:
        if self.fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self.fd)


def _seals() -> int:
    """Return the seals that forbid every change. A function, because not every system has them."""
    return fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
