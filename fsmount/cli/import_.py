"""The command ``fsmount import``."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import click

from fsmount.cli.common.filters import FILTER_HELP, FilteredCommand, chosen, filter_options
from fsmount.cli.common.options import (
    force_lock_option,
    json_option,
    quiet_option,
    resource_options,
    split_store,
    verbose_option,
)
from fsmount.cli.common.output import (
    SOME_SKIPPED,
    counted,
    emit,
    list_problems,
    list_skipped,
    listing,
    say_path,
    size,
    warn,
)
from fsmount.cli.common.progress import meter
from fsmount.cli.common.stores import (
    check_apart,
    open_index,
    store_to_change,
    store_to_read,
    with_writable_store,
)
from fsmount.codec.images import jpeg
from fsmount.codec.png.png import NOT_A_PNG
from fsmount.errors import FsmountError
from fsmount.store.frames.jobs import LARGER
from fsmount.store.transfer.importing import Importer
from fsmount.store.transfer.missing import MissingCounter
from fsmount.store.transfer.patterns import Patterns
from fsmount.store.transfer.tree import Report, ignore, measure, source_of, target_of
from fsmount.store.writable_store import WritableStore

_HELP = f"""\
Copy files and folders into a store, without a mount. Uses all cores.

As with rsync, SOURCE appears under its own name, and SOURCE/ with a slash puts its contents into
the top folder. Files that the store has with the same size and time are skipped; to continue a
stopped import, run it again. A folder's differences (the `.jxl` files of "Losslessly
Compressing 25000 Images") are imported as whole PNGs.

Differences are ordered by the times in their names: by the digits if the names have no time
zone, by the instant if they have one. If this does not tell which picture a difference belongs
to, the difference is reported and left out.

Sources are only read, unless --delete-source is given. Then each file that was read back from
the store and compared is deleted. Folders stay. A run of differences is deleted only if the
pictures in the store give every one of its differences; otherwise all of the run stays.

{FILTER_HELP}

With --dry-run nothing is changed: the files that the store does not have are counted, and named
with -v.

\b
Examples:
  fsmount import ~/screenshots/ ~/shots.store
  fsmount import 2023 2024 ~/shots.store
  fsmount import --delete-source ~/screenshots.old/ ~/shots.store
  fsmount import --include '*/' --include '*.png' --exclude '*' ~/screenshots/ ~/shots.store
"""


_STOPPED = "What was imported stays in the store. To go on, run the import again."


@click.command("import", cls=FilteredCommand, help=_HELP)
@click.argument("paths", nargs=-1, metavar="SOURCE... STORE")
@click.option(
    "--delete-source",
    is_flag=True,
    help="Delete each file after it was read back from the store and compared.",
)
@click.option("--dry-run", is_flag=True, help="Count what is missing; change nothing.")
@filter_options
@verbose_option
@quiet_option
@force_lock_option
@resource_options
@json_option
def import_(
    paths: tuple[str, ...],
    delete_source: bool,
    dry_run: bool,
    verbose: bool,
    force_lock: bool,
    cache_size: int,
    as_json: bool,
) -> int:
    """Run ``fsmount import``."""
    path, names = split_store(paths, -1)
    sources = [(source_of(name), target_of(name)) for name in names]
    path = store_to_read(path) if dry_run else store_to_change(path)
    for source, _ in sources:
        check_apart(source, path)
        check_apart(path, source)

    wanted = chosen()
    report: Report = say_path if verbose and not as_json else ignore
    if dry_run:
        return _dry_run(path, sources, wanted, report, as_json)

    async def work(store: WritableStore) -> tuple[Importer, list[tuple[str, str]]]:
        files, total = measure(sources, wanted)
        with meter("importing", files, total, hidden=verbose, stopped=_STOPPED) as progress:
            importer = Importer(store, progress, delete=delete_source, report=report)
            for source, target in sources:
                await importer.add(source, target, wanted)
        return importer, _raw_pictures(store, importer.added)

    importer, raw = with_writable_store(path, work, cache_bytes=cache_size, force_lock=force_lock)
    # The size of a closed store is the one that `fsmount stats` shows.
    with open_index(path) as store:
        stats = store.stats()
    _report(importer, raw, stats, deleting=delete_source, as_json=as_json)
    if waiting := stats["objects"]["staged"]:
        raise FsmountError(
            f"{counted(waiting, 'file')} could not be encoded yet; the store keeps all that was"
            " imported. Is its disk full? Free space and run the import again. For details set"
            " FSMOUNT_LOG=FILE."
        )
    return SOME_SKIPPED if importer.summary.problems or raw else 0


def _dry_run(
    path: Path,
    sources: list[tuple[Path, bytes]],
    wanted: Patterns,
    report: Report,
    as_json: bool,
) -> int:
    """Count what the store does not have. Returns the exit code."""
    with open_index(path) as store:
        missing = MissingCounter(store, report)
        for source, target in sources:
            missing.add(source, target, wanted)
    found = missing.summary
    emit(
        {
            "files": found.files,
            "bytes": found.bytes,
            "skipped": found.skipped,
            "problems": found.problems,
            "dry_run": True,
        },
        f"{counted(found.files, 'file')} ({size(found.bytes)}) to import, {found.skipped} existed"
        " already; nothing was changed",
        as_json,
    )
    return list_skipped(found.problems, f"{len(found.problems)} would be left out:", as_json)


def _report(
    importer: Importer,
    raw: list[tuple[str, str]],
    stats: dict[str, Any],
    *,
    deleting: bool,
    as_json: bool,
) -> None:
    """Print the imported files, those stored raw, and those left out."""
    summary = importer.summary
    emit(
        {
            "files": summary.files,
            "bytes": summary.bytes,
            "skipped": summary.skipped,
            "problems": summary.problems,
            "deleted": importer.deleted,
            "raw": raw,
            "stats": stats,
        },
        f"{counted(summary.files, 'file')} imported ({size(summary.bytes)}),"
        f" {summary.skipped} existed already; the store holds"
        f" {size(stats['logical_bytes'])} in {size(stats['stored_bytes'])}"
        + (f"; {counted(importer.deleted, 'source')} deleted" if deleting else ""),
        as_json,
    )
    if as_json:
        return
    if raw:
        are = (
            "is stored as it is, because it"
            if len(raw) == 1
            else "are stored as they are, because they"
        )
        warn(f"{counted(len(raw), 'picture')} {are} cannot be re-created:")
        reasons = Counter(why for _, why in raw).most_common()
        listing([f"{count} x {why}" for why, count in reasons])
        list_problems(raw)
    if summary.problems:
        warn(f"{len(summary.problems)} left out:")
        list_problems(summary.problems)


def _raw_pictures(store: WritableStore, inodes: list[int]) -> list[tuple[str, str]]:
    """Return (path, reason) of the pictures among ``inodes`` that are stored raw."""
    no_png = (NOT_A_PNG, *jpeg.REASONS)
    found = []
    for ino in inodes:
        object_id = store.index.inode(ino).object_id
        body = None if object_id is None else store.index.object(object_id)
        # A picture that is smaller raw than encoded is no reason to warn.
        if body is None or body.kind != "raw" or body.reason == LARGER:
            continue
        path = os.fsdecode(store.index.path(ino))
        if body.reason not in no_png or path.lower().endswith(".png"):
            found.append((path, body.reason or ""))
    return found
