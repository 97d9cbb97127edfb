"""The command ``fsmount copy``."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import click
import trio

from fsmount.cli.common.filters import (
    CHANGED_HELP,
    FILTER_HELP,
    FilteredCommand,
    selected,
    selection_options,
)
from fsmount.cli.common.options import (
    force_lock_option,
    json_option,
    quiet_option,
    split_store,
    verbose_option,
)
from fsmount.cli.common.output import counted, emit, list_skipped, say_path, size
from fsmount.cli.common.progress import meter
from fsmount.cli.common.stores import start_log, store_to_change, store_to_read
from fsmount.cli.common.times import TIME_HELP
from fsmount.errors import UsageError
from fsmount.store.files import StoreFiles
from fsmount.store.read_store import ReadStore
from fsmount.store.store import open_read_store, open_store
from fsmount.store.transfer.copying import CopySummary, StoreCopier, rebuild
from fsmount.store.transfer.exporting import below
from fsmount.store.transfer.patterns import Patterns
from fsmount.store.transfer.tree import ignore

_HELP = f"""\
Copy files between stores; no picture is coded again.

Merges stores, or splits one by patterns. SOURCE may be in use: a store, or the mountpoint of one.
Each file keeps its path, below --into if that is given. Names, times, permissions and attributes
are kept, and owners. Pictures are copied as the deltas that they are, with the pictures that they
need for their pixels, so a part of a store may take more space than its share.

Equal files take the space of one. A file that STORE already has under its path is not copied
again, so a stopped copy goes on where it was. If STORE has another file there, that one stays, and
the command names it. Each copied entry is read back and compared; --check also rebuilds each new
file from its entries, and compares its hash. Nothing is removed from SOURCE.

{TIME_HELP}

{FILTER_HELP} {CHANGED_HELP}

\b
Examples:
  fsmount copy ~/2023.store ~/2024.store ~/shots.store
  fsmount copy --since 2023-06 --into old ~/2023.store ~/shots.store
"""

_STOPPED = "What was copied stays. To go on, run the copy again."


@click.command(cls=FilteredCommand, help=_HELP)
@click.argument("paths", nargs=-1, metavar="SOURCE... STORE")
@click.option("--into", metavar="FOLDER", default="", help="A folder of STORE for the files.")
@click.option("--check", is_flag=True, help="Rebuild each new file and compare its hash.")
@selection_options
@force_lock_option
@verbose_option
@quiet_option
@json_option
def copy(
    paths: tuple[str, ...], into: str, check: bool, force_lock: bool, verbose: bool, as_json: bool
) -> int:
    """Run ``fsmount copy``."""
    path, names = split_store(paths, -1)
    target = store_to_change(path)
    sources = [store_to_read(Path(name)) for name in names]
    for name, source in zip(names, sources, strict=True):
        if source.exists() and target.exists() and source.samefile(target):
            raise UsageError(f"{name} is the store itself; name another one as the last argument")
    selection = selected()
    report = say_path if verbose and not as_json else ignore

    async def run() -> CopySummary:
        total = CopySummary()
        with open_store(target, force_lock=force_lock) as opened:
            async with opened.started() as store:
                for source in sources:
                    with open_read_store(source) as files:
                        wanted = selection.of(files)
                        count, whole = _measure(files, wanted)
                        with meter(
                            f"copying {source.name}", count, whole, hidden=verbose, stopped=_STOPPED
                        ) as progress:
                            copier = StoreCopier(
                                files,
                                store,
                                into=os.fsencode(into),
                                progress=progress,
                                report=report,
                            )
                            try:
                                await copier.copy(chosen=wanted)
                            finally:
                                total.add(copier.summary)
                if check:
                    await _check(store, total)
                if store.pending():
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(store.run)
                        await store.drain()
                        nursery.cancel_scope.cancel()
        return total

    start_log()
    done = trio.run(run)
    copied = f"{counted(done.files, 'file')} copied ({size(done.bytes)})"
    emit(
        {
            "files": done.files,
            "bytes": done.bytes,
            "skipped": done.skipped,
            "objects": done.objects,
            "problems": done.problems,
        },
        f"{copied}, {done.skipped} existed already",
        as_json,
    )
    return list_skipped(done.problems, f"{counted(len(done.problems), 'problem')}:", as_json)


def _measure(store: StoreFiles, patterns: Patterns) -> tuple[int, int]:
    """Count the chosen files of a store and their bytes, for progress."""
    files = total = 0
    for _, inode in below(store, b"", patterns):
        if not stat.S_ISDIR(inode.mode):
            files += 1
            total += inode.size if stat.S_ISREG(inode.mode) else 0
    return files, total


async def _check(store: ReadStore, done: CopySummary) -> None:
    """Rebuild all new files. Adds those that cannot be rebuilt to the problems."""
    count = len(done.shown)
    stopped = "Everything is copied. fsmount check --full rebuilds all files of a store."
    with meter("rebuilding", count, 0, stopped=stopped) as progress:
        done.problems += await rebuild(store, done.shown, progress)
