"""The command ``fsmount mounts``."""

from __future__ import annotations

from typing import Any

import click

from fsmount.cli.common.options import json_option
from fsmount.cli.common.output import counted, emit, printable
from fsmount.mount.mount_table import Mounted
from fsmount.mount.mountpoint import all_mounts
from fsmount.mount.mounts import MountStatus, State, status

_HELP = """\
List what fsmount has mounted on this machine, by any user.

Shows the source (a store or a folder), the mountpoint, whether it is read-only, the process that
serves it, and how many files are still to be encoded. Only root and the user who mounted can ask
a mount for the last two. fsmount umount --all ends them all.

\b
Examples:
  fsmount mounts
  fsmount mounts --json
"""


@click.command(help=_HELP)
@json_option
def mounts(as_json: bool) -> None:
    """Run ``fsmount mounts``."""
    found = [(mounted, status(mounted)) for mounted in all_mounts()]
    emit(
        {"mounts": [_row(*one) for one in found]},
        "\n".join(_line(*one) for one in found) or "nothing is mounted",
        as_json,
    )


def _row(mounted: Mounted, known: MountStatus) -> dict[str, Any]:
    """Return a mount for JSON."""
    return {
        "mountpoint": str(mounted.mountpoint),
        "source": mounted.source,
        "read_only": mounted.read_only,
        "state": str(known.state),
        "pid": known.pid,
        "staged": known.staged,
    }


def _line(mounted: Mounted, known: MountStatus) -> str:
    """Return a mount as a line, in the form of mount(8)."""
    place = printable(mounted.mountpoint)
    parts = ["read-only" if mounted.read_only else "read-write"]
    if known.state == State.SERVED:
        parts.append(f"process {known.pid}")
        if known.staged:
            parts.append(f"{counted(known.staged, 'file')} to encode")
    elif known.state == State.DEAD:
        parts.append("dead; fsmount umount frees the folder")
    elif known.state == State.SILENT:
        parts.append("does not answer")
    else:
        parts.append(known.reason)
    return f"{printable(mounted.source)} on {place} ({', '.join(parts)})"
