"""Unmount: encode staged files first, unmount, and wait for the end of the serving process."""

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
from fsmount.mount.status import DeadMountError, read_number

_POLL_S = 0.1
# Usually the serving process ends at once. It does not if its filesystem is mounted elsewhere, or
# if closing the store takes long.
_LOOK_S = 4.0
# If it still has /dev/fuse open after so many looks, it still serves.
_LOOKS = 8

Tell = Callable[[str], None]


class _BusyError(Exception):
    """The system refuses to unmount because a program uses the mount."""


@dataclass(frozen=True, slots=True)
class _Server:
    """The process that serves a mount. `descriptor` is a pidfd: a number may be used again."""

    pid: int
    descriptor: int

    def ended(self, seconds: float) -> bool:
        """Wait for its end, which comes after the store is closed; False if it takes longer."""
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

    With `drain` all staged files are encoded first; `progress` gets the number that is left. A
    mount whose process has died is removed. `tell` gets messages about that and about delays.
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
            _await_end(server, mountpoint, mounted, tell)
    except DeadMountError:
        if server is not None:
            # The process may be about to unmount by itself.
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
    """Unmount if the process that mounted has died before the mount was ready; else no-op."""
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
    """The process that serves a mount; None if it is this process, or hidden from us."""
    pid = read_number(mounted, "pid")
    # In a container the same number may be another process.
    if pid == os.getpid() or mount_users.serves(pid) is False:
        return None
    try:
        return _Server(pid, os.pidfd_open(pid))
    except OSError:
        return None


def _drain(mounted: Mounted, progress: Callable[[int], None]) -> None:
    while left := read_number(mounted, "staged"):
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
    # The message may contain paths that are not UTF-8.
    reason = os.fsdecode(done.stderr).strip() or f"{command[0]} failed"
    if reason.rstrip(".").endswith("busy"):
        raise _BusyError
    raise BadMountpoint(mountpoint, reason=reason)


def _await_end(server: _Server, mountpoint: Path, mounted: Mounted, tell: Tell) -> None:
    """Wait until the serving process has ended; raises :class:`StillHeld` if it goes on."""
    looks = 0
    while not server.ended(_LOOK_S):
        looks += 1
        held = mount_users.elsewhere(mounted)
        connected = mount_users.is_connected(mounted)
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
