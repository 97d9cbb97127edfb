"""The command ``fsmount diff``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from fsmount.cli.common.options import json_option, resource_options, split_store
from fsmount.cli.common.output import emit
from fsmount.cli.common.stores import with_store
from fsmount.errors import UsageError
from fsmount.store.read_store import ReadStore
from fsmount.store.transfer.diff import change

_HELP = """\
Show what changed since the picture before in the same folder.

Writes a PNG of the same size to stdout or to a file; unchanged pixels are transparent. With
--json prints the changed rectangles. Works beside a mount.

\b
Examples:
  fsmount diff ~/shots.store desk/2024-06-06T17:41:00+00:00.png -o new.png
  fsmount diff ~/shots.store desk/2024-06-06T17:41:00+00:00.png --json
"""


@click.command(help=_HELP)
@click.argument("arguments", nargs=-1, metavar="STORE PATH")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the picture there.")
@resource_options
@json_option
def diff(arguments: tuple[str, ...], output: Path | None, cache_size: int, as_json: bool) -> int:
    """Run ``fsmount diff``."""
    store, paths = split_store(arguments, 0)
    if len(paths) != 1:
        raise UsageError("name one store and one picture in it: fsmount diff STORE PATH")

    async def work(opened: ReadStore) -> int:
        found = await change(opened, os.fsencode(paths[0]).strip(b"/"))
        if output is not None:
            output.write_bytes(found.picture)
        if as_json or output is not None:
            emit(
                {
                    "path": os.fsdecode(found.path),
                    "before": None if found.before is None else os.fsdecode(found.before),
                    "width": found.size[0],
                    "height": found.size[1],
                    "rectangles": [list(box) for box in found.rectangles],
                },
                f"{len(found.rectangles)} rectangles changed",
                as_json,
            )
            return 0
        if sys.stdout.isatty():
            raise UsageError("the result is a PNG, not text; name a file with -o, or use --json")
        sys.stdout.buffer.write(found.picture)
        return 0

    return with_store(store, work, cache_bytes=cache_size, packs="brought")
