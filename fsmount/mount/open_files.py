"""Open files: their bodies, their handles, and who may change a body when.

Each open inode has one :class:`OpenInode`, which counts its users. The last user removes it. A task
holds its lock while it opens, renders, changes or forces the body. This is one coarse lock on
purpose. Between awaits the trio task is alone, so functions that never await take no lock. A call
that asks a disk runs in a thread, and so awaits: a row that was read before is read again after it.
Sizes and times come from memory and never wait for a disk.

A body is either *staged* (a descriptor on the staged file, shared by all handles) or *encoded*
(the store renders it at the first read, and the inode keeps it). The first change of an encoded
body copies it into a new staged file. While an inode has a writer it is held: the store does not
encode it, so its row cannot turn from staged to encoded under a writer. The row can turn under a
reader. The descriptor of the reader then still shows the same bytes.

:class:`OpenFiles` is the table of everything open: handles, then bodies, then the calls on a file
descriptor, then sizes and times. The descriptors on staged files are in :mod:`staged_files`.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from fsmount.errors import Damaged
from fsmount.mount.attributes import Bytes, failure, now_ns, without_privileges
from fsmount.mount.staged_files import StagedFile, StagedFiles, blocks_of
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Inode
from fsmount.store.read_store import ReadStore
from fsmount.store.writable_store import WritableStore
from fsmount.threads import Kind

_log = logging.getLogger(__name__)

_SLICE_BYTES = 1 << 20
_SIZE_LIMIT = (1 << 63) - 1


@dataclass(slots=True)
class OpenInode:
    """The state that all handles of one inode share.

    `users` counts handles and writers without a handle. `touched_ns` is the time of the last change
    to the body that its row does not show yet. `by_user` tells whether a user other than root made
    one of these changes.
    """

    ino: int
    users: int = 0
    writers: int = 0
    staged: StagedFile | None = None
    body: Bytes | None = None
    touched_ns: int | None = None
    by_user: bool = False
    lock: trio.Lock = field(default_factory=trio.Lock)


@dataclass(slots=True)
class Handle:
    """One open(2), with its own access mode and the user who opened it.

    `was_read` tells whether a read was answered.
    """

    entry: OpenInode
    readable: bool
    writable: bool
    uid: int
    was_read: bool = False


class OpenFiles:
    """The table of open inodes and handles of a mount.

    `writable` is the same store if programs may change it. `staged_files` opens and closes the
    descriptors. `closed` is called with the number of an inode after its last user has left.
    Belongs to the trio task.
    """

    def __init__(
        self,
        store: ReadStore,
        writable: WritableStore | None,
        staged_files: StagedFiles,
        closed: Callable[[int], None],
    ) -> None:
        self._store = store
        self._writable_store = writable
        self._closed = closed
        self._staged_files = staged_files
        self._entries: dict[int, OpenInode] = {}
        self._handles: dict[int, Handle] = {}
        self._next = 1

    def writable(self) -> WritableStore:
        """The store, to change it. Raises OSError EROFS if it is shown read-only."""
        if self._writable_store is None:
            raise failure(errno.EROFS)
        return self._writable_store

    # -- handles

    def is_open(self, ino: int) -> bool:
        """Whether an inode has users."""
        return ino in self._entries

    async def open(self, node: Inode, flags: int, uid: int, fresh: StagedFile | None = None) -> int:
        """Open a regular file and return the number of its handle. O_TRUNC empties the file.

        `fresh` is the staged file of an inode that was just created. This table owns it from here
        on. Raises OSError, Damaged.
        """
        access = flags & os.O_ACCMODE
        writable = access != os.O_RDONLY
        entry = self._enter(node.ino, writable)
        try:
            entry.staged = fresh or entry.staged
            if flags & os.O_TRUNC:
                await self.truncate(node.ino, 0, uid)
            if entry.staged is None and self._store.index.inode(node.ino).staged is not None:
                async with entry.lock:
                    await self._attach(entry)
        except BaseException:
            self._leave(entry, writable)
            await self._staged_files.close_dropped()
            raise
        number = self._next
        self._next += 1
        self._handles[number] = Handle(entry, access != os.O_WRONLY, writable, uid)
        return number

    def handle(self, fh: int) -> Handle:
        """The handle of a number. Raises OSError EBADF if there is none."""
        found = self._handles.get(fh)
        if found is None:
            raise failure(errno.EBADF)
        return found

    async def release(self, fh: int) -> Handle:
        """Forget a handle. Returns it once the descriptors of dropped files are closed.

        The inode loses its user, and its writer, before the first await. Raises OSError EBADF.
        """
        try:
            return self._release(fh)
        finally:
            await self._staged_files.close_dropped()

    def _release(self, fh: int) -> Handle:
        handle = self.handle(fh)
        del self._handles[fh]
        self._leave(handle.entry, handle.writable)
        return handle

    def release_all(self) -> None:
        """Forget all handles at the end of the mount. Logs errors. Waits for the disk."""
        for fh in list(self._handles):
            try:
                self._release(fh)
            except Exception:
                _log.exception("closing handle %d failed", fh)
        self._staged_files.close_at_end()

    def _enter(self, ino: int, writer: bool) -> OpenInode:
        entry = self._entries.get(ino)
        if entry is None:
            entry = self._entries[ino] = OpenInode(ino)
        entry.users += 1
        if writer:
            entry.writers += 1
            if entry.writers == 1:
                self.writable().hold(ino)
        return entry

    def _leave(self, entry: OpenInode, writer: bool) -> None:
        try:
            if writer:
                entry.writers -= 1
                if entry.writers == 0:
                    self._stop_writing(entry)
        finally:
            entry.users -= 1
            if entry.users == 0:
                del self._entries[entry.ino]
                self._detach(entry)
                self._closed(entry.ino)

    def _stop_writing(self, entry: OpenInode) -> None:
        try:
            self.persist(entry.ino)
        finally:
            self.writable().unhold(entry.ino)
        node = self._store.index.inode(entry.ino)
        if node.staged is not None and node.nlink:
            self.writable().queue(entry.ino)

    @asynccontextmanager
    async def _writing(self, ino: int) -> AsyncIterator[OpenInode]:
        """In the block the inode is locked, and has one writer more that has no handle."""
        entry = self._enter(ino, True)
        try:
            async with entry.lock:
                yield entry
        finally:
            self._leave(entry, True)
            await self._staged_files.close_dropped()

    # -- bodies

    async def _attach(self, entry: OpenInode) -> None:
        """Open the staged file that the row names, unless the entry has it already.

        The caller holds the lock. The row of an inode without a writer may have turned to encoded
        when this returns. Raises OSError, and Damaged if the staged file is missing.
        """
        while True:
            token = self._store.index.inode(entry.ino).staged
            if token is None or (entry.staged is not None and entry.staged.token == token):
                return
            try:
                staged = await self._staged_files.open(token)
                break
            except FileNotFoundError as error:
                # If the row changed, this process or the writer beside a read-only mount has just
                # encoded the file.
                if self._store.index.inode(entry.ino).staged == token:
                    path = self._store.staging.path(token)
                    raise Damaged(path, reason="the file is gone") from error
        self._detach(entry)
        entry.staged = staged
        await self._staged_files.close_dropped()

    def _detach(self, entry: OpenInode) -> None:
        """Drop the body. Does not await.

        The caller must call :meth:`StagedFiles.close_dropped` later.
        """
        staged, entry.staged, entry.body = entry.staged, None, None
        if staged is not None:
            self._staged_files.drop(staged)

    async def _body(self, entry: OpenInode) -> Bytes:
        """The body that answers reads. It is opened or rendered now if necessary."""
        if entry.staged is None and entry.body is None:
            async with entry.lock:
                await self._load(entry)
        body = entry.staged or entry.body
        assert body is not None
        return body

    async def _load(self, entry: OpenInode) -> None:
        if entry.staged is None:
            await self._attach(entry)
        if entry.staged is None and entry.body is None:
            entry.body = await self._render(self._store.index.inode(entry.ino))

    async def _render(self, node: Inode) -> Bytes:
        if node.object_id is None:
            raise Damaged(f"inode {node.ino}", reason="it has no body")
        return await self._store.body(node.object_id)

    async def _staged(self, entry: OpenInode, keep: int = _SIZE_LIMIT) -> StagedFile:
        """The staged file that a change writes to. The caller holds the lock and a hold.

        At most `keep` bytes of an encoded body are copied into a new staged file first. If no byte
        is kept, a staged file whose fsync failed is replaced by a new one, too.
        """
        node = self._store.index.inode(entry.ino)
        if node.staged is None or (not keep and self._store.staging.has_failed(node.staged)):
            await self._copy_up(entry, node, keep)
        else:
            await self._attach(entry)
        assert entry.staged is not None
        return entry.staged

    async def _copy_up(self, entry: OpenInode, node: Inode, keep: int) -> None:
        """Copy `keep` bytes of the body into a new staged file, which replaces it.

        The caller holds the lock and a hold, so neither the body of the row nor that of the entry
        changes meanwhile.
        """
        fresh = await self._staged_files.fresh()
        try:
            size = 0
            if keep:
                source = entry.staged or entry.body or await self._render(node)
                size = await self._copy(source, fresh, min(keep, source.size))
            self._store.index.stage(node.ino, fresh.token, size)
        except BaseException:
            await self._staged_files.remove(fresh)
            raise
        if node.staged is not None:
            self.writable().discard(node.staged)
        self._detach(entry)
        entry.staged = fresh
        await self._staged_files.close_dropped()

    async def _copy(self, source: Bytes, target: StagedFile, size: int) -> int:
        disk, offset = self._store.disk, 0
        while offset < size:
            data = await source.pread(offset, min(_SLICE_BYTES, size - offset))
            if not data:
                raise failure(errno.EIO)
            offset += await target.change(partial(_pwrite, disk, data, offset))
        return size

    # -- calls on a file descriptor

    async def read(self, fh: int, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset` (bytes); fewer only at the end of the file.

        Raises OSError EBADF, Damaged.
        """
        handle = self.handle(fh)
        if not handle.readable:
            raise failure(errno.EBADF)
        body = await self._body(handle.entry)
        handle.was_read = True
        return await body.pread(offset, length)

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        """Write all of `data` at `offset` (bytes). Returns the length of `data`.

        The offset is right for O_APPEND, too: the kernel, the only user of the tree, computes it
        under its own lock on the inode. If this method took the end of the file instead, it would
        misplace the pages that a memory mapping of such a handle writes back. Raises OSError EBADF,
        EFBIG, ENOSPC.
        """
        handle = self.handle(fh)
        if not handle.writable:
            raise failure(errno.EBADF)
        if offset + len(data) > _SIZE_LIMIT:
            raise failure(errno.EFBIG)
        entry = handle.entry
        async with entry.lock:
            await self.writable().need_space(len(data))
            staged = await self._staged(entry)
            self._touch(entry, handle.uid)
            try:
                return await staged.change(partial(_pwrite, self._store.disk, data, offset))
            finally:
                # A task may have updated the row during the write, and has not seen all of it.
                entry.touched_ns = now_ns()

    async def truncate(self, ino: int, size: int, uid: int) -> None:
        """Cut the body to `size` bytes, or extend it with a hole. Updates the row at once.

        `uid` is the user who truncates. Raises OSError EINVAL, EFBIG.
        """
        if size < 0:
            raise failure(errno.EINVAL)
        if size > _SIZE_LIMIT:
            raise failure(errno.EFBIG)
        async with self._writing(ino) as entry:
            staged = await self._staged(entry, keep=size)
            await staged.change(lambda fd: self._store.disk.ftruncate(fd, size))
            self._touch(entry, uid)
            self.persist(ino)

    def _touch(self, entry: OpenInode, uid: int) -> None:
        """Note that `uid` changes the body now.

        The kernel leaves it to fsmount to drop set-user-id.
        """
        if uid != 0 and not entry.by_user:
            entry.by_user = True
            mode = self._store.index.inode(entry.ino).mode
            if mode != without_privileges(mode):
                self._store.index.update(entry.ino, mode=without_privileges(mode))
        entry.touched_ns = now_ns()

    def persist(self, ino: int) -> None:
        """Write size and times of a changed body into its row. Does not await."""
        entry = self._entries.get(ino)
        if entry is None or entry.touched_ns is None or entry.staged is None:
            return
        touched = entry.touched_ns
        size = entry.staged.size
        self._store.index.update(ino, size=size, mtime_ns=touched, ctime_ns=touched)
        entry.touched_ns, entry.by_user = None, False

    async def flush(self, fh: int) -> None:
        """Answer close(2) of one descriptor: written bytes survive the death of the daemon.

        Raises OSError EBADF.
        """
        self.persist(self.handle(fh).entry.ino)

    async def fsync(self, fh: int) -> None:
        """Force written bytes and the index to the disk, so that they survive a power cut.

        Raises OSError. After a failure every call raises it, until another file has the bytes.
        """
        entry = self.handle(fh).entry
        async with entry.lock:
            self.persist(entry.ino)
            staged = entry.staged
            if staged and self._store.index.inode(entry.ino).staged == staged.token:
                await staged.use(Kind.FORCE, partial(self._store.staging.force, staged.token))
        await self._store.durable()

    # -- attributes

    def times(self, node: Inode) -> tuple[int, int]:
        """Return mtime and ctime of an inode in ns since 1970: of its row, or of a later write."""
        entry = self._entries.get(node.ino)
        if entry is None or entry.touched_ns is None:
            return node.mtime_ns, node.ctime_ns
        return entry.touched_ns, entry.touched_ns

    def extent(self, node: Inode) -> tuple[int, int]:
        """The size of a body in bytes, and its number of blocks of 512 bytes. Asks no disk.

        An open staged file has its own extent. A staged file that is not open has the size of its
        row: the last close and recovery keep it up to date.
        """
        if node.staged is not None:
            entry = self._entries.get(node.ino)
            if entry and entry.staged and entry.staged.token == node.staged:
                return entry.staged.size, entry.staged.blocks
            return node.size, self._staged_files.closed_blocks(node.staged, node.size)
        return node.size, blocks_of(node.size)


def _pwrite(disk: Disk, data: bytes, offset: int, fd: int) -> int:
    return disk.pwrite(fd, data, offset)
