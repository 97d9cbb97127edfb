"""The command `fsmount check`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from fsmount.cli.common.options import force_lock_option, jobs_option, json_option, quiet_option
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
from fsmount.cli.common.stores import store_to_change, with_store, with_writable_store
from fsmount.cli.common.unlocking import UNLOCK_HELP, unlock, unlock_options
from fsmount.errors import Damaged, NotPushed, NotRepairable, Repaired, UsageError
from fsmount.remote.objects import Part, damaged_parts, last_state
from fsmount.remote.opening import open_remote
from fsmount.remote.transport import is_url
from fsmount.store.config import enter, is_store, writing
from fsmount.store.disk.disk import Disk
from fsmount.store.layout import Layout
from fsmount.store.lock import Lock
from fsmount.store.ownership import OwnedDisk, Ownership
from fsmount.store.read_store import ReadStore
from fsmount.store.recovery.check import Report, check_contents, check_relations
from fsmount.store.recovery.repair import Repairs, rebuild_index, repair_store
from fsmount.store.writable_store import WritableStore

_HELP = f"""\
Look for damage. Nothing is changed without --repair. Works beside a mount.

Without --full: compare index, packs and staged files with each other. With --full: rebuild every
file as a reader would get it, too. A damaged entry of a pack is one finding, which names all
files that need it. Exit codes: 0 no damage, 20 damage found, 3 some objects could not be rebuilt
because a package is not installed.

Notices name what other programs put into the folders of the store, and folders that are missing
because a copy left empty ones out. Notices are no damage and change no exit code.

--repair needs the store for itself. It replaces a damaged index by a new one, made from the copy
of the index and from the packs. It gives damaged packs their bytes back from their parity. Files
that are lost are listed in lost/ inside the store and lose their names, so that rsync or import
can bring them back. Exit codes: 0 nothing to repair, 21 repaired, 22 something is lost or still
damaged.

STORE may be a URL that fsmount push sends to. Then every object of the newest state is read, and
its hash compared; of those in cold storage only the size. To send damaged objects again:
fsmount push --reread.
{UNLOCK_HELP}

\b
Example:
  fsmount check ~/shots.store --full
  fsmount check ~/shots.store --repair
"""

_STOPPED = "Nothing was changed. The next check begins anew."
_REPAIR_STOPPED = "What is repaired stays. To go on, run the repair again."


@click.command(help=_HELP)
@click.argument("store", envvar="FSMOUNT_STORE")
@click.option("--full", is_flag=True, help="Rebuild every file and compare its hash (slow).")
@click.option("--repair", is_flag=True, help="Save what can be saved; implies --full.")
@jobs_option
@force_lock_option
@unlock_options
@quiet_option
@json_option
def check(store: str, full: bool, repair: bool, force_lock: bool, as_json: bool) -> int:
    """Run `fsmount check`. Returns the exit code. Raises UsageError and errors of opening."""
    if is_url(store):
        if repair or full or force_lock:
            raise UsageError("the check of a URL takes no --full, --repair or --force-lock")
        return _check_remote(store, as_json)
    path = Path(store)
    if repair:
        return _repair(path, force_lock, as_json)
    if force_lock:
        raise UsageError("--force-lock works with --repair only; other checks need no lock")

    async def work(opened: ReadStore) -> int:
        report = check_relations(opened)
        if full and report.readable:
            with meter("checking", report.objects, 0, noun="objects", stopped=_STOPPED) as progress:
                await check_contents(opened, report, lambda count: progress(count, 0))
        how = "rebuilt and compared" if full else "looked up; --full rebuilds them too"
        found = counted(len(report.findings), "finding") if report.findings else "no damage found"
        text = f"{counted(report.objects - report.elsewhere, 'object')} {how}: {found}"
        if report.elsewhere:
            text += f"; {report.elsewhere} not rebuilt, since packs are at {opened.away.url} only"
        _tell(_as_json(report, full), text, partial(_print_findings, report), report, as_json)
        if report.findings:
            return Damaged.exit_code
        return SOME_SKIPPED if report.unchecked else 0

    return with_store(path, work, packs="here")


def _check_remote(url: str, as_json: bool) -> int:
    """Run `fsmount check URL`. Returns the exit code."""
    remote = open_remote(url, unlock())
    state = last_state(remote)
    if state is None:
        raise NotPushed(url, reason="no store was pushed there. Check the URL")
    total = sum(part.length for part in state.parts())
    with meter("checking", 0, total, noun="objects", stopped=_STOPPED) as progress:
        archived: list[Part] = []
        found = damaged_parts(remote, state, progress, archived)
    data = {
        "generation": state.generation,
        "objects": len(state.parts()),
        "archived": len(archived),
        "findings": [{"what": what, "why": why} for what, why in found],
    }
    result = counted(len(found), "finding") if found else "no damage found"
    text = f"{counted(len(state.parts()) - len(archived), 'object')} read and compared"
    if archived:
        text += f", of {len(archived)} in cold storage the size"
    emit(data, f"{text}: {result}", as_json)
    if found and not as_json:
        list_problems(found)
    return Damaged.exit_code if found else 0


def _repair(path: Path, force_lock: bool, as_json: bool) -> int:
    """Run `fsmount check --repair`. Returns the exit code."""
    path = store_to_change(path)
    repairs = Repairs()
    if is_store(path):
        with writing(path):
            repairs = _rebuild(path, force_lock=force_lock)

    async def work(opened: WritableStore) -> int:
        with meter("repairing", 0, 0, noun="objects", stopped=_REPAIR_STOPPED) as progress:
            report = await repair_store(opened, repairs, lambda count: progress(count, 0))
        left = [finding.what for finding in report.findings]
        data = {**asdict(repairs), "left": left}
        text = _summary(repairs, left)
        _tell(data, text, partial(_print_repairs, repairs, left), report, as_json)
        if repairs.lost or left:
            return NotRepairable.exit_code
        return 0 if repairs.is_empty else Repaired.exit_code

    return with_writable_store(path, work)


def _rebuild(path: Path, *, force_lock: bool) -> Repairs:
    """Do the first step of a repair. It needs no readable index, and so no open store."""
    folder = enter(path)
    try:
        ownership = Ownership(Lock(Layout(folder.path).lock, force=force_lock))
        try:
            return rebuild_index(folder.path, OwnedDisk(Disk(), ownership))
        finally:
            ownership.release()
    finally:
        folder.close()


def _as_json(report: Report, full: bool) -> dict[str, Any]:
    return {
        "objects": report.objects,
        "full": full,
        "elsewhere": report.elsewhere,
        "findings": [finding._asdict() for finding in report.findings],
        "damaged_entries": len(report.damaged),
        "files_hit": len(report.hit),
        "unchecked": [unchecked._asdict() for unchecked in report.unchecked],
    }


def _summary(repairs: Repairs, left: Sequence[str]) -> str:
    if repairs.is_empty and not left:
        return "nothing to repair"
    index = "the index was made anew; " if repairs.rebuilt else ""
    packs = f"{counted(len(repairs.packs), 'pack')} healed by parity; " if repairs.packs else ""
    packs += f"parity of {counted(len(repairs.parity), 'pack')} made anew; " * bool(repairs.parity)
    return (
        f"{index}{packs}{counted(len(repairs.healed), 'object')} healed,"
        f" {counted(len(repairs.lost), 'file')} lost, {counted(len(left), 'finding')} left"
    )


def _tell(
    data: dict[str, Any],
    text: str,
    print_details: Callable[[], None],
    report: Report,
    as_json: bool,
) -> None:
    """Print a result: `data` as JSON, or `text` and details. Both forms have the notices."""
    emit({**data, "notices": [notice._asdict() for notice in report.notices]}, text, as_json)
    if as_json:
        return
    print_details()
    if report.unchecked:
        objects = counted(len(report.unchecked), "object")
        warn(f"{objects} could not be rebuilt here; that is no damage:")
        listing([f"  {why}: {', '.join(_printable(files))}" for why, files in report.unchecked])
    listing([f"notice: {printable(what, err=True)}: {why}" for what, why in report.notices])


def _print_findings(report: Report) -> None:
    if report.damaged:
        warn(f"damaged entries: {len(report.damaged)}; files that need them: {len(report.hit)}")
    for what, why, files in report.findings:
        warn(f"{what}: {why}")
        listing([f"  cannot be read: {name}" for name in _printable(files)])


def _print_repairs(repairs: Repairs, left: Sequence[str]) -> None:
    renamed, lost = _printable(repairs.renamed), _printable(repairs.lost)
    listing([f"  may have had a newer name: {name}" for name in renamed])
    listing([f"  lost: {name}" for name in lost])
    listing([f"  still damaged: {what}" for what in left])


def _printable(names: Sequence[str]) -> list[str]:
    return [printable(name, err=True) for name in names]
