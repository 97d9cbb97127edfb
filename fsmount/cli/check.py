"""fsmount check"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from fsmount.cli.common.options import force_lock_option, json_option, store_argument
from fsmount.cli.common.output import SOME_SKIPPED, counted, emit, listing, printable, warn
from fsmount.cli.common.progress import meter
from fsmount.cli.common.stores import with_store
from fsmount.errors import Damaged, NotRepairable, Repaired, UsageError
from fsmount.store.check import Report, check_contents, check_relations
from fsmount.store.config import enter, is_store, writing
from fsmount.store.disk.disk import Disk
from fsmount.store.layout import Layout
from fsmount.store.lock import Lock
from fsmount.store.mending import mend
from fsmount.store.ownership import OwnedDisk, Ownership
from fsmount.store.repair import Repairs, rebuild_index
from fsmount.store.store import Store

_HELP = """\
Look for damage. Nothing is changed without --repair. Works beside a mount.

Without --full: index, packs and staged files against each other. With --full every object is
rebuilt as a reader would get it; a damaged entry is one finding, with the names of all files
that need it. Exit codes: 0 whole, 20 damage found, 3 some objects could not
be rebuilt because a package is not installed.

What other programs put into the folders of the store, and folders that a copy has left out
because they were empty, are told as notices. They are no damage and change no exit code.

--repair needs the store for itself. It makes a damaged index anew from its copy and the packs,
gives entries that are kept twice their bytes back, and removes the names of files that are
lost, so that rsync or import can bring them back; they are listed in lost/ inside the store.
Exit codes: 0 nothing to do, 21 repaired, 22 something is lost or still damaged.

\b
Example:
  fsmount check ~/shots.store --full
  fsmount check ~/shots.store --repair
"""


@click.command(help=_HELP)
@store_argument
@click.option("--full", is_flag=True, help="Rebuild every file and compare its hash (slow).")
@click.option("--repair", is_flag=True, help="Save what can be saved; implies --full.")
@force_lock_option
@json_option
def check(store: Path, full: bool, repair: bool, force_lock: bool, as_json: bool) -> int:
    """``fsmount check``."""
    if repair:
        return _repair(store, force_lock, as_json)
    if force_lock:
        raise UsageError("--force-lock is for --repair; to look takes no lock")

    async def work(opened: Store) -> int:
        report = check_relations(opened)
        if full and report.readable:
            with meter("checking", report.objects, 0) as progress:
                await check_contents(opened, report, lambda count: progress(count, 0))
        _print(report, full, as_json)
        if report.findings:
            return Damaged.exit_code
        return SOME_SKIPPED if report.unchecked else 0

    return with_store(store, work)


def _repair(path: Path, force_lock: bool, as_json: bool) -> int:
    repairs = Repairs()
    if is_store(path):
        with writing(path):
            _rebuild(path, repairs, force_lock=force_lock)

    async def work(opened: Store) -> int:
        with meter("repairing", 0, 0) as progress:
            report = await mend(opened, repairs, lambda count: progress(count, 0))
        left = [what for what, _, _ in report.findings]
        done = bool(repairs.rebuilt or repairs.healed or repairs.renamed)
        code = NotRepairable if repairs.lost or left else Repaired
        emit(
            {**asdict(repairs), "left": left, "notices": _notices(report)},
            "nothing to repair" if not (done or repairs.lost or left) else _told(repairs, left),
            as_json,
        )
        if not as_json:
            renamed, lost = map(_printable, (repairs.renamed, repairs.lost))
            listing([f"  may have had a newer name: {name}" for name in renamed])
            listing([f"  lost: {name}" for name in lost])
            listing([f"  still damaged: {what}" for what in left])
            _print_unchecked(report)
            _print_notices(report)
        return code.exit_code if done or repairs.lost or left else 0

    return with_store(path, work, read_only=False)


def _rebuild(path: Path, repairs: Repairs, *, force_lock: bool) -> None:
    """The first step of a repair, which needs no index that can be read."""
    folder = enter(path)
    try:
        ownership = Ownership(Lock(Layout(folder.path).lock, force=force_lock))
        try:
            rebuild_index(folder.path, OwnedDisk(Disk(), ownership), repairs)
        finally:
            ownership.release()
    finally:
        folder.close()


def _told(repairs: Repairs, left: list[str]) -> str:
    index = "the index was made anew; " if repairs.rebuilt else ""
    return (
        f"{index}{counted(len(repairs.healed), 'object')} healed,"
        f" {counted(len(repairs.lost), 'file')} lost, {counted(len(left), 'finding')} left"
    )


def _print(report: Report, full: bool, as_json: bool) -> None:
    how = "rebuilt and compared" if full else "looked up; --full rebuilds them too"
    findings = [{"what": what, "why": why, "files": files} for what, why, files in report.findings]
    unchecked = [{"why": why, "files": files} for why, files in report.unchecked]
    emit(
        {
            "objects": report.objects,
            "full": full,
            "findings": findings,
            "damaged_entries": len(report.damaged),
            "files_hit": len(report.hit),
            "unchecked": unchecked,
            "notices": _notices(report),
        },
        f"{counted(report.objects, 'object')} {how}: "
        + (counted(len(findings), "finding") if findings else "no damage found"),
        as_json,
    )
    if as_json:
        return
    if report.damaged:
        many = len(report.damaged) > 1
        entries, verb = ("entries", "need them") if many else ("entry", "need it")
        if len(report.hit) == 1:
            verb = verb.replace("need", "needs")
        warn(f"{len(report.damaged)} damaged {entries}; {counted(len(report.hit), 'file')} {verb}")
    for what, why, files in report.findings:
        warn(f"{what}: {why}")
        listing([f"  cannot be read: {name}" for name in _printable(files)])
    _print_unchecked(report)
    _print_notices(report)


def _printable(names: Sequence[str]) -> list[str]:
    return [printable(name, err=True) for name in names]


def _print_unchecked(report: Report) -> None:
    if report.unchecked:
        objects = counted(len(report.unchecked), "object")
        warn(f"{objects} could not be rebuilt here; that is no damage:")
        listing([f"  {why}: {', '.join(_printable(files))}" for why, files in report.unchecked])


def _notices(report: Report) -> list[dict[str, str]]:
    return [{"what": what, "why": why} for what, why in report.notices]


def _print_notices(report: Report) -> None:
    listing([f"notice: {printable(what, err=True)}: {why}" for what, why in report.notices])
