"""The copy of a folder in a new store, before the store is mounted over the folder.

A pass makes the store equal to the folder, except for files that may still change. Such a file must
not be in the store when it is mounted: a program could rename its half-written copy there. So each
pass also removes from the store what the folder does not have in the same form.
"""

from __future__ import annotations

import logging
import math
import os
import stat
import time
from pathlib import Path

from fsmount.adopt.activity import is_settled
from fsmount.errors import FsmountError
from fsmount.store.index import ROOT, Inode
from fsmount.store.transfer.importing import Importer
from fsmount.store.transfer.tree import Item, Progress, Summary, find, is_virtual, same, walk
from fsmount.store.writable_store import WritableStore

_log = logging.getLogger(__name__)

# A pass that took no longer than this is the last one.
_SHORT_S = 3.0


async def copy(folder: Path, store: WritableStore, progress: Progress) -> Summary:
    """Copy a folder into a store that has only files from it, in several passes.

    The caller keeps the store running and has a handler for leases. The summary lists files that
    could not be copied although nobody seems to be writing them. Raises the errors of
    :meth:`Importer.take`, and FsmountError if files could not be encoded.
    """
    summary = Summary()
    files, took_s = math.inf, math.inf
    while took_s > _SHORT_S:
        began, files_before = time.monotonic(), files
        settled = _settled(folder)
        _remove_others(store, settled)
        importer = Importer(store, progress)
        await importer.take(settled.values())
        files, took_s = importer.summary.files, time.monotonic() - began
        _log.info("%s: %d files copied in %.1f s", folder, files, took_s)
        summary.files += importer.summary.files
        summary.bytes += importer.summary.bytes
        summary.problems = importer.summary.problems
        if files > files_before / 2:
            # Programs write about as fast as this copies: one more pass would find as much.
            break
    settled = _settled(folder)
    _remove_others(store, settled)
    _attributes(folder, store)
    await store.durable()
    wanted = {str(item.source): item for item in settled.values()}
    summary.problems = [
        (path, why)
        for path, why in summary.problems
        if path in wanted and not _is_same(find(store, wanted[path].target), wanted[path])
    ]
    if waiting := store.index.totals()["staged"]:
        raise FsmountError(
            f"{waiting} files could not be encoded, so {folder} was left as it is. Is the disk of"
            f" {store.path} full? Run the same command again. For details set FSMOUNT_LOG=FILE."
        )
    return summary


def _settled(folder: Path) -> dict[bytes, Item]:
    """The entries below a folder that nobody seems to be writing, by their paths from it."""
    found = {}
    for item in walk(folder, b"", Summary()):
        try:
            if item.target and is_settled(item.source, item.info):
                found[item.target] = item
        except FileNotFoundError:
            continue
    return found


def _is_same(inode: Inode | None, item: Item | None) -> bool:
    """Whether the store has an entry in the form that the folder has it."""
    if inode is None or item is None:
        return False
    if stat.S_ISDIR(inode.mode):
        return stat.S_ISDIR(item.info.st_mode)
    try:
        return same(inode, item.source, item.info)
    except FileNotFoundError:
        return False


def _remove_others(store: WritableStore, settled: dict[bytes, Item]) -> None:
    """Remove from the store all that is not there in the form of `settled`."""
    index = store.index
    wrong = [
        (path, inode) for path, inode in index.walk() if not _is_same(inode, settled.get(path))
    ]
    # The contents of a folder come before the folder.
    for path, inode in reversed(wrong):
        folder, _, name = path.rpartition(b"/")
        above = find(store, folder)
        assert above is not None
        with index.transaction(deletes=True):
            left = index.unlink(above.ino, name, inode.ctime_ns)
            is_gone = stat.S_ISDIR(left.mode) or not left.nlink
            stale = index.purge(inode.ino) if is_gone else None
        if stale is not None:
            store.discard(stale)


def _attributes(folder: Path, store: WritableStore) -> None:
    """Give the root of the store the owner, permissions and attributes of the folder."""
    info = folder.stat()
    store.index.update(
        ROOT, mode=info.st_mode, uid=info.st_uid, gid=info.st_gid, mtime_ns=info.st_mtime_ns
    )
    for name in map(os.fsencode, os.listxattr(folder)):
        if not is_virtual(name):
            store.index.set_xattr(ROOT, name, os.getxattr(folder, name))
