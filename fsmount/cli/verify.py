"""fsmount verify"""

from __future__ import annotations

import click

from fsmount.cli.common import cache_option, split_store, with_store
from fsmount.cli.output import emit, json_option, meter, problems, warn
from fsmount.store.exporting import Verifier
from fsmount.store.store import Store
from fsmount.store.tree import measure, source_of, target_of


@click.command()
@click.argument("paths", nargs=-1, metavar="SOURCE... STORE")
@cache_option
@json_option
def verify(paths: tuple[str, ...], cache_size: int, as_json: bool) -> int:
    """Compare a folder with the store, names and bytes, in both directions.

    Every file is rebuilt from the store and compared byte for byte. SOURCE and SOURCE/ mean the
    same as for import. Ends with a non-zero code and a list unless all is identical.

    \b
    Example:
      fsmount verify ~/screenshots/ ~/shots.store
    """
    path, names = split_store(paths, -1)
    sources = [(source_of(name), target_of(name)) for name in names]

    async def work(store: Store) -> int:
        files, total = measure([source for source, _ in sources])
        with meter("comparing", files, total) as progress:
            verifier = Verifier(store, progress)
            await verifier.verify(sources)
        found = verifier.summary
        emit(
            {"identical": found.files, "files": verifier.total, "problems": found.problems},
            f"{found.files}/{verifier.total} identical",
            as_json,
        )
        if found.problems:
            if not as_json:
                warn(f"{len(found.problems)} differ:")
                problems(found.problems)
            return 1
        return 0

    return with_store(path, work, cache_bytes=cache_size)
