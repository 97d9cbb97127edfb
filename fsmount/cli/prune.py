"""The command ``fsmount prune``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

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
from fsmount.cli.common.output import SOME_SKIPPED, counted, emit, say_path, size, warn
from fsmount.cli.common.policies import policy_of
from fsmount.cli.common.progress import clock
from fsmount.cli.common.rules import RULES_HELP, confirm, rule_options, rules_of
from fsmount.cli.common.stores import (
    store_to_change,
    store_to_read,
    with_store,
    with_writable_store,
)
from fsmount.cli.common.times import TIME_HELP
from fsmount.cli.common.words import wipe_words
from fsmount.errors import FsmountError, UsageError
from fsmount.store import config
from fsmount.store.files import StoreFiles
from fsmount.store.maintenance.forecast import SECONDS
from fsmount.store.maintenance.trimming import Trimming, find_hidden, forecast
from fsmount.store.read_store import ReadStore
from fsmount.store.retention.limits import TrashLimits
from fsmount.store.retention.pictures import KeptList
from fsmount.store.retention.pruning import Plan, plan
from fsmount.store.retention.rules import Rules
from fsmount.store.retention.trash import Name
from fsmount.store.transfer.selecting import Selection, prunable
from fsmount.store.writable_store import WritableStore

_HELP = f"""\
Thin out the pictures of a store by rules.

{RULES_HELP}

Rules count in each series of pictures: those of one folder. Folders whose names are dates or two
digits (2024, 2024-06, 2024-06-06, 06) count as the folder that they lie in. With PATHs, or with
options that choose files, only these files are looked at; all others stay. Files that are no
pictures stay unless you say --all-files.

A file with the attribute user.fsmount.keep (setfattr -n user.fsmount.keep -v 1 FILE, in a mount)
always stays, as does one that --keep-list names: a name or a path from the top of the store on
each line.

What goes rests in the trash of the store first, for 30 days unless fsmount trash limit says
something else, and fsmount trash restore brings it back. The space comes back when it leaves the
trash; on a full disk at once. --no-trash leaves the trash out. The words of what goes are wiped out
of the database of fsmount text at once. --dry-run prints what would go and what that frees, and
changes nothing. Without --yes the command asks first.

{FILTER_HELP}

{TIME_HELP}

{CHANGED_HELP}

The store must not be mounted for writing; for --dry-run it may be.

\b
Examples:
  fsmount prune --dry-run --keep-within 30d --keep-hourly 1y --keep-daily forever ~/shots.store
  fsmount prune --yes --keep-within 30d --drop-idle ~/shots.store
  fsmount prune --yes --keep-last 1000 --keep-monthly forever --budget 50G ~/shots.store desk
"""


@dataclass(frozen=True)
class _Request:
    """What the user asked for."""

    paths: list[bytes]
    rules: Rules
    kept: KeptList
    selection: Selection
    all_files: bool

    def plan(self, store: StoreFiles) -> Plan:
        """Plan the prune. Reads all rows."""
        walk = prunable(store, self.paths, self.selection.of(store), all_files=self.all_files)
        percent = config.parity_of(config.read(store.layout.root))
        return plan(store.index, walk, self.rules, self.kept, percent)


@click.command(cls=FilteredCommand, help=_HELP)
@click.argument("arguments", nargs=-1, metavar="STORE [PATH]...")
@rule_options
@click.option(
    "--keep-list",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep files whose names or paths are lines of FILE.",
)
@click.option("--policy", is_flag=True, help="Use the rules of the policy of the store.")
@click.option("--all-files", is_flag=True, help="Look at all files, not only at pictures.")
@click.option("--no-trash", is_flag=True, help="Free the space at once. There is no way back.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would go; change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@selection_options
@force_lock_option
@verbose_option
@quiet_option
@json_option
def prune(
    arguments: tuple[str, ...],
    keep_list: Path | None,
    policy: bool,
    all_files: bool,
    no_trash: bool,
    dry_run: bool,
    yes: bool,
    force_lock: bool,
    verbose: bool,
    as_json: bool,
    **rules: Any,
) -> int:
    """Run ``fsmount prune``."""
    store, paths = split_store(arguments, 0, fewest=0)
    request = _Request(
        [os.fsencode(path).strip(b"/") for path in paths] or [b""],
        _rules(store, rules_of(rules), policy),
        KeptList() if keep_list is None else KeptList.read(keep_list),
        selected(),
        all_files,
    )
    name_each = verbose and not as_json
    if not dry_run:
        store_to_change(store)
    if dry_run or not yes:
        found = with_store(store, lambda opened: _forecast(opened, request))
        if dry_run and name_each:
            for path in found.names:
                say_path(path)
        _tell(found, no_trash=no_trash, as_json=as_json and dry_run)
        if dry_run:
            return _code(found.plan)
        if found.plan.count:
            confirm(f"Remove {counted(found.plan.count, _noun(request))}?", yes=yes)

    async def work(opened: WritableStore) -> Plan:
        await opened.drain()
        found = request.plan(opened)
        began_ns = time.time_ns()
        await opened.prune(_reported(found, name_each))
        if no_trash:
            entries = [entry for entry, _ in opened.index.in_trash()]
            names = [entry.name for entry in entries if entry.deleted_ns >= began_ns]
            await opened.trash.remove(names)
            await opened.let_expire()
            await opened.give_back()
        elif await opened.let_expire():
            await opened.give_back()
        await wipe_words(opened)
        return found

    done = with_writable_store(store, work, force_lock=force_lock)
    _tell(_Forecast(done, None, _days(store)), no_trash=no_trash, as_json=as_json)
    return _code(done)


@dataclass(frozen=True)
class _Forecast:
    """A plan, the bytes that it frees (None: unknown), and the days that pruned files stay.

    `names` has the paths of the files that go, if the plan is not carried out.
    """

    plan: Plan
    freed_bytes: int | None
    days: int | None
    names: tuple[bytes, ...] = ()


async def _forecast(store: ReadStore, request: _Request) -> _Forecast:
    """Make the plan, and say what it frees."""
    found = request.plan(store)
    stays = ~found.gone
    trimming = Trimming(store.layout, store.index, store.workers, store.count)
    hidden = find_hidden(store.index, found.objects, found.shown & stays, stays)
    with clock("sampling", SECONDS, noun="objects", stopped="Nothing was changed."):
        trimmed = await forecast(trimming, store.index, hidden, SECONDS)
    names = tuple(each.path for each in found.names())
    return _Forecast(found, found.freed_bytes(trimmed), _days(store.path), names)


def _rules(store: Path, given: Rules, policy: bool) -> Rules:
    """Return the rules of the options, or of the policy of the store if the user asks for it."""
    if not policy:
        return given
    if given:
        raise UsageError("--policy takes the rules of the store; leave the others out")
    found = policy_of(store_to_read(store))
    if found is None:
        raise FsmountError(f"{store} has no policy; fsmount policy set makes one")
    return found.rules


def _noun(request: _Request) -> str:
    return "file" if request.all_files else "picture"


def _reported(found: Plan, name_each: bool) -> Iterator[Name]:
    """Yield what goes."""
    for each in found.names():
        if name_each:
            say_path(each.path)
        yield each


def _days(store: Path) -> int | None:
    """Return how many days pruned files stay in the trash; None: without an end."""
    return TrashLimits.of(config.read(store_to_read(store))).days


def _code(found: Plan) -> int:
    """Warn if the budget is not met. Returns the exit code."""
    if not found.is_over_budget:
        return 0
    warn(
        f"what the rules keep takes {size(found.left_bytes)}, more than the budget of"
        f" {size(found.budget or 0)}; loosen the rules, or give more"
    )
    return SOME_SKIPPED


def _tell(found: _Forecast, *, no_trash: bool, as_json: bool) -> None:
    """Print what goes and what stays."""
    plan_ = found.plan
    days = 0 if no_trash else found.days
    data = {
        "files": plan_.files,
        "dropped": plan_.count,
        "dropped_bytes": plan_.dropped_bytes,
        "freed_bytes": found.freed_bytes,
        "left_bytes": plan_.left_bytes,
        "budget": plan_.budget,
        "over_budget": plan_.is_over_budget,
        "months_left": None if plan_.months_left is None else round(plan_.months_left, 1),
        "trash_days": days,
        "dry_run": found.freed_bytes is not None,
    }
    emit(data, "\n".join(_lines(found, days)), as_json)


def _lines(found: _Forecast, days: int | None) -> Iterator[str]:
    """Yield the table, and what it means."""
    plan_ = found.plan
    go = "went" if found.freed_bytes is None else "would go"
    stay_bytes = plan_.file_bytes - plan_.dropped_bytes
    yield f"{'':<10}{'files':>12}{'bytes':>12}"
    yield f"{'looked at':<10}{plan_.files:>12,}{size(plan_.file_bytes):>12}"
    yield f"{go:<10}{plan_.count:>12,}{size(plan_.dropped_bytes):>12}"
    yield f"{'stay':<10}{plan_.files - plan_.count:>12,}{size(stay_bytes):>12}"
    when = {0: "at once", None: "when you empty the trash"}.get(
        days, f"when it leaves the trash, after {days} days"
    )
    if plan_.count and found.freed_bytes is not None and found.freed_bytes <= 0:
        # What others need moves to a pack of its own, and this pack gets parity.
        yield "frees nothing: the store is too small, or others need what goes"
    elif plan_.count and found.freed_bytes is not None:
        yield f"frees {size(found.freed_bytes)} of the store, {when}"
    elif plan_.count:
        yield f"the space comes back {when}"
    if plan_.budget is not None and plan_.months_left is not None:
        budget = size(plan_.budget)
        yield f"about {plan_.months_left:.0f} months until the budget of {budget} is full"
