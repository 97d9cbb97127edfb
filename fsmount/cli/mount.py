"""fsmount mount"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from fsmount.cli.common import cache_option, split_store
from fsmount.errors import UsageError
from fsmount.mount.options import parse_options
from fsmount.mount.session import serve, serve_in_background


@click.command()
@click.argument("paths", nargs=-1, metavar="STORE DIR")
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground, log to stderr.")
@click.option("-o", "options", multiple=True, help="ro, allow_other, uid=N, gid=N, umask=NNN.")
@cache_option
def mount(
    paths: tuple[str, ...], foreground: bool, options: tuple[str, ...], cache_size: int
) -> None:
    """Show the files of a store in a folder. Returns when the folder answers.

    \b
    Examples:
      fsmount mount ~/shots.store ~/screenshots
      fsmount mount -o ro,allow_other /backup/shots.store /mnt
    """
    store, places = split_store(paths, 0)
    if len(places) != 1:
        raise UsageError("name one store and one folder: fsmount mount STORE DIR")
    chosen = dataclasses.replace(parse_options(",".join(options)), cache_bytes=cache_size)
    start = serve if foreground else serve_in_background
    start(store, Path(places[0]), chosen)
