"""The command ``fsmount stats``."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from fsmount.cli.common.options import json_option, store_argument
from fsmount.cli.common.output import counted, emit, printable, size, times_smaller
from fsmount.cli.common.policies import policy_figures, policy_lines
from fsmount.cli.common.stores import open_index, store_to_read
from fsmount.mount.session import LOG_NAME
from fsmount.store.files import StoreFiles
from fsmount.store.index import ROOT, Inode
from fsmount.store.maintenance.repack import reclaimable
from fsmount.store.transfer.tree import is_trash

_HELP = """\
Show the number and size of the files in a store, and its size. Works beside a mount.

Also tells what fsmount repack would give back: the bytes of deleted files, as far as the index
knows them. Coding pictures again may give more; fsmount repack --dry-run estimates how much.
Says what the policy of the store did last, and what it does next. Names the log of the mounts of
this store, unless FSMOUNT_LOG sent it elsewhere when they were mounted.

\b
Example:
  fsmount stats ~/shots.store --json
"""


@click.command(help=_HELP)
@store_argument
@json_option
def stats(store: Path, as_json: bool) -> None:
    """Run ``fsmount stats``."""
    with open_index(store) as opened:
        found = opened.stats()
        trash = list(_trash(opened))
        dead = reclaimable(opened.index)
        policy = policy_figures(opened)
    log = store_to_read(store) / LOG_NAME
    found |= {
        "reclaimable_bytes": dead,
        "trash_files": len(trash),
        "trash_bytes": sum(inode.size for inode in trash),
        "policy": policy,
        "log": str(log) if log.is_file() else None,
    }
    emit(found, "\n".join(_lines(found)), as_json)


def _lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the figures in words."""
    kinds, whole, stored = found["objects"], found["logical_bytes"], found["stored_bytes"]
    jpegs = f" {counted(kinds['jpeg'], 'JPEG')} as JPEG XL," if kinds["jpeg"] else ""
    yield (
        f"{counted(found['files'], 'file')}, {size(whole)} in {size(stored)}"
        f"{times_smaller(whole, stored)}"
    )
    yield (
        f"{counted(kinds['key'], 'keyframe')}, {counted(kinds['delta'], 'delta')},{jpegs}"
        f" {kinds['raw']} raw, {kinds['staged']} not encoded yet"
    )
    yield from (f"  raw: {count} x {reason}" for reason, count in found["raw_reasons"].items())
    if found["trash_files"]:
        files, count = counted(found["trash_files"], "file"), size(found["trash_bytes"])
        yield f"{files} ({count}) of them in the trash: deleted by a desktop, not yet removed"
    if found["deleted_files"]:
        files, count = counted(found["deleted_files"], "file"), size(found["deleted_bytes"])
        yield f"in the trash of the store, beside these: {files} ({count})"
    if found["reclaimable_bytes"]:
        yield (
            f"repack would give back {size(found['reclaimable_bytes'])} of deleted files, as far as"
            " the index knows; coding again may give more"
        )
    if found["policy"]:
        yield from policy_lines(found["policy"])
    if found["parity_bytes"]:
        yield f"parity of the packs: {size(found['parity_bytes'])}"
    if found["log"]:
        yield f"log of its mounts: {printable(found['log'])}"


def _trash(store: StoreFiles) -> Iterator[Inode]:
    """Yield the files in the trash folders of desktops, which lie at the top of a mount."""
    for name, inode in store.index.by_name(ROOT):
        if is_trash(name) and stat.S_ISDIR(inode.mode):
            for _, entry in store.index.walk(inode.ino):
                if stat.S_ISREG(entry.mode):
                    yield entry
