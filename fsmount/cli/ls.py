"""The command ``fsmount ls``."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from fsmount.cli.common.filters import (
    CHANGED_HELP,
    FILTER_HELP,
    FilteredCommand,
    selected,
    selection_options,
)
from fsmount.cli.common.options import split_store
from fsmount.cli.common.output import emit, printable, say
from fsmount.cli.common.stores import open_index
from fsmount.cli.common.times import TIME_HELP
from fsmount.cli.common.unlocking import UNLOCK_HELP, unlock, unlock_options
from fsmount.errors import FsmountError, UsageError
from fsmount.remote.names import remote_names
from fsmount.remote.opening import open_remote
from fsmount.remote.transport import is_url
from fsmount.store.files import StoreFiles
from fsmount.store.index import Inode
from fsmount.store.transfer.exporting import below
from fsmount.store.transfer.selecting import Selection
from fsmount.store.transfer.tree import find

_HELP = f"""\
List a folder of a store, or everything below it.

Shows size, stored bytes, kind, depth, time and name. Stored bytes count only the file's own
entry; a delta shares the rest with other files. Works beside a mount. -R lists all files below,
by their paths from the top of the store. STORE may be a URL that fsmount push sends to.

{TIME_HELP}

{CHANGED_HELP}
With any of these, folders are left out.

{FILTER_HELP}

{UNLOCK_HELP}

\b
Examples:
  fsmount ls ~/shots.store
  fsmount ls ~/shots.store desk --json
  fsmount ls -R ~/shots.store --since 2024-06-01 --until 2024-06-06
  fsmount ls -R ~/shots.store --since "3 days ago" --changed 5%
"""
_HEADER = f"{'size':>12} {'stored':>10} {'kind':<7}{'depth':>6}  {'time':<16}  name"


@click.command(cls=FilteredCommand, help=_HELP)
@click.argument("arguments", nargs=-1, metavar="STORE [PATH]")
@click.option("-R", "--recursive", is_flag=True, help="List everything below, too.")
@selection_options
@unlock_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def ls(
    arguments: tuple[str, ...],
    recursive: bool,
    as_json: bool,
) -> None:
    """Run ``fsmount ls``."""
    url = arguments[0] if arguments and is_url(arguments[0]) else None
    if url is None:
        store, paths = split_store(arguments, 0, fewest=0)
        source = open_index(store, packs="here")
    else:
        paths = list(arguments[1:])
        source = remote_names(open_remote(url, unlock()))
    if len(paths) > 1:
        raise UsageError("name one store and at most one path in it: fsmount ls STORE PATH")
    path = os.fsencode(paths[0]).strip(b"/") if paths else b""
    with source as opened:
        entries = _entries(opened, path, selected().of(opened), recursive=recursive)
        if sys.stdout is not None and sys.stdout.isatty() and not as_json:
            say(_HEADER)
        for name, inode in entries:
            row = _row(opened, name, inode)
            emit(row, _line(row, "path" if recursive else "name"), as_json)


def _entries(
    store: StoreFiles, path: bytes, wanted: Selection, *, recursive: bool
) -> Iterator[tuple[bytes, Inode]]:
    """Yield the entries to list: (path from the top of the store, inode).

    Raises FsmountError if there is no entry at `path`.
    """
    top = find(store, path)
    if top is None:
        raise FsmountError(f"there is no {os.fsdecode(path)!r} in {store.path}")
    if recursive or not stat.S_ISDIR(top.mode):
        for name, inode in below(store, path, wanted):
            # The folder that the user names is not listed.
            if name != path or not stat.S_ISDIR(inode.mode):
                yield name, inode
        return
    before = path + b"/" if path else b""
    for name, inode in store.index.by_name(top.ino):
        if stat.S_ISDIR(inode.mode) and not wanted.shows_folders:
            continue
        if wanted.takes(before + name, inode.mode, inode.mtime_ns, inode.object_id):
            yield before + name, inode


def _row(store: StoreFiles, path: bytes, inode: Inode) -> dict[str, Any]:
    """Return the attributes of a file for JSON."""
    row: dict[str, Any] = {
        "name": os.fsdecode(path.rpartition(b"/")[2]),
        "path": os.fsdecode(path),
        "size": inode.size,
        "mtime_ns": inode.mtime_ns,
        "kind": _kind(inode.mode),
    }
    if inode.staged is not None:
        try:
            row |= {"kind": "staged", "stored_bytes": store.staging.size(inode.staged)}
        except FileNotFoundError:
            # A mount beside us encoded it after the row was read, or the file is lost.
            now = store.index.inode(inode.ino)
            if now.staged != inode.staged:
                return _row(store, path, now)
            row |= {"kind": "missing", "stored_bytes": 0}
    elif inode.object_id is not None:
        body = store.index.object(inode.object_id)
        row |= {"kind": body.kind, "stored_bytes": body.length, "depth": body.depth}
        row["sha256"] = body.sha256.hex()
    return row


def _kind(mode: int) -> str:
    """Return the kind of an inode that has no bytes."""
    if stat.S_ISDIR(mode):
        return "folder"
    return "link" if stat.S_ISLNK(mode) else "special"


def _line(row: dict[str, Any], shown: str) -> str:
    """Return the attributes of a file as a line; `shown` is "name" or "path"."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["mtime_ns"] // 10**9))
    stored = row.get("stored_bytes", "")
    depth = row.get("depth", "")
    name = printable(row[shown])
    return f"{row['size']:>12} {stored:>10} {row['kind']:<7}{depth:>6}  {when}  {name}"
