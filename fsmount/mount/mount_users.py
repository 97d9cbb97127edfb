"""Users of a mount, from /proc: processes that keep it busy, other mounts of its filesystem.

Without privileges the processes of other users are hidden: an empty answer proves nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fsmount.mount import mount_table
from fsmount.mount.mount_table import Mounted

PROC = Path("/proc")
_CONNECTIONS = Path("/sys/fs/fuse/connections")
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A mountpoint of a filesystem. `pid`: a process that sees it; None if this process does."""

    mountpoint: Path
    pid: int | None


def named(pid: int) -> str:
    """A process for messages: its number and its command."""
    command = ""
    with suppress(OSError):
        command = os.fsdecode((PROC / str(pid) / "comm").read_bytes()).strip()
    return f"{pid} ({command})" if command else str(pid)


def listed(things: list[str]) -> str:
    """The first few of several things, and how many more there are."""
    rest = len(things) - _MOST_NAMED
    return ", ".join(things[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def users(place: str) -> list[int]:
    """The processes that have a file, their working folder or their root at or below `place`."""
    return [pid for pid in _pids() if pid != os.getpid() and _is_in(pid, place)]


def _is_in(pid: int, place: str) -> bool:
    below = place.rstrip("/") + "/"
    return any(link == place or link.startswith(below) for link in _links(pid))


def _links(pid: int) -> Iterator[str]:
    """The files of a process and its folders. Links are read, not followed: that could block."""
    folder = PROC / str(pid)
    for name in ("cwd", "root", "exe"):
        with suppress(OSError):
            yield os.readlink(folder / name)
    yield from _open_files(pid)


def _open_files(pid: int) -> Iterator[str]:
    folder = PROC / str(pid) / "fd"
    with suppress(OSError):
        for name in os.listdir(folder):
            with suppress(OSError):
                yield os.readlink(folder / name)


def mounted_below(place: str) -> list[Path]:
    """The mountpoints below a path."""
    below = [mounted.mountpoint for mounted in mount_table.read(PROC / "self" / "mountinfo")]
    return [path for path in below if str(path).startswith(place.rstrip("/") + "/")]


def elsewhere(filesystem: Mounted) -> list[Elsewhere]:
    """The mountpoints of a filesystem in this mount namespace and in those of other processes."""
    found = [Elsewhere(mounted.mountpoint, None) for mounted in _mounts("self", filesystem)]
    seen = {_namespace("self"), _table("self")}
    for pid in _pids():
        namespace = _namespace(str(pid)) or _table(str(pid))
        if namespace not in seen:
            seen.add(namespace)
            mounts = _mounts(str(pid), filesystem)
            found += [Elsewhere(mounted.mountpoint, pid) for mounted in mounts]
    return found


def _mounts(process: str, filesystem: Mounted) -> list[Mounted]:
    try:
        mounts = list(mount_table.read(PROC / process / "mountinfo"))
    except OSError:  # the process has ended, or is hidden from us
        return []
    return [mounted for mounted in mounts if _is_same(mounted, filesystem)]


def _is_same(one: Mounted, other: Mounted) -> bool:
    """Whether two mounts are of one filesystem. The kernel reuses free device numbers."""
    return (one.device, one.fstype, one.source) == (other.device, other.fstype, other.source)


def _namespace(process: str) -> str | None:
    """The name of a process's mount namespace; None if it is hidden from us."""
    with suppress(OSError):
        return os.readlink(PROC / process / "ns" / "mnt")
    return None


def _table(process: str) -> bytes | None:
    """The mounts of a process as text; tells namespaces apart if their names are hidden from us."""
    with suppress(OSError):
        return (PROC / process / "mountinfo").read_bytes()
    return None


def is_connected(filesystem: Mounted) -> bool | None:
    """Whether the kernel still has this FUSE filesystem; None if it is not known here."""
    if not any(_entries(_CONNECTIONS)):
        return None
    for mounted in mount_table.read(PROC / "self" / "mountinfo"):
        if mounted.device == filesystem.device and not _is_same(mounted, filesystem):
            return False
    return (_CONNECTIONS / filesystem.device.partition(":")[2]).exists()


def serves(pid: int) -> bool | None:
    """Whether a process has /dev/fuse open; None if it is hidden from us."""
    try:
        os.listdir(PROC / str(pid) / "fd")
    except OSError:
        return None
    # In its mount namespace /dev may have another name.
    return any(link.endswith("/fuse") for link in _open_files(pid))


def _pids() -> list[int]:
    return sorted(int(name) for name in _entries(PROC) if name.isdecimal())


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
