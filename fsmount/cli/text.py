"""The command ``fsmount text``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import click

from fsmount.cli.common.exclusions import AreaType, HoursType
from fsmount.cli.common.options import json_option, quiet_option, store_argument
from fsmount.cli.common.output import counted, emit, list_skipped, size
from fsmount.cli.common.progress import meter
from fsmount.cli.common.stores import open_index
from fsmount.cli.common.times import Moment, MomentType
from fsmount.mount.power_supply import on_mains
from fsmount.text.database import path_of
from fsmount.text.exclusions import Exclusions, Hours
from fsmount.text.making import ENGINES, engine_of, read_text
from fsmount.text.priority import be_last
from fsmount.text.results import Rectangle

_HELP = """\
Read the text in the pictures of a store, for fsmount search.

Reads only what is new in each picture: most of it was on the screen before. Goes on where it
stopped, however it ended. Works beside a mount, in a process of the lowest priority. On a laptop it
stops when the machine runs on its battery. A mount with -o text does the same by itself.

Words are in text.sqlite in the folder of the store, which its owner alone can read. Whoever can
read this file can read what was on the screen. It can be deleted at any time. Words of pictures
that were deleted or pruned are wiped out of it, by the prune or at the next run.

--exclude and --exclude-hours are kept for later runs, as by fsmount exclude.

tesseract reads the languages that are installed for it; Debian has them as tesseract-ocr-deu and so
on. After a change of engine or languages, --afresh reads everything again.

\b
Examples:
  fsmount text ~/shots.store
  fsmount text --exclude 0,0,1920,32 --exclude-hours 12:00-13:00 ~/shots.store
  fsmount text --languages eng --afresh ~/shots.store
"""

_STOPPED = "The same command goes on from there."


@click.command("text", help=_HELP)
@store_argument
@click.option("--since", type=MomentType(), help="Only pictures taken at that time or later.")
@click.option(
    "--exclude",
    "areas",
    multiple=True,
    type=AreaType(),
    help="Never read this area, in pixels.",
)
@click.option(
    "--exclude-hours",
    "hours",
    multiple=True,
    type=HoursType(),
    help="Never read pictures that were taken in these hours.",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default=ENGINES[0],
    help="What reads; rapidocr needs the extra `ocr`. tesseract by default.",
)
@click.option("--languages", default="", metavar="LANG+LANG", help="Languages of tesseract.")
@click.option("--afresh", is_flag=True, help="Throw away what was read before.")
@click.option("--on-battery", is_flag=True, help="Go on when the machine runs on its battery.")
@click.option("--when-idle", is_flag=True, help="Run only when no other process wants to run.")
@quiet_option
@json_option
def text(
    store: Path,
    since: Moment | None,
    areas: tuple[Rectangle, ...],
    hours: tuple[Hours, ...],
    engine: str,
    languages: str,
    afresh: bool,
    on_battery: bool,
    when_idle: bool,
    as_json: bool,
) -> int:
    """Run ``fsmount text``."""
    be_last(when_idle=when_idle)
    names = [name for name in languages.replace(",", "+").split("+") if name]
    with open_index(store) as opened:

        def begun(count: int) -> Callable[[int, int], None]:
            progress = meter("reading", count, 0, noun="pictures", stopped=_STOPPED)
            return click.get_current_context().with_resource(progress)

        summary = read_text(
            opened,
            functools.partial(engine_of, engine, names),
            more=Exclusions(areas, hours),
            since_us=None if since is None else since.start // 1000,
            afresh=afresh,
            go_on=lambda: on_battery or on_mains(),
            begun=begun,
        )
        database = path_of(opened.layout)
        nbytes = database.stat().st_size
    read = counted(summary.read, "picture")
    lines = [f"the text of {read} was read; the words take {size(nbytes)}"]
    if summary.removed:
        lines.append(f"words of {counted(summary.removed, 'picture')} that are gone were removed")
    if summary.left:
        lines.append(
            f"stopped, because the machine runs on its battery; {counted(summary.left, 'picture')}"
            " are left (--on-battery goes on)"
        )
    effort = summary.effort
    emit(
        {
            "read": summary.read,
            "left": summary.left,
            "removed": summary.removed,
            "bytes": nbytes,
            "areas": effort.areas,
            "pixels": effort.pixels,
            "problems": summary.problems,
        },
        "\n".join(lines),
        as_json,
    )
    return list_skipped(summary.problems, f"{len(summary.problems)} left out:", as_json)
