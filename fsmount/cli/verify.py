"""The command ``fsmount verify``."""

from __future__ import annotations

from pathlib import Path

import click
import trio

from fsmount.cli.common.options import cache_option, json_option, split_store
from fsmount.cli.common.output import emit, list_problems, warn
from fsmount.cli.common.progress import meter
from fsmount.cli.common.stores import with_store
from fsmount.mount.mountpoint import mounted_at
from fsmount.store.config import is_store
from fsmount.store.store import Store
from fsmount.store.transfer.tree import measure, source_of, target_of
from fsmount.store.transfer.verifying import InFolder, InStore, Other, Verifier


def _meant(other: Other, source: Path, target: bytes) -> bytes:
    """Return the path to compare a source with: the root if it went in with a final slash."""
    return b"" if source.is_dir() and other.mode(target) is None else target


_HELP = """\
Compare a folder with a store or a mount, names and bytes, in both directions.

Rebuilds every file from the store, or reads it through the mount, and compares it byte for byte.
Of a picture that SOURCE keeps as a difference, the pixels are compared. SOURCE and SOURCE/ mean
the same as for import, but a folder whose name is missing is compared with the root. Unless all
is identical, prints a list and ends with a non-zero exit code.

\b
Example:
  fsmount verify ~/screenshots/ ~/shots.store
  fsmount verify ~/screenshots.old/ /mnt
"""


@click.command(help=_HELP)
@click.argument("paths", nargs=-1, metavar="SOURCE... STORE|MOUNT")
@cache_option
@json_option
def verify(paths: tuple[str, ...], cache_size: int, as_json: bool) -> int:
    """Run ``fsmount verify``."""
    path, names = split_store(paths, -1)
    sources = [(source_of(name), target_of(name)) for name in names]

    async def compare(other: Other) -> int:
        files, total = measure([source for source, _ in sources])
        with meter("comparing", files, total) as progress:
            verifier = Verifier(other, progress)
            await verifier.verify([(source, _meant(other, source, at)) for source, at in sources])
        found = verifier.summary
        emit(
            {"identical": found.files, "files": verifier.total, "problems": found.problems},
            f"{found.files}/{verifier.total} identical",
            as_json,
        )
        if found.problems:
            if not as_json:
                warn(f"{len(found.problems)} differ:")
                list_problems(found.problems)
            return 1
        return 0

    async def work(store: Store) -> int:
        return await compare(InStore(store))

    if not is_store(path) and path.is_dir() and mounted_at(path) is not None:
        return trio.run(compare, InFolder(path))
    return with_store(path, work, cache_bytes=cache_size)
