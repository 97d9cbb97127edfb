"""The command group ``fsmount exclude``: one module a command."""

from __future__ import annotations

import click

from fsmount.cli.exclude.clear import clear
from fsmount.cli.exclude.set import set_
from fsmount.cli.exclude.show import show

_HELP = """\
Keep areas, hours and words out of text and search.

Areas and hours are not read; words that were read there before are not shown any more, and the next
fsmount text wipes them out. What matches a pattern is read, but never shown. The pictures
themselves stay as they are. Works beside a mount.

\b
Example:
  fsmount exclude set --area 0,0,1920,32 --hours 12:00-13:00 ~/shots.store
"""


@click.group(help=_HELP)
def exclude() -> None:
    """Run a command of ``fsmount exclude``."""


for _command in (set_, show, clear):
    exclude.add_command(_command)
