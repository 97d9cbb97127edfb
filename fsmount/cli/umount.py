"""The command ``fsmount umount``."""

from __future__ import annotations

from pathlib import Path

import click

from fsmount.cli.common.output import warn
from fsmount.cli.common.progress import countdown
from fsmount.mount.unmount import unmount

_HELP = """\
Encode the files that wait for it, then unmount.

Plain `umount DIR` is safe too: the store keeps files that are not encoded yet as they were
written, and encodes them when it is mounted again.

A mount whose process has died is unmounted even while programs use it. Root can unmount what a
user has mounted. Exit code 14: DIR is unmounted, but its filesystem is still mounted elsewhere
(a bind mount, another mount namespace) or in use; the message tells where.

\b
Example:
  fsmount umount ~/screenshots
"""


@click.command(help=_HELP)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--now", is_flag=True, help="Leave files not encoded yet to the next mount.")
def umount(folder: Path, now: bool) -> None:
    """Run ``fsmount umount``."""
    with countdown("encoding") as left:
        unmount(folder, drain=not now, progress=left, tell=warn)
