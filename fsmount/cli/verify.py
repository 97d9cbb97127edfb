"""The command ``fsmount verify``."""

from __future__ import annotations

from pathlib import Path

import click
import trio

from fsmount.cli.common.filters import (
    CHANGED_HELP,
    FILTER_HELP,
    FilteredCommand,
    selected,
    selection_options,
)
from fsmount.cli.common.options import (
    json_option,
    quiet_option,
    resource_options,
    split_store,
    verbose_option,
)
from fsmount.cli.common.output import emit, list_problems, say_path, warn
from fsmount.cli.common.progress import meter
from fsmount.cli.common.stores import with_store
from fsmount.cli.common.times import TIME_HELP
from fsmount.errors import UsageError
from fsmount.mount.mountpoint import mounted_at
from fsmount.store.config import is_store
from fsmount.store.read_store import ReadStore
from fsmount.store.transfer.patterns import Patterns
from fsmount.store.transfer.tree import ignore, measure, source_of, target_of
from fsmount.store.transfer.verifying import (
    Counterpart,
    FolderCounterpart,
    StoreCounterpart,
    Verifier,
)


def _meant(other: Counterpart, source: Path, target: bytes) -> bytes:
    """Return the path to compare a source with: the root if it went in with a final slash."""
    return b"" if source.is_dir() and other.mode(target) is None else target


_HELP = f"""\
Compare a folder with a store or a mount, in both directions.

Compares names and bytes: rebuilds every file from the store, or reads it through the mount. Of a
picture that SOURCE keeps as a difference, the pixels are compared. SOURCE and SOURCE/ mean the
same as for import, but a folder whose name is missing is compared with the root. Unless all is
identical, prints a list and ends with a non-zero exit code.

With --one-way the question is only whether all of SOURCE is there: files that only the store or
the mount has are no difference. Ask this before you delete SOURCE.

{FILTER_HELP}

{TIME_HELP}

{CHANGED_HELP}
It needs a store. Both sides are chosen by the same options; --since, --until and --changed compare
no folders.

\b
Examples:
  fsmount verify ~/screenshots/ ~/shots.store
  fsmount verify --one-way ~/screenshots.old/ ~/shots.store
  fsmount verify ~/screenshots.old/ /mnt
  fsmount verify --since "1 week ago" ~/screenshots/ ~/shots.store
"""

_STOPPED = "Nothing was changed. The next verify begins anew."


@click.command(cls=FilteredCommand, help=_HELP)
@click.argument("paths", nargs=-1, metavar="SOURCE... STORE|MOUNT")
@click.option("--one-way", is_flag=True, help="Only ask whether all of SOURCE is there.")
@selection_options
@verbose_option
@quiet_option
@resource_options
@json_option
def verify(
    paths: tuple[str, ...], one_way: bool, verbose: bool, cache_size: int, as_json: bool
) -> int:
    """Run ``fsmount verify``."""
    path, names = split_store(paths, -1)
    sources = [(source_of(name), target_of(name)) for name in names]

    wanted = selected()
    report = say_path if verbose and not as_json else ignore

    async def compare(other: Counterpart, patterns: Patterns) -> int:
        pairs = [(source, _meant(other, source, at)) for source, at in sources]
        files, total = measure(pairs, patterns)
        with meter("comparing", files, total, hidden=verbose, stopped=_STOPPED) as progress:
            verifier = Verifier(other, progress, chosen=patterns, one_way=one_way, report=report)
            await verifier.verify(pairs)
        found = verifier.summary
        emit(
            {"identical": found.files, "files": verifier.total, "problems": found.problems},
            f"{found.files}/{verifier.total} identical",
            as_json,
        )
        if found.problems:
            if not as_json:
                count = len(found.problems)
                warn(f"{count} {'differs' if count == 1 else 'differ'}:")
                list_problems(found.problems)
            return 1
        return 0

    async def work(store: ReadStore) -> int:
        return await compare(StoreCounterpart(store), wanted.of(store))

    if not is_store(path) and path.is_dir() and mounted_at(path) is not None:
        if wanted.criteria.changed is not None:
            raise UsageError(f"{path} is a mount; --changed needs its store instead")
        return trio.run(compare, FolderCounterpart(path), wanted)
    return with_store(path, work, cache_bytes=cache_size, packs="brought")
