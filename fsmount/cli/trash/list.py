"""The command ``fsmount trash list``."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from fsmount.cli.common.options import store_argument
from fsmount.cli.common.output import emit, printable
from fsmount.cli.common.stores import open_index

_HELP = """\
List the files in the trash of a store.

The oldest come first. Shows the time of the deletion, the size, and the path that the file had.
Works beside a mount.

\b
Example:
  fsmount trash list ~/shots.store --json
"""


@click.command("list", help=_HELP)
@store_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(store: Path, as_json: bool) -> None:
    """Run ``fsmount trash list``."""
    with open_index(store, packs="here") as opened:
        for entry, inode in opened.index.in_trash():
            row = {
                "path": os.fsdecode(entry.path),
                "size": inode.size,
                "mtime_ns": inode.mtime_ns,
                "deleted_ns": entry.deleted_ns,
            }
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.deleted_ns // 10**9))
            emit(row, f"{when} {inode.size:>12}  {printable(entry.path)}", as_json)
