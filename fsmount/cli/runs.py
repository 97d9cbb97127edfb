"""fsmount runs"""

from __future__ import annotations

import os

import click

from fsmount.cli.common import reading, split_store
from fsmount.cli.output import emit, json_option, printable, size
from fsmount.errors import UsageError
from fsmount.store.transfer.diff import Stretch, stretches

_HELP = """\
List when nothing happened on the screen and when something did.

An idle run is a stretch of pictures that added next to nothing to the store (a clock, a graph,
a few letters); all others are busy times. Only the index is read, so this is quick. Works
beside a mount.

\b
Examples:
  fsmount runs ~/shots.store
  fsmount runs ~/shots.store desk --json
"""


@click.command(help=_HELP)
@click.argument("arguments", nargs=-1, metavar="STORE [PATH]")
@json_option
def runs(arguments: tuple[str, ...], as_json: bool) -> None:
    """``fsmount runs``."""
    store, paths = split_store(arguments, 0, fewest=0)
    if len(paths) > 1:
        raise UsageError("name one store and at most one path in it: fsmount runs STORE PATH")
    path = os.fsencode(paths[0]).strip(b"/") if paths else b""
    with reading(store) as opened:
        found = list(stretches(opened, path))
    emit(
        {"runs": [_row(one) for one in found]},
        "\n".join(_line(one) for one in found) or "there are no pictures",
        as_json,
    )


def _row(one: Stretch) -> dict[str, object]:
    return {
        "kind": "idle" if one.idle else "busy",
        "pictures": one.pictures,
        "stored_bytes": one.bytes,
        "first": os.fsdecode(one.first),
        "last": os.fsdecode(one.last),
    }


def _line(one: Stretch) -> str:
    kind = "idle" if one.idle else "busy"
    first, last = printable(one.first), printable(one.last.rpartition(b"/")[2])
    return f"{kind}  {one.pictures:>6}  {size(one.bytes):>9}  {first} … {last}"
