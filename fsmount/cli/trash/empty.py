"""The command ``fsmount trash empty``."""

from __future__ import annotations

from pathlib import Path

import click

from fsmount.cli.common.options import (
    force_lock_option,
    json_option,
    quiet_option,
    store_argument,
)
from fsmount.cli.common.output import counted, emit, size
from fsmount.cli.common.rules import confirm
from fsmount.cli.common.stores import open_index, store_to_change, with_writable_store
from fsmount.cli.common.words import wipe_words
from fsmount.store.layout import Layout
from fsmount.store.statistics import closed_bytes
from fsmount.store.writable_store import WritableStore

_HELP = """\
Remove the files in the trash of a store for good.

Gives their space back. Moves what other files need to other packs, so it needs hardly any free
space. Without --yes the command asks first. The store must not be mounted for writing.

\b
Example:
  fsmount trash empty --yes ~/shots.store
"""


@click.command("empty", help=_HELP)
@store_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@force_lock_option
@quiet_option
@json_option
def empty(store: Path, yes: bool, force_lock: bool, as_json: bool) -> None:
    """Run ``fsmount trash empty``."""
    store_to_change(store)
    with open_index(store, packs="here") as opened:
        names = len(opened.index.trash_bytes())
        before = int(opened.stats()["stored_bytes"])
    if names:
        confirm(f"Remove {counted(names, 'file')} for good?", yes=yes)

    async def work(opened: WritableStore) -> int:
        count = await opened.trash.remove([entry.name for entry, _ in opened.index.in_trash()])
        await opened.give_back()
        await wipe_words(opened)
        return count

    count = with_writable_store(store, work, force_lock=force_lock, packs="here")
    after = closed_bytes(Layout(store))
    emit(
        {"removed": count, "bytes_before": before, "bytes_after": after},
        f"{counted(count, 'file')} removed; {size(before)} before, {size(after)} now",
        as_json,
    )
