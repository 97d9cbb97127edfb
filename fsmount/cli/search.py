"""The command ``fsmount search``."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from fsmount.cli.common.options import json_option, split_store
from fsmount.cli.common.output import emit, printable, warn
from fsmount.cli.common.stores import open_index, store_to_read, with_store
from fsmount.cli.common.times import TIME_HELP, Moment, MomentType
from fsmount.errors import FsmountError, UsageError
from fsmount.mount.mountpoint import all_mounts
from fsmount.store.read_store import ReadStore
from fsmount.store.transfer.tree import slices
from fsmount.text.results import Found, Hit, Shown
from fsmount.text.words import open_words

_HELP = f"""\
Find pictures by the words that they show.

fsmount text, or a mount with -o text, must have read them. A hit is a stretch of pictures in which
the words stayed on the screen: its first and last picture, how long it was, and the line of text.
The newest comes first. Works beside a mount.

All words must be visible at the same time. "two words" in quotes follow each other. word* is any
word that begins so, *part* any word that has it inside. Case and accents do not matter. If nothing
has a word, words that have it inside stand in for it, or words that differ in one letter.

{TIME_HELP}

\b
Examples:
  fsmount search ~/shots.store python
  fsmount search ~/shots.store 'pyth*' --since 2024-06-06 --in desk
"""


@click.command(help=_HELP)
@click.argument("arguments", nargs=-1, metavar="STORE QUERY...")
@click.option("--since", type=MomentType(), help="Only what was visible at that time or later.")
@click.option("--until", type=MomentType(), help="Only what was visible at that time or before.")
@click.option("--in", "under", default="", metavar="PATH", help="Only pictures below this path.")
@click.option(
    "--limit", type=click.IntRange(1), default=20, show_default=True, help="Hits at most."
)
@click.option("--open", "show", is_flag=True, help="Open the picture of the newest hit.")
@json_option
def search(
    arguments: tuple[str, ...],
    since: Moment | None,
    until: Moment | None,
    under: str,
    limit: int,
    show: bool,
    as_json: bool,
) -> int:
    """Run ``fsmount search``."""
    store, words = split_store(arguments, 0)
    query = " ".join(words)
    with open_index(store, packs="here") as opened, open_words(opened) as text:
        found = text.search(
            query,
            since_us=None if since is None else since.start // 1000,
            until_us=None if until is None else (until.end - 1) // 1000,
            under=os.fsencode(under),
            limit=limit,
        )
    if found.instead and found.hits and not as_json:
        warn(f"nothing has these words; similar ones: {', '.join(found.instead[:10])}")
    emit(
        {
            "query": query,
            "instead": list(found.instead) if found.hits else [],
            "more": found.more,
            "hits": list(map(_row, found.hits)),
        },
        "\n".join(_lines(found)),
        as_json,
    )
    if show and found.hits:
        _open(store, found.hits[0].last)
    return 0 if found.hits else 1


def _row(hit: Hit) -> dict[str, Any]:
    return {
        "first": os.fsdecode(hit.first.path),
        "last": os.fsdecode(hit.last.path),
        "first_us": hit.first.at_us,
        "last_us": hit.last.at_us,
        "pictures": hit.pictures,
        "seconds": hit.seconds,
        "text": hit.snippet,
        "rectangles": [list(place) for place in hit.places],
    }


def _lines(found: Found) -> Iterator[str]:
    for hit in found.hits:
        yield f"{_when(hit)}  {printable(hit.last.path)}"
        x, y, width, height = hit.places[0]
        yield f"    {printable(hit.snippet)}  [{width}x{height}+{x}+{y}]"
    if not found.hits:
        yield "nothing was found"
    elif found.more:
        yield f"… and perhaps more (--limit {2 * len(found.hits)})"


def _when(hit: Hit) -> str:
    """Return when a hit was visible, and for how long."""
    first, last = (time.localtime(each.at_us / 1e6) for each in (hit.first, hit.last))
    start = time.strftime("%Y-%m-%d %H:%M", first)
    if hit.pictures == 1:
        return start
    form = "%H:%M" if first[:3] == last[:3] else "%Y-%m-%d %H:%M"
    return f"{start} to {time.strftime(form, last)}"


def _open(store: Path, picture: Shown) -> None:
    """Open a picture with the program of the desktop: of a mount, or a copy that stays.

    Raises UsageError if there is no such program, FsmountError, OSError.
    """
    opener = shutil.which("xdg-open")
    if opener is None:
        raise UsageError("--open needs the program xdg-open (Debian: apt install xdg-utils)")
    path = _in_a_mount(store_to_read(store), picture)
    if path is None:
        folder = Path(tempfile.mkdtemp(prefix="fsmount-search-"))
        path = folder / os.fsdecode(picture.path.rpartition(b"/")[2])

        async def work(opened: ReadStore) -> bytes:
            return b"".join([part async for part in slices(opened, picture.ino)])

        path.write_bytes(with_store(store, work, packs="brought"))
    if subprocess.run([opener, path], check=False).returncode:
        raise FsmountError(f"xdg-open did not open {path}")


def _in_a_mount(store: Path, picture: Shown) -> Path | None:
    """Return the path of a picture in a mount of its store, if it is mounted."""
    for mounted in all_mounts():
        path = Path(mounted.mountpoint) / os.fsdecode(picture.path)
        if Path(mounted.source) == store.resolve() and path.exists():
            return path
    return None
