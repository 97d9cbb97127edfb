"""A store with folders beside its files that are only read: two sets of handlers as one.

The folders of a :class:`~fsmount.mount.readonly_fs.Tree` appear in the store's root. Its inodes and
handles are numbered from FIRST on, which no store reaches, so a number says whose it is. A name
that the store has hides the tree's.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from fsmount.mount.attributes import failure
from fsmount.mount.fuse import Operations, answers
from fsmount.mount.readonly_fs import ReadOnlyOperations
from fsmount.mount.store_fs import Vfs

FIRST = 1 << 48
_ROOT = pyfuse3.ROOT_INODE
_TREE_ROOT = InodeT(FIRST + _ROOT)
_DOTS = 2


class OperationsBeside(pyfuse3.Operations):
    """Every handler goes to the store or, by the number of its inode or handle, to the tree."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(
        self,
        store: Operations,
        vfs: Vfs,
        has: Callable[[bytes], bool],
        tree: ReadOnlyOperations,
    ) -> None:
        """`has` says whether the store's root holds a name; `tree` numbers from FIRST on."""
        super().__init__()
        self._store = store
        self._vfs = vfs
        self._has = has
        self._tree = tree
        self._roots: dict[int, FileHandleT] = {}  # open folder of the store's root: the tree's

    def _of(self, number: int) -> Operations | ReadOnlyOperations:
        return self._tree if number >= FIRST else self._store

    async def _check(self, folder: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        """Raise EROFS unless a name is the store's to change."""
        if folder < FIRST and (folder != _ROOT or self._has(name)):
            return
        if folder == _ROOT:
            try:
                await self._tree.lookup(_TREE_ROOT, name, ctx)
            except FUSEError:
                return
        raise failure(errno.EROFS)

    # -- inodes

    @answers
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        if parent_inode == _ROOT and not self._has(name):
            try:
                return await self._tree.lookup(_TREE_ROOT, name, ctx)
            except FUSEError as error:
                if error.errno != errno.ENOENT:
                    raise
        return await self._of(parent_inode).lookup(parent_inode, name, ctx)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        await self._store.forget([pair for pair in inode_list if pair[0] < FIRST])

    @answers
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return await self._of(inode).getattr(inode, ctx)

    @answers
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        if inode >= FIRST:
            raise failure(errno.EROFS)
        return await self._store.setattr(inode, attr, fields, fh, ctx)

    @answers
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return await self._of(inode).readlink(inode, ctx)

    @answers
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        return await self._store.statfs(ctx)

    # -- names

    @answers
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        await self._check(parent_inode, name, ctx)
        return await self._store.mknod(parent_inode, name, mode, rdev, ctx)

    @answers
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        await self._check(parent_inode, name, ctx)
        return await self._store.mkdir(parent_inode, name, mode, ctx)

    @answers
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        await self._check(parent_inode, name, ctx)
        return await self._store.symlink(parent_inode, name, target, ctx)

    @answers
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        await self._check(new_parent_inode, new_name, ctx)
        if inode >= FIRST:
            raise failure(errno.EXDEV)
        return await self._store.link(inode, new_parent_inode, new_name, ctx)

    @answers
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._check(parent_inode, name, ctx)
        await self._store.unlink(parent_inode, name, ctx)

    @answers
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._check(parent_inode, name, ctx)
        await self._store.rmdir(parent_inode, name, ctx)

    @answers
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        await self._check(parent_inode_old, name_old, ctx)
        await self._check(parent_inode_new, name_new, ctx)
        await self._store.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx)

    # -- open files

    @answers
    async def create(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> tuple[FileInfo, EntryAttributes]:
        await self._check(parent_inode, name, ctx)
        return await self._store.create(parent_inode, name, mode, flags, ctx)

    @answers
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        return await self._of(inode).open(inode, flags, ctx)

    @answers
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return await self._of(fh).read(fh, off, size)

    @answers
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        return await self._store.write(fh, off, buf)

    @answers
    async def flush(self, fh: FileHandleT) -> None:
        await self._of(fh).flush(fh)

    @answers
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await self._of(fh).fsync(fh, datasync)

    @answers
    async def release(self, fh: FileHandleT) -> None:
        await self._of(fh).release(fh)

    # -- open folders

    @answers
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        handle = await self._of(inode).opendir(inode, ctx)
        if inode == _ROOT:
            self._roots[handle] = await self._tree.opendir(_TREE_ROOT, ctx)
        return handle

    @answers
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        tree = self._roots.get(fh)
        if tree is None:
            await self._of(fh).readdir(fh, start_id, token)
        # Only when the store has no more: after a reply that was cut off, cookies go on from it.
        elif start_id < FIRST and any(True for _ in await self._vfs.readdir(fh, start_id)):
            await self._store.readdir(fh, start_id, token)
        else:
            await self._tree.readdir(tree, max(start_id, FIRST + _DOTS), token)

    @answers
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        await self._of(fh).fsyncdir(fh, datasync)

    @answers
    async def releasedir(self, fh: FileHandleT) -> None:
        tree = self._roots.pop(fh, None)
        if tree is not None:
            await self._tree.releasedir(tree)
        await self._of(fh).releasedir(fh)

    # -- extended attributes

    @answers
    async def setxattr(
        self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext
    ) -> None:
        if inode >= FIRST:
            raise failure(errno.EROFS)
        await self._store.setxattr(inode, name, value, ctx)

    @answers
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        return await self._of(inode).getxattr(inode, name, ctx)

    @answers
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        return await self._of(inode).listxattr(inode, ctx)

    @answers
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        if inode >= FIRST:
            raise failure(errno.EROFS)
        await self._store.removexattr(inode, name, ctx)
