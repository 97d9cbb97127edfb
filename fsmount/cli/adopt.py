"""The command ``fsmount adopt``."""

from __future__ import annotations

from pathlib import Path

import click

from fsmount.adopt.adopt import Request, Result, adopt
from fsmount.cli.common.options import json_option
from fsmount.cli.common.output import (
    SOME_SKIPPED,
    counted,
    emit,
    list_problems,
    listing,
    printable,
    warn,
)
from fsmount.cli.common.progress import meter
from fsmount.cli.common.stores import start_log

_HELP = """\
Turn a folder in use into the mount of a new store. Programs go on writing to it.

Imports the files of DIR, mounts the store over DIR, and then takes in what programs wrote to
DIR meanwhile. DIR shows its files all the time. A file that a program has open for writing, or
that changed less than 2 seconds ago, appears in DIR again when the program is done with it.

The originals are moved to DIR.adopt/originals. With --delete-source each of them is deleted
after it was read back from the store and compared.

If the command is killed or fails, run it again: it goes on. It ends with 3 if a program still has
DIR from before as its working folder (a shell, for example), or keeps a file in it open for
writing, longer than --wait: end that program, and run the command again.

\b
The way back, at any time:
  fsmount umount ~/screenshots
  fsmount export ~/screenshots.store ~/screenshots

\b
Examples:
  fsmount adopt ~/screenshots
  fsmount adopt --store /data/shots.store ~/screenshots
  fsmount adopt --delete-source ~/screenshots
"""


@click.command("adopt", help=_HELP)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--store", type=click.Path(path_type=Path), help="Path of the new store. Default: DIR.store."
)
@click.option(
    "--delete-source",
    is_flag=True,
    help="Delete each original after it was read back from the store and compared.",
)
@click.option("-o", "options", multiple=True, help="Mount options, as of fsmount mount.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=30.0,
    metavar="SECONDS",
    help="How long to wait for programs that still use DIR from before. Default 30.",
)
@json_option
def adopt_(
    folder: Path,
    store: Path | None,
    delete_source: bool,
    options: tuple[str, ...],
    wait: float,
    as_json: bool,
) -> int:
    """Run ``fsmount adopt``."""
    start_log()
    request = Request(folder, store, ",".join(options), delete_source, wait)
    result = adopt(request, meter, warn)
    _report(result, as_json=as_json)
    left = result.busy or result.kept or result.problems or result.conflicts
    return SOME_SKIPPED if left else 0


def _report(result: Result, *, as_json: bool) -> None:
    """Print what was done, and what is left."""
    text = (
        f"{printable(result.folder)} is the mount of {printable(result.store)}:"
        f" {counted(result.imported, 'file')} imported before it,"
        f" {counted(result.collected, 'file')} taken in after it"
    )
    if result.deleted:
        text += f"; {counted(result.deleted, 'original')} deleted"
    if result.originals is not None:
        text += f"\nThe originals are in {printable(result.originals)}"
    emit(
        {
            "folder": str(result.folder),
            "store": str(result.store),
            "imported": result.imported,
            "collected": result.collected,
            "deleted": result.deleted,
            "originals": None if result.originals is None else str(result.originals),
            "busy": result.busy or None,
            "conflicts": result.conflicts,
            "problems": result.problems,
            "kept": result.kept,
        },
        text,
        as_json,
    )
    if as_json:
        return
    if result.conflicts:
        warn(f"{counted(len(result.conflicts), 'file')} of which the mount has a later one:")
        listing([printable(path, err=True) for path in result.conflicts])
    if result.problems:
        warn(f"{counted(len(result.problems), 'file')} could not be copied:")
        list_problems(result.problems)
    if result.kept:
        warn(f"{counted(len(result.kept), 'original')} kept:")
        list_problems(result.kept)
    if result.busy:
        warn(f"not finished: {result.busy}. Then run the same command again")
