"""The command ``fsmount album append``."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import click

from fsmount.album import sources
from fsmount.album.create import append as append_files
from fsmount.album.files import paths_of
from fsmount.album.sources import SourceFile
from fsmount.cli.album.common import (
    album_argument,
    count_and_bytes,
    inner_folders,
    report_built,
    skip_others_option,
    with_workers,
)
from fsmount.cli.common.options import json_option
from fsmount.cli.common.progress import meter
from fsmount.errors import UsageError
from fsmount.work.workers import Workers

_HELP = """\
Add files, or the files of folders, to an album.

The photos in the album stay as they are, packet by packet. Files that the album has already are
skipped.

\b
Example:
  fsmount album append /media/stick/2014-07-Italy.xml ~/photos/late/*.jpg
"""

_STOPPED = "The album is as before."


@click.command(help=_HELP)
@album_argument
@click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path)
)
@skip_others_option
@json_option
def append(album: Path, paths: tuple[Path, ...], skip_others: bool, as_json: bool) -> int:
    """Run ``fsmount album append``."""
    target = paths_of(album)
    left_out: list[tuple[str, str]] = []
    files: list[SourceFile] = []
    for path in paths:
        if path.is_dir():
            files += sources.scan_folder(path, left_out)
            left_out += [(str(inner), "left out: a folder") for inner in inner_folders(path)]
        else:
            files += sources.scan_file(path, left_out)
    doubles = [name for name, count in Counter(file.name for file in files).items() if count > 1]
    if doubles:
        names = ", ".join(sorted(map(os.fsdecode, doubles)))
        raise UsageError(f"several files are called {names}; an album holds one file of each name")

    async def work(workers: Workers) -> int:
        with meter("encoding", *count_and_bytes(files), stopped=_STOPPED) as progress:
            report = await append_files(target, files, skip_others, workers, progress)
        return report_built([(target, report)], left_out, as_json)

    return with_workers(work)
