"""The command ``fsmount policy show``."""

from __future__ import annotations

from pathlib import Path

import click

from fsmount.cli.common.options import json_option, store_argument
from fsmount.cli.common.output import emit
from fsmount.cli.common.policies import policy_of
from fsmount.cli.common.stores import open_index

_HELP = """\
Show the policy of a store, as options of fsmount prune. Works beside a mount.

\b
Example:
  fsmount policy show ~/shots.store
"""


@click.command("show", help=_HELP)
@store_argument
@json_option
def show(store: Path, as_json: bool) -> None:
    """Run ``fsmount policy show``."""
    with open_index(store, packs="here") as opened:
        found = policy_of(opened.layout.root)
    if found is None:
        emit({"policy": None}, "there is no policy: a mount keeps everything", as_json)
    else:
        text = f"{found.rules}\nevery {found.every_hours} hours, by a mount with -o prune"
        emit({"policy": found.value()}, text, as_json)
