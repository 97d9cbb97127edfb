"""Mountpoints: what is mounted on a folder, and whether a store can be mounted there."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import stat
from pathlib import Path

from fsmount.errors import BadMountpoint, NoFuse
from fsmount.mount import mount_table
from fsmount.mount.mount_table import Mounted
from fsmount.mount.options import MountOptions

FSTYPE = "fuse.fsmount"
# The type of a mount that stands for another one, which is mounted on first use; see autofs(5).
_AUTOMOUNT = "autofs"
_MOUNTS = Path("/proc/self/mountinfo")
_DEVICE = Path("/dev/fuse")
_CONFIG = Path("/etc/fuse.conf")


def mounted_at(mountpoint: Path) -> Mounted | None:
    """The topmost mount at exactly this path, or None."""
    return mounted_on(os.path.realpath(mountpoint))


def mounted_on(place: str) -> Mounted | None:
    """The same for a resolved path; makes no request to the filesystem mounted there."""
    found = None
    for mounted in mount_table.read(_MOUNTS):
        if str(mounted.mountpoint) == place:
            found = mounted
    return found


def is_automounted(mountpoint: Path) -> bool:
    """Whether the kernel asks a daemon such as systemd to mount something at this resolved path."""
    mounted = mounted_on(str(mountpoint))
    return mounted is not None and mounted.fstype == _AUTOMOUNT


def all_mounts() -> list[Mounted]:
    """All mounts of fsmount in this mount namespace, in the order in which they were mounted.

    A mount that lies under another one at the same path is left out.
    """
    topmost = {mounted.mountpoint: mounted for mounted in mount_table.read(_MOUNTS)}
    return [mounted for mounted in topmost.values() if mounted.fstype == FSTYPE]


def mount_around(path: Path) -> Mounted | None:
    """The mount of fsmount at this path, or the one that the path lies in."""
    topmost = {mounted.mountpoint: mounted for mounted in mount_table.read(_MOUNTS)}
    place = Path(os.path.realpath(path))
    for folder in (place, *place.parents):
        if folder in topmost:
            return topmost[folder] if topmost[folder].fstype == FSTYPE else None
    return None


def check_mountpoint(
    mountpoint: Path, source: Path, *, nonempty: bool = False, by_path: bool = False
) -> None:
    """Raise :class:`BadMountpoint` unless `source` can be mounted here.

    `nonempty` allows a folder that has files. `by_path`: the source is read by its path, so the
    mountpoint must not hide it. Each answer of such a mount would wait for the mount itself.
    """
    try:
        mode = mountpoint.stat().st_mode
        # The kernel may have cached the attributes of a dead mount, but it never caches this.
        os.statvfs(mountpoint)
    except FileNotFoundError:
        reason = "there is no such folder; fsmount mount -p makes it"
        raise BadMountpoint(mountpoint, reason=reason) from None
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise _stale(mountpoint) from None
        raise BadMountpoint(mountpoint, reason=error.strerror) from error
    if not stat.S_ISDIR(mode):
        raise BadMountpoint(mountpoint, reason="it is not a folder")
    mounted = mounted_at(mountpoint)
    if mounted is not None and mounted.fstype != _AUTOMOUNT:
        raise BadMountpoint(mountpoint, reason=f"{mounted.source} is mounted there already")
    place, root = mountpoint.resolve(), source.resolve()
    if place == root or root in place.parents:
        raise BadMountpoint(mountpoint, reason="it lies inside the store")
    if by_path and place in root.parents:
        raise BadMountpoint(mountpoint, reason=f"{source} lies in it, and would be hidden")
    try:
        empty = not any(place.iterdir())
    except OSError as error:
        raise BadMountpoint(mountpoint, reason=error.strerror) from error
    if not (empty or nonempty):
        raise BadMountpoint(mountpoint, reason="it is not empty; its files would be hidden")
    if not os.access(place, os.W_OK):
        raise BadMountpoint(mountpoint, reason="you cannot write to it, so you cannot mount on it")


def _stale(mountpoint: Path) -> BadMountpoint:
    return BadMountpoint(
        mountpoint,
        reason="the fsmount that served it has died; give it free with:"
        f" fsmount umount {shlex.quote(str(mountpoint))}",
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
