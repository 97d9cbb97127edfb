"""The command ``fsmount repack``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from fsmount.cli.common.options import (
    cache_option,
    force_lock_option,
    json_option,
    quiet_option,
    store_argument,
)
from fsmount.cli.common.output import counted, emit, list_problems, size, warn
from fsmount.cli.common.progress import meter
from fsmount.cli.common.stores import open_index, store_to_change, with_writable_store
from fsmount.errors import Damaged, DiskFull
from fsmount.store.maintenance.repack import RepackSummary
from fsmount.store.transfer.tree import NO_SPACE
from fsmount.store.writable_store import WritableStore

_HELP = """\
Make a store smaller: drop deleted files, code pictures again.

Drops the entries of deleted files, and encodes pictures again with more effort. Takes up to
seconds a picture and uses all cores. It may be stopped at any time; the next run continues. Every
file is rebuilt from its new form and compared before the old form is deleted. Needs free space
for a pack or two (64 MiB each); on a full disk it first reclaims the space of deleted files. The
store must not be mounted for writing.

\b
Example:
  fsmount repack ~/shots.store
"""

_STOPPED = "What is done stays. To go on, run the repack again."


@click.command(help=_HELP)
@store_argument
@force_lock_option
@cache_option
@quiet_option
@json_option
def repack(store: Path, force_lock: bool, cache_size: int, as_json: bool) -> int:
    """Run ``fsmount repack``."""
    store_to_change(store)

    async def work(opened: WritableStore) -> tuple[RepackSummary, list[tuple[str, str]]]:
        try:
            objects = opened.repack_size()
            with meter("repacking", objects, 0, noun="objects", stopped=_STOPPED) as progress:
                summary = await opened.repack(lambda count: progress(count, 0))
        except OSError as error:
            if error.errno in NO_SPACE:
                raise DiskFull(store) from error
            raise
        left = [
            (os.fsdecode(name), why)
            for number, why in summary.problems
            for name in opened.index.names_of(number) or [b"object %d" % number]
        ]
        return summary, left

    before = _stored_bytes(store)
    summary, left = with_writable_store(store, work, cache_bytes=cache_size, force_lock=force_lock)
    after = _stored_bytes(store)
    emit(
        {
            "dropped": summary.dropped,
            "moved": summary.moved,
            "smaller": summary.smaller,
            "bytes_before": before,
            "bytes_after": after,
            "problems": left,
        },
        f"{size(before)} before, {size(after)} now: {summary.smaller} of"
        f" {counted(summary.moved, 'object')} made smaller,"
        f" {counted(summary.dropped, 'unreferenced object')} dropped",
        as_json,
    )
    if left and not as_json:
        warn(f"{len(left)} could not be verified, unchanged; see fsmount check --full")
        list_problems(left)
    return Damaged.exit_code if left else 0


def _stored_bytes(path: Path) -> int:
    """Return the size of a closed store, as `fsmount stats` shows it."""
    with open_index(path) as store:
        return int(store.stats()["stored_bytes"])
