"""The command ``fsmount ls``."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from typing import Any

import click

from fsmount.cli.common.options import split_store
from fsmount.cli.common.output import emit, printable
from fsmount.cli.common.stores import open_index
from fsmount.errors import FsmountError, UsageError
from fsmount.store.index import Inode
from fsmount.store.store import Store
from fsmount.store.transfer.tree import find

_HELP = """\
List a folder of a store: size, stored bytes, kind, depth, time, name.

Stored bytes count only the file's own entry; a delta shares the rest with other files. Works
beside a mount.

\b
Examples:
  fsmount ls ~/shots.store
  fsmount ls ~/shots.store desk --json
"""


@click.command(help=_HELP)
@click.argument("arguments", nargs=-1, metavar="STORE [PATH]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def ls(arguments: tuple[str, ...], as_json: bool) -> None:
    """Run ``fsmount ls``."""
    store, paths = split_store(arguments, 0, fewest=0)
    if len(paths) > 1:
        raise UsageError("name one store and at most one path in it: fsmount ls STORE PATH")
    path = paths[0] if paths else ""
    with open_index(store) as opened:
        wanted = os.fsencode(path).strip(b"/")
        top = find(opened, wanted)
        if top is None:
            raise FsmountError(f"there is no {path!r} in {store}")
        entries: Iterator[tuple[bytes, Inode]] = iter([(wanted.rpartition(b"/")[2], top)])
        if stat.S_ISDIR(top.mode):
            entries = opened.index.by_name(top.ino)
        for name, inode in entries:
            row = _row(opened, name, inode)
            emit(row, _line(row), as_json)


def _row(store: Store, name: bytes, inode: Inode) -> dict[str, Any]:
    """Return the attributes of a file for JSON."""
    row: dict[str, Any] = {
        "name": os.fsdecode(name),
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
                return _row(store, name, now)
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


def _line(row: dict[str, Any]) -> str:
    """Return the attributes of a file as a line."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["mtime_ns"] // 10**9))
    stored = row.get("stored_bytes", "")
    depth = row.get("depth", "")
    name = printable(row["name"])
    return f"{row['size']:>12} {stored:>10} {row['kind']:<7}{depth:>2}  {when}  {name}"
