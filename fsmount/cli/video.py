"""The command ``fsmount video``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from fsmount.cli.common.filters import (
    CHANGED_HELP,
    FILTER_HELP,
    FilteredCommand,
    selected,
    selection_options,
)
from fsmount.cli.common.options import json_option, quiet_option, resource_options, split_store
from fsmount.cli.common.output import counted, duration, emit, list_skipped, printable, size
from fsmount.cli.common.progress import meter
from fsmount.cli.common.stores import check_apart, store_to_read, with_store
from fsmount.cli.common.times import TIME_HELP
from fsmount.errors import FsmountError, UsageError
from fsmount.store.read_store import ReadStore
from fsmount.store.transfer.exporting import below
from fsmount.timelapse.canvas import Canvas
from fsmount.timelapse.making import Made, make
from fsmount.timelapse.plan import Plan, plan
from fsmount.timelapse.writers import SUFFIXES

_HELP = f"""\
Make a time lapse of the pictures of a store.

Takes all pictures, or those below some paths. Works beside a mount.

The ending of FILE says the format: .mp4, .mkv, .mov (H.264) or .webm (VP9), which need the extra
`album` (PyAV); .gif or .webp for a short stretch. The time lapse runs --speed times as fast as the
pictures were taken. Of a pause it shows no more than 5 minutes. --skip-idle leaves out pictures on
which nothing happened (as fsmount runs calls idle), with their time. All pictures get the size of
the first one, or the --height; others are fitted in.

{TIME_HELP}

{FILTER_HELP} {CHANGED_HELP}

\b
Examples:
  fsmount video ~/shots.store -o day.webp --since 2024-06-06 --until 2024-06-06
  fsmount video ~/shots.store desk -o ~/day.mp4 --speed 1200x --skip-idle --clock
"""

_STOPPED = "No file was written."


class Speed(click.ParamType):  # type: ignore[type-arg]
    """How many times as fast: 60x or 60."""

    name = "speed"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number; fail if it is malformed, or not above 0."""
        try:
            number = float(str(value).lower().removesuffix("x"))
        except ValueError:
            number = 0.0
        if not 0 < number < 1e9:
            self.fail(f"{value!r} is not a speed; write for example 60x", param, ctx)
        return number


@click.command(cls=FilteredCommand, help=_HELP)
@click.argument("arguments", nargs=-1, metavar="STORE [PATH]...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file to write.",
)
@click.option(
    "--speed",
    type=Speed(),
    default="600x",
    show_default=True,
    help="How many times as fast time runs.",
)
@click.option(
    "--fps",
    type=click.IntRange(1, 120),
    default=30,
    show_default=True,
    help="Frames in a second, at most.",
)
@click.option("--height", type=click.IntRange(16, 8192), help="Scale to this height in pixels.")
@click.option("--skip-idle", is_flag=True, help="Leave out pictures on which nothing happened.")
@click.option("--clock", is_flag=True, help="Write the time of each picture into its corner.")
@click.option("--force", is_flag=True, help="Replace FILE.")
@selection_options
@quiet_option
@resource_options
@json_option
def video(
    arguments: tuple[str, ...],
    output: Path,
    speed: float,
    fps: int,
    height: int | None,
    skip_idle: bool,
    clock: bool,
    force: bool,
    cache_size: int,
    as_json: bool,
) -> int:
    """Run ``fsmount video``."""
    store, paths = split_store(arguments, 0, fewest=0)
    store = store_to_read(store)
    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{output}: name a file that ends in one of {', '.join(SUFFIXES)}")
    if output.exists() and not force:
        raise UsageError(f"{output} exists already; --force replaces it")
    check_apart(output, store)
    selection = selected()

    async def work(opened: ReadStore) -> tuple[Plan, Made]:
        wanted = selection.of(opened)
        entries = [
            entry
            for path in paths or [""]
            for entry in below(opened, os.fsencode(path).strip(b"/"), wanted)
        ]
        shots = plan(opened, entries, speed=speed, most_per_second=fps, skip_idle=skip_idle)
        del entries
        if not shots.count:
            raise FsmountError("no picture was chosen; see fsmount ls with the same options")
        with meter("rendering", shots.count, 0, noun="pictures", stopped=_STOPPED) as progress:
            canvas = Canvas(height=height, clock=clock)
            return shots, await make(opened, shots, output, canvas, progress)

    shots, made = with_store(store, work, cache_bytes=cache_size, packs="brought")
    seconds = shots.length_ms / 1000
    nbytes = output.stat().st_size
    emit(
        {
            "file": str(output),
            "bytes": nbytes,
            "seconds": seconds,
            "frames": made.frames,
            "pictures": shots.found,
            "idle": shots.idle,
            "problems": made.problems,
        },
        f"{printable(output)}: {duration(seconds)}, {size(nbytes)};"
        f" {made.frames} of {counted(shots.found, 'picture')}",
        as_json,
    )
    return list_skipped(made.problems, f"{len(made.problems)} left out:", as_json)
