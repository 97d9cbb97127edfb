"""The command ``fsmount trash limit``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fsmount.cli.common.options import (
    Size,
    force_lock_option,
    json_option,
    quiet_option,
    store_argument,
)
from fsmount.cli.common.output import emit, size
from fsmount.cli.common.stores import open_index, with_writable_store
from fsmount.cli.common.words import wipe_words
from fsmount.store import config
from fsmount.store.retention.limits import KEY, TrashLimits
from fsmount.store.writable_store import WritableStore

_HELP = """\
Show or set what the trash of a store keeps.

The limits are days and bytes. They stand in fsmount.json of the store. A file leaves the trash as
soon as one of them says so, the oldest first. --days 0 is no trash: what is pruned goes at once.

\b
Examples:
  fsmount trash limit ~/shots.store
  fsmount trash limit --days 7 --size 5G ~/shots.store
"""


class _Unlimited(click.ParamType):  # type: ignore[type-arg]
    """A value of another type, or none; "none" becomes -1."""

    def __init__(self, kind: click.ParamType) -> None:  # type: ignore[type-arg]
        self._kind = kind
        self.name = kind.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value; fail if it is malformed."""
        return -1 if value in ("none", -1) else self._kind.convert(value, param, ctx)


@click.command("limit", help=_HELP)
@store_argument
@click.option("--days", type=_Unlimited(click.IntRange(0)), help="Days, or none for no end.")
@click.option("--size", "most", type=_Unlimited(Size()), help="Bytes, as 5G, or none for no end.")
@force_lock_option
@quiet_option
@json_option
def limit(store: Path, days: int | None, most: int | None, force_lock: bool, as_json: bool) -> None:
    """Run ``fsmount trash limit``."""

    async def work(opened: WritableStore) -> None:
        known = opened.trash.limits()
        wanted = TrashLimits(_chosen(days, known.days), _chosen(most, known.most_bytes))
        config.change(opened.layout, opened.disk, **{KEY: wanted.value()})
        if await opened.let_expire():
            await opened.give_back()
            await wipe_words(opened)

    if days is not None or most is not None:
        with_writable_store(store, work, force_lock=force_lock, packs="here")
    with open_index(store, packs="here") as opened:
        found = TrashLimits.of(config.read(opened.layout.root))
    emit({"days": found.days, "bytes": found.most_bytes}, _text(found), as_json)


def _chosen(given: int | None, known: int | None) -> int | None:
    """Return the new value of a limit: the old one if none is given, None for "none"."""
    return known if given is None else None if given < 0 else given


def _text(found: TrashLimits) -> str:
    """Return the limits in words."""
    days = "without an end" if found.days is None else f"for {found.days} days"
    if found.most_bytes is None:
        return f"the trash keeps files {days}"
    return f"the trash keeps files {days}, at most {size(found.most_bytes)} of them"
