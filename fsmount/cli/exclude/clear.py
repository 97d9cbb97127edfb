"""The command ``fsmount exclude clear``."""

from __future__ import annotations

from pathlib import Path

import click

from fsmount.cli.common.exclusions import exclusion_lines
from fsmount.cli.common.options import json_option, quiet_option, store_argument
from fsmount.cli.common.output import emit
from fsmount.cli.common.stores import open_index
from fsmount.text.exclusions import Exclusions

_HELP = """\
Exclude nothing any more.

What was not read until now is read by fsmount text --afresh only. Works beside a mount.

\b
Example:
  fsmount exclude clear ~/shots.store
"""


@click.command("clear", help=_HELP)
@store_argument
@quiet_option
@json_option
def clear(store: Path, as_json: bool) -> None:
    """Run ``fsmount exclude clear``."""
    nothing = Exclusions()
    with open_index(store, packs="here") as opened:
        nothing.write(opened.layout)
    emit(nothing.value(), "\n".join(exclusion_lines(nothing)), as_json)
