"""The command ``fsmount thaw``."""

from __future__ import annotations

import os
from dataclasses import asdict

import click

from fsmount.cli.common.options import quiet_option
from fsmount.cli.common.output import counted, emit, is_quiet, printable, say, size, warn
from fsmount.cli.common.progress import meter
from fsmount.cli.common.rules import confirm
from fsmount.cli.common.unlocking import UNLOCK_HELP, unlock, unlock_options
from fsmount.errors import NotPushed, UsageError
from fsmount.remote.names import remote_names
from fsmount.remote.objects import Part, last_state
from fsmount.remote.opening import open_remote
from fsmount.remote.thawing import (
    PRICES_OF,
    TIERS,
    ThawPlan,
    all_parts,
    parts_of,
    plan,
    thaw,
    wait,
)
from fsmount.remote.transport import Transport

_HELP = f"""\
Make archived pictures readable again for some days.

fsmount push --class sends packs to cold storage (GLACIER, DEEP_ARCHIVE). This restores those that
the named files and folders need, or all (--all). It names the packs, the hours and the price first,
and asks; --yes does not ask. The price is an estimate: by Amazon's list prices of us-east-1 of
{PRICES_OF}, without the transfer. --wait ends when all can be read; without it, run the command
again to see how it stands. Needs the extra glacier.

The tier bulk takes up to 12 hours (48 in DEEP_ARCHIVE), standard up to 5 (12), expedited minutes
(GLACIER only). Restored copies go after --days, and cost as in the class STANDARD until then.

{UNLOCK_HELP}

\b
Examples:
  fsmount thaw s3://my-bucket/shots desk --dry-run
  fsmount thaw s3://my-bucket/shots --all --tier bulk --days 14 --yes
"""
_STOPPED = "What was asked for goes on at the server. Run the command again to see how it stands."


@click.command("thaw", help=_HELP)
@click.argument("url", metavar="URL", type=click.Path())
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--all", "everything", is_flag=True, help="Restore all packs.")
@click.option(
    "--tier", type=click.Choice(TIERS), default="bulk", help="How quick: by default bulk."
)
@click.option("--days", type=click.IntRange(min=1), default=7, help="For how long; 7 by default.")
@click.option("--wait", "waits", is_flag=True, help="Wait until all can be read.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("-n", "--dry-run", is_flag=True, help="Only tell what it takes.")
@unlock_options
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of words.")
def thaw_(
    url: str,
    paths: tuple[str, ...],
    everything: bool,
    tier: str,
    days: int,
    waits: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run ``fsmount thaw``."""
    if everything == bool(paths):
        raise UsageError("name files or folders in the store, or say --all")
    # boto3 is an extra, and takes long to load.
    from fsmount.remote.glacier import Glacier

    archive = Glacier(url)
    remote = open_remote(url, unlock())
    parts = _parts(remote, paths)
    with meter("asking", len(parts), 0, noun="packs") as progress:
        todo = plan(remote, archive, parts, tier, days, progress)
    if not as_json and not is_quiet():
        for name, count, kind in todo.archived:
            say(f"{printable(name)}  {size(count)}  {kind}")
    text = _told(todo, tier, days)
    if todo.archived and not dry_run:
        if not yes and not as_json:
            warn(text)
        confirm("Restore them?", yes=yes)
        with meter("restoring", len(todo.archived), 0, noun="packs", stopped=_STOPPED) as progress:
            thaw(archive, todo, tier, days, progress)
    if waits and todo.waited_for and not dry_run:
        count = len(todo.waited_for)
        with meter("waiting for", count, 0, noun="packs", stopped=_STOPPED) as progress:
            wait(archive, todo, progress)
        text += "; all can be read now"
    data = {"bytes": todo.bytes, "prices_of": PRICES_OF, "dry_run": dry_run}
    emit(asdict(todo) | data, text, as_json)


def _parts(remote: Transport, paths: tuple[str, ...]) -> list[Part]:
    """The objects of packs that some files need; of all files if none is named."""
    state = last_state(remote)
    if state is None:
        raise NotPushed(remote.url, reason="no store was pushed there. Check the URL")
    if not paths:
        return all_parts(state)
    with remote_names(remote) as opened:
        return parts_of(opened, state, [os.fsencode(path).strip(b"/") for path in paths])


def _told(todo: ThawPlan, tier: str, days: int) -> str:
    """Say in words what it takes."""
    ready = f"{counted(todo.restored + todo.hot, 'pack')} can be read"
    if not todo.waited_for:
        return ready
    hours = f"up to {todo.hours:g} hours"
    text = f"{counted(len(todo.archived), 'pack')} ({size(todo.bytes)}) in cold storage"
    if todo.archived:
        text += f": {hours} (tier {tier}), about ${todo.dollars:.2f} for {days} days"
        text += f" (an estimate, by Amazon's list prices of {PRICES_OF})"
    if todo.under_way:
        text += f"; {counted(todo.under_way, 'pack')} under way"
    return f"{text}; {ready}"
