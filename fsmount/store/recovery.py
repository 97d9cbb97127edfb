"""What is done when a store is opened for writing: finish or undo what a crash left half done.

Each step may be repeated, so that a crash during recovery costs nothing; `docs/format.md` says
which step cleans up after which crash.
"""

from __future__ import annotations

import logging
import os

from fsmount.store.config import Layout
from fsmount.store.disk import Disk
from fsmount.store.index import Index
from fsmount.store.pack import Pack
from fsmount.store.staging import Staging

_log = logging.getLogger(__name__)


def recover(layout: Layout, index: Index, staging: Staging, disk: Disk) -> Pack:
    """Bring folder and index together; the pack that is open for appending."""
    # Files go only when the rows that say so would survive a power cut.
    index.force()
    _purge_orphans(index, staging)
    _clean_staging(index, staging)
    _clean_raw(layout, index, disk)
    return _open_packs(layout, index, disk)


def _purge_orphans(index: Index, staging: Staging) -> None:
    """Files unlinked while open have no reader left now."""
    for orphan in index.orphans():
        token = index.purge(orphan.ino)
        if token is not None:
            staging.remove(token)


def _clean_staging(index: Index, staging: Staging) -> None:
    """Rows of staged files show what was written; staged files without a row go."""
    known: set[int] = set()
    for inode in index.staged_inodes():
        assert inode.staged is not None
        known.add(inode.staged)
        try:
            found = staging.path(inode.staged).stat()
        except FileNotFoundError:
            _log.error("%r: its staged file is missing", index.path(inode.ino))
            continue
        if found.st_size != inode.size:
            index.update(inode.ino, size=found.st_size, mtime_ns=found.st_mtime_ns)
    for token in staging.tokens():
        if token not in known:
            staging.remove(token)
    staging.reserve(max(known, default=0))


def _clean_raw(layout: Layout, index: Index, disk: Disk) -> None:
    """Large files whose object was never committed go; their staged name is still there."""
    known = {f"{found.id:08x}" for found in index.all_objects() if found.kind == "raw"}
    for entry in os.scandir(layout.raw):
        if entry.name not in known:
            disk.unlink(layout.raw / entry.name)


def _open_packs(layout: Layout, index: Index, disk: Disk) -> Pack:
    """Drop unfinished tails, finish packs that are no longer written, open the newest."""
    packs = index.packs()
    for entry in os.scandir(layout.packs):
        stem = entry.name.removesuffix(".zip")
        if not stem.isdigit() or int(stem) not in packs:
            disk.unlink(layout.packs / entry.name)
    newest = max(packs, default=1)
    for number, (length, sealed) in packs.items():
        if not sealed and number != newest:
            old = Pack(layout.pack(number), number, disk, length)
            seal(old, index)
    length, sealed = packs.get(newest, (0, False))
    if sealed:
        newest, length = newest + 1, 0
    return Pack(layout.pack(newest), newest, disk, length)


def seal(pack: Pack, index: Index) -> None:
    """Finish a pack: central directory, durable, closed, and the index says so."""
    pack.write_directory()
    pack.fsync()
    pack.close()
    index.set_pack(pack.number, pack.length, sealed=True)
