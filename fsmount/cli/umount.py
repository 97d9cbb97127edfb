"""The command ``fsmount umount``, also called ``unmount``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from fsmount.cli.common.output import printable, say, warn
from fsmount.cli.common.progress import countdown
from fsmount.errors import BadMountpoint, FsmountError, StillHeld, UsageError
from fsmount.mount import mount_users
from fsmount.mount.mount_table import Mounted
from fsmount.mount.mountpoint import all_mounts, mounted_at
from fsmount.mount.unmount import unmount
from fsmount.store.config import is_store

_HELP = """\
Encode the files that wait for it, then unmount. `unmount` is the same.

Plain `umount DIR` is safe too: the store keeps files that are not encoded yet as they were
written, and encodes them when it is mounted again.

A mount whose process has died is unmounted even while programs use it. Root can unmount what a
user has mounted. Exit code 14: DIR is unmounted, but its filesystem is still mounted elsewhere
(a bind mount, another mount namespace) or in use; the message tells where.

With --all every mount of yours is unmounted; root unmounts those of all users. One that fails
does not stop the others. The exit code is that of the worst failure.

\b
Examples:
  fsmount umount ~/screenshots
  fsmount umount --all
"""


@click.command(help=_HELP)
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--now", is_flag=True, help="Leave files not encoded yet to the next mount.")
@click.option("--all", "every", is_flag=True, help="Unmount all that you can unmount.")
def umount(folder: Path | None, now: bool, every: bool) -> int:
    """Run ``fsmount umount``. Returns the exit code."""
    if (folder is None) != every:
        raise UsageError("name one mountpoint, or use --all: fsmount umount DIR")
    if folder is not None:
        _umount(folder, now)
        return 0
    return _umount_all(now)


def _umount(folder: Path, now: bool) -> None:
    if mounted_at(folder) is None and is_store(folder):
        source = os.path.realpath(folder)
        places = [str(one.mountpoint) for one in all_mounts() if one.source == source]
        where = f"it is mounted at {', '.join(places)}" if places else "it is not mounted"
        raise BadMountpoint(folder, reason=f"it is a store, not a mountpoint; {where}")
    mounted = mounted_at(folder)

    def stopped() -> str:
        place = printable(folder, err=True)
        if mounted in all_mounts():
            return f"{place} is still mounted and goes on."
        return f"{place} is unmounted; its process closes the store."

    with countdown("encoding", stopped) as left:
        unmount(folder, drain=not now, progress=left, tell=warn)


def _umount_all(now: bool) -> int:
    """Unmount all mounts of this user, the newest first. Returns the exit code of the worst."""
    failed: list[tuple[Mounted, FsmountError]] = []
    # A mount may lie inside an earlier one.
    wanted = [mounted for mounted in reversed(all_mounts()) if _is_ours(mounted)]
    for mounted in wanted:
        try:
            _umount(mounted.mountpoint, now)
        except FsmountError as error:
            failed.append((mounted, error))
            say(f"fsmount: {error.text(lambda name: printable(name, err=True))}", err=True)
        else:
            say(f"{printable(mounted.mountpoint)} is unmounted")
    if not wanted:
        say("nothing of yours is mounted" if all_mounts() else "nothing is mounted")
    # A later one of them may have been the other mountpoint of a filesystem that was still held.
    left = [error for mounted, error in failed if not _is_gone(mounted, error)]
    # StillHeld is the mildest: nothing is mounted there any more.
    worst = max(left, key=lambda error: not isinstance(error, StillHeld), default=None)
    return 0 if worst is None else worst.exit_code


def _is_gone(mounted: Mounted, error: FsmountError) -> bool:
    """Whether a filesystem that was mounted elsewhere, too, is not mounted any more."""
    if not isinstance(error, StillHeld) or mount_users.is_connected(mounted):
        return False
    return not mount_users.elsewhere(mounted)


def _is_ours(mounted: Mounted) -> bool:
    """Whether this user may unmount: root, and the user who mounted."""
    return os.geteuid() in (0, mounted.number("user_id"))
