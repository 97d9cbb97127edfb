"""The kernel's requests, handed to the tree: arguments, attributes and errno are translated.

No decisions are taken here. pyfuse3 ends the whole mount on any exception of a handler but
FUSEError, so every handler is wrapped by :func:`answers`.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

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

from fsmount.errors import FsmountError
from fsmount.mount.attributes import NAME_BYTES, Attributes, Caller, Changes
from fsmount.mount.store_fs import Vfs

_log = logging.getLogger(__name__)

TIMEOUT_S = 86_400.0
"""How long the kernel may remember names and attributes: only the kernel changes the tree."""

READ_ONLY_TIMEOUT_S = 1.0
"""The same of a read-only mount: another process may write to the store."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


def fuse_error(error: Exception) -> FUSEError:
    """The answer to a request that ended with `error`; what is not foreseen is logged."""
    if isinstance(error, FUSEError):
        return error
    if isinstance(error, FsmountError):
        _log.error("%s", error)
        return FUSEError(error.errno)
    code = error.errno if isinstance(error, OSError) else None
    if code is not None and code in errno.errorcode:
        return FUSEError(code)
    _log.error("unexpected error in a request", exc_info=error)
    return FUSEError(errno.EIO)


def answers(
    handler: Callable[_P, Coroutine[Any, Any, _T]],
) -> Callable[_P, Coroutine[Any, Any, _T]]:
    """A handler that raises FUSEError (and trio's cancellation) only."""

    @functools.wraps(handler)
    async def answer(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await handler(*args, **kwargs)
        except Exception as error:
            raise fuse_error(error) from error

    return answer


@dataclass(frozen=True, slots=True)
class Overrides:
    """What is shown instead of the stored owner and permissions; None shows what is stored."""

    uid: int | None = None
    gid: int | None = None
    umask: int | None = None


def entry_of(shown: Attributes, overrides: Overrides, timeout_s: float) -> EntryAttributes:
    """What the kernel is told of an inode, and may remember for `timeout_s` seconds."""
    entry = EntryAttributes()
    entry.st_ino = shown.ino
    entry.entry_timeout = entry.attr_timeout = timeout_s
    entry.st_mode = shown.mode & ~(overrides.umask or 0)
    entry.st_nlink = shown.nlink
    entry.st_uid = shown.uid if overrides.uid is None else overrides.uid
    entry.st_gid = shown.gid if overrides.gid is None else overrides.gid
    entry.st_rdev = shown.rdev
    entry.st_size = shown.size
    entry.st_blocks = shown.blocks
    entry.st_atime_ns = shown.atime_ns
    entry.st_mtime_ns = shown.mtime_ns
    entry.st_ctime_ns = shown.ctime_ns
    return entry


def _caller(ctx: RequestContext) -> Caller:
    return Caller(ctx.uid, ctx.gid, ctx.umask)


class Operations(pyfuse3.Operations):
    """The handlers; each is one call of the :class:`Vfs`."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(
        self, vfs: Vfs, overrides: Overrides | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        super().__init__()
        self._vfs = vfs
        self._timeout_s = timeout_s
        self._overrides = overrides or Overrides()

    def _entry(self, shown: Attributes) -> EntryAttributes:
        return entry_of(shown, self._overrides, self._timeout_s)

    # -- inodes

    @answers
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        return self._entry(await self._vfs.lookup(parent_inode, name))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for ino, count in inode_list:
            try:
                self._vfs.forget(ino, count)
            except Exception:
                # Nobody waits for an answer. The inode is removed at the next start.
                _log.exception("forgetting inode %d failed", ino)

    @answers
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._entry(await self._vfs.getattr(inode))

    @answers
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        changes = Changes(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        return self._entry(await self._vfs.setattr(inode, changes, _caller(ctx)))

    @answers
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return await self._vfs.readlink(inode)

    @answers
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        found = await self._vfs.statfs()
        data = StatvfsData()
        data.f_bsize = found.f_bsize
        data.f_frsize = found.f_frsize
        data.f_blocks = found.f_blocks
        data.f_bfree = found.f_bfree
        data.f_bavail = found.f_bavail
        data.f_files = found.f_files
        data.f_ffree = found.f_ffree
        data.f_favail = found.f_favail
        data.f_namemax = NAME_BYTES
        return data

    # -- names

    @answers
    async def mknod(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        rdev: int,
        ctx: RequestContext,
    ) -> EntryAttributes:
        return self._entry(await self._vfs.mknod(parent_inode, name, mode, rdev, _caller(ctx)))

    @answers
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        return self._entry(await self._vfs.mkdir(parent_inode, name, mode, _caller(ctx)))

    @answers
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        return self._entry(await self._vfs.symlink(parent_inode, name, target, _caller(ctx)))

    @answers
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        return self._entry(await self._vfs.link(inode, new_parent_inode, new_name))

    @answers
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._vfs.unlink(parent_inode, name)

    @answers
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._vfs.rmdir(parent_inode, name)

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
        await self._vfs.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags)

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
        fh, shown = await self._vfs.create(parent_inode, name, mode, flags, _caller(ctx))
        return FileInfo(fh=fh, keep_cache=True), self._entry(shown)

    @answers
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        # Pages may stay cached whatever the file is: nothing changes a body but this kernel.
        return FileInfo(fh=await self._vfs.open(inode, flags, _caller(ctx)), keep_cache=True)

    @answers
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return await self._vfs.read(fh, off, size)

    @answers
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        return await self._vfs.write(fh, off, buf)

    @answers
    async def flush(self, fh: FileHandleT) -> None:
        await self._vfs.flush(fh)

    @answers
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await self._vfs.fsync(fh)

    @answers
    async def release(self, fh: FileHandleT) -> None:
        await self._vfs.release(fh)

    # -- open folders

    @answers
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return await self._vfs.opendir(inode)

    @answers
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        for cookie, name, shown in await self._vfs.readdir(fh, start_id):
            if not pyfuse3.readdir_reply(token, name, self._entry(shown), cookie):
                return
            if name not in (b".", b".."):
                self._vfs.remember(shown.ino)

    @answers
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        await self._vfs.fsyncdir(fh)

    @answers
    async def releasedir(self, fh: FileHandleT) -> None:
        await self._vfs.releasedir(fh)

    # -- extended attributes

    @answers
    async def setxattr(
        self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext
    ) -> None:
        # pyfuse3 sees to XATTR_CREATE and XATTR_REPLACE by asking getxattr first.
        await self._vfs.setxattr(inode, name, value)

    @answers
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        return await self._vfs.getxattr(inode, name)

    @answers
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        return await self._vfs.listxattr(inode)

    @answers
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        await self._vfs.removexattr(inode, name)
