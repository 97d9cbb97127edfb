"""The command ``fsmount exclude set``."""

from __future__ import annotations

from pathlib import Path

import click

from fsmount.cli.common.exclusions import AreaType, HoursType, PatternType, exclusion_lines
from fsmount.cli.common.options import json_option, quiet_option, store_argument
from fsmount.cli.common.output import emit
from fsmount.cli.common.stores import open_index
from fsmount.errors import UsageError
from fsmount.text.exclusions import Exclusions, Hours
from fsmount.text.results import Rectangle

_HELP = """\
Set what is never read and never shown. It replaces what was set before.

A pattern is a regular expression; letters may be upper or lower case. A word that it matches, or
the part of a line, is left out of all results. Works beside a mount.

\b
Examples:
  fsmount exclude set --area 0,0,1920,32 --hours 12:00-13:00 ~/shots.store
  fsmount exclude set --redact '\\d{4} \\d{4} \\d{4} \\d{4}' --redact '^swordfish$' ~/shots.store
"""


@click.command("set", help=_HELP)
@store_argument
@click.option(
    "--area", "areas", multiple=True, type=AreaType(), help="Never read this area, in pixels."
)
@click.option(
    "--hours",
    "hours",
    multiple=True,
    type=HoursType(),
    help="Never read pictures that were taken in these hours.",
)
@click.option(
    "--redact", "patterns", multiple=True, type=PatternType(), help="Never show what matches."
)
@quiet_option
@json_option
def set_(
    store: Path,
    areas: tuple[Rectangle, ...],
    hours: tuple[Hours, ...],
    patterns: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run ``fsmount exclude set``."""
    wanted = Exclusions(areas, hours, patterns)
    if wanted == Exclusions():
        raise UsageError("name something to exclude; fsmount exclude clear removes what was set")
    with open_index(store, packs="here") as opened:
        wanted.write(opened.layout)
    emit(wanted.value(), "\n".join(exclusion_lines(wanted)), as_json)
