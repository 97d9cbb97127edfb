"""The command ``fsmount init``."""

from __future__ import annotations

from pathlib import Path

import click

from fsmount.cli.common.options import json_option, store_argument
from fsmount.cli.common.output import emit, printable
from fsmount.errors import UsageError
from fsmount.mount.mountpoint import mount_around
from fsmount.store import config
from fsmount.store.disk.disk import Disk

_HELP = """\
Make a new, empty store. It must not lie inside another store, or in a mount of fsmount.

Each pack of pictures gets parity: bytes from which damaged ones are computed again. --parity says
how many, as a share of the pack; 0 means none.

\b
Example:
  fsmount init ~/shots.store
  fsmount init ~/shots.store --parity 10
"""


@click.command(help=_HELP)
@store_argument
@click.option(
    "--parity",
    metavar="PERCENT",
    type=click.IntRange(0, config.MOST_PARITY),
    default=config.PARITY_PERCENT,
    help="Share of parity in a pack, 0 to 25; by default 5.",
)
@json_option
def init(store: Path, parity: int, as_json: bool) -> None:
    """Run ``fsmount init``."""
    mounted = mount_around(store)
    if mounted is not None:
        raise UsageError(
            f"{store} lies in the mount of {mounted.source} at {mounted.mountpoint}. Choose a path"
            " outside of it."
        )
    config.make(store, Disk(), parity=parity)
    made = config.read(store)
    name = printable(store)
    emit(
        {"store": str(store), "uuid": made["uuid"], "format": made["format"]},
        f"{name} is ready. Mount it with: fsmount mount {name} FOLDER",
        as_json,
    )
