"""fsmount umount"""

from __future__ import annotations

from pathlib import Path

import click

from fsmount.cli.output import countdown, warn
from fsmount.mount.unmount import unmount

_HELP = """\
Encode what is left, then unmount.

Plain `umount DIR` is safe too: what is not encoded by then is kept as it was written, and is
encoded when the store is mounted again.

A mount whose process has died is given free, also while programs are in it. Root can unmount
what a user has mounted. Exit code 14: DIR is unmounted, but its files are still in use, since
they are mounted elsewhere, too (a bind mount, another mount namespace); the message says where.

\b
Example:
  fsmount umount ~/screenshots
"""


@click.command(help=_HELP)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--now", is_flag=True, help="Leave what is not encoded yet to the next mount.")
def umount(folder: Path, now: bool) -> None:
    """``fsmount umount``."""
    with countdown("encoding") as left:
        unmount(folder, drain=not now, progress=left, tell=warn)
