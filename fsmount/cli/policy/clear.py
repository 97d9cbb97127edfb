"""The command ``fsmount policy clear``."""

from __future__ import annotations

from pathlib import Path

import click

from fsmount.cli.common.options import (
    force_lock_option,
    json_option,
    quiet_option,
    store_argument,
)
from fsmount.cli.common.output import emit
from fsmount.cli.common.stores import with_writable_store
from fsmount.store import config
from fsmount.store.retention.policy import KEY
from fsmount.store.writable_store import WritableStore

_HELP = """\
Remove the policy of a store: a mount keeps everything then.

The store must not be mounted for writing.

\b
Example:
  fsmount policy clear ~/shots.store
"""


@click.command("clear", help=_HELP)
@store_argument
@force_lock_option
@quiet_option
@json_option
def clear(store: Path, force_lock: bool, as_json: bool) -> None:
    """Run ``fsmount policy clear``."""

    async def work(opened: WritableStore) -> None:
        config.change(opened.layout, opened.disk, **{KEY: None})

    with_writable_store(store, work, force_lock=force_lock, packs="here")
    emit({"policy": None}, "there is no policy: a mount keeps everything", as_json)
