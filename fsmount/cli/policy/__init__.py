"""The command group ``fsmount policy``: one module a command."""

from __future__ import annotations

import click

from fsmount.cli.policy.clear import clear
from fsmount.cli.policy.set import set_
from fsmount.cli.policy.show import show

_HELP = """\
Let a mount thin out the pictures of its store by itself.

A policy is a set of rules of fsmount prune, in fsmount.json of the store. A mount with -o prune
runs it once a day, while no file is read or written, on mains power. What goes rests in the trash
of the store, and the log of the mount says how much it was. fsmount stats says when the last run
was and what the next one does.

\b
Example:
  fsmount policy set --keep-within 30d --keep-hourly 1y --keep-daily forever ~/shots.store
"""


@click.group(help=_HELP)
def policy() -> None:
    """Run a command of ``fsmount policy``."""


for _command in (set_, show, clear):
    policy.add_command(_command)
