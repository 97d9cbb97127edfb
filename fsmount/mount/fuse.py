"""FUSE: a :class:`Filesystem` answers the kernel's requests. No other module knows pyfuse3.

Handlers translate arguments, attributes and errors; they decide nothing. Any exception of a
handler but FUSEError ends the whole mount, so every handler is wrapped by :func:`answers`.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import string
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
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
from fsmount.mount.filesystem import Filesystem
from fsmount.mount.options import MountOptions

_log = logging.getLogger(__name__)

# Characters that stand for themselves in an option of libfuse.
_PLAIN = frozenset(string.ascii_letters + string.digits + "/._-")

_P = ParamSpec("_P")
_T = TypeVar("_T")


def fuse_error(error: Exception) -> FUSEError:
    """The answer to a request that failed with `error`; logs it unless it is an expected errno."""
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
    """Wrap a handler: it raises only FUSEError, and trio's cancellation."""

    @functools.wraps(handler)
    async def answer(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await handler(*args, **kwargs)
        except Exception as error:
            raise fuse_error(error) from error

    return answer


def _caller(ctx: RequestContext) -> Caller:
    return Caller(ctx.uid, ctx.gid, ctx.umask)


class Operations(pyfuse3.Operations):
    """The handlers; each is one call of the filesystem.

    `options.uid`, `gid` and `umask` replace the owner and mask the permissions that are shown.
    """

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, filesystem: Filesystem, options: MountOptions | None = None) -> None:
        super().__init__()
        self._filesystem = filesystem
        options = options or MountOptions()
        self._uid, self._gid = options.uid, options.gid
        self._mode_mask = ~(options.umask or 0)

    def _entry(self, shown: Attributes) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = shown.ino
        entry.entry_timeout = entry.attr_timeout = shown.valid_s
        entry.st_mode = shown.mode & self._mode_mask
        entry.st_nlink = shown.nlink
        entry.st_uid = shown.uid if self._uid is None else self._uid
        entry.st_gid = shown.gid if self._gid is None else self._gid
        entry.st_rdev = shown.rdev
        entry.st_size = shown.size
        entry.st_blocks = shown.blocks
        entry.st_atime_ns = shown.atime_ns
        entry.st_mtime_ns = shown.mtime_ns
        entry.st_ctime_ns = shown.ctime_ns
        return entry

    def _opened(self, fh: int) -> FileInfo:
        return FileInfo(fh=FileHandleT(fh), keep_cache=self._filesystem.keeps_pages(fh))

    # -- inodes

    @answers
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        """Answer the attributes of a name. The kernel counts one lookup more."""
        return self._entry(await self._filesystem.lookup(parent_inode, name))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Count lookups fewer. Logs errors: the kernel takes no answer."""
        for ino, count in inode_list:
            try:
                await self._filesystem.forget(ino, count)
            except Exception:
                # The kernel takes no error. The store removes the inode at its next start.
                _log.exception("forgetting inode %d failed", ino)

    @answers
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        """Answer what stat(2) shows."""
        return self._entry(await self._filesystem.getattr(inode))

    @answers
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """Set the attributes that `fields` marks, and answer all of them."""
        changes = Changes(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        return self._entry(await self._filesystem.setattr(inode, changes, _caller(ctx)))

    @answers
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        """Answer the target of a symbolic link as it was stored."""
        return FileNameT(await self._filesystem.readlink(inode))

    @answers
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """Answer the size and the free space, in blocks of `f_frsize` bytes."""
        found = await self._filesystem.statfs()
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
        """Make a file, FIFO, socket or device. The kernel counts one lookup."""
        caller = _caller(ctx)
        return self._entry(await self._filesystem.mknod(parent_inode, name, mode, rdev, caller))

    @answers
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        """Make a folder. The kernel counts one lookup."""
        return self._entry(await self._filesystem.mkdir(parent_inode, name, mode, _caller(ctx)))

    @answers
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        """Make a symbolic link to `target`, any path. The kernel counts one lookup."""
        return self._entry(await self._filesystem.symlink(parent_inode, name, target, _caller(ctx)))

    @answers
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        """Give a file another name. The kernel counts one lookup more."""
        return self._entry(await self._filesystem.link(inode, new_parent_inode, new_name))

    @answers
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        """Remove a name of a file. The inode stays while it is open or its lookups count."""
        await self._filesystem.unlink(parent_inode, name)

    @answers
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        """Remove an empty folder."""
        await self._filesystem.rmdir(parent_inode, name)

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
        """Move an entry; `flags`: 0, RENAME_NOREPLACE or RENAME_EXCHANGE."""
        await self._filesystem.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags)

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
        """Make a file and open it. The kernel counts one lookup."""
        fh, shown = await self._filesystem.create(parent_inode, name, mode, flags, _caller(ctx))
        return self._opened(fh), self._entry(shown)

    @answers
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        """Open a regular file; `flags` are those of the system call without O_CREAT."""
        return self._opened(await self._filesystem.open(inode, flags, _caller(ctx)))

    @answers
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        """Answer `size` bytes from byte `off` on; fewer only at the end of the file."""
        return await self._filesystem.read(fh, off, size)

    @answers
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        """Write all of `buf` at byte `off`, and answer its length in bytes."""
        return await self._filesystem.write(fh, off, buf)

    @answers
    async def flush(self, fh: FileHandleT) -> None:
        """Answer close(2) of one descriptor; comes once for each duplicate."""
        await self._filesystem.flush(fh)

    @answers
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        """Answer when all bytes of the file are durable. `datasync` makes no difference."""
        await self._filesystem.fsync(fh)

    @answers
    async def release(self, fh: FileHandleT) -> None:
        """Close a handle. The kernel waits for no answer and sees no error."""
        await self._filesystem.release(fh)

    # -- open folders

    @answers
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        """Open a folder."""
        return FileHandleT(await self._filesystem.opendir(inode))

    @answers
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        """Give entries after the cookie `start_id` to pyfuse3 until its buffer is full.

        The kernel counts one lookup for each that it takes, but not for "." and "..".
        """
        for cookie, name, shown in await self._filesystem.readdir(fh, start_id):
            if not pyfuse3.readdir_reply(token, name, self._entry(shown), cookie):
                return
            if name not in (b".", b".."):
                self._filesystem.remember(shown.ino)

    @answers
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        """Answer when the names in the folder are durable. `datasync` makes no difference."""
        await self._filesystem.fsyncdir(fh)

    @answers
    async def releasedir(self, fh: FileHandleT) -> None:
        """Close the handle of a folder. The kernel sees no error."""
        await self._filesystem.releasedir(fh)

    # -- extended attributes

    @answers
    async def setxattr(
        self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext
    ) -> None:
        """Set or replace an extended attribute."""
        # pyfuse3 itself handles XATTR_CREATE and XATTR_REPLACE: it calls getxattr first.
        await self._filesystem.setxattr(inode, name, value)

    @answers
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        """Answer the value of an extended attribute; ENODATA if there is none."""
        return await self._filesystem.getxattr(inode, name)

    @answers
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        """Answer the names of extended attributes, without those of ``user.fsmount.…``."""
        return [XAttrNameT(name) for name in await self._filesystem.listxattr(inode)]

    @answers
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        """Remove an extended attribute; ENODATA if there is none."""
        await self._filesystem.removexattr(inode, name)


# -- the mount that this process serves; there is one at a time


def mount(
    filesystem: Filesystem, source: Path | str, mountpoint: Path, options: MountOptions
) -> None:
    """Mount a filesystem; `source` is the name that `mount` and `df` show for it.

    :func:`close` must follow. Raises RuntimeError if the system refuses.
    """
    operations = Operations(filesystem, options)
    pyfuse3.init(operations, str(mountpoint), libfuse_options(source, options))


async def serve() -> None:
    """Answer requests until the filesystem is unmounted, or :func:`stop` is called."""
    await pyfuse3.main()


def forget_name(folder: int, name: bytes) -> None:
    """Tell the kernel that a name is gone, and that its folder has changed. Does not wait."""
    pyfuse3.invalidate_entry_async(InodeT(folder), FileNameT(name), ignore_enoent=True)
    with suppress(OSError):
        # The kernel may not know the folder.
        pyfuse3.invalidate_inode(InodeT(folder), attr_only=True)


def stop() -> None:
    """Let :func:`serve` return. Requests under way are answered first."""
    pyfuse3.terminate()


def close(*, unmount: bool) -> None:
    """Close the connection to the kernel. Without `unmount` the mountpoint stays, and is dead."""
    pyfuse3.close(unmount=unmount)


def libfuse_options(source: Path | str, options: MountOptions) -> set[str]:
    """The options for libfuse."""
    chosen = {"default_permissions", f"fsname={_escaped(source)}", "subtype=fsmount"}
    if options.read_only:
        chosen.add("ro")
    if options.no_exec:
        chosen.add("noexec")
    if options.sync:
        chosen.add("sync")
    if options.allow_other:
        chosen.add("allow_other")
    return chosen


def _escaped(path: Path | str) -> str:
    """A path in an option of libfuse: any byte may be written as an octal escape there.

    libfuse splits options at commas, and pyfuse3 accepts ASCII only. The kernel gets the bytes.
    """
    return "".join(
        chr(byte) if chr(byte) in _PLAIN else f"\\{byte:03o}" for byte in os.fsencode(path)
    )
