"""The command ``fsmount cat``."""

from __future__ import annotations

import os
import stat
import sys

import click

from fsmount.cli.common import streams
from fsmount.cli.common.options import resource_options, split_store
from fsmount.cli.common.stores import with_store
from fsmount.errors import FsmountError
from fsmount.store.files import StoreFiles
from fsmount.store.read_store import ReadStore
from fsmount.store.transfer.tree import find, slices

_HELP = """\
Write the bytes of files in a store to stdout, as cat does.

PATH is a path from the top of the store, as fsmount ls -R prints it. Works beside a mount.

\b
Examples:
  fsmount cat ~/shots.store desk/2024-06-06T17:41:00+00:00.png > shot.png
  fsmount cat ~/shots.store notes.txt | less
"""


@click.command(help=_HELP)
@click.argument("arguments", nargs=-1, metavar="STORE PATH...")
@resource_options
def cat(arguments: tuple[str, ...], cache_size: int) -> int:
    """Run ``fsmount cat``. Returns the exit code."""
    store, paths = split_store(arguments, 0)

    async def work(opened: ReadStore) -> int:
        wanted = [_regular(opened, path) for path in paths]
        for ino in wanted:
            async for data in slices(opened, ino):
                sys.stdout.buffer.write(data)
                if (error := streams.finish()) is not None:
                    if isinstance(error, BrokenPipeError):
                        raise error
                    # It is told at the end. Reading on would be of no use.
                    return 1
        return 0

    return with_store(store, work, cache_bytes=cache_size, packs="brought")


def _regular(store: StoreFiles, path: str) -> int:
    """Return the inode number of a regular file. Raises FsmountError if there is none."""
    inode = find(store, os.fsencode(path).strip(b"/"))
    if inode is None:
        raise FsmountError(f"there is no {path!r} in {store.path}")
    if stat.S_ISDIR(inode.mode):
        raise FsmountError(f"{path!r} in {store.path} is a folder")
    if not stat.S_ISREG(inode.mode):
        raise FsmountError(f"{path!r} in {store.path} is no regular file")
    return inode.ino
