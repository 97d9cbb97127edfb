"""The command ``fsmount exclude show``."""

from __future__ import annotations

from pathlib import Path

import click

from fsmount.cli.common.exclusions import exclusion_lines
from fsmount.cli.common.options import json_option, store_argument
from fsmount.cli.common.output import emit
from fsmount.cli.common.stores import open_index
from fsmount.text.exclusions import Exclusions

_HELP = """\
Show what is never read and never shown. Works beside a mount.

\b
Example:
  fsmount exclude show ~/shots.store
"""


@click.command("show", help=_HELP)
@store_argument
@json_option
def show(store: Path, as_json: bool) -> None:
    """Run ``fsmount exclude show``."""
    with open_index(store, packs="here") as opened:
        found = Exclusions.read(opened.layout)
    emit(found.value(), "\n".join(exclusion_lines(found)), as_json)
