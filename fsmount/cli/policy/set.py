"""The command ``fsmount policy set``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fsmount.cli.common.options import (
    force_lock_option,
    json_option,
    quiet_option,
    store_argument,
)
from fsmount.cli.common.output import emit
from fsmount.cli.common.rules import RULES_HELP, rule_options, rules_of
from fsmount.cli.common.stores import with_writable_store
from fsmount.errors import UsageError
from fsmount.store import config
from fsmount.store.retention.policy import EVERY_HOURS, KEY, Policy
from fsmount.store.writable_store import WritableStore

_HELP = f"""\
Set the rules by which a mount prunes its store.

They replace the rules that were set before. Nothing is pruned now: fsmount prune --policy does
that, or a mount with -o prune. The store must not be mounted for writing.

{RULES_HELP}

\b
Examples:
  fsmount policy set --keep-within 30d --keep-hourly 1y --keep-daily forever ~/shots.store
  fsmount policy set --budget 50G --keep-within 30d --every-hours 168 ~/shots.store
"""


@click.command("set", help=_HELP)
@store_argument
@rule_options
@click.option(
    "--every-hours",
    type=click.IntRange(1),
    default=EVERY_HOURS,
    help="Hours between two runs at least; 24 by default.",
)
@force_lock_option
@quiet_option
@json_option
def set_(store: Path, every_hours: int, force_lock: bool, as_json: bool, **rules: Any) -> None:
    """Run ``fsmount policy set``."""
    wanted = Policy(rules_of(rules), every_hours)
    if not wanted.rules:
        raise UsageError("name at least one rule; fsmount policy clear removes the policy")

    async def work(opened: WritableStore) -> None:
        config.change(opened.layout, opened.disk, **{KEY: wanted.value()})

    with_writable_store(store, work, force_lock=force_lock, packs="here")
    emit(wanted.value(), f"policy: {wanted.rules}", as_json)
