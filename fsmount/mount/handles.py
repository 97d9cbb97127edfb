"""Open files: their bodies, their handles, and who may change a body when.

One :class:`OpenInode` per inode that is open, however often; it is counted by its users and goes
with the last. Its lock is held by everything that changes the body or waits while it does: one
coarse lock on purpose. Between awaits the trio task is alone, so what never awaits takes no lock.
What asks a disk runs in a thread, and so awaits: a row that was read before is read again behind
it. Sizes and times are answered from memory, whatever a disk does.

A body is either *staged* (a descriptor on the staged file, shared by all handles) or *encoded*
(rendered by the store at the first read and pinned). The first change of an encoded body copies
it into a new staged file. While an inode has a writer it is held: the store does not encode it,
so its row cannot turn from staged to encoded under a writer. It can under a reader, whose
descriptor then still shows the same bytes.
"""

from __future__ import annotations

import errno
import logging
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import trio

from fsmount import threads
from fsmount.errors import Damaged
from fsmount.mount.attributes import Bytes, failure, now_ns, without_privileges
from fsmount.store.disk.disk import Disk, pread
from fsmount.store.index import Inode
from fsmount.store.store import Store
from fsmount.threads import Kind

T = TypeVar("T")
_log = logging.getLogger(__name__)

_SLICE_BYTES = 1 << 20
_BLOCK = 512
_SPARSE_KNOWN = 1000
_SIZE_LIMIT = (1 << 63) - 1


class StagedFile:
    """A descriptor on a staged file, and the file's extent as it was when it was last changed.

    Only threads ask the disk. The descriptor is closed once nothing leads to it and no thread uses
    it, so that none meets another file under its number. Belongs to the trio task.
    """

    def __init__(self, disk: Disk, token: int, fd: int) -> None:
        """Take over a descriptor. In a thread; raises OSError."""
        self.token = token
        self._disk = disk
        self._fd = fd
        self._users = 0
        self._is_dropped = False
        self._measure(os.fstat(fd))

    def _measure(self, found: os.stat_result) -> None:
        self.size = found.st_size
        self.blocks = found.st_blocks

    async def use(self, kind: Kind, function: Callable[[int], T]) -> T:
        """`function(fd)` in a thread. Raises OSError EBADF if the file was dropped before."""
        if self._is_dropped:
            raise failure(errno.EBADF)
        self._users += 1
        try:
            return await threads.call(kind, function, self._fd)
        finally:
            self._users -= 1
            if self._is_dropped and not self._users:
                await threads.finish(Kind.OPEN, self._disk.close, self._fd)

    async def change(self, function: Callable[[int], T]) -> T:
        """As :meth:`use`, for what changes the file, in part also where it fails."""
        found: list[os.stat_result] = []

        def changing(fd: int) -> T:
            try:
                return function(fd)
            finally:
                found.append(os.fstat(fd))

        try:
            return await self.use(Kind.WRITE, changing)
        finally:
            for each in found:
                self._measure(each)

    async def pread(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; fewer only at the end."""
        if not self._is_dropped:
            # What the kernel has in memory takes no thread. Whatever the error, a thread asks.
            with suppress(OSError):
                return self._disk.read_cached(self._fd, length, offset)
        return await self.use(Kind.READ, lambda fd: pread(fd, length, offset))

    def drop(self) -> bool:
        """Nothing leads here any more; whether :meth:`close` is due. Does not await."""
        self._is_dropped = True
        return not self._users

    def close(self) -> None:
        """Close what is dropped and not in use. May wait for the disk; raises OSError."""
        self._disk.close(self._fd)


@dataclass(slots=True)
class OpenInode:
    """What all handles of one inode share.

    `touched_ns`: time of the last change to the body that its row does not show yet.
    `by_user`: whether one of those changes was not by root.
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
    """One open(2): its own access mode, and the user who opened it."""

    entry: OpenInode
    readable: bool
    writable: bool
    uid: int
    was_read: bool = False


class OpenFiles:
    """The table of open inodes and handles of a mount.

    `closed` is called with the number of an inode when its last user has gone.
    """

    def __init__(self, store: Store, closed: Callable[[int], None]) -> None:
        self._store = store
        self._closed = closed
        self._entries: dict[int, OpenInode] = {}
        self._handles: dict[int, Handle] = {}
        self._next = 1
        # Blocks of sparse staged files that are closed, by token; without the disk only we know.
        self._sparse: OrderedDict[int, int] = OrderedDict()
        # Dropped, and to be closed by whoever awaits next.
        self._closing: list[StagedFile] = []

    # -- handles

    def is_open(self, ino: int) -> bool:
        """Whether anybody uses the inode."""
        return ino in self._entries

    async def open(self, node: Inode, flags: int, uid: int, fresh: StagedFile | None = None) -> int:
        """A new handle on a regular file; honours O_TRUNC. Raises OSError, Damaged.

        `fresh`: the staged file of an inode that was made just now; it is ours from here on.
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
            await self._close_dropped()
            raise
        number = self._next
        self._next += 1
        self._handles[number] = Handle(entry, access != os.O_WRONLY, writable, uid)
        return number

    def handle(self, fh: int) -> Handle:
        """The handle of a number; raises OSError EBADF."""
        found = self._handles.get(fh)
        if found is None:
            raise failure(errno.EBADF)
        return found

    async def release(self, fh: int) -> Handle:
        """Forget a handle; what hangs on its inode's last user or writer happens before the first
        await. Returns when its descriptor is closed."""
        try:
            return self._release(fh)
        finally:
            await self._close_dropped()

    def _release(self, fh: int) -> Handle:
        handle = self.handle(fh)
        del self._handles[fh]
        self._leave(handle.entry, handle.writable)
        return handle

    def release_all(self) -> None:
        """Forget all handles, at the end of the mount. Waits for the disk: nobody else is left."""
        for fh in list(self._handles):
            try:
                self._release(fh)
            except Exception:
                _log.exception("closing handle %d failed", fh)
        while self._closing:
            try:
                self._closing.pop().close()
            except OSError:
                _log.exception("closing a staged file failed")

    def _enter(self, ino: int, writer: bool) -> OpenInode:
        entry = self._entries.get(ino)
        if entry is None:
            entry = self._entries[ino] = OpenInode(ino)
        entry.users += 1
        if writer:
            entry.writers += 1
            if entry.writers == 1:
                self._store.hold(ino)
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
            self._store.unhold(entry.ino)
        node = self._store.index.inode(entry.ino)
        if node.staged is not None and node.nlink:
            self._store.queue(entry.ino)

    @asynccontextmanager
    async def _writing(self, ino: int) -> AsyncIterator[OpenInode]:
        """The inode, locked, with a writer that has no handle."""
        entry = self._enter(ino, True)
        try:
            async with entry.lock:
                yield entry
        finally:
            self._leave(entry, True)
            await self._close_dropped()

    # -- bodies

    async def _attach(self, entry: OpenInode) -> None:
        """Take a descriptor on the staged file if the row names one that we have none on.

        The caller holds the lock. The row of an inode without a writer may have turned to encoded
        when this returns.
        """
        while True:
            token = self._store.index.inode(entry.ino).staged
            if token is None or (entry.staged is not None and entry.staged.token == token):
                return
            try:
                staged = await threads.call(Kind.OPEN, self._open, token)
                break
            except FileNotFoundError as error:
                # Else it was encoded just now, here or by the writer beside a read-only mount.
                if self._store.index.inode(entry.ino).staged == token:
                    path = self._store.staging.path(token)
                    raise Damaged(path, reason="the file is gone") from error
        self._detach(entry)
        entry.staged = staged
        await self._close_dropped()

    def _open(self, token: int) -> StagedFile:
        """In a thread."""
        flags = os.O_RDONLY if self._store.read_only else os.O_RDWR
        return self._took(token, self._store.staging.open(token, flags))

    def _took(self, token: int, fd: int) -> StagedFile:
        try:
            return StagedFile(self._store.disk, token, fd)
        except BaseException:
            self._store.disk.close(fd)
            raise

    async def fresh(self) -> StagedFile:
        """A new empty staged file that no row names yet. Raises OSError."""

        def create() -> StagedFile:
            return self._took(*self._store.staging.create_open())

        return await threads.call(Kind.WRITE, create)

    async def close(self, fresh: StagedFile) -> None:
        """Close a staged file that no inode here has."""
        if fresh.drop():
            await threads.finish(Kind.OPEN, fresh.close)

    async def remove(self, fresh: StagedFile) -> None:
        """Close and remove a staged file that no row names. Raises OSError."""
        try:
            await self.close(fresh)
        finally:
            await threads.finish(Kind.WRITE, self._store.staging.remove, fresh.token)

    def _remember_holes(self, staged: StagedFile) -> None:
        if staged.blocks * _BLOCK < staged.size:
            self._sparse[staged.token] = staged.blocks
            while len(self._sparse) > _SPARSE_KNOWN:
                self._sparse.popitem(last=False)
        else:
            self._sparse.pop(staged.token, None)

    def _detach(self, entry: OpenInode) -> None:
        """Let go of the body; :meth:`_close_dropped` is due. Does not await."""
        staged, entry.staged, entry.body = entry.staged, None, None
        if staged is not None:
            self._remember_holes(staged)
            if staged.drop():
                self._closing.append(staged)

    async def _close_dropped(self) -> None:
        """Close what was let go of."""
        while self._closing:
            await threads.finish(Kind.OPEN, self._closing.pop().close)

    async def _body(self, entry: OpenInode) -> Bytes:
        """What reads are answered from; rendered now if it has to be."""
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
        """The staged file to change. The lock and a hold are held.

        An encoded body is copied into a new one first, its first `keep` bytes at most. A body
        that is replaced as a whole leaves a file whose fsync failed behind.
        """
        node = self._store.index.inode(entry.ino)
        if node.staged is None or (not keep and self._store.staging.has_failed(node.staged)):
            await self._copy_up(entry, node, keep)
        else:
            await self._attach(entry)
        assert entry.staged is not None
        return entry.staged

    async def _copy_up(self, entry: OpenInode, node: Inode, keep: int) -> None:
        """The lock and a hold are held: neither the row's body nor ours changes meanwhile."""
        fresh = await self.fresh()
        try:
            size = 0
            if keep:
                source = entry.staged or entry.body or await self._render(node)
                size = await self._copy(source, fresh, min(keep, source.size))
            self._store.index.stage(node.ino, fresh.token, size)
        except BaseException:
            await self.remove(fresh)
            raise
        if node.staged is not None:
            self._store.discard(node.staged)
        self._detach(entry)
        entry.staged = fresh
        await self._close_dropped()

    async def _copy(self, source: Bytes, target: StagedFile, size: int) -> int:
        disk, offset = self._store.disk, 0
        while offset < size:
            data = await source.pread(offset, min(_SLICE_BYTES, size - offset))
            if not data:
                raise failure(errno.EIO)
            offset += await target.change(partial(_pwrite, disk, data, offset))
        return size

    # -- what a file descriptor can do

    async def read(self, fh: int, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`. Raises OSError EBADF, Damaged."""
        handle = self.handle(fh)
        if not handle.readable:
            raise failure(errno.EBADF)
        body = await self._body(handle.entry)
        handle.was_read = True
        return await body.pread(offset, length)

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        """Write all of `data` at `offset`; its length. Raises OSError EBADF, EFBIG, ENOSPC.

        The offset is right for O_APPEND too: the kernel, the only user of the tree, computes it
        under its own lock on the inode. Taking the file's end here instead would misplace the
        pages that a memory mapping of such a handle writes back.
        """
        handle = self.handle(fh)
        if not handle.writable:
            raise failure(errno.EBADF)
        if offset + len(data) > _SIZE_LIMIT:
            raise failure(errno.EFBIG)
        entry = handle.entry
        async with entry.lock:
            await self._store.need_room(len(data))
            staged = await self._staged(entry)
            self._touch(entry, handle.uid)
            try:
                return await staged.change(partial(_pwrite, self._store.disk, data, offset))
            finally:
                # Whoever brought the row up to date meanwhile has not seen all of it.
                entry.touched_ns = now_ns()

    async def truncate(self, ino: int, size: int, uid: int) -> None:
        """Cut or extend with a hole; the row shows it at once. Raises OSError EINVAL, EFBIG."""
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
        """The body changes now, by `uid`; the kernel leaves it to us to drop set-user-id."""
        if uid != 0 and not entry.by_user:
            entry.by_user = True
            mode = self._store.index.inode(entry.ino).mode
            if mode != without_privileges(mode):
                self._store.index.update(entry.ino, mode=without_privileges(mode))
        entry.touched_ns = now_ns()

    def persist(self, ino: int) -> None:
        """Bring size and times of a changed body into its row."""
        entry = self._entries.get(ino)
        if entry is None or entry.touched_ns is None or entry.staged is None:
            return
        touched = entry.touched_ns
        size = entry.staged.size
        self._store.index.update(ino, size=size, mtime_ns=touched, ctime_ns=touched)
        entry.touched_ns, entry.by_user = None, False

    async def flush(self, fh: int) -> None:
        """close(2) of one descriptor: what was written survives the death of the daemon."""
        self.persist(self.handle(fh).entry.ino)

    async def fsync(self, fh: int) -> None:
        """What was written survives a power cut.

        Raises OSError; after a failure each time, until the bytes are in another file.
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
        """mtime and ctime of an inode now, in ns: those of its row, or of a later write."""
        entry = self._entries.get(node.ino)
        if entry is None or entry.touched_ns is None:
            return node.mtime_ns, node.ctime_ns
        return entry.touched_ns, entry.touched_ns

    def extent(self, node: Inode) -> tuple[int, int]:
        """Size in bytes and blocks of 512 bytes; of an open staged file those of the file itself.

        Asks no disk. A staged file that is not open has the size of its row, which the last close
        and recovery bring up to date.
        """
        if node.staged is not None:
            entry = self._entries.get(node.ino)
            if entry and entry.staged and entry.staged.token == node.staged:
                return entry.staged.size, entry.staged.blocks
            if node.staged in self._sparse:
                return node.size, self._sparse[node.staged]
        return node.size, -(-node.size // _BLOCK)


def _pwrite(disk: Disk, data: bytes, offset: int, fd: int) -> int:
    return disk.pwrite(fd, data, offset)
