"""The command ``fsmount thumbs``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from fsmount.cli.common.options import json_option, quiet_option, resource_options, verbose_option
from fsmount.cli.common.output import counted, emit, list_skipped, say_path
from fsmount.cli.common.progress import meter
from fsmount.cli.common.stores import with_store
from fsmount.desktop.thumbnail_files import SIZES
from fsmount.desktop.thumbnails import Thumbnailer, pictures
from fsmount.errors import BadMountpoint, FsmountError, MountWithoutStore, UsageError
from fsmount.mount.mount_table import Mounted
from fsmount.mount.mountpoint import all_mounts, mount_around
from fsmount.store.config import is_store
from fsmount.store.read_store import ReadStore
from fsmount.store.transfer.tree import ignore
from fsmount.work import machine
from fsmount.work.workers import Workers

_HELP = """\
Make thumbnails of a mounted store, for file managers.

PATH is the mountpoint, or folders and files below it. Thumbnails go where file managers look for
them (~/.cache/thumbnails), so these need not read the pictures. Pictures are decoded in the order
that is cheapest for the store, each once for all sizes. A picture that has its thumbnails is
skipped: after new screenshots run the command again.

Thunar accepts them only if the time of a picture is a whole second. With --xfce it accepts all,
and other file managers do not.

With --shared thumbnails go into folders .sh_thumbnails beside the pictures, that is into the
store. Some programs use these, also on other machines; docs/desktop.md names them.

Exit code 3: some pictures have no thumbnail. A file that is no picture is noted
(~/.cache/thumbnails/fail), and not read again.

\b
Examples:
  fsmount thumbs ~/screenshots
  fsmount thumbs ~/screenshots/desk --size large
  fsmount thumbs --shared ~/screenshots
"""

_STOPPED = "The thumbnails that were made stay. To go on, run the command again."


@click.command(help=_HELP)
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    metavar="DIR|PATH...",
    type=click.Path(path_type=Path),
)
@click.option(
    "--size",
    "kinds",
    multiple=True,
    type=click.Choice(list(SIZES)),
    default=("normal", "large"),
    help="Which thumbnails to make: of 128, 256, 512 or 1024 pixels. May be given several times."
    " Default: normal and large.",
)
@click.option("--shared", is_flag=True, help="Write them beside the pictures, into the store.")
@click.option(
    "--xfce",
    is_flag=True,
    help="Name times with microseconds, for Thunar; GNOME's and KDE's file managers want seconds.",
)
@verbose_option
@quiet_option
@resource_options
@json_option
def thumbs(
    paths: tuple[Path, ...],
    kinds: tuple[str, ...],
    shared: bool,
    xfce: bool,
    verbose: bool,
    cache_size: int,
    as_json: bool,
) -> int:
    """Run ``fsmount thumbs``. Returns the exit code."""
    mounted, inside = _places(paths)
    if shared and mounted.read_only:
        raise FsmountError(
            f"{mounted.mountpoint} is mounted read-only, and --shared writes into the store"
        )
    report = say_path if verbose and not as_json else ignore

    async def work(store: ReadStore) -> int:
        wanted = pictures(store, inside)
        total = sum(one.inode.size for one in wanted)
        with meter(
            "thumbnails", len(wanted), total, noun="pictures", hidden=verbose, stopped=_STOPPED
        ) as progress:
            async with Workers(machine.cores()) as workers:
                thumbnailer = Thumbnailer(
                    store,
                    mounted.mountpoint,
                    workers,
                    progress,
                    kinds=kinds,
                    shared=shared,
                    xfce=xfce,
                    report=report,
                )
                await thumbnailer.make(wanted)
        made = thumbnailer.summary
        emit(
            {
                "pictures": made.pictures,
                "thumbnails": made.thumbnails,
                "skipped": made.skipped,
                "problems": made.problems,
            },
            f"{counted(made.thumbnails, 'thumbnail')} of {counted(made.pictures, 'picture')} made,"
            f" {counted(made.skipped, 'picture')} had them already",
            as_json,
        )
        heading = f"{counted(len(made.problems), 'picture')} without thumbnails:"
        return list_skipped(made.problems, heading, as_json)

    return with_store(Path(mounted.source), work, cache_bytes=cache_size, packs="brought")


def _places(paths: Sequence[Path]) -> tuple[Mounted, list[bytes]]:
    """Return the mount that some paths lie in, and the paths from its root.

    Raises BadMountpoint, MountWithoutStore, and UsageError if they lie in different mounts.
    """
    places = [_place(path) for path in paths]
    mounted = places[0][0]
    if any(other != mounted for other, _ in places):
        raise UsageError("the paths lie in different mounts; name paths of one")
    if not is_store(Path(mounted.source)):
        raise MountWithoutStore(mounted.mountpoint, source=mounted.source)
    try:
        os.statvfs(mounted.mountpoint)
    except OSError as error:
        reason = f"the mount does not answer ({error.strerror})"
        raise BadMountpoint(mounted.mountpoint, reason=reason) from error
    return mounted, [inside for _, inside in places]


def _place(path: Path) -> tuple[Mounted, bytes]:
    """Return the mount that a path lies in, and the path from its root; of a store, its mount."""
    mounted = mount_around(path)
    if mounted is not None:
        inside = os.fsencode(os.path.relpath(os.path.realpath(path), mounted.mountpoint))
        return mounted, b"" if inside == b"." else inside
    if not is_store(path):
        reason = "no store is mounted there; name the mountpoint of a store, or a path below it"
        raise BadMountpoint(path, reason=reason)
    source = os.path.realpath(path)
    found = [one for one in all_mounts() if one.source == source]
    if len(found) == 1:
        return found[0], b""
    reason = (
        f"it is mounted at {', '.join(str(one.mountpoint) for one in found)}; name one of these"
        if found
        else "it is not mounted, and a thumbnail names the file in the mountpoint; mount it first:"
        f" fsmount mount {shlex.quote(str(path))} DIR"
    )
    raise BadMountpoint(path, reason=reason)
