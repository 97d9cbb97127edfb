"""Performs the plans of a repair, in an order in which a crash at any point loses nothing.

Data is removed only after its replacement is forced to the disk. If a repair is killed, the next
one starts from the beginning and comes to the same result.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index
from fsmount.store.layout import Layout
from fsmount.store.recovery.merge import LostFile, NewIndex, Removal
from fsmount.store.recovery.scan import Replica


def replace_index(layout: Layout, disk: Disk, identity: str, plan: NewIndex) -> None:
    """Write a new index beside the old one, move the old one to ``lost/``, rename the new one.

    The caller holds the lock of the store. `identity` is the uuid of the store. Raises OSError.
    """
    fresh = layout.index.with_name("index.new")
    for path in (fresh, *_logs(fresh)):
        disk.unlink(path)
    Index.make(fresh, identity=identity, uid=os.getuid(), gid=os.getgid(), now_ns=time.time_ns())
    disk.chmod(fresh, 0o600)
    index = Index(fresh, disk)
    try:
        _fill(index, plan)
        index.force()
    finally:
        index.close()
    _fsync(disk, fresh)
    _set_aside(layout, disk)
    disk.rename(fresh, layout.index)
    disk.fsync_folder(layout.root)


def _fill(index: Index, plan: NewIndex) -> None:
    rows = plan.rows
    index.restore(rows.inodes, rows.names, rows.xattrs, rows.objects, rows.next_object)
    with index.transaction():
        for number, length in plan.packs.items():
            index.set_pack(number, length, sealed=True)
        index.set_opened(rows.opened)


def _logs(path: Path) -> list[Path]:
    """The files that SQLite keeps beside a database."""
    return [path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal")]


def _fsync(disk: Disk, path: Path) -> None:
    fd = disk.open(path, os.O_RDWR)
    try:
        disk.fsync(fd)
    finally:
        disk.close(fd)


def _set_aside(layout: Layout, disk: Disk) -> None:
    """Move the old index to ``lost/``. Its logs go first: a log without its database is useless."""
    _make_lost(layout, disk)
    now = time.time_ns()
    for path in (*_logs(layout.index), layout.index):
        if path.exists():
            disk.rename(path, layout.lost / f"{path.name}-{now}")
    disk.fsync_folder(layout.lost)


def _make_lost(layout: Layout, disk: Disk) -> None:
    if not layout.lost.exists():
        disk.mkdir(layout.lost)


def heal_entry(layout: Layout, disk: Disk, replica: Replica) -> None:
    """Write the second copy of an entry to its place in the pack. Raises OSError.

    A missing pack is created, with a hole in the place of its other entries.
    """
    path = layout.pack(replica.found.pack)
    fd = disk.open(path, os.O_RDWR) if path.exists() else disk.create(path)
    try:
        disk.pwrite(fd, replica.data, replica.found.offset)
        disk.fsync(fd)
    finally:
        disk.close(fd)
    disk.fsync_folder(path.parent)


def drop_lost(layout: Layout, index: Index, disk: Disk, plan: Removal) -> None:
    """List the lost files in ``lost/``, then drop their rows, then force the index.

    Raises OSError.
    """
    if plan.files:
        _list_files(layout, disk, plan.files)
    if plan.inodes or plan.objects:
        index.drop_bodies(plan.inodes, plan.objects)
    for number, length in plan.packs.items():
        if length is None:
            index.drop_pack(number)
        else:
            index.set_pack(number, length, sealed=True)
    index.force()


def _list_files(layout: Layout, disk: Disk, files: Collection[LostFile]) -> None:
    """Write one file that names the lost files. Equal lists give equal file names."""
    lines = sorted(json.dumps(asdict(file)) for file in files)
    text = ("\n".join(lines) + "\n").encode()
    _make_lost(layout, disk)
    name = f"files-{hashlib.sha256(text).hexdigest()[:16]}.json"
    disk.write_file(layout.lost / name, text)
