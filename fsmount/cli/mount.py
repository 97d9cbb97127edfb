"""The command `fsmount mount`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from fsmount.album.tree import AlbumTree, source_of
from fsmount.cli.common.credentials import use_credentials
from fsmount.cli.common.options import force_lock_option, resource_options, split_store
from fsmount.cli.common.stores import store_to_change
from fsmount.cli.common.unlocking import UNLOCK_HELP, unlock_options
from fsmount.errors import UsageError
from fsmount.legacy.runs import is_legacy
from fsmount.legacy.tree import LegacyTree
from fsmount.mount.options import MountOptions, parse_options
from fsmount.mount.session import (
    BringPacks,
    MountRequest,
    OpenTree,
    serve,
    serve_in_background,
)
from fsmount.mount.unmount import free_if_dead
from fsmount.remote.transport import is_url, transport_to
from fsmount.store.config import is_store
from fsmount.store.elsewhere import missing
from fsmount.store.layout import Layout

_ALBUMS = "albums"


_HELP = f"""\
Show the files of a store in a folder. Returns when the folder answers.

SOURCE is a store, or a folder of PNGs and .jxl differences as the script of the blog post
"Losslessly Compressing 25000 Images" leaves behind: that is shown as whole PNGs, for reading
only, and nothing in it is changed.

An album, or a folder of albums, is shown as the folder of photos it was, for reading only.
Albums in the folder STORE/albums stand as folders beside the store's files.

DIR is an empty folder; -p makes it if it is missing. The log of a mount is STORE/mount.log, or
the file that FSMOUNT_LOG names. Other sources have a log only with FSMOUNT_LOG.

With -o repack the store gets smaller by itself, as by fsmount repack, while no file has been
written or read for SECONDS (10 by default); on a laptop only on mains power. One process of low
priority codes pictures that have filled a pack (64 MiB), each once, and stops when a file is
used. Pictures may open more slowly after it.

With -o prune the mount thins out its pictures once a day by the policy of the store (fsmount policy
set), while no file has been written or read for SECONDS, on mains power. Without it nothing goes,
but what left the trash of the store gives its space back.

With -o push=URL,every=1h the mount pushes its store (see fsmount push) at this interval, by a
process of low priority, and once more when it ends, for at most 10 seconds. A failure is logged
once, and the next push comes at its time; the mount goes on. With -o push=URL,encrypt it pushes to
an encrypted URL: push there once with --encrypt before, and let FSMOUNT_IDENTITY or
FSMOUNT_PASSCOMMAND open it, also by -o credentials=FILE. The extended attribute
user.fsmount.remote of a file names the URLs that have its bytes; fsmount stats tells what is only
here.

With -o views the folder DIR/.fsmount shows the same pictures once more: by-day/2026/03/14/ has
those of a day, changed/2026/03/14/ those of which at least 5 % of the screen was new. Nothing is
decoded for a listing. These folders cannot be changed. A file in them is the same file as in its
own folder, as with hard links. DIR/.fsmount/text/ has the text of each picture as a file, once
it was read (fsmount text), so grep -r finds it.

With -o text the mount reads the text of new pictures, as by fsmount text, while no file has been
written or read for SECONDS, on mains power: one process that runs only when no other wants to.

SOURCE may be a URL that fsmount push sends to, s3://BUCKET/PREFIX or file:///FOLDER: its newest
state is shown, for reading only. Names and sizes come from the index, which is brought first.
Pictures are read when they are opened, and stay in a folder on the disk: -o cache=4G limits it
(4G by default), -o cache_dir=PATH moves it from ~/.cache/fsmount (of root: /var/cache/fsmount). If
the network is lost, a read ends with an error after at most 60 seconds (-o timeout=SECONDS), and
works again with the network. A URL whose folders are stores, one for each machine, is shown as
these folders. The same options are for a store some packs of which are only at a URL (fsmount
evict). -o credentials=FILE reads AWS_... and FSMOUNT_... variables from a file.

{UNLOCK_HELP}

With -o nonempty DIR may have files. They are hidden until DIR is unmounted.

SIGTERM, SIGINT, SIGHUP and SIGQUIT end a mount as fsmount umount --now does, and interrupting
this command before it returns leaves DIR unmounted. A mount whose process was killed stays, and
every access to it fails: an empty folder would look as if all files had been deleted.

\b
Examples:
  fsmount mount ~/shots.store ~/screenshots
  fsmount mount -p ~/shots.store ~/new/folder
  fsmount mount -o ro,allow_other /backup/shots.store /mnt
  fsmount mount -o repack,prune ~/shots.store ~/screenshots
  fsmount mount -o views,text ~/shots.store ~/screenshots
  fsmount mount -o ro ~/screenshots.old /mnt
  fsmount mount /media/stick/2014-07-Italy.xml ~/italy
  fsmount mount -p -o cache=10G s3://my-bucket/shots ~/archive

fsmount setup lets systemd, mount(8) and /etc/fstab mount a store.
"""


@click.command(help=_HELP)
@click.argument("paths", nargs=-1, metavar="SOURCE DIR")
@click.option("-p", "--make-dir", is_flag=True, help="Make DIR if it is missing.")
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground, log to stderr.")
@click.option(
    "-o",
    "options",
    multiple=True,
    help="ro, allow_other, uid=N, gid=N, umask=NNN, repack[=SECONDS], prune[=SECONDS],"
    " text[=SECONDS], views, push=URL, every=TIME, encrypt, credentials=FILE, nonempty, noexec,"
    " sync; of a URL, or a store with packs at one: cache=SIZE, cache_dir=PATH, timeout=SECONDS."
    " Those of mount(8) that mean nothing here are accepted.",
)
@click.option(
    "--replace-dead",
    is_flag=True,
    help="Unmount DIR first if the fsmount that served it has died.",
)
@force_lock_option
@resource_options
@unlock_options
def mount(
    paths: tuple[str, ...],
    make_dir: bool,
    foreground: bool,
    options: tuple[str, ...],
    replace_dead: bool,
    force_lock: bool,
    cache_size: int,
) -> None:
    """Run `fsmount mount`. `cache_size` is in bytes. Raises UsageError and errors of the mount."""
    source, places = _split(paths)
    if len(places) != 1:
        raise UsageError("name one store and one folder: fsmount mount STORE DIR")
    chosen = parse_options(",".join(options))
    if force_lock and (chosen.read_only or is_url(source)):
        raise UsageError("--force-lock is for a mount that may write; -o ro takes no lock")
    if is_url(source) and "rw" in ",".join(options).split(","):
        raise UsageError(f"{source} can only be read: leave out the mount option 'rw'")
    chosen = dataclasses.replace(chosen, cache_bytes=cache_size, force_lock=force_lock)
    place = Path(places[0])
    request = request_for(source, place, chosen)
    if request.is_store:
        _check_order(Path(source), place)
        store_to_change(Path(source))
    if replace_dead:
        free_if_dead(Path(os.path.realpath(place)))
    with _made(place, make_dir and (not request.is_store or is_store(Path(source)))):
        if foreground:
            serve(request)
        else:
            serve_in_background(request)


def _split(paths: tuple[str, ...]) -> tuple[str, list[str]]:
    """Split the arguments into the source, which may be a URL, and the rest."""
    if paths and is_url(paths[0]):
        return paths[0], list(paths[1:])
    if len(paths) == 2 and not is_store(Path(paths[0])):
        album = source_of(Path(paths[0]))
        if album is not None:
            return str(album), list(paths[1:])
    store, places = split_store(paths, 0)
    return str(store), places


def _check_order(store: Path, place: Path) -> None:
    """Raise UsageError if store and mountpoint were mixed up."""
    if not is_store(store) and is_store(place):
        raise UsageError("the store comes first, then the folder: fsmount mount STORE DIR")


@contextmanager
def _made(place: Path, wanted: bool) -> Iterator[None]:
    """Make the mountpoint if it is `wanted` and missing; remove it if the block fails."""
    made = wanted and not os.path.lexists(place)
    if made:
        place.mkdir(parents=True)
    try:
        yield
    except BaseException:
        if made:
            with suppress(OSError):
                place.rmdir()
        raise


def request_for(source: str, mountpoint: Path, options: MountOptions) -> MountRequest:
    """Return the request to mount a store, a legacy folder, albums, or what lies at a URL."""
    if options.credentials is not None:
        use_credentials(options.credentials)
    if options.push is not None:
        # It says what is wrong with the URL before anything is mounted.
        transport_to(options.push)
    if is_url(source):
        # What reads from URLs takes long to load.
        from fsmount.cli.common.remotes import request_for_url

        return request_for_url(source, mountpoint, options)
    return _local_request(Path(source), mountpoint, options)


def _local_request(source: Path, mountpoint: Path, options: MountOptions) -> MountRequest:
    if not is_store(source):
        source = source_of(source) or source
    return MountRequest(
        source,
        mountpoint,
        options,
        _opener(source),
        _albums_opener(source),
        bring_packs=_bringer(source, options),
    )


def _bringer(source: Path, options: MountOptions) -> BringPacks | None:
    """What brings the packs of a store that are at a URL only; None if there are none."""
    if not is_store(source):
        return None
    away = missing(Layout(source))
    if not away.packs:
        return None
    from fsmount.cli.common.remotes import bringer

    return bringer(away.url, options)


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
