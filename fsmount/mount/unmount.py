"""Unmounting: what is to be encoded first, and the end of the process that served."""

from __future__ import annotations

import errno
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fsmount.errors import BadMountpoint, FsmountError, StillHeld
from fsmount.mount import mount_users
from fsmount.mount.mount_table import Mounted
from fsmount.mount.mountpoint import FSTYPE, mounted_at, mounted_on
from fsmount.mount.status import DeadMountError, number

_POLL_S = 0.1
# The serving process ends at once, unless its filesystem is mounted elsewhere or it is slow.
_LOOK_S = 4.0
# One that still has its FUSE device open after so many looks is not merely slow.
_LOOKS = 8

Tell = Callable[[str], None]


class _BusyError(Exception):
    """The system refuses to unmount what a program uses."""


@dataclass(frozen=True, slots=True)
class _Server:
    """The process that serves a mount.

    The descriptor stands for it: its number may go to another process when it has ended.
    """

    pid: int
    descriptor: int

    def ended(self, seconds: float) -> bool:
        """Whether it ends within some time, and with it has closed the store."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))


def unmount(
    mountpoint: Path,
    *,
    drain: bool = True,
    progress: Callable[[int], None] = lambda _: None,
    tell: Tell = lambda _: None,
) -> None:
    """Unmount, and return when the serving process has closed the store.

    With `drain` all staged files are encoded first; `progress` is told how many are left. A mount
    whose process has died is given free. `tell` is told that, and why it takes long.
    Raises :class:`BadMountpoint` if this is no mount of fsmount, is busy, or belongs to another
    user, and :class:`StillHeld` if the filesystem goes on because it is mounted elsewhere, too.
    """
    mounted = mounted_at(mountpoint)
    if mounted is None:
        raise BadMountpoint(mountpoint, reason="nothing is mounted there")
    if mounted.fstype != FSTYPE:
        raise BadMountpoint(mountpoint, reason=f"{mounted.source} there is not a mount of fsmount")
    server = None
    try:
        server = _server(mounted)
        if drain:
            _drain(mounted, progress)
        _detach(mounted.mountpoint)
        if server is not None:
            _await_end(server, mountpoint, mounted.device, tell)
    except DeadMountError:
        if server is not None:
            # It may be about to end well, and to unmount by itself.
            server.ended(_LOOK_S)
        if mounted_on(str(mounted.mountpoint)) == mounted:
            free_dead(mounted.mountpoint, tell)
    except _BusyError:
        reason = f"it is busy: {_users(mounted.mountpoint)}"
        raise BadMountpoint(mountpoint, reason=reason) from None
    finally:
        if server is not None:
            os.close(server.descriptor)


def free_if_dead(mountpoint: Path) -> None:
    """Unmount what a process has mounted that died before anybody could use it, if it did."""
    mounted = mounted_on(str(mountpoint))
    if mounted is None or mounted.fstype != FSTYPE:
        return
    try:
        os.statvfs(mountpoint)
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            with suppress(FsmountError):
                free_dead(mountpoint)


def free_dead(mountpoint: Path, tell: Tell = lambda _: None) -> None:
    """Unmount a mount whose process has died, also while programs are in it."""
    inside = ""
    try:
        _detach(mountpoint)
    except _BusyError:
        inside = f". It was busy, and stays dead there: {_users(mountpoint)}"
        _detach(mountpoint, "lazily")
    tell(f"the fsmount that served {mountpoint} had died; the folder is free again{inside}")


def _server(mounted: Mounted) -> _Server | None:
    """The process that serves a mount; None if it is this one, or not to be seen from here."""
    pid = number(mounted, "pid")
    # In a container the number may be that of another process.
    if pid == os.getpid() or mount_users.serves(pid) is False:
        return None
    try:
        return _Server(pid, os.pidfd_open(pid))
    except OSError:
        return None


def _drain(mounted: Mounted, progress: Callable[[int], None]) -> None:
    while left := number(mounted, "staged"):
        progress(left)
        time.sleep(_POLL_S)
    progress(0)


def _users(mountpoint: Path) -> str:
    inside = [str(path) for path in mount_users.mounted_below(str(mountpoint))]
    if inside:
        return f"there are mounts in it: {mount_users.listed(inside)}"
    users = [mount_users.named(pid) for pid in mount_users.users(str(mountpoint))]
    who = f"process {mount_users.listed(users)}" if users else "some program"
    return f"{who} has a file or its working folder there"


def _detach(mountpoint: Path, how: str = "") -> None:
    """Unmount; `how` may be "lazily". Raises :class:`_BusyError`, :class:`BadMountpoint`."""
    tool = shutil.which("fusermount3")
    command = [tool, "-u"] if tool else ["umount"]
    if how:
        command.append("-z" if tool else "-l")
    done = subprocess.run(
        [*command, "--", mountpoint],
        capture_output=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode == 0:
        return
    # It may name paths that are no UTF-8.
    reason = os.fsdecode(done.stderr).strip() or f"{command[0]} failed"
    if reason.rstrip(".").endswith("busy"):
        raise _BusyError
    raise BadMountpoint(mountpoint, reason=reason)


def _await_end(server: _Server, mountpoint: Path, device: str, tell: Tell) -> None:
    """Wait until the serving process has ended; raises :class:`StillHeld` if it goes on."""
    looks = 0
    while not server.ended(_LOOK_S):
        looks += 1
        held = mount_users.elsewhere(device)
        connected = mount_users.is_connected(device)
        if held or connected or (connected is None and looks >= _LOOKS and _serves(server)):
            raise StillHeld(mountpoint, how=_how(held), server=mount_users.named(server.pid))
        if looks == 1:
            who = mount_users.named(server.pid)
            tell(f"{mountpoint} is unmounted; process {who} closes the store")


def _serves(server: _Server) -> bool:
    return mount_users.serves(server.pid) is True


def _how(held: list[mount_users.Elsewhere]) -> str:
    places = [
        str(place.mountpoint)
        if place.pid is None
        else f"{place.mountpoint} (seen by process {mount_users.named(place.pid)})"
        for place in held
    ]
    if not places:
        return "in use elsewhere (where is not to be seen from here)"
    return f"mounted at {mount_users.listed(places)}"
