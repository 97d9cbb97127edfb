"""The command ``fsmount stats``."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from fsmount.cli.common import growth_tables
from fsmount.cli.common.options import json_option, store_argument
from fsmount.cli.common.output import counted, emit, printable, size, times_smaller
from fsmount.cli.common.policies import policy_figures, policy_lines
from fsmount.cli.common.progress import meter
from fsmount.cli.common.stores import open_index, store_to_read
from fsmount.mount.session import LOG_NAME
from fsmount.store.files import StoreFiles
from fsmount.store.index import ROOT, Inode
from fsmount.store.maintenance.repack import reclaimable
from fsmount.store.pushed import Pushed, all_pushed
from fsmount.store.retention.growth import Growth, Unit, growth
from fsmount.store.transfer.tree import is_trash

_HELP = """\
Show the number and size of the files in a store, and its size. Works beside a mount.

Also tells what fsmount repack would give back: the bytes of deleted files, as far as the index
knows them. Coding pictures again may give more; fsmount repack --dry-run estimates how much.
Says what the policy of the store did last, and what it does next. Names the log of the mounts of
this store, unless FSMOUNT_LOG sent it elsewhere when they were mounted. After a push it tells what
came later and is only here; what a repack has moved counts as such until the next push.

--by adds a table: for each day, month, year or folder the pictures, their bytes, the bytes that
they take in the store, and how many times smaller that is; and a forecast of the growth. --top
names the pictures and folders that take most. The time of a picture is the one in its name, else
its time of last change. Of equal files the first counts. Deleted files that still take space, the
index and parity are not in the table. --new adds how much of the screens was new, which reads a
record for each picture.

\b
Examples:
  fsmount stats ~/shots.store --json
  fsmount stats ~/shots.store --by month --top 10
  fsmount stats ~/shots.store --by day --new --chart /tmp/growth.svg
"""


@click.command(help=_HELP)
@store_argument
@click.option("--by", type=click.Choice([unit.value for unit in Unit]), help="Add a table.")
@click.option("--top", type=click.IntRange(0), metavar="N", help="Name what takes most.")
@click.option("--new", is_flag=True, help="Tell how much of the screens was new.")
@click.option(
    "--chart",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the table into an SVG file.",
)
@json_option
def stats(
    store: Path, by: str | None, top: int | None, new: bool, chart: Path | None, as_json: bool
) -> None:
    """Run ``fsmount stats``."""
    unit = None if by is None else Unit(by)
    with open_index(store, packs="here") as opened:
        found = opened.stats()
        grown = None
        if unit is not None or top or chart is not None or new:
            grown = _growth(opened, unit or Unit.MONTH, top or 0, new, found["files"])
        trash = list(_trash(opened))
        dead = reclaimable(opened.index)
        policy = policy_figures(opened)
        pushed = [_pushed(opened, each) for each in all_pushed(opened.layout)]
        away = opened.away
    log = store_to_read(store) / LOG_NAME
    found |= {
        "reclaimable_bytes": dead,
        "trash_files": len(trash),
        "trash_bytes": sum(inode.size for inode in trash),
        "policy": policy,
        "pushed": pushed,
        "away": {"url": away.url, "packs": len(away.packs), "bytes": away.bytes}
        if away.packs
        else None,
        "log": str(log) if log.is_file() else None,
    }
    text = list(_lines(found))
    if grown is not None:
        unit = unit or (Unit.MONTH if chart is not None or new else None)
        found |= growth_tables.as_json(grown, unit or Unit.MONTH)
        text += growth_tables.lines(grown, unit)
    if grown is not None and chart is not None:
        title = f"{store.name} by {unit or Unit.MONTH}"
        chart.write_text(growth_tables.as_chart(grown, unit or Unit.MONTH, title))
    emit(found, "\n".join(text), as_json)


def _pushed(store: StoreFiles, pushed: Pushed) -> dict[str, Any]:
    """Return what the last push to a URL has, and what it lacks."""
    files, nbytes = store.index.beyond(pushed.packs)
    return {
        "url": pushed.url,
        "generation": pushed.generation,
        "time": pushed.time,
        "local_files": files,
        "local_bytes": nbytes,
    }


def _growth(store: StoreFiles, unit: Unit, top: int, with_new: bool, files: int) -> Growth:
    """Return the figures of all files, with a progress bar if that takes long."""
    with meter("reading", files, 0, hidden=not with_new) as progress:
        step = partial(progress, 1, 0)
        return growth(store, unit, top=top, with_new=with_new, progress=step)


def _lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the figures in words."""
    kinds, whole, stored = found["objects"], found["logical_bytes"], found["stored_bytes"]
    jpegs = f" {counted(kinds['jpeg'], 'JPEG')} as JPEG XL," if kinds["jpeg"] else ""
    yield (
        f"{counted(found['files'], 'file')}, {size(whole)} in {size(stored)}"
        f"{times_smaller(whole, stored)}"
    )
    yield (
        f"{counted(kinds['key'], 'keyframe')}, {counted(kinds['delta'], 'delta')},{jpegs}"
        f" {kinds['raw']} raw, {kinds['staged']} not encoded yet"
    )
    yield from (f"  raw: {count} x {reason}" for reason, count in found["raw_reasons"].items())
    if found["trash_files"]:
        files, count = counted(found["trash_files"], "file"), size(found["trash_bytes"])
        yield f"{files} ({count}) of them in the trash: deleted by a desktop, not yet removed"
    if found["deleted_files"]:
        files, count = counted(found["deleted_files"], "file"), size(found["deleted_bytes"])
        yield f"in the trash of the store, beside these: {files} ({count})"
    if found["reclaimable_bytes"]:
        yield (
            f"repack would give back {size(found['reclaimable_bytes'])} of deleted files, as far as"
            " the index knows; coding again may give more"
        )
    if found["policy"]:
        yield from policy_lines(found["policy"])
    if found["parity_bytes"]:
        yield f"parity of the packs: {size(found['parity_bytes'])}"
    for each in found["pushed"]:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(each["time"]))
        left = "all of it"
        if each["local_files"]:
            left = f"{counted(each['local_files'], 'file')} ({size(each['local_bytes'])}) only here"
        yield f"pushed to {printable(each['url'])} at {when}: {left}"
    if found["away"]:
        count, url = size(found["away"]["bytes"]), printable(found["away"]["url"])
        yield f"only at {url}, beside these: {counted(found['away']['packs'], 'pack')} ({count})"
    if found["log"]:
        yield f"log of its mounts: {printable(found['log'])}"


def _trash(store: StoreFiles) -> Iterator[Inode]:
    """Yield the files in the trash folders of desktops, which lie at the top of a mount."""
    for name, inode in store.index.by_name(ROOT):
        if is_trash(name) and stat.S_ISDIR(inode.mode):
            for _, entry in store.index.walk(inode.ino):
                if stat.S_ISREG(entry.mode):
                    yield entry
