"""The command `fsmount mount`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from fsmount.album.tree import AlbumTree, source_of
from fsmount.cli.common.options import cache_option, force_lock_option, split_store
from fsmount.errors import UsageError
from fsmount.legacy.runs import is_legacy
from fsmount.legacy.tree import LegacyTree
from fsmount.mount.options import parse_options
from fsmount.mount.session import MountRequest, OpenTree, serve, serve_in_background
from fsmount.store.config import is_store

_ALBUMS = "albums"


_HELP = """\
Show the files of a store in a folder. Returns when the folder answers.

SOURCE is a store, or a folder of PNGs and .jxl differences as the script of the blog post
"Losslessly Compressing 25000 Images" leaves behind: that is shown as whole PNGs, for reading
only, and nothing in it is changed.

An album, or a folder of albums, is shown as the folder of photos it was, for reading only.
Albums in the folder STORE/albums stand as folders beside the store's files.

With -o repack the store gets smaller by itself, as by fsmount repack, while no file has been
written or read for SECONDS (10 by default); on a laptop only on mains power. One process of low
priority codes pictures that have filled a pack (64 MiB), each once, and stops when a file is
used. Pictures may open more slowly after it.

With -o nonempty DIR may have files. They are hidden until DIR is unmounted.

SIGTERM, SIGINT, SIGHUP and SIGQUIT end a mount as fsmount umount --now does, and interrupting
this command before it returns leaves DIR unmounted. A mount whose process was killed stays, and
every access to it fails: an empty folder would look as if all files had been deleted.

\b
Examples:
  fsmount mount ~/shots.store ~/screenshots
  fsmount mount -o ro,allow_other /backup/shots.store /mnt
  fsmount mount -o repack ~/shots.store ~/screenshots
  fsmount mount -o ro ~/screenshots.old /mnt
  fsmount mount /media/stick/2014-07-Italy.xml ~/italy
"""


@click.command(help=_HELP)
@click.argument("paths", nargs=-1, metavar="SOURCE DIR")
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground, log to stderr.")
@click.option(
    "-o",
    "options",
    multiple=True,
    help="ro, allow_other, uid=N, gid=N, umask=NNN, repack[=SECONDS], nonempty.",
)
@force_lock_option
@cache_option
def mount(
    paths: tuple[str, ...],
    foreground: bool,
    options: tuple[str, ...],
    force_lock: bool,
    cache_size: int,
) -> None:
    """Run `fsmount mount`. `cache_size` is in bytes. Raises UsageError and errors of the mount."""
    album = source_of(Path(paths[0])) if len(paths) == 2 and not is_store(Path(paths[0])) else None
    store, places = split_store(paths, 0) if album is None else (album, list(paths[1:]))
    if len(places) != 1:
        raise UsageError("name one store and one folder: fsmount mount STORE DIR")
    chosen = parse_options(",".join(options))
    if force_lock and chosen.read_only:
        raise UsageError("--force-lock is for a mount that may write; -o ro takes no lock")
    chosen = dataclasses.replace(chosen, cache_bytes=cache_size, force_lock=force_lock)
    request = MountRequest(store, Path(places[0]), chosen, _opener(store), _albums_opener(store))
    if foreground:
        serve(request)
    else:
        serve_in_background(request)


def _opener(source: Path) -> OpenTree | None:
    """A function that opens a legacy folder or albums; None for a store and other sources."""
    if not is_store(source) and source.is_dir() and is_legacy(source):
        return lambda path, options: LegacyTree(path, options.cache_bytes)
    if not is_store(source) and source_of(source) is not None:
        return lambda path, options: AlbumTree(path, options.cache_bytes)
    return None


def _albums_opener(source: Path) -> OpenTree | None:
    """A function that opens the albums in a store; None if it has no folder of albums."""
    if is_store(source) and (source / _ALBUMS).is_dir():
        return lambda path, options: AlbumTree(path / _ALBUMS, options.cache_bytes // 4)
    return None
