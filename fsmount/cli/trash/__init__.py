"""The command group ``fsmount trash``: one module a command."""

from __future__ import annotations

import click

from fsmount.cli.trash.empty import empty
from fsmount.cli.trash.limit import limit
from fsmount.cli.trash.list import list_
from fsmount.cli.trash.restore import restore

_HELP = """\
Bring pruned files back, or remove them for good.

Files that fsmount prune removes rest in the trash of their store. They keep their bytes, times and
attributes, and take the space that they took before. They leave the trash after 30 days, or as
fsmount trash limit says, and on a full disk at once, the oldest first. What you delete in a mount
does not go into the trash.

\b
Example:
  fsmount trash restore ~/shots.store desk
"""


@click.group(help=_HELP)
def trash() -> None:
    """Run a command of ``fsmount trash``."""


for _command in (list_, restore, empty, limit):
    trash.add_command(_command)
