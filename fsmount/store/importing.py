"""Import: folders into a store without a mount.

Sources are only read. A file appears in the store when all its bytes are staged, never half. What
is there already with the same size and mtime is skipped, so an import may be killed at any moment
and started again.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import trio

from fsmount.errors import DiskFull
from fsmount.store.index import ROOT, Inode
from fsmount.store.store import Store
from fsmount.store.tree import (
    NO_SPACE,
    OUR_XATTRS,
    SLICE,
    Item,
    Progress,
    Summary,
    find,
    same,
    walk,
)

# Staged files an import may run ahead of the encoder, so that staging does not grow without end.
_AHEAD = 48


class Importer:
    """Puts sources into a store; see :meth:`add`."""

    def __init__(self, store: Store, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self._links: dict[tuple[int, int], int] = {}
        self.summary = Summary()
        self.added: list[int] = []

    async def add(self, source: Path, target: bytes) -> None:
        """Import `source` (file or folder) as `target`; the store is running. Ends drained."""
        folders: list[tuple[int, os.stat_result]] = []
        for item in walk(source, target, self.summary):
            try:
                inode = await self._item(item)
                if stat.S_ISDIR(inode.mode):
                    folders.append((inode.ino, item.info))
            except OSError as error:
                if error.errno in NO_SPACE:
                    raise DiskFull(self._store.path) from error
                if error.filename == str(self._store.index.file):
                    raise
                self.summary.problems.append((str(item.source), error.strerror or str(error)))
            while self._store.pending() > _AHEAD:
                await trio.sleep(0.01)
        await self._store.drain()
        for ino, info in reversed(folders):
            if ino != ROOT:
                self._store.index.update(ino, mtime_ns=info.st_mtime_ns)
        await self._store.durable()

    async def _item(self, item: Item) -> Inode:
        there = find(self._store, item.target)
        if stat.S_ISDIR(item.info.st_mode):
            return self._folder(item, there)
        if there is not None and same(there, item.source, item.info):
            self.summary.skipped += 1
            self._note_links(item, there.ino)
            self._progress(1, item.info.st_size)
            return there
        if there is not None and stat.S_ISDIR(there.mode):
            raise OSError(errno.EISDIR, "the store has a folder of this name")
        inode = await self._file(item, there)
        self.summary.files += 1
        self.summary.bytes += item.info.st_size
        self._progress(1, item.info.st_size)
        return inode

    def _folder(self, item: Item, there: Inode | None) -> Inode:
        if there is not None:
            if not stat.S_ISDIR(there.mode):
                raise OSError(errno.ENOTDIR, "the store has a file of this name")
            return there
        with self._store.index.transaction():
            inode = self._create(item)
            self._xattrs(item, inode.ino)
        return inode

    async def _file(self, item: Item, there: Inode | None) -> Inode:
        index, staging = self._store.index, self._store.staging
        key = (item.info.st_dev, item.info.st_ino)
        known = self._links.get(key) if item.info.st_nlink > 1 else None
        token = None
        size = 0
        if known is None and stat.S_ISREG(item.info.st_mode):
            token = staging.create()
            size = await trio.to_thread.run_sync(self._copy, item.source, token)
        try:
            with index.transaction():
                stale = self._remove(item.target, there) if there is not None else None
                if known is not None:
                    folder, name = self._parent(item.target)
                    inode = index.link(folder, name, known, item.info.st_ctime_ns)
                else:
                    inode = self._create(item, token, size)
                    self._xattrs(item, inode.ino)
        except BaseException:
            if token is not None:
                staging.remove(token)
            raise
        if stale is not None:
            self._store.discard(stale)
        self._note_links(item, inode.ino)
        if token is not None:
            self._store.queue(inode.ino)
            self.added.append(inode.ino)
        return inode

    def _note_links(self, item: Item, ino: int) -> None:
        """The other names of a file with hard links become names of the same inode."""
        if item.info.st_nlink > 1:
            self._links[item.info.st_dev, item.info.st_ino] = ino

    def _copy(self, source: Path, token: int) -> int:
        disk, staging = self._store.disk, self._store.staging
        fd = staging.open(token)
        try:
            with source.open("rb", buffering=0) as file:
                size = 0
                while data := file.read(SLICE):
                    size += disk.pwrite(fd, data, size)
                return size
        except OSError:
            staging.remove(token)
            raise
        finally:
            disk.close(fd)

    def _parent(self, path: bytes) -> tuple[int, bytes]:
        folder, _, name = path.rpartition(b"/")
        parent = find(self._store, folder)
        if parent is None or not stat.S_ISDIR(parent.mode):
            raise OSError(errno.ENOENT, "its folder could not be imported")
        return parent.ino, name

    def _create(self, item: Item, token: int | None = None, size: int = 0) -> Inode:
        index = self._store.index
        folder, name = self._parent(item.target)
        info = item.info
        special = stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)
        target = os.fsencode(os.readlink(item.source)) if stat.S_ISLNK(info.st_mode) else None
        inode = index.create(
            folder,
            name,
            mode=info.st_mode,
            uid=info.st_uid,
            gid=info.st_gid,
            now_ns=info.st_mtime_ns,
            rdev=info.st_rdev if special else 0,
            target=target,
            staged=token,
            size=len(target) if target is not None else size,
        )
        index.update(inode.ino, atime_ns=info.st_atime_ns)
        return inode

    def _remove(self, path: bytes, there: Inode) -> int | None:
        """Take away a file that is imported anew; the token of the staged file it leaves."""
        folder, name = self._parent(path)
        left = self._store.index.unlink(folder, name, there.ctime_ns)
        return None if left.nlink else self._store.index.purge(there.ino)

    def _xattrs(self, item: Item, ino: int) -> None:
        try:
            names = os.listxattr(item.source, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return
            raise
        for name in names:
            raw = os.fsencode(name)
            if not raw.startswith(OUR_XATTRS):
                value = os.getxattr(item.source, name, follow_symlinks=False)
                self._store.index.set_xattr(ino, raw, value)
