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

\b
Example:
  fsmount init ~/shots.store
"""


@click.command(help=_HELP)
@store_argument
@json_option
def init(store: Path, as_json: bool) -> None:
    """Run ``fsmount init``."""
    mounted = mount_around(store)
    if mounted is not None:
        raise UsageError(
            f"{store} lies in the mount of {mounted.source} at {mounted.mountpoint}. Choose a path"
            " outside of it."
        )
    config.make(store, Disk())
    made = config.read(store)
    name = printable(store)
    emit(
        {"store": str(store), "uuid": made["uuid"], "format": made["format"]},
        f"{name} is ready. Mount it with: fsmount mount {name} FOLDER",
        as_json,
    )
