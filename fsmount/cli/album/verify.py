"""The command ``fsmount album verify``."""

from __future__ import annotations

from pathlib import Path

import click

from fsmount.album import reading
from fsmount.album.album import Album
from fsmount.album.files import paths_of
from fsmount.cli.album.common import album_argument, warn_of_findings, with_workers
from fsmount.cli.common.options import json_option
from fsmount.cli.common.output import emit
from fsmount.cli.common.progress import meter
from fsmount.errors import Damaged
from fsmount.work.workers import Workers

_HELP = """\
Check that an album is whole. Decodes every photo, compares every hash.

\b
Example:
  fsmount album verify /media/stick/2014-07-Italy.xml
"""

_STOPPED = "Nothing was changed."


@click.command(help=_HELP)
@album_argument
@json_option
def verify(album: Path, as_json: bool) -> int:
    """Run ``fsmount album verify``."""
    opened = Album(paths_of(album))

    async def work(workers: Workers) -> int:
        photos, others = opened.contents.photos, opened.other_files()
        count = len(photos) + len(others)
        total = sum(one.bytes for one in photos) + sum(one.bytes for one in others)
        with meter("verifying", count, total, stopped=_STOPPED) as progress:
            verifier = reading.Verifier(opened, workers, progress)
            await verifier.verify()
        report = verifier.report
        emit(
            {
                "whole": report.files,
                "files": count,
                "problems": report.problems,
                "other_bytes": report.not_identical,
            },
            f"{report.files}/{count} whole",
            as_json,
        )
        if not as_json:
            warn_of_findings(report, "damaged")
        return Damaged.exit_code if report.problems else 0

    try:
        return with_workers(work)
    finally:
        opened.close()
