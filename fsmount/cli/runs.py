"""The command ``fsmount runs``."""

from __future__ import annotations

import os

import click

from fsmount.cli.common.filters import (
    CHANGED_HELP,
    FILTER_HELP,
    FilteredCommand,
    selected,
    selection_options,
)
from fsmount.cli.common.options import json_option, split_store
from fsmount.cli.common.output import emit, printable, size
from fsmount.cli.common.stores import open_index
from fsmount.cli.common.times import TIME_HELP
from fsmount.errors import UsageError
from fsmount.store.transfer.diff import Stretch, stretches

_HELP = f"""\
List the idle and busy times of a screen.

An idle run is a sequence of pictures that added next to nothing to the store (a clock, a graph,
a few letters). All other pictures are busy. Reads only the index, so it is quick. Works beside
a mount.

{TIME_HELP}

{CHANGED_HELP}

{FILTER_HELP}

\b
Examples:
  fsmount runs ~/shots.store
  fsmount runs ~/shots.store desk --json
  fsmount runs ~/shots.store --since 2024-06-06 --until 2024-06-06
"""


@click.command(cls=FilteredCommand, help=_HELP)
@click.argument("arguments", nargs=-1, metavar="STORE [PATH]")
@selection_options
@json_option
def runs(arguments: tuple[str, ...], as_json: bool) -> None:
    """Run ``fsmount runs``."""
    store, paths = split_store(arguments, 0, fewest=0)
    if len(paths) > 1:
        raise UsageError("name one store and at most one path in it: fsmount runs STORE PATH")
    path = os.fsencode(paths[0]).strip(b"/") if paths else b""
    with open_index(store, packs="here") as opened:
        found = list(stretches(opened, path, selected().of(opened)))
    emit(
        {"runs": [_row(one) for one in found]},
        "\n".join(_line(one) for one in found) or "there are no pictures",
        as_json,
    )


def _row(one: Stretch) -> dict[str, object]:
    """Return a run for JSON."""
    return {
        "kind": "idle" if one.idle else "busy",
        "pictures": one.pictures,
        "stored_bytes": one.bytes,
        "first": os.fsdecode(one.first),
        "last": os.fsdecode(one.last),
    }


def _line(one: Stretch) -> str:
    """Return a run as a line."""
    kind = "idle" if one.idle else "busy"
    first, last = printable(one.first), printable(one.last.rpartition(b"/")[2])
    return f"{kind}  {one.pictures:>6}  {size(one.bytes):>9}  {first} … {last}"
