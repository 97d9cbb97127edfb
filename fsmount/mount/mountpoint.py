"""Mountpoints: may one be used, what is mounted on it, and how it is given free again."""

from __future__ import annotations

import errno
import os
import re
import select
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fsmount.errors import BadMountpoint, NoFuse
from fsmount.mount.options import MountOptions

FSTYPE = "fuse.fsmount"
_MOUNTS = Path("/proc/self/mountinfo")
_DEVICE = Path("/dev/fuse")
_CONFIG = Path("/etc/fuse.conf")
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of the kernel's table of mounts."""

    mountpoint: Path
    fstype: str
    source: str


def _plain(field: str) -> str:
    """A field of the table with its octal escapes undone (proc(5))."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def mounted_at(mountpoint: Path) -> Mounted | None:
    """What is mounted on top at exactly this path, or None."""
    place = os.path.realpath(mountpoint)
    found = None
    text = _MOUNTS.read_text(encoding="latin-1")
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        path = os.fsdecode(_plain(fields.split()[4]).encode("latin-1"))
        if path == place:
            fstype, source = rest.split()[:2]
            found = Mounted(Path(path), fstype, os.fsdecode(_plain(source).encode("latin-1")))
    return found


def check_mountpoint(mountpoint: Path, store: Path) -> None:
    """Raise :class:`BadMountpoint` unless a store can be mounted here."""
    try:
        mode = mountpoint.stat().st_mode
        # Of a mount that has died the kernel may remember the attributes, but never this.
        os.statvfs(mountpoint)
    except FileNotFoundError:
        raise BadMountpoint(mountpoint, reason="there is no such folder; make it first") from None
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise _stale(mountpoint) from None
        raise BadMountpoint(mountpoint, reason=error.strerror) from error
    if not stat.S_ISDIR(mode):
        raise BadMountpoint(mountpoint, reason="it is not a folder")
    mounted = mounted_at(mountpoint)
    if mounted is not None:
        raise BadMountpoint(mountpoint, reason=f"{mounted.source} is mounted there already")
    place, root = mountpoint.resolve(), store.resolve()
    if place == root or root in place.parents:
        raise BadMountpoint(mountpoint, reason="it lies inside the store")
    try:
        empty = not any(place.iterdir())
    except OSError as error:
        raise BadMountpoint(mountpoint, reason=error.strerror) from error
    if not empty:
        raise BadMountpoint(mountpoint, reason="it is not empty; its files would be hidden")
    if not os.access(place, os.W_OK):
        raise BadMountpoint(mountpoint, reason="you cannot write to it, so you cannot mount on it")


def _stale(mountpoint: Path) -> BadMountpoint:
    return BadMountpoint(
        mountpoint,
        reason="the fsmount that served it has died; give it free with:"
        f" fusermount3 -u {mountpoint}",
    )


def check_fuse(options: MountOptions) -> None:
    """Raise :class:`NoFuse` unless this user can mount with these options."""
    if not _DEVICE.exists():
        raise NoFuse(f"{_DEVICE} does not exist; load the kernel module with: modprobe fuse")
    try:
        os.close(os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise NoFuse(f"{_DEVICE} cannot be opened: {error.strerror}") from error
    if os.geteuid() == 0:
        return
    if shutil.which("fusermount3") is None:
        raise NoFuse("fusermount3 is not installed; it comes with the package fuse3")
    if options.allow_other and not _allows_others():
        raise NoFuse(f"allow_other needs the line user_allow_other in {_CONFIG}")


def _allows_others() -> bool:
    try:
        lines = _CONFIG.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def unmount(
    mountpoint: Path,
    *,
    drain: bool = True,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Unmount, and return when the serving process has closed the store.

    With `drain` all staged files are encoded first; `progress` is told how many are left.
    Raises :class:`BadMountpoint` if this is no mount of fsmount, busy, or stale.
    """
    mounted = mounted_at(mountpoint)
    if mounted is None:
        raise BadMountpoint(mountpoint, reason="nothing is mounted there")
    if mounted.fstype != FSTYPE:
        raise BadMountpoint(mountpoint, reason=f"{mounted.source} there is not a mount of fsmount")
    server = _server(mountpoint)
    try:
        while drain and (left := _staged(mountpoint)):
            if progress is not None:
                progress(left)
            time.sleep(_POLL_S)
        if drain and progress is not None:
            progress(0)
        _detach(mountpoint)
        if server is not None:
            _await_end(server)
    finally:
        if server is not None:
            os.close(server)


def _root_attribute(mountpoint: Path, name: str) -> str:
    try:
        return os.getxattr(mountpoint, "user.fsmount." + name).decode()
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            raise _stale(mountpoint) from None
        raise BadMountpoint(mountpoint, reason=error.strerror) from error


def _staged(mountpoint: Path) -> int:
    return int(_root_attribute(mountpoint, "staged"))


def _server(mountpoint: Path) -> int | None:
    """A descriptor on the process that serves the mount; None if it is not to be seen from here.

    Taken before the unmount, so that its number cannot have gone to another process.
    """
    number = int(_root_attribute(mountpoint, "pid"))
    if number == os.getpid():
        return None
    try:
        return os.pidfd_open(number)
    except OSError:
        return None


def _detach(mountpoint: Path) -> None:
    tool = shutil.which("fusermount3")
    command = [tool, "-u"] if tool else ["umount"]
    done = subprocess.run(
        [*command, "--", os.path.realpath(mountpoint)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode == 0:
        return
    reason = done.stderr.strip() or f"{command[0]} failed"
    if "busy" in reason:
        reason = "it is busy: some program has a file or its working folder there"
    raise BadMountpoint(mountpoint, reason=reason)


def _await_end(server: int) -> None:
    """Wait until a process has ended and with it has closed the store."""
    poll = select.poll()
    poll.register(server, select.POLLIN)
    poll.poll()
