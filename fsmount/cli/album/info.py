"""The command ``fsmount album info``."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import click

from fsmount.album.album import Album
from fsmount.album.document import PhotoRecord
from fsmount.album.files import paths_of
from fsmount.cli.album.common import album_argument, album_figures
from fsmount.cli.common.options import json_option
from fsmount.cli.common.output import emit, printable

_HELP = """\
Show what an album holds, its size, and its quality.

\b
Examples:
  fsmount album info /media/stick/2014-07-Italy.xml
  fsmount album info --photos --json /media/stick/2014-07-Italy.xml
"""


@click.command(help=_HELP)
@album_argument
@click.option("--photos", "each", is_flag=True, help="Also list every photo and other file.")
@json_option
def info(album: Path, each: bool, as_json: bool) -> None:
    """Run ``fsmount album info``."""
    opened = Album(paths_of(album))
    try:
        figures = album_figures(opened)
        rows = [_row(record) for record in opened.contents.photos] if each else []
        others = [dataclasses.asdict(other) for other in opened.contents.others] if each else []
    finally:
        opened.close()
    for other in others:
        other["name"] = os.fsdecode(other["name"])
        if other["stored"] is not None:
            other["stored"] = os.fsdecode(other["stored"])
    lines = [
        f"{key.replace('_', ' ')}: {printable(value) if key == 'worst' and value else value}"
        for key, value in figures.items()
    ]
    lines += [
        f"{row['frame']} {printable(row['name'])} {row['packet_bytes']} bytes of {row['bytes']},"
        f" SSIM {row['ssim']}, PSNR {row['psnr']}"
        for row in rows
    ]
    lines += [
        f"- {printable(other['name'])} {other['bytes']} bytes, {other['reason']}"
        for other in others
    ]
    extra = {"list": rows, "other_files": others} if each else {}
    emit({"album": str(album), **figures, **extra}, "\n".join(lines), as_json)


def _row(record: PhotoRecord) -> dict[str, Any]:
    """Return a photo's record for JSON."""
    row = dataclasses.asdict(record)
    row["name"], row["shown"] = os.fsdecode(record.name), os.fsdecode(record.shown)
    return row
