"""Import: copies folders into a store, without a mount.

An import only reads its sources, unless the caller asks to delete them. The encoder reads a new
file where it lies, and the file appears in the store when its object is committed
(:mod:`fsmount.store.ingest.inputs`). The importer stages a copy of other files: of large ones,
files with several names, files that replace another one, pictures of differences, and sources that
the encoder refuses because they changed or failed. Such a file appears after all its bytes are
staged. So no half-copied file shows. The importer skips a file that the store already has with the
same size and mtime, so a user can kill an import at any moment and start it again. Holes of sparse
files stay holes. The summary lists a large file that does not fit, and the other files are still
imported.

The importer stores a picture that a legacy folder keeps as a difference as a whole PNG; see
:mod:`differences`. If the caller asks for it, :mod:`deleting` deletes the sources.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from fsmount import threads
from fsmount.errors import DiskFull
from fsmount.legacy.archive import Archive
from fsmount.store.disk.disk import pread
from fsmount.store.disk.stamp import Stamp, stamp
from fsmount.store.index import ROOT, Inode
from fsmount.store.ingest import large
from fsmount.store.ingest.inputs import Source
from fsmount.store.transfer.deleting import SourceDeleter
from fsmount.store.transfer.differences import as_png, decode, difference_in, shows
from fsmount.store.transfer.patterns import ALL, Patterns
from fsmount.store.transfer.tree import (
    NO_SPACE,
    SLICE,
    Item,
    Progress,
    Report,
    Summary,
    find,
    ignore,
    is_virtual,
    same,
    walk,
)
from fsmount.store.writable_store import WritableStore
from fsmount.threads import Kind

# Number of files by which an import may run ahead of the encoder. This bounds staging. It is enough
# for what 16 workers have under way.
_AHEAD = 144
_ARCHIVE_BYTES = 128 << 20
# A file of at least this size may fail with ENOSPC while a smaller file still fits. If a smaller
# file fails, the disk is full.
_LARGE = 1 << 20
_STAT_BLOCK = 512


class Importer:
    """Imports sources into a store; see :meth:`add`.

    With `delete`, it deletes each source whose content is proved to be in the store. `summary`
    counts and lists the results, `added` lists the inodes of new regular files, and `deleted`
    counts deleted sources. `report` is called with the path of each new file in the store. Belongs
    to one trio task.
    """

    def __init__(
        self,
        store: WritableStore,
        progress: Progress,
        *,
        delete: bool = False,
        report: Report = ignore,
    ) -> None:
        self._store = store
        self._progress = progress
        self._report = report
        self._archive = Archive(_ARCHIVE_BYTES, count=1)
        self._links: dict[tuple[int, int], int] = {}
        # Items that the encoder has.
        self._sources: dict[Source, Item] = {}
        self.summary = Summary()
        self._deleter = SourceDeleter(store, self._archive, self.summary) if delete else None
        self.added: list[int] = []

    @property
    def deleted(self) -> int:
        """Number of deleted sources."""
        return 0 if self._deleter is None else self._deleter.deleted

    async def add(self, source: Path, target: bytes, chosen: Patterns = ALL) -> None:
        """Import `source` (file or folder) as `target`, and wait until the encoder is idle.

        Leaves out what `chosen` does not choose. The caller keeps the store running. Raises the
        same errors as :meth:`take`.
        """
        await self.take(walk(source, target, self.summary, chosen))

    async def take(self, items: Iterable[Item]) -> None:
        """Import items, each folder before its contents, and wait until the encoder is idle.

        Raises :class:`DiskFull`, another FsmountError if the store is damaged, and OSError if the
        index fails. The summary lists all other failures of single files.
        """
        async with self._archive.running():
            try:
                await self._take(items)
            finally:
                # After an error nobody waits for the others.
                self._sources.clear()
                self._store.withdraw_sources()

    async def _take(self, items: Iterable[Item]) -> None:
        folders: list[tuple[int, os.stat_result]] = []
        for item in items:
            if any(other.target == item.target for other in self._sources.values()):
                await self._drain()
            inode = await self._one(item, in_place=True)
            if inode is not None and stat.S_ISDIR(inode.mode):
                folders.append((inode.ino, item.info))
            await self._settle()
            while self._store.pending() > _AHEAD:
                await trio.sleep(0.01)
        await self._drain()
        for ino, info in reversed(folders):
            if ino != ROOT:
                self._store.index.update(ino, mtime_ns=info.st_mtime_ns)
        await self._store.durable()
        if self._deleter is not None:
            await self._deleter.delete(final=True)

    async def _drain(self) -> None:
        """Wait until the encoder is idle, and settle all sources that it has."""
        await self._store.drain()
        while self._sources:
            await self._settle()
            await self._store.drain()

    async def _settle(self) -> None:
        """Count the sources that are in the store by now. Stage those that the encoder refused."""
        for source, ino in self._store.settled_sources():
            item = self._sources.pop(source)
            if ino is None:
                await self._one(item, in_place=False)
                continue
            self.added.append(ino)
            self._count(item, ino)
            if self._deleter is not None:
                with self._listing(item):
                    await self._deleter.add(item, ino)

    async def _one(self, item: Item, *, in_place: bool) -> Inode | None:
        """As :meth:`_item`. Lists a failure; raises the errors of :meth:`take`."""
        with self._listing(item):
            inode = await self._with_room(item, in_place=in_place)
            if inode is not None and self._deleter is not None and not stat.S_ISDIR(inode.mode):
                await self._deleter.add(item, inode.ino)
            return inode
        return None

    @contextmanager
    def _listing(self, item: Item) -> Iterator[None]:
        """In the block, list failures of one item. Raises the errors of :meth:`take`."""
        try:
            yield
        except OSError as error:
            if error.errno in NO_SPACE and _needs(item) < _LARGE:
                raise DiskFull(self._store.path) from error
            if error.filename == str(self._store.index.file):
                raise
            self.summary.problems.append((str(item.source), error.strerror or str(error)))

    async def _with_room(self, item: Item, *, in_place: bool) -> Inode | None:
        """As :meth:`_item`, with a second try on a full disk.

        Encoding the staged files may free space.
        """
        try:
            return await self._item(item, in_place=in_place)
        except OSError as error:
            if error.errno not in NO_SPACE or not self._store.pending():
                raise
        await self._store.drain()
        return await self._item(item, in_place=in_place)

    async def _item(self, item: Item, *, in_place: bool) -> Inode | None:
        """Import one source. Returns its inode, also if the store already has the file.

        With `in_place` the encoder reads the source where it lies, if that is possible. Returns
        None then, and :meth:`_settle` goes on. Also returns None, and lists the reason, if the
        picture of a difference cannot be made. Raises OSError.
        """
        data = None
        step = difference_in(self._archive, item)
        if step is not None:
            there = find(self._store, as_png(item).target)
            known = there is not None and there.mtime_ns == item.info.st_mtime_ns
            # An earlier version of fsmount may have taken it for another picture.
            if there is not None and known and not step.doubt:
                return self._skip(item, there)
            made = await decode(self._archive, item)
            data = made.png
            if data is not None:
                item = as_png(item)
                if there is not None and await shows(self._store, there, data):
                    # The file was imported with these bytes before it became a difference.
                    return self._skip(item, there)
            elif not made.is_picture:
                self.summary.problems.append((str(item.source), made.reason))
                self._progress(1, item.info.st_size)
                return None
        there = find(self._store, item.target)
        if stat.S_ISDIR(item.info.st_mode):
            return self._folder(item, there)
        if data is None and there is not None and same(there, item.source, item.info):
            return self._skip(item, there)
        if there is not None and stat.S_ISDIR(there.mode):
            raise OSError(errno.EISDIR, "the store has a folder of this name")
        if in_place and there is None and data is None and _is_for_encoder(item.info):
            self._check_room(item)
            self._add_source(item)
            return None
        inode = await self._file(item, there, data)
        self._count(item, inode.ino)
        return inode

    def _count(self, item: Item, ino: int) -> None:
        """Count a file that is new in the store."""
        inode = self._store.index.inode(ino)
        self.summary.files += 1
        self.summary.bytes += inode.size
        self._progress(1, item.info.st_size)
        self._report(item.target)

    def _add_source(self, item: Item) -> None:
        """Give the encoder a source where it lies. Raises OSError."""
        folder, name = self._parent(item.target)
        source = Source(item.source, folder, name, item.info, _xattrs(item))
        self._store.add_source(source)
        self._sources[source] = item

    def _skip(self, item: Item, there: Inode) -> Inode:
        """Count a source that the store already has, and remember its hard links.

        Returns `there`.
        """
        self.summary.skipped += 1
        self._note_links(item, there.ino)
        self._progress(1, item.info.st_size)
        return there

    def _folder(self, item: Item, there: Inode | None) -> Inode:
        """Return the folder of an item, created if it is missing.

        Raises OSError ENOTDIR if it is a file.
        """
        if there is not None:
            if not stat.S_ISDIR(there.mode):
                raise OSError(errno.ENOTDIR, "the store has a file of this name")
            return there
        with self._store.index.transaction():
            return self._create(item)

    async def _file(self, item: Item, there: Inode | None, data: bytes | None) -> Inode:
        """Import an entry that is not a folder. Raises OSError.

        Replaces `there`, the old entry of this path. `data` is the content, if the source does not
        hold it verbatim. Queues a regular file for encoding.
        """
        index, staging = self._store.index, self._store.staging
        key = (item.info.st_dev, item.info.st_ino)
        known = self._links.get(key) if item.info.st_nlink > 1 else None
        token = None
        size = 0
        if known is None and stat.S_ISREG(item.info.st_mode):
            if data is None:
                self._check_room(item)
            token = staging.create()
            size, found = await threads.call(Kind.WRITE, self._copy, item, token, data)
            if found != stamp(item.info):
                why = "it changed while it was read; import it again"
                self.summary.problems.append((str(item.source), why))
        try:
            with index.transaction():
                stale = self._remove(item.target, there) if there is not None else None
                if known is not None:
                    folder, name = self._parent(item.target)
                    inode = index.link(folder, name, known, item.info.st_ctime_ns)
                else:
                    inode = self._create(item, token, size)
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

    def _check_room(self, item: Item) -> None:
        """Raise OSError ENOSPC for a large file that does not fit, before it fills the disk."""
        disk = os.statvfs(self._store.path)
        if _needs(item) >= max(_LARGE, disk.f_bavail * disk.f_frsize):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _note_links(self, item: Item, ino: int) -> None:
        """Remember the inode of a source with hard links.

        The other names of the source become names of this inode.
        """
        if item.info.st_nlink > 1:
            self._links[item.info.st_dev, item.info.st_ino] = ino

    def _copy(self, item: Item, token: int, whole: bytes | None) -> tuple[int, Stamp]:
        """Copy a source to a staged file. Runs in a thread.

        Writes `whole` instead if it is not None. Returns the number of bytes, and the stamp of the
        source after the last byte was read. Raises OSError, and then removes the staged file.
        """
        disk, staging = self._store.disk, self._store.staging
        fd = staging.open(token)
        try:
            if whole is not None:
                return disk.pwrite(fd, whole, 0), stamp(item.info)
            with item.source.open("rb", buffering=0) as file:
                source = file.fileno()
                size = disk.copy(source, fd, os.fstat(source).st_size)
                # Some files hold more bytes than their size says (for example in /proc), and some
                # grow.
                while data := pread(source, SLICE, size):
                    size += disk.pwrite(fd, data, size)
                return size, stamp(os.fstat(source))
        except OSError:
            staging.remove(token)
            raise
        finally:
            disk.close(fd)

    def _parent(self, path: bytes) -> tuple[int, bytes]:
        """Split a path into its parent inode and its name.

        Raises OSError ENOENT if there is no parent.
        """
        folder, _, name = path.rpartition(b"/")
        parent = find(self._store, folder)
        if parent is None or not stat.S_ISDIR(parent.mode):
            raise OSError(errno.ENOENT, "its folder could not be imported")
        return parent.ino, name

    def _create(self, item: Item, token: int | None = None, size: int = 0) -> Inode:
        """Create the inode of an item, with the staged file `token` of `size` bytes if given.

        The caller has opened a transaction. Raises OSError.
        """
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
        for attribute, value in _xattrs(item).items():
            index.set_xattr(inode.ino, attribute, value)
        return inode

    def _remove(self, path: bytes, there: Inode) -> int | None:
        """Remove a file that is imported anew.

        Returns the token of its staged file, which the caller removes.
        """
        folder, name = self._parent(path)
        left = self._store.index.unlink(folder, name, there.ctime_ns)
        return None if left.nlink else self._store.index.purge(there.ino)


def _xattrs(item: Item) -> dict[bytes, bytes]:
    """Read the extended attributes of a source, except the virtual ones of fsmount.

    Raises OSError.
    """
    try:
        names = os.listxattr(item.source, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    return {
        os.fsencode(name): os.getxattr(item.source, name, follow_symlinks=False)
        for name in names
        if not is_virtual(os.fsencode(name))
    }


def _is_for_encoder(info: os.stat_result) -> bool:
    """Whether the encoder may get a new file where it lies."""
    return stat.S_ISREG(info.st_mode) and info.st_nlink == 1 and info.st_size <= large.KEEP_BYTES


def _needs(item: Item) -> int:
    """Bytes that a source takes on a disk, without its holes."""
    info = item.info
    return min(info.st_size, info.st_blocks * _STAT_BLOCK) if stat.S_ISREG(info.st_mode) else 0
