"""fsmount export"""

from __future__ import annotations

import os
from pathlib import Path

import click

from fsmount.cli.common import cache_option, check_apart, split_store, with_store
from fsmount.cli.output import SOME_SKIPPED, emit, json_option, meter, problems, size, warn
from fsmount.errors import UsageError
from fsmount.store.store import Store
from fsmount.store.transfer.exporting import Exporter, below
from fsmount.work.workers import Workers

_HELP = """\
Write the files of a store, or some of its paths, to a folder. Works beside a mount.

Names, times, permissions and attributes are kept (owners too where you are root). Nothing is
overwritten without --force; files of the same size and time are skipped.

With --legacy a picture that differs little from the one before it in time is written as
`<same stem>.jxl`, their difference (the form of "Losslessly Compressing 25000 Images"). Its
pixels come back from that, but not the bytes of its PNG. A picture stays a PNG where the times
in the names would leave open what it is the difference to.

\b
Examples:
  fsmount export ~/shots.store ~/all
  fsmount export ~/shots.store /tmp/day desk/2024-06-06
"""


@click.command(help=_HELP)
@click.argument("arguments", nargs=-1, metavar="STORE DEST [PATH]...")
@click.option("--force", is_flag=True, help="Replace files that are there and differ.")
@click.option(
    "--legacy",
    is_flag=True,
    help="Write PNGs and .jxl differences, as the blog's script does, into an empty folder.",
)
@cache_option
@json_option
def export(
    arguments: tuple[str, ...],
    force: bool,
    legacy: bool,
    cache_size: int,
    as_json: bool,
) -> int:
    """``fsmount export``."""

    store, (folder, *paths) = split_store(arguments, 0)
    dest = Path(folder)
    check_apart(dest, store)
    if legacy and dest.is_dir() and any(dest.iterdir()):
        # What is there already might stand between a difference and its picture.
        raise UsageError(f"{dest} is not empty; --legacy needs an empty folder, or a new one")

    async def work(opened: Store) -> int:
        wanted = [os.fsencode(path).strip(b"/") for path in paths] or [b""]
        entries = [inode for path in wanted for _, inode in below(opened, path)]
        total = sum(inode.size for inode in entries)
        dest.mkdir(parents=True, exist_ok=True)
        with meter("exporting", len(entries), total) as progress:
            exporter = Exporter(opened, dest, progress, force=force)
            for path in wanted:
                await exporter.export(path)
            if legacy:
                async with Workers(len(os.sched_getaffinity(0))) as workers:
                    await exporter.to_differences(workers)
        summary = exporter.summary
        emit(
            {
                "files": summary.files,
                "bytes": summary.bytes,
                "skipped": summary.skipped,
                "problems": summary.problems,
            },
            f"{summary.files} files exported ({size(summary.bytes)}),"
            f" {summary.skipped} were there already",
            as_json,
        )
        if summary.problems:
            if not as_json:
                warn(f"{len(summary.problems)} problems:")
                problems(summary.problems)
            return SOME_SKIPPED
        return 0

    return with_store(store, work, cache_bytes=cache_size)
