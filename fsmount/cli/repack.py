"""The command ``fsmount repack``."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import click

from fsmount.cli.common.options import (
    force_lock_option,
    json_option,
    quiet_option,
    resource_options,
    store_argument,
)
from fsmount.cli.common.output import counted, duration, emit, is_quiet, list_problems, size, warn
from fsmount.cli.common.progress import clock, meter
from fsmount.cli.common.stores import (
    open_index,
    store_to_change,
    store_to_read,
    with_store,
    with_writable_store,
)
from fsmount.errors import Damaged
from fsmount.store.layout import Layout
from fsmount.store.maintenance.forecast import SECONDS, Forecast, forecast
from fsmount.store.maintenance.repack import RepackSummary
from fsmount.store.read_store import ReadStore
from fsmount.store.statistics import closed_bytes
from fsmount.store.transfer.tree import naming_full_disk
from fsmount.store.writable_store import WritableStore

_HELP = """\
Make a store smaller: drop deleted files, code pictures again.

Drops the entries of deleted files, and encodes pictures again with more effort. Takes up to
seconds a picture and uses all cores. It may be stopped at any time; the next run continues. Every
file is rebuilt from its new form and compared before the old form is deleted. A pack that would
not get smaller stays as it is, so the store never gets larger.

First says what to expect: bytes of deleted files that come back for certain, an estimate of what
encoding again saves, from a sample of a few seconds, and the time and the free space that it
needs. With --dry-run that is all, and nothing is changed. On a full disk a repack first reclaims
the space of deleted files. The store must not be mounted for writing; for --dry-run it may be.

\b
Examples:
  fsmount repack --dry-run ~/shots.store
  fsmount repack ~/shots.store
"""

_STOPPED = "What is done stays. To go on, run the repack again."
_NOTHING_DONE = "Nothing was changed."


@click.command(help=_HELP)
@store_argument
@click.option("-n", "--dry-run", is_flag=True, help="Say what to expect; change nothing.")
@force_lock_option
@resource_options
@quiet_option
@json_option
def repack(store: Path, dry_run: bool, force_lock: bool, cache_size: int, as_json: bool) -> int:
    """Run ``fsmount repack``."""
    if dry_run:
        return _dry_run(store_to_read(store), cache_size, as_json)
    store_to_change(store)
    expected: list[Forecast] = []

    async def work(opened: WritableStore) -> tuple[RepackSummary, list[tuple[str, str]]]:
        if not is_quiet():
            expected.append(await _forecast(opened))
            if not as_json:
                with suppress(BrokenPipeError):
                    emit({}, _text(expected[0]), as_json)
        known = expected[0].entries if expected else {}
        with naming_full_disk(store):
            objects = opened.repack_size()
            with meter("repacking", objects, 0, noun="objects", stopped=_STOPPED) as progress:
                summary = await opened.repack(lambda count: progress(count, 0), known)
        left = [
            (os.fsdecode(name), why)
            for number, why in summary.problems
            for name in opened.index.names_of(number) or [b"object %d" % number]
        ]
        return summary, left

    with open_index(store) as closed:
        before = int(closed.stats()["stored_bytes"])
    summary, left = with_writable_store(store, work, cache_bytes=cache_size, force_lock=force_lock)
    after = closed_bytes(Layout(store))
    emit(
        {
            "dropped": summary.dropped,
            "moved": summary.moved,
            "smaller": summary.smaller,
            "bytes_before": before,
            "bytes_after": after,
            "problems": left,
            "expected": _data(expected[0]) if expected else None,
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


def _dry_run(store: Path, cache_size: int, as_json: bool) -> int:
    """Print the forecast. Returns the exit code."""
    found = with_store(store, _forecast, cache_bytes=cache_size)
    emit(
        {**_data(found), "dry_run": True},
        f"{_text(found)}\n{_NOTHING_DONE.lower().removesuffix('.')}",
        as_json,
    )
    return 0


async def _forecast(store: ReadStore) -> Forecast:
    """Make the forecast, with a progress bar."""
    with clock("sampling", SECONDS, noun="objects", stopped=_NOTHING_DONE) as progress:
        return await forecast(store, SECONDS, lambda count: progress(count, 0))


def _data(found: Forecast) -> dict[str, object]:
    """Return the forecast for JSON."""
    return {
        "packs": found.packs,
        "objects": found.objects,
        "bytes": found.bytes,
        "dead_bytes": found.dead_bytes,
        "pictures": found.pictures,
        "sampled": found.sampled,
        "saved_bytes": found.saved_bytes,
        "saved_bytes_low": found.low,
        "saved_bytes_high": found.high,
        "seconds": round(found.seconds, 1),
        "space_bytes": found.space_bytes,
        "free_bytes": found.free_bytes,
    }


def _text(found: Forecast) -> str:
    """Return the forecast in words."""
    if not found.packs and not found.dead_bytes:
        return "there is nothing to repack"
    lines = [
        f"to examine: {counted(found.objects, 'object')} in {counted(found.packs, 'pack')} of"
        f" {size(found.bytes)}",
        f"comes back for certain: {size(found.dead_bytes)} that no file needs",
    ]
    if found.pictures:
        lines.append(
            f"encoding again: about {size(found.saved_bytes)} less (between {size(found.low)} and"
            f" {size(found.high)}), an estimate from {found.sampled} of"
            f" {counted(found.pictures, 'picture')}"
        )
    lines.append(
        f"needs about {duration(found.seconds)}, and at most {size(found.space_bytes)} of"
        f" {size(found.free_bytes)} free space"
    )
    return "\n".join(lines)
