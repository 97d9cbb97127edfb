"""The command ``fsmount estimate``."""

from __future__ import annotations

from pathlib import Path

import click
import trio

from fsmount.cli.common.options import json_option
from fsmount.cli.common.output import (
    counted,
    duration,
    emit,
    list_problems,
    listing,
    size,
    times_smaller,
    warn,
)
from fsmount.cli.common.progress import clock
from fsmount.cli.common.stores import start_log
from fsmount.errors import UsageError
from fsmount.store.config import is_store
from fsmount.store.transfer.estimating import Estimate, estimate

_LIMIT_S = 45.0


_HELP = """\
Estimate a folder's size in a store, and the time of its import.

Encodes runs of consecutive pictures from all parts of the folder as an import does, in memory.
Encodes a small folder whole. Writes nothing to the folder or to a store.

\b
Example:
  fsmount estimate ~/screenshots
"""

_STOPPED = "There is no result; nothing was written. A smaller --seconds takes less time."


@click.command("estimate", help=_HELP)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--seconds", type=float, default=_LIMIT_S, help="Time for sampling, about. Default 45."
)
@json_option
def estimate_(folder: Path, seconds: float, as_json: bool) -> None:
    """Run ``fsmount estimate``."""
    if is_store(folder):
        raise UsageError(f"{folder} is a store already; see fsmount stats {folder}")
    start_log()
    with clock("sampling", seconds, noun="pictures", stopped=_STOPPED) as progress:
        found = trio.run(estimate, folder, seconds, progress)
    emit(_data(found), _text(found), as_json)
    if not as_json:
        if found.raw:
            warn("sampled pictures that would be stored as they are:")
            listing([f"{count} x {why}" for why, count in found.raw.most_common()])
        if found.lost or found.problems:
            warn("cannot be imported:")
            list_problems(found.problems + found.lost)


def _data(found: Estimate) -> dict[str, object]:
    """Return the estimate for JSON."""
    return {
        "files": found.files,
        "bytes": found.bytes,
        "pictures": found.pictures,
        "sampled": found.sampled,
        "recreated": found.sampled - sum(found.raw.values()),
        "raw_reasons": dict(found.raw),
        "jpegs": found.jpegs,
        "jpegs_sampled": found.jpegs_sampled,
        "jpeg_share": round(found.jpeg_share, 3),
        "stored_bytes": found.stored_bytes,
        "stored_bytes_low": found.low,
        "stored_bytes_high": found.high,
        "ratio": round(found.bytes / found.stored_bytes, 2) if found.stored_bytes else 0.0,
        "seconds": round(found.seconds, 1),
        "problems": found.problems + found.lost,
    }


def _text(found: Estimate) -> str:
    """Return the estimate in words."""
    recreated = found.sampled - sum(found.raw.values())
    jpegs = f"{counted(found.jpegs, 'JPEG')} would take about {found.jpeg_share:.0%} of their size"
    return "\n".join(
        (
            f"{counted(found.files, 'file')}, {size(found.bytes)}; {found.sampled} of"
            f" {counted(found.pictures, 'picture')} sampled",
            f"in a store: about {size(found.stored_bytes)} (between {size(found.low)} and"
            f" {size(found.high)}){times_smaller(found.bytes, found.stored_bytes)}",
            f"every file would come back unchanged; {recreated} of the"
            f" {counted(found.sampled, 'sampled picture')} would be encoded, the others stored as"
            " they are",
            *([jpegs] if found.jpegs else []),
            f"an import would take about {duration(found.seconds)} on this machine",
        )
    )
