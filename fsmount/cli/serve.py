"""The command ``fsmount serve``."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio

from fsmount.album.tree import source_of
from fsmount.cli.common.options import json_option, resource_options, split_store
from fsmount.cli.common.output import emit, printable, say, warn
from fsmount.cli.common.stores import start_log, store_to_read
from fsmount.errors import ServerNeedsExtra, UsageError
from fsmount.store.config import is_store

if TYPE_CHECKING:
    from fsmount.web.serving import Running

_ALBUMS = "albums"

_HELP = """\
Show a store as a page in the browser, on this machine only.

The page has a calendar of all days, the pictures of a day that brought something new, each picture
with what changed in it, how you used the screen, and what the store takes. SOURCE is a store, also
one that is mounted, its mountpoint, an album, or a folder of albums. Nothing on the page changes a
file.

The server listens on a free port of 127.0.0.1. It answers only the browser that opened the link,
which works once. For another browser, send SIGUSR1 to it: it prints another link. With --socket it
listens on a Unix socket instead, which only you can open; ssh -L can lead a port of another machine
to it.

Ctrl-C or SIGTERM ends it. It needs the extra web: pip install 'fsmount[web]'.

\b
Examples:
  fsmount serve ~/shots.store --open
  fsmount serve ~/screenshots
  fsmount serve ~/shots.store --socket ~/fsmount.sock
"""


@click.command(help=_HELP)
@click.argument("arguments", nargs=-1, metavar="SOURCE")
@click.option("--open", "open_it", is_flag=True, help="Open the page in your browser.")
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    help="Listen on a Unix socket at this path, and on no port.",
)
@resource_options
@json_option
def serve(
    arguments: tuple[str, ...],
    open_it: bool,
    socket: Path | None,
    cache_size: int,
    as_json: bool,
) -> None:
    """Run ``fsmount serve``. `cache_size` is in bytes. Raises UsageError and errors of a store."""
    try:
        from fsmount.web import session
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] in ("", "fsmount"):
            raise
        raise ServerNeedsExtra("fsmount serve", package=missing.name, extra="web") from missing
    path, others = split_store(arguments, 0, fewest=0)
    if others:
        raise UsageError("name one store, mountpoint or folder of albums: fsmount serve SOURCE")
    if open_it and socket is not None:
        raise UsageError("a browser cannot open a Unix socket: leave out --open or --socket")
    store, albums = _source(path)
    start_log()
    with ExitStack() as stack:
        ready = partial(_tell, open_it=open_it, as_json=as_json, stack=stack)
        renewed = partial(_renewed, as_json=as_json)
        trio.run(session.serve, session.Source(store, albums, cache_size), socket, ready, renewed)


def _source(path: Path) -> tuple[Path | None, Path | None]:
    """Return the store and the albums that a path means."""
    albums = None if is_store(path) else source_of(path)
    if albums is not None:
        return None, albums
    store = store_to_read(path)
    return store, store / _ALBUMS if is_store(store) and (store / _ALBUMS).is_dir() else None


async def _tell(server: Running, *, open_it: bool, as_json: bool, stack: ExitStack) -> None:
    """Say where the page is, and open it."""
    from fsmount.web import opening

    url = server.url
    if as_json:
        place = None if server.socket is None else str(server.socket)
        emit({"url": url, "socket": place, "pid": os.getpid()}, "", True)
    elif server.socket is not None:
        say(f"listening on {printable(server.socket)}; a port that leads to it opens {url}")
    else:
        say(url)
    if not as_json:
        say(
            "The link works once. Ctrl-C ends the server."
            f" For another browser: kill -USR1 {os.getpid()}; it prints another link here."
        )
    if open_it:
        file = stack.enter_context(opening.link_file(url))
        if not await trio.to_thread.run_sync(opening.show, file, abandon_on_cancel=True):
            warn("there is no browser to open the page with; open the link yourself")


def _renewed(url: str, *, as_json: bool) -> None:
    """Print the link for another browser."""
    emit({"url": url}, url, as_json)
