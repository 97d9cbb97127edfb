"""The command ``fsmount stats``."""

from __future__ import annotations

from pathlib import Path

import click

from fsmount.cli.common.options import json_option, store_argument
from fsmount.cli.common.output import emit, size
from fsmount.cli.common.stores import open_index

_HELP = """\
Show how many files a store holds, their size, and the size of the store. Works beside a mount.

\b
Example:
  fsmount stats ~/shots.store --json
"""


@click.command(help=_HELP)
@store_argument
@json_option
def stats(store: Path, as_json: bool) -> None:
    """Run ``fsmount stats``."""
    with open_index(store) as opened:
        found = opened.stats()
    kinds = found["objects"]
    jpegs = f" {kinds['jpeg']} JPEGs as JPEG XL," if kinds["jpeg"] else ""
    lines = [
        f"{found['files']} files, {size(found['logical_bytes'])} in {size(found['stored_bytes'])}:"
        f" {found['ratio']} times smaller",
        f"{kinds['key']} keyframes, {kinds['delta']} deltas,{jpegs} {kinds['raw']} raw,"
        f" {kinds['staged']} not encoded yet",
        *(f"  raw: {count} x {reason}" for reason, count in found["raw_reasons"].items()),
    ]
    emit(found, "\n".join(lines), as_json)
