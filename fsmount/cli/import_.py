"""The command ``fsmount import``."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import click

from fsmount.cli.common.options import cache_option, force_lock_option, json_option, split_store
from fsmount.cli.common.output import SOME_SKIPPED, emit, list_problems, listing, size, warn
from fsmount.cli.common.progress import meter
from fsmount.cli.common.stores import check_apart, with_store
from fsmount.codec.images import jpeg
from fsmount.codec.png.png import NOT_A_PNG
from fsmount.errors import FsmountError
from fsmount.store.frames.jobs import LARGER
from fsmount.store.store import Store
from fsmount.store.transfer.importing import Importer
from fsmount.store.transfer.tree import measure, source_of, target_of

_HELP = """\
Copy files and folders into a store, without a mount, with all cores.

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

\b
Examples:
  fsmount import ~/screenshots/ ~/shots.store
  fsmount import 2023 2024 ~/shots.store
  fsmount import --delete-source ~/screenshots.old/ ~/shots.store
"""


@click.command("import", help=_HELP)
@click.argument("paths", nargs=-1, metavar="SOURCE... STORE")
@click.option(
    "--delete-source",
    is_flag=True,
    help="Delete each file after it was read back from the store and compared.",
)
@click.option("--dry-run", is_flag=True, help="Count what there is to import; change nothing.")
@force_lock_option
@cache_option
@json_option
def import_(
    paths: tuple[str, ...],
    delete_source: bool,
    dry_run: bool,
    force_lock: bool,
    cache_size: int,
    as_json: bool,
) -> int:
    """Run ``fsmount import``."""
    path, names = split_store(paths, -1)
    sources = [(source_of(name), target_of(name)) for name in names]
    for source, _ in sources:
        check_apart(source, path)
        check_apart(path, source)

    if dry_run:
        files, total = measure([source for source, _ in sources])
        emit(
            {"files": files, "bytes": total, "dry_run": True},
            f"{files} files ({size(total)}) to import; nothing was changed",
            as_json,
        )
        return 0

    async def work(store: Store) -> int:
        files, total = measure([source for source, _ in sources])
        with meter("importing", files, total) as progress:
            importer = Importer(store, progress, delete=delete_source)
            for source, target in sources:
                await importer.add(source, target)
        raw = _raw_pictures(store, importer.added)
        stats = store.stats()
        _report(importer, raw, stats, deleting=delete_source, as_json=as_json)
        if waiting := stats["objects"]["staged"]:
            raise FsmountError(
                f"{waiting} files are safe in the store, but could not be encoded. Is its disk"
                " full? Free space and run the import again. For details set FSMOUNT_LOG=FILE."
            )
        if importer.summary.problems or raw:
            return SOME_SKIPPED
        return 0

    return with_store(path, work, read_only=False, cache_bytes=cache_size, force_lock=force_lock)


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
        f"{summary.files} files imported ({size(summary.bytes)}), {summary.skipped} existed"
        f" already; the store holds {size(stats['logical_bytes'])} in"
        f" {size(stats['stored_bytes'])}"
        + (f"; {importer.deleted} sources deleted" if deleting else ""),
        as_json,
    )
    if as_json:
        return
    if raw:
        warn(f"{len(raw)} pictures are stored as they are, because they cannot be re-created:")
        reasons = Counter(why for _, why in raw).most_common()
        listing([f"{count} x {why}" for why, count in reasons])
        list_problems(raw)
    if summary.problems:
        warn(f"{len(summary.problems)} left out:")
        list_problems(summary.problems)


def _raw_pictures(store: Store, inodes: list[int]) -> list[tuple[str, str]]:
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
