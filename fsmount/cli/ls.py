"""The command ``fsmount ls``."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
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
by their paths from the top of the store. STORE may be a URL that fsmount push sends to. A URL
whose folders are the stores of several machines is shown as fsmount mount shows it: these folders,
with the times when they were pushed, and paths in them. Filters see each store by itself.

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
  fsmount ls s3://my-bucket/ laptop/desk
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
    if arguments and is_url(arguments[0]):
        paths = list(arguments[1:])
        path = _path(paths)
        _list_url(arguments[0], path, _Shown(recursive, as_json))
    else:
        store, paths = split_store(arguments, 0, fewest=0)
        path = _path(paths)
        with open_index(store, packs="here") as opened:
            _Shown(recursive, as_json).list(opened, path, opened.path)


def _path(paths: Sequence[str]) -> bytes:
    """The path in the store."""
    if len(paths) > 1:
        raise UsageError("name one store and at most one path in it: fsmount ls STORE PATH")
    return os.fsencode(paths[0]).strip(b"/") if paths else b""


def _list_url(url: str, path: bytes, shown: _Shown) -> None:
    """List the store at a URL, or the stores of several machines as folders."""
    # What reads from URLs takes long to load.
    from fsmount.remote.names import remote_names
    from fsmount.remote.reading import stores_at

    found = stores_at(url, lambda each: open_remote(each, unlock()))
    if "" in found:
        with remote_names(*found[""]) as opened:
            shown.list(opened, path, url)
        return
    machine, _, inner = path.partition(b"/")
    if machine and os.fsdecode(machine) not in found:
        raise FsmountError(f"there is no {os.fsdecode(machine)!r} in {url}")
    for name, (remote, state) in found.items():
        if machine and name != os.fsdecode(machine):
            continue
        if not machine:
            shown.machine(name, state.time)
        if machine or shown.recursive:
            with remote_names(remote, state) as opened:
                shown.list(opened, inner, remote.url, os.fsencode(name) + b"/")


class _Shown:
    """What the command prints: a row for each file, as a line or as JSON."""

    def __init__(self, recursive: bool, as_json: bool) -> None:
        self.recursive = recursive
        self._as_json = as_json
        self._has_header = as_json or sys.stdout is None or not sys.stdout.isatty()

    def list(self, store: StoreFiles, path: bytes, where: object, above: bytes = b"") -> None:
        """Print the entries of a store. `where` is its name; their paths begin with `above`."""
        selection = selected().of(store)
        for name, inode in _entries(store, path, where, selection, recursive=self.recursive):
            row = _row(store, name, inode)
            self._print(row | {"path": os.fsdecode(above + name)})

    def machine(self, name: str, time_s: int) -> None:
        """Print the folder of a machine whose store was pushed at a time."""
        if selected().shows_folders:
            row = {"name": name, "path": name, "size": 0, "mtime_ns": time_s * 10**9}
            self._print(row | {"kind": "folder"})

    def _print(self, row: dict[str, Any]) -> None:
        if not self._has_header:
            self._has_header = True
            say(_HEADER)
        emit(row, _line(row, "path" if self.recursive else "name"), self._as_json)


def _entries(
    store: StoreFiles, path: bytes, where: object, wanted: Selection, *, recursive: bool
) -> Iterator[tuple[bytes, Inode]]:
    """Yield the entries to list: (path from the top of the store, inode).

    Raises FsmountError if there is no entry at `path`.
    """
    top = find(store, path)
    if top is None:
        raise FsmountError(f"there is no {os.fsdecode(path)!r} in {where}")
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
