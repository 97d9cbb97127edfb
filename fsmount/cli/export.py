"""The command ``fsmount export``."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import click

from fsmount.cli.common.filters import (
    CHANGED_HELP,
    FILTER_HELP,
    FilteredCommand,
    selected,
    selection_options,
)
from fsmount.cli.common.options import (
    json_option,
    quiet_option,
    resource_options,
    split_store,
    verbose_option,
)
from fsmount.cli.common.output import (
    counted,
    emit,
    list_skipped,
    say_path,
    size,
)
from fsmount.cli.common.progress import meter
from fsmount.cli.common.stores import check_apart, store_to_read, with_store
from fsmount.cli.common.times import TIME_HELP
from fsmount.errors import UsageError
from fsmount.store.read_store import ReadStore
from fsmount.store.transfer.exporting import Exporter, below
from fsmount.store.transfer.tree import ignore
from fsmount.work import machine
from fsmount.work.workers import Workers

_HELP = f"""\
Write the files of a store, or some of its paths, to a folder. Works beside a mount.

Keeps names, times, permissions and attributes, and owners if you are root. Overwrites nothing
without --force. Skips files of the same size and time.

With --legacy a picture that differs little from the one before it in time is written as
`<same stem>.jxl`, their difference (the form of "Losslessly Compressing 25000 Images"). This
keeps its pixels, but not the bytes of its PNG. A picture stays a PNG if the times in the names
do not tell which picture comes before it.

{FILTER_HELP}

{TIME_HELP}

{CHANGED_HELP}
With any of these, only folders that get files are made.

\b
Examples:
  fsmount export ~/shots.store ~/all
  fsmount export ~/shots.store /tmp/day desk/2024-06-06
  fsmount export ~/shots.store /tmp/afternoon --since 2024-06-06T13:00 --until 2024-06-06T18:00
"""

_STOPPED = "What was exported stays. To go on, run the export again."


@click.command(cls=FilteredCommand, help=_HELP)
@click.argument("arguments", nargs=-1, metavar="STORE DEST [PATH]...")
@click.option("--force", is_flag=True, help="Replace existing files that differ.")
@click.option(
    "--legacy",
    is_flag=True,
    help="Write PNGs and .jxl differences, as the blog's script does, into an empty folder.",
)
@selection_options
@verbose_option
@quiet_option
@resource_options
@json_option
def export(
    arguments: tuple[str, ...],
    force: bool,
    legacy: bool,
    verbose: bool,
    cache_size: int,
    as_json: bool,
) -> int:
    """Run ``fsmount export``."""
    store, (folder, *paths) = split_store(arguments, 0)
    dest = Path(folder)
    store = store_to_read(store)
    check_apart(dest, store)
    if legacy and dest.is_dir() and any(dest.iterdir()):
        # An existing file might come between a difference and its picture.
        raise UsageError(f"{dest} is not empty; --legacy needs an empty folder or a new one")

    wanted_files = selected()

    async def work(opened: ReadStore) -> int:
        patterns = wanted_files.of(opened)
        wanted = [os.fsencode(path).strip(b"/") for path in paths] or [b""]
        entries = [
            inode
            for path in wanted
            for _, inode in below(opened, path, patterns)
            if not stat.S_ISDIR(inode.mode)
        ]
        total = sum(inode.size for inode in entries)
        dest.mkdir(parents=True, exist_ok=True)
        report = say_path if verbose and not as_json else ignore
        with meter("exporting", len(entries), total, hidden=verbose, stopped=_STOPPED) as progress:
            exporter = Exporter(opened, dest, progress, force=force, chosen=patterns, report=report)
            for path in wanted:
                await exporter.export(path)
            if legacy:
                async with Workers(machine.cores()) as workers:
                    await exporter.to_differences(workers)
        summary = exporter.summary
        emit(
            {
                "files": summary.files,
                "bytes": summary.bytes,
                "skipped": summary.skipped,
                "problems": summary.problems,
            },
            f"{counted(summary.files, 'file')} exported ({size(summary.bytes)}),"
            f" {summary.skipped} existed already",
            as_json,
        )
        heading = f"{counted(len(summary.problems), 'problem')}:"
        return list_skipped(summary.problems, heading, as_json)

    return with_store(store, work, cache_bytes=cache_size, packs="brought")
