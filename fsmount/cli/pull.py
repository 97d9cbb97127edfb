"""The command ``fsmount pull``."""

from __future__ import annotations

from pathlib import Path

import click

from fsmount.cli.common.options import json_option, quiet_option
from fsmount.cli.common.output import counted, emit, printable, size
from fsmount.cli.common.progress import meter
from fsmount.cli.common.unlocking import UNLOCK_HELP, unlock, unlock_options
from fsmount.remote.opening import open_remote
from fsmount.remote.pull import pull

_HELP = f"""\
Get a store back from object storage.

DEST becomes a store with the newest state that fsmount push sent to URL. It must be missing or
empty, or what a stopped pull left: then the pull goes on. The hash of each object is compared.
DEST is no store until all of it is there. The folder above DEST must exist.

{UNLOCK_HELP}

\b
Examples:
  fsmount pull s3://my-bucket/shots ~/shots.store
  fsmount pull file:///media/disk/shots ~/shots.store
"""

_STOPPED = "To go on, run the pull again."


@click.command("pull", help=_HELP)
@click.argument("url", metavar="URL")
@click.argument("dest", metavar="DEST", type=click.Path(path_type=Path))
@unlock_options
@quiet_option
@json_option
def pull_(url: str, dest: Path, as_json: bool) -> int:
    """Run ``fsmount pull``."""
    remote = open_remote(url, unlock())
    with meter("pulling", 0, 0, noun="packs and files", stopped=_STOPPED) as progress:
        done = pull(remote, dest, progress=progress)
    emit(
        {
            "generation": done.generation,
            "files": done.files,
            "received_bytes": done.received_bytes,
        },
        f"{printable(dest)} has all {counted(done.files, 'file')};"
        f" {size(done.received_bytes)} received",
        as_json,
    )
    return 0
