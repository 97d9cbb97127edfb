"""The command ``fsmount album extract``."""

from __future__ import annotations

from pathlib import Path

import click

from fsmount.album import reading
from fsmount.album.album import Album
from fsmount.album.files import paths_of
from fsmount.cli.album.common import album_argument, warn_of_findings, with_workers
from fsmount.cli.common.options import json_option
from fsmount.cli.common.output import emit, size
from fsmount.cli.common.progress import meter
from fsmount.errors import FsmountError
from fsmount.work.workers import Workers

_HELP = """\
Write the photos and other files of an album into a folder.

\b
Example:
  fsmount album extract /media/stick/2014-07-Italy.xml ~/restored
"""

_STOPPED = "What was extracted stays."


@click.command(help=_HELP)
@album_argument
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace existing files.")
@json_option
def extract(album: Path, dest: Path, force: bool, as_json: bool) -> int:
    """Run ``fsmount album extract``."""
    opened = Album(paths_of(album))

    async def work(workers: Workers) -> int:
        photos, others = opened.contents.photos, opened.other_files()
        total = sum(one.bytes for one in photos) + sum(one.bytes for one in others)
        with meter("extracting", len(photos) + len(others), total, stopped=_STOPPED) as progress:
            extractor = reading.Extractor(opened, dest, workers, progress)
            await extractor.extract(force=force)
        report = extractor.report
        emit(
            {
                "files": report.files,
                "bytes": report.bytes,
                "skipped": report.skipped,
                "problems": report.problems,
                "other_bytes": report.not_identical,
            },
            f"{report.files} files written ({size(report.bytes)}),"
            f" {report.skipped} existed already",
            as_json,
        )
        if not as_json:
            warn_of_findings(report, "could not be written")
        return FsmountError.exit_code if report.problems else 0

    try:
        return with_workers(work)
    finally:
        opened.close()
