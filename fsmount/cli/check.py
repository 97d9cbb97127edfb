"""fsmount check"""

from __future__ import annotations

from pathlib import Path

import click

from fsmount.cli.common import store_argument, with_store
from fsmount.cli.output import emit, json_option, listing, meter, warn
from fsmount.errors import Damaged
from fsmount.store.check import Report, check_contents, check_relations
from fsmount.store.store import Store


@click.command()
@store_argument
@click.option("--full", is_flag=True, help="Rebuild every file and compare its hash (slow).")
@json_option
def check(store: Path, full: bool, as_json: bool) -> int:
    """Look for damage. Nothing is changed. Works beside a mount.

    Without --full: index, packs and staged files against each other. With --full every object is
    rebuilt as a reader would get it.

    \b
    Example:
      fsmount check ~/shots.store --full
    """

    async def work(opened: Store) -> int:
        report = check_relations(opened)
        if full and report.readable:
            with meter("checking", report.objects, 0) as progress:
                await check_contents(opened, report, lambda count: progress(count, 0))
        _print(report, full, as_json)
        if report.findings:
            return Damaged.exit_code
        return 0

    return with_store(store, work)


def _print(report: Report, full: bool, as_json: bool) -> None:
    how = "rebuilt and compared" if full else "looked up; --full rebuilds them too"
    findings = [{"what": what, "why": why, "files": files} for what, why, files in report.findings]
    emit(
        {"objects": report.objects, "full": full, "findings": findings},
        f"{report.objects} objects {how}: "
        + (f"{len(findings)} findings" if findings else "no damage found"),
        as_json,
    )
    if as_json:
        return
    for what, why, files in report.findings:
        warn(f"{what}: {why}")
        listing([f"  cannot be read: {name}" for name in files])
