"""Who still writes to a folder: files that may change yet, and programs that work in it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fsmount.mount.mount_users import PROC

# A file that changed less than this long ago may belong to a program that has closed it for a
# moment, or that is about to rename it.
QUIET_S = 2.0


def is_settled(path: Path, info: os.stat_result) -> bool:
    """Whether nobody seems to be writing a file: no recent change, and no open writer.

    True for all that is not a regular file. `info` is its present lstat. Raises OSError if the file
    cannot be opened.
    """
    if not stat.S_ISREG(info.st_mode):
        return True
    # Programs set mtimes, but only the kernel sets ctimes. One in the future says nothing.
    age_s = time.time() - info.st_ctime_ns / 1e9
    return not (0 <= age_s < QUIET_S or _has_writer(path))


def _has_writer(path: Path) -> bool:
    """Whether some process has a file open for writing; False if the filesystem cannot tell.

    The kernel grants a read lease (fcntl(2), F_SETLEASE) only while no such process exists.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except BlockingIOError:
        return True
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EBUSY)
    finally:
        os.close(fd)
    return False


@contextmanager
def leases() -> Iterator[None]:
    """Survive the signal that tells the holder of a lease that another process opens the file."""
    before = signal.signal(signal.SIGIO, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGIO, before)


def working_in(folder: Path, device: int, server: int) -> list[int]:
    """The processes that have their working folder, or an open folder, below the mount on `folder`.

    What they create by relative names lands below the mount. `device` is the number of the
    filesystem below. Leaves out this process and `server`, which serves the mount. Processes of
    other users are hidden from a user.
    """
    found = []
    for name in os.listdir(PROC):
        if name.isdecimal() and int(name) not in (os.getpid(), server):
            links = [PROC / name / "cwd", *_descriptors(PROC / name / "fd")]
            if any(_leads_below(link, folder, device) for link in links):
                found.append(int(name))
    return sorted(found)


def _descriptors(folder: Path) -> list[Path]:
    with suppress(OSError):
        return list(folder.iterdir())
    return []


def _leads_below(link: Path, folder: Path, device: int) -> bool:
    """Whether a link of a process leads to a folder below the mount."""
    with suppress(OSError):
        # Ask for attributes below the folder only: elsewhere, a mount may hang and never answer.
        target = Path(os.readlink(link))
        if target == folder or folder in target.parents:
            info = link.stat()
            return stat.S_ISDIR(info.st_mode) and info.st_dev == device
    return False


def folder_below(server: int, device: int, inode: int) -> int | None:
    """Open the folder below a mount; None if its server has no descriptor of it.

    A mount with the option `nonempty` holds such a descriptor. Returns a descriptor of this
    process.
    """
    for link in _descriptors(PROC / str(server) / "fd"):
        with suppress(OSError):
            info = link.stat()
            if (info.st_dev, info.st_ino) == (device, inode):
                return os.open(link, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return None
