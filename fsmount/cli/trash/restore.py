"""The command ``fsmount trash restore``."""

from __future__ import annotations

import os

import click

from fsmount.cli.common.completion import Argument
from fsmount.cli.common.options import (
    force_lock_option,
    json_option,
    quiet_option,
    split_store,
    verbose_option,
)
from fsmount.cli.common.output import counted, emit, list_skipped, printable, say_path
from fsmount.cli.common.stores import with_writable_store
from fsmount.errors import FsmountError
from fsmount.store.writable_store import WritableStore

_HELP = """\
Bring files back from the trash of a store.

Brings all of them back, or those of some paths. Each file comes back under the path that it had,
with its bytes, times and attributes. Folders that are missing are made. A file whose name another
file has now stays in the trash. The store must not be mounted for writing.

\b
Examples:
  fsmount trash restore ~/shots.store
  fsmount trash restore ~/shots.store desk
"""


@click.command("restore", help=_HELP)
@click.argument("arguments", nargs=-1, metavar="STORE [PATH]...", type=Argument())
@force_lock_option
@verbose_option
@quiet_option
@json_option
def restore(arguments: tuple[str, ...], force_lock: bool, verbose: bool, as_json: bool) -> int:
    """Run ``fsmount trash restore``."""
    store, names = split_store(arguments, 0, fewest=0)
    paths = [os.fsencode(name).strip(b"/") for name in names] or [b""]
    missing = set(paths) - {b""}

    def is_wanted(path: bytes) -> bool:
        tops = [top for top in paths if not top or path == top or path.startswith(top + b"/")]
        missing.difference_update(tops)
        return bool(tops)

    async def work(opened: WritableStore) -> tuple[int, list[tuple[str, str]]]:
        count, problems = 0, list[tuple[str, str]]()
        for path, reason in opened.trash.restore(is_wanted):
            if reason is not None:
                problems.append((os.fsdecode(path), reason))
                continue
            count += 1
            if verbose and not as_json:
                say_path(path)
        await opened.durable()
        return count, problems

    count, problems = with_writable_store(store, work, force_lock=force_lock, packs="here")
    if missing:
        raise FsmountError(f"there is no {printable(min(missing), err=True)!r} in the trash")
    emit(
        {"restored": count, "problems": problems},
        f"{counted(count, 'file')} restored",
        as_json,
    )
    return list_skipped(problems, f"{len(problems)} stay in the trash:", as_json)
