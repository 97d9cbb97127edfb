"""A store as a filesystem to read and write: names, attributes, links, the life of an inode.

A method awaits only before it looks at the index, or after the change that rests on this look. So
this module needs no lock.

It is long because it has one method for each call of :class:`Filesystem`, in the same sections.
What an open file is, :mod:`open_files` says; what an open folder is, :mod:`open_folders`; what
extended attributes are, :mod:`xattrs`; which files are rendered ahead, :mod:`render_ahead`.

An inode lives while it has a name, an open handle or a lookup count (see :mod:`filesystem`).
Reading does not change the time of access (as with ``noatime``); only setattr does.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator

from fsmount import threads
from fsmount.mount import xattrs
from fsmount.mount.attributes import (
    NAME_BYTES,
    SHARED_VALID_S,
    VALID_S,
    Attributes,
    Caller,
    Changes,
    DirEntry,
    clamp_ns,
    failure,
    now_ns,
    without_privileges,
)
from fsmount.mount.filesystem import Filesystem
from fsmount.mount.open_files import OpenFiles
from fsmount.mount.open_folders import OpenFolders
from fsmount.mount.render_ahead import RenderAhead
from fsmount.mount.staged_files import StagedFile, StagedFiles
from fsmount.store.index import ROOT, Inode
from fsmount.store.read_store import ReadStore
from fsmount.store.writable_store import WritableStore
from fsmount.threads import Kind

_log = logging.getLogger(__name__)

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
LINKS = 65_000
"""Maximum number of names of a file, as on ext4."""

_TARGET_BYTES = 4095
_SPECIAL = (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)


class StoreFilesystem(Filesystem):
    """The filesystem of a store. Belongs to the trio task.

    `writable` is the same store if programs may change it. Without it, changes raise EROFS.
    """

    def __init__(self, store: ReadStore, writable: WritableStore | None) -> None:
        self._store = store
        self._index = store.index
        # A state of a store that lies elsewhere never changes.
        is_shared = writable is None and store.supply is None
        self._valid_s = SHARED_VALID_S if is_shared else VALID_S
        self._staged_files = StagedFiles(
            store.staging, store.disk, read_only=writable is None, supply=store.supply
        )
        self._files = OpenFiles(store, writable, self._staged_files, self._settle)
        self._folders = OpenFolders(store.index, self._show)
        self._ahead = RenderAhead(store.index, store.prefetch)
        self._lookups: dict[int, int] = {}
        # Inodes without a name that have a handle or a lookup count. An earlier mount leaves none.
        self._nameless: set[int] = set()

    async def run(self) -> None:
        """Background task: render ahead for readers in name order. Runs until cancelled."""
        await self._ahead.run()

    def close(self) -> None:
        """End the mount: drop all handles and lookup counts, and remove inodes without a name."""
        self._files.release_all()
        self._folders.release_all()
        self._lookups.clear()
        for ino in list(self._nameless):
            try:
                self._settle(ino)
            except Exception:
                _log.exception("inode %d could not be removed; the next start does it", ino)

    # -- inodes

    def _show(self, node: Inode) -> Attributes:
        size, blocks = self._files.extent(node)
        mtime_ns, ctime_ns = self._files.times(node)
        # Arguments by position take half the time, and a listing calls this for every file.
        return Attributes(
            node.ino,
            node.mode,
            node.nlink,
            node.uid,
            node.gid,
            node.rdev,
            size,
            blocks,
            node.atime_ns,
            mtime_ns,
            ctime_ns,
            self._valid_s,
        )

    def _introduce(self, node: Inode) -> Attributes:
        self.remember(node.ino)
        return self._show(node)

    def remember(self, ino: int) -> None:
        """Count one lookup more of an inode: the kernel was told of it."""
        self._lookups[ino] = self._lookups.get(ino, 0) + 1

    async def forget(self, ino: int, count: int) -> None:
        """Take `count` lookups back. Removes an inode without lookup, name and handle."""
        left = self._lookups.get(ino, 0) - count
        if left > 0:
            self._lookups[ino] = left
            return
        self._lookups.pop(ino, None)
        self._settle(ino)

    def _settle(self, ino: int) -> None:
        """Remove an inode if it has no name, no open handle and no lookup count."""
        # No query comes first: the kernel may forget a million inodes at a time.
        if ino not in self._nameless or ino in self._lookups or self._files.is_open(ino):
            return
        token = self._index.purge(ino)
        self._nameless.discard(ino)
        if token is not None:
            self._writable().discard(token)

    def lost_name(self, node: Inode) -> None:
        """Note that an inode has lost a name. `node` is its row after the loss."""
        if node.nlink == 0:
            self._nameless.add(node.ino)
            self._settle(node.ino)

    async def lookup(self, folder: int, name: bytes) -> Attributes:
        """The entry `name` of a folder. Counts one lookup more.

        Raises OSError ENOENT, ENOTDIR, ENAMETOOLONG.
        """
        node = self._find(folder, name)
        if node is None:
            self._folder(folder)
            raise failure(errno.ENOENT)
        return self._introduce(node)

    async def getattr(self, ino: int) -> Attributes:
        """The attributes that stat(2) shows. Raises NoSuchInode."""
        return self._show(self._index.inode(ino))

    async def setattr(self, ino: int, changes: Changes, caller: Caller) -> Attributes:
        """Set attributes, also the size. Returns the attributes after the change.

        Raises OSError EROFS, EISDIR, EINVAL, EFBIG.
        """
        self._writable()
        node = self._index.inode(ino)
        if changes.size is not None:
            self._check_regular(node)
            await self._files.truncate(ino, changes.size, caller.uid)
        # Persist earlier writes first, or their time would replace the one set here.
        self._files.persist(ino)
        node = self._index.inode(ino)
        fields: dict[str, int] = {"ctime_ns": now_ns()}
        if changes.mode is not None:
            fields["mode"] = stat.S_IFMT(node.mode) | stat.S_IMODE(changes.mode)
        elif not stat.S_ISDIR(node.mode) and (
            changes.uid is not None or changes.gid is not None or changes.is_empty()
        ):
            fields["mode"] = without_privileges(node.mode)
        if changes.uid is not None:
            fields["uid"] = changes.uid
        if changes.gid is not None:
            fields["gid"] = changes.gid
        if changes.atime_ns is not None:
            fields["atime_ns"] = clamp_ns(changes.atime_ns)
        if changes.mtime_ns is not None:
            fields["mtime_ns"] = clamp_ns(changes.mtime_ns)
        self._index.update(ino, **fields)
        return self._show(self._index.inode(ino))

    async def readlink(self, ino: int) -> bytes:
        """The target of a symbolic link. Raises OSError EINVAL for other inodes."""
        node = self._index.inode(ino)
        if node.target is None:
            raise failure(errno.EINVAL)
        return node.target

    async def statfs(self) -> os.statvfs_result:
        """Size and free room of the disk that holds the store. Raises OSError."""
        return await threads.call(Kind.FREE_SPACE, os.statvfs, self._store.layout.root)

    # -- checks

    def _writable(self) -> WritableStore:
        """See :meth:`OpenFiles.writable`."""
        return self._files.writable()

    def _folder(self, ino: int) -> Inode:
        node = self._index.inode(ino)
        if not stat.S_ISDIR(node.mode):
            raise failure(errno.ENOTDIR)
        return node

    def _check_regular(self, node: Inode) -> None:
        if stat.S_ISDIR(node.mode):
            raise failure(errno.EISDIR)
        if not stat.S_ISREG(node.mode):
            raise failure(errno.EINVAL)

    def _find(self, folder: int, name: bytes) -> Inode | None:
        if len(name) > NAME_BYTES:
            raise failure(errno.ENAMETOOLONG)
        return self._index.lookup(folder, name)

    def _entry(self, folder: int, name: bytes) -> Inode:
        node = self._find(folder, name)
        if node is None:
            raise failure(errno.ENOENT)
        return node

    def _place(self, folder: int, name: bytes) -> Inode:
        """The folder that gets a new entry `name`."""
        self._writable()
        node = self._folder(folder)
        if node.nlink == 0:
            raise failure(errno.ENOENT)
        if self._find(folder, name) is not None:
            raise failure(errno.EEXIST)
        return node

    def _is_inside(self, folder: int, top: int) -> bool:
        """Whether `folder` is `top` or lies below it.

        Raises OSError ELOOP if folders form a cycle, because of damage.
        """
        above = set[int]()
        while folder != top:
            if folder in above:
                raise failure(errno.ELOOP)
            above.add(folder)
            place = None if folder == ROOT else self._index.folder_of(folder)
            if place is None:
                return False
            folder = place[0]
        return True

    # -- new entries

    async def _make(
        self,
        folder: int,
        name: bytes,
        mode: int,
        caller: Caller,
        *,
        rdev: int = 0,
        target: bytes | None = None,
    ) -> Inode:
        """Create an inode that is no regular file."""
        await self._writable().need_space()
        return self._place_new(folder, name, mode, caller, rdev=rdev, target=target)

    async def _make_file(
        self, folder: int, name: bytes, mode: int, caller: Caller
    ) -> tuple[Inode, StagedFile]:
        """Create a regular file and its staged file. The caller owns the staged file."""
        await self._writable().need_space()
        # A name that is not allowed makes no staged file. The check below sees later changes.
        self._place(folder, name)
        fresh = await self._staged_files.fresh()
        try:
            return self._place_new(folder, name, mode, caller, staged=fresh.token), fresh
        except BaseException:
            await self._staged_files.remove(fresh)
            raise

    def _place_new(
        self,
        folder: int,
        name: bytes,
        mode: int,
        caller: Caller,
        *,
        rdev: int = 0,
        target: bytes | None = None,
        staged: int | None = None,
    ) -> Inode:
        """Create the row and the name of a new inode. Does not await."""
        place = self._place(folder, name)
        gid = caller.gid
        if place.mode & stat.S_ISGID:
            gid = place.gid
            if stat.S_ISDIR(mode):
                mode |= stat.S_ISGID
        return self._index.create(
            folder,
            name,
            mode=mode,
            uid=caller.uid,
            gid=gid,
            now_ns=now_ns(),
            rdev=rdev,
            target=target,
            staged=staged,
            size=len(target or b""),
        )

    async def create(
        self, folder: int, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[int, Attributes]:
        """Create and open a file. Returns (handle, attributes), and counts one lookup more.

        An entry that exists is opened instead, unless `flags` has O_EXCL. Raises OSError EROFS,
        ENOTDIR, EEXIST, ENAMETOOLONG, ENOSPC.
        """
        self._writable()
        self._folder(folder)
        node = self._find(folder, name)
        if node is None:
            mode = stat.S_IFREG | (stat.S_IMODE(mode) & ~caller.umask)
            node, fresh = await self._make_file(folder, name, mode, caller)
            try:
                # The new file is empty. A truncation would only remove set-group-id.
                fh = await self._files.open(node, flags & ~os.O_TRUNC, caller.uid, fresh)
            except BaseException:
                await self.unlink(folder, name)
                raise
        elif flags & os.O_EXCL:
            raise failure(errno.EEXIST)
        else:
            fh = await self.open(node.ino, flags, caller)
        return fh, self._introduce(self._index.inode(node.ino))

    async def mknod(
        self, folder: int, name: bytes, mode: int, rdev: int, caller: Caller
    ) -> Attributes:
        """Create a regular file, FIFO, socket or device without opening it.

        Counts one lookup more. Raises OSError EINVAL for other kinds, EROFS, EEXIST, ENOSPC.
        """
        if stat.S_IFMT(mode) not in _SPECIAL:
            raise failure(errno.EINVAL)
        mode &= ~caller.umask
        if not stat.S_ISREG(mode):
            return self._introduce(await self._make(folder, name, mode, caller, rdev=rdev))
        node, fresh = await self._make_file(folder, name, mode, caller)
        self._writable().queue(node.ino)
        shown = self._introduce(node)
        await self._staged_files.close(fresh)
        return shown

    async def mkdir(self, folder: int, name: bytes, mode: int, caller: Caller) -> Attributes:
        """Create a folder. Counts one lookup more. Raises OSError EROFS, EEXIST, ENOSPC."""
        mode = stat.S_IFDIR | (stat.S_IMODE(mode) & ~caller.umask)
        return self._introduce(await self._make(folder, name, mode, caller))

    async def symlink(self, folder: int, name: bytes, target: bytes, caller: Caller) -> Attributes:
        """Create a symbolic link. Counts one lookup more.

        Raises OSError ENAMETOOLONG if `target` has more than 4095 bytes, EROFS, EEXIST, ENOSPC.
        """
        if len(target) > _TARGET_BYTES:
            raise failure(errno.ENAMETOOLONG)
        mode = stat.S_IFLNK | 0o777
        return self._introduce(await self._make(folder, name, mode, caller, target=target))

    async def link(self, ino: int, folder: int, name: bytes) -> Attributes:
        """Give a file one more name. Counts one lookup more.

        Raises OSError EPERM for a folder, EMLINK, EEXIST, EROFS.
        """
        self._place(folder, name)
        node = self._index.inode(ino)
        if stat.S_ISDIR(node.mode):
            raise failure(errno.EPERM)
        if node.nlink == 0:
            raise failure(errno.ENOENT)
        if node.nlink >= LINKS:
            raise failure(errno.EMLINK)
        self._files.persist(ino)
        return self._introduce(self._index.link(folder, name, ino, now_ns()))

    # -- removed and renamed entries

    async def unlink(self, folder: int, name: bytes) -> None:
        """Remove a name of a file. Raises OSError EISDIR, ENOENT, EROFS."""
        await self._writable().before_deleting()
        self._folder(folder)
        node = self._entry(folder, name)
        if stat.S_ISDIR(node.mode):
            raise failure(errno.EISDIR)
        self._files.persist(node.ino)
        self.lost_name(self._index.unlink(folder, name, now_ns()))

    async def rmdir(self, folder: int, name: bytes) -> None:
        """Remove an empty folder. Raises OSError ENOTDIR, ENOTEMPTY, ENOENT, EROFS."""
        await self._writable().before_deleting()
        self._folder(folder)
        node = self._entry(folder, name)
        if not stat.S_ISDIR(node.mode):
            raise failure(errno.ENOTDIR)
        if not self._index.is_empty(node.ino):
            raise failure(errno.ENOTEMPTY)
        self.lost_name(self._index.unlink(folder, name, now_ns()))

    async def rename(
        self, folder: int, name: bytes, new_folder: int, new_name: bytes, flags: int = 0
    ) -> None:
        """Move or exchange entries. Raises OSError with the errnos of the system call.

        `flags` is 0, RENAME_NOREPLACE or RENAME_EXCHANGE.
        """
        if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
            raise failure(errno.EINVAL)
        await self._writable().before_deleting()
        self._folder(folder)
        if self._folder(new_folder).nlink == 0:
            raise failure(errno.ENOENT)
        moved = self._entry(folder, name)
        other = self._find(new_folder, new_name)
        self._check_rename(moved, new_folder, other, folder, flags)
        if other is not None and other.ino == moved.ino:
            return
        for node in (moved, other):
            if node is not None:
                self._files.persist(node.ino)
        replaced = self._index.rename(
            folder, name, new_folder, new_name, now_ns(), exchange=flags == RENAME_EXCHANGE
        )
        if replaced is not None:
            self.lost_name(replaced)

    def _check_rename(
        self, moved: Inode, new_folder: int, other: Inode | None, folder: int, flags: int
    ) -> None:
        if stat.S_ISDIR(moved.mode) and self._is_inside(new_folder, moved.ino):
            raise failure(errno.EINVAL)
        if flags == RENAME_EXCHANGE:
            if other is None:
                raise failure(errno.ENOENT)
            if stat.S_ISDIR(other.mode) and self._is_inside(folder, other.ino):
                raise failure(errno.EINVAL)
            return
        if other is None:
            return
        if flags == RENAME_NOREPLACE:
            raise failure(errno.EEXIST)
        if stat.S_ISDIR(moved.mode) and not stat.S_ISDIR(other.mode):
            raise failure(errno.ENOTDIR)
        if stat.S_ISDIR(other.mode):
            if not stat.S_ISDIR(moved.mode):
                raise failure(errno.EISDIR)
            if not self._index.is_empty(other.ino):
                raise failure(errno.ENOTEMPTY)

    # -- open files

    async def open(self, ino: int, flags: int, caller: Caller) -> int:
        """Open a regular file and return its handle.

        Raises OSError EISDIR, EINVAL, EROFS, and Damaged.
        """
        node = self._index.inode(ino)
        self._check_regular(node)
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            self._writable()
        return await self._files.open(node, flags, caller.uid)

    def keeps_pages(self, fh: int) -> bool:
        """Whether the kernel may keep pages: always, since only this mount changes bytes."""
        return True

    async def read(self, fh: int, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset` (bytes); fewer only at the end of the file.

        Raises OSError EBADF, Damaged.
        """
        return await self._files.read(fh, offset, length)

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        """Write all of `data` at `offset` (bytes). Returns the length of `data`.

        Raises OSError EBADF, EFBIG, ENOSPC.
        """
        return await self._files.write(fh, offset, data)

    async def flush(self, fh: int) -> None:
        """Answer one close(2) of the handle. Each duplicate of a descriptor has its own close."""
        await self._files.flush(fh)

    async def fsync(self, fh: int) -> None:
        """Force the file and the index to the disk. Raises OSError."""
        await self._files.fsync(fh)

    async def release(self, fh: int) -> None:
        """Close the handle: its last descriptor is closed. Raises OSError EBADF."""
        handle = await self._files.release(fh)
        if handle.was_read and not handle.writable:
            self._ahead.file_was_read(handle.entry.ino)

    # -- open folders

    async def opendir(self, ino: int) -> int:
        """Open a folder and return its handle. Raises OSError ENOTDIR."""
        self._folder(ino)
        return self._folders.open(ino)

    async def readdir(self, fh: int, after: int) -> Iterator[DirEntry]:
        """The entries behind `after`: (cookie, name, attributes), made as the caller takes them.

        `after` is 0 or a cookie. "." and ".." come first. The caller calls :meth:`remember` for
        each other entry that it passes on. Cookies stay valid when entries come and go. Raises
        OSError EBADF.
        """
        return self._folders.entries(fh, after)

    async def fsyncdir(self, fh: int) -> None:
        """Force the names of a folder, and all others, to the disk. Raises OSError."""
        self._folders.check(fh)
        await self._store.durable()

    async def releasedir(self, fh: int) -> None:
        """Close the handle of a folder. Raises OSError EBADF."""
        self._folders.release(fh)

    # -- extended attributes

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        """The value of an extended attribute. Raises OSError ENODATA, ENOTSUP."""
        node = self._index.inode(ino)
        return xattrs.get(self._store, node, self._files.extent(node)[0], name)

    async def listxattr(self, ino: int) -> list[bytes]:
        """The names of the stored extended attributes."""
        return xattrs.names(self._store, self._index.inode(ino))

    async def setxattr(self, ino: int, name: bytes, value: bytes) -> None:
        """Set or replace an extended attribute. The adapter handles the flags of the system call.

        Raises OSError EROFS, and the errors of :func:`xattrs.put`.
        """
        self._writable()
        self._files.persist(ino)
        xattrs.put(self._store, self._index.inode(ino), name, value)
        self._index.update(ino, ctime_ns=now_ns())

    async def removexattr(self, ino: int, name: bytes) -> None:
        """Remove an extended attribute. Raises OSError ENODATA, ENOTSUP, EROFS."""
        self._writable()
        self._files.persist(ino)
        xattrs.drop(self._store, self._index.inode(ino), name)
        self._index.update(ino, ctime_ns=now_ns())
