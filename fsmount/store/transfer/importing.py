"""Import: copies folders into a store, without a mount.

An import only reads its sources, unless the caller asks to delete them. A file appears in the store
only after all its bytes are staged, so no half-copied file shows. The importer skips a file that
the store already has with the same size and mtime, so a user can kill an import at any moment and
start it again. Holes of sparse files stay holes. The summary lists a large file that does not fit,
and the other files are still imported.

The importer stores a picture that a legacy folder keeps as a difference as a whole PNG
(`fsmount.legacy`).

The importer deletes a source only after these steps: the file is encoded, its commit is forced to
the disk, and the file is read back from the store and compared. This proof is too weak for a
difference, since its picture was made from it. So the difference between that picture and the one
before it, both as the store has them, must also have exactly the samples of the `.jxl`. The
importer deletes a run of differences as a whole, the last picture first: after a kill, every
remaining picture can still be made from the remaining files.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import trio

from fsmount import threads
from fsmount.errors import DiskFull, FsmountError
from fsmount.legacy.archive import Archive
from fsmount.legacy.pictures import same_picture
from fsmount.legacy.runs import Run, RunFile, png_name
from fsmount.store.disk.disk import pread
from fsmount.store.index import ROOT, Inode
from fsmount.store.transfer.patterns import ALL, Patterns
from fsmount.store.transfer.tree import (
    NO_SPACE,
    OUR_XATTRS,
    SLICE,
    Item,
    Progress,
    Report,
    Summary,
    find,
    ignore,
    same,
    slices,
    walk,
)
from fsmount.store.writable_store import WritableStore
from fsmount.threads import Kind

# Number of staged files by which an import may run ahead of the encoder. This bounds staging.
_AHEAD = 48
# Number of sources that wait to be deleted. Each deletion waits until the encoder is idle.
_DELETE_AT_ONCE = 256
_ARCHIVE_BYTES = 128 << 20
# A file of at least this size may fail with ENOSPC while a smaller file still fits. If a smaller
# file fails, the disk is full.
_LARGE = 1 << 20
_STAT_BLOCK = 512

# Inode, size and mtime: tells whether a file changed since it was examined.
_Stamp = tuple[int, int, int]


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
        self._delete = delete
        self._archive = Archive(_ARCHIVE_BYTES, count=1)
        self._taken: list[tuple[Item, int]] = []
        self._waiting = 0
        self.deleted = 0
        self._links: dict[tuple[int, int], int] = {}
        self.summary = Summary()
        self.added: list[int] = []

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
            await self._take(items)

    async def _take(self, items: Iterable[Item]) -> None:
        folders: list[tuple[int, os.stat_result]] = []
        for item in items:
            try:
                inode = await self._with_room(item)
                if inode is None:
                    continue
                if stat.S_ISDIR(inode.mode):
                    folders.append((inode.ino, item.info))
                elif self._delete:
                    self._taken.append((item, inode.ino))
                    if len(self._taken) >= self._waiting + _DELETE_AT_ONCE:
                        await self._delete_taken(final=False)
            except OSError as error:
                if error.errno in NO_SPACE and _needs(item) < _LARGE:
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
        await self._delete_taken(final=True)

    async def _with_room(self, item: Item) -> Inode | None:
        """As :meth:`_item`, with a second try on a full disk.

        Encoding the staged files may free space.
        """
        try:
            return await self._item(item)
        except OSError as error:
            if error.errno not in NO_SPACE or not self._store.pending():
                raise
        await self._store.drain()
        return await self._item(item)

    async def _item(self, item: Item) -> Inode | None:
        """Import one source. Returns its inode, also if the store already has the file.

        Returns None, and lists the reason, if the picture of a difference cannot be made. Raises
        OSError.
        """
        data = None
        step = self._step(item)
        if step is not None:
            there = find(self._store, _as_png(item).target)
            known = there is not None and there.mtime_ns == item.info.st_mtime_ns
            # An earlier version of fsmount may have taken it for another picture.
            if there is not None and known and not step.doubt:
                return self._skip(item, there)
            made = await self._archive.decode(item.source.parent, os.fsencode(item.source.name))
            data = made.png
            if data is not None:
                item = _as_png(item)
                if there is not None and await self._shows(there, data):
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
        inode = await self._file(item, there, data)
        self.summary.files += 1
        self.summary.bytes += inode.size
        self._progress(1, item.info.st_size)
        self._report(item.target)
        return inode

    def _skip(self, item: Item, there: Inode) -> Inode:
        """Count a source that the store already has, and remember its hard links.

        Returns `there`.
        """
        self.summary.skipped += 1
        self._note_links(item, there.ino)
        self._progress(1, item.info.st_size)
        return there

    def _step(self, item: Item) -> RunFile | None:
        """Return the difference that a source contains, or None if it is another file."""
        name = os.fsencode(item.source.name)
        if not stat.S_ISREG(item.info.st_mode) or not name.endswith(b".jxl"):
            return None
        return self._archive.difference(item.source.parent, name)

    def _folder(self, item: Item, there: Inode | None) -> Inode:
        """Return the folder of an item, created if it is missing.

        Raises OSError ENOTDIR if it is a file.
        """
        if there is not None:
            if not stat.S_ISDIR(there.mode):
                raise OSError(errno.ENOTDIR, "the store has a file of this name")
            return there
        with self._store.index.transaction():
            inode = self._create(item)
            self._xattrs(item, inode.ino)
        return inode

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
            size, stamp = await threads.call(Kind.WRITE, self._copy, item, token, data)
            if stamp != _stamp(item.info):
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

    def _copy(self, item: Item, token: int, whole: bytes | None) -> tuple[int, _Stamp]:
        """Copy a source to a staged file. Runs in a thread.

        Writes `whole` instead if it is not None. Returns the number of bytes, and the stamp of the
        source after the last byte was read. Raises OSError, and then removes the staged file.
        """
        disk, staging = self._store.disk, self._store.staging
        fd = staging.open(token)
        try:
            if whole is not None:
                return disk.pwrite(fd, whole, 0), _stamp(item.info)
            with item.source.open("rb", buffering=0) as file:
                source = file.fileno()
                size = disk.copy(source, fd, os.fstat(source).st_size)
                # Some files hold more bytes than their size says (for example in /proc), and some
                # grow.
                while data := pread(source, SLICE, size):
                    size += disk.pwrite(fd, data, size)
                return size, _stamp(os.fstat(source))
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
        """Create the inode of an item, with the staged file `token` of `size` bytes if given."""
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
        """Remove a file that is imported anew.

        Returns the token of its staged file, which the caller removes.
        """
        folder, name = self._parent(path)
        left = self._store.index.unlink(folder, name, there.ctime_ns)
        return None if left.nlink else self._store.index.purge(there.ino)

    def _xattrs(self, item: Item, ino: int) -> None:
        """Copy the extended attributes of a source, except the virtual ones of fsmount."""
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

    # -- deletion of sources

    def _run(self, item: Item) -> tuple[Path, bytes] | None:
        """Return the run of differences that a source belongs to: (folder, first name), or None."""
        folder = item.source.parent
        place = self._archive.run_of(folder, os.fsencode(item.source.name))
        return None if place is None else (folder, place[0])

    async def _delete_taken(self, *, final: bool) -> None:
        """Delete the sources imported so far.

        Unless `final`, incomplete runs wait for their other files.
        """
        if not self._taken:
            return
        await self._store.drain()
        await self._store.durable()
        taken, self._taken = self._taken, []
        runs: dict[tuple[Path, bytes], list[tuple[Item, int]]] = {}
        for item, ino in taken:
            run = self._run(item)
            if run is None:
                if await self._is_stored(item, ino):
                    self._unlink(item)
            else:
                runs.setdefault(run, []).append((item, ino))
        for (folder, first), parts in runs.items():
            await self._delete_run(folder, first, parts, final=final)
        self._waiting = len(self._taken)

    async def _delete_run(
        self, folder: Path, first: bytes, parts: list[tuple[Item, int]], *, final: bool
    ) -> None:
        """Delete the files of a run if the store has every picture of it."""
        found = self._archive.scan(folder)
        run = found.runs[found.positions[first][0]]
        names = list(_names(run))
        taken = {os.fsencode(item.source.name) for item, _ in parts}
        if left := [name for name in names if name not in taken]:
            if not final:
                self._taken += parts
                return
            why = f"kept, since {os.fsdecode(left[0])} of its run is not in the store"
            self.summary.problems += [(str(item.source), why) for item, _ in parts]
            return
        order = {name: at for at, name in enumerate(names)}
        parts.sort(key=lambda part: order[os.fsencode(part[0].source.name)])
        # Compare all files before the first deletion: making a picture needs the files before it.
        kept = [item for item, ino in parts if not await self._is_stored(item, ino)]
        if not kept:
            kept = await self._not_proved(run, parts)
        # Delete the last file first, and a twin before its PNG.
        sources = [item for item, _ in parts]
        while sources and not kept:
            if not self._unlink(sources[-1]):
                kept = sources[-1:]
            del sources[-1]
        if kept:
            why = f"kept, since {kept[0].source.name} of its run is kept"
            others = [item for item in sources if item not in kept]
            self.summary.problems += [(str(item.source), why) for item in others]

    async def _not_proved(self, run: Run, parts: list[tuple[Item, int]]) -> list[Item]:
        """List and return the first difference that the pictures in the store do not reproduce.

        Returns an empty list if all differences are proved. The caller has checked that the store
        shows the same picture as each file of the run.
        """
        taken = {os.fsencode(item.source.name): (item, ino) for item, ino in parts}
        before = b""
        for step in run:
            item, ino = taken[step.name]
            if self._archive.is_picture(step) or (step.doubt and not step.is_difference):
                continue  # no difference depends on it
            try:
                after = b"".join([part async for part in slices(self._store, ino)])
                alike = not step.is_difference or await self._archive.is_difference_of(
                    before, after, step
                )
                reason = None if alike else "it is not the difference of the pictures in the store"
            except (FsmountError, OSError) as error:
                reason = str(error)
            if reason is not None:
                self.summary.problems.append((str(item.source), f"kept: {reason}"))
                return [item]
            before = after
        return []

    def _unlink(self, item: Item) -> bool:
        """Delete a source unless it changed. Lists a failure in the summary and returns False."""
        try:
            if _stamp(item.source.lstat()) != _stamp(item.info):
                raise OSError(errno.EBUSY, "kept, since it changed meanwhile")
            item.source.unlink()
        except OSError as error:
            self.summary.problems.append((str(item.source), error.strerror or str(error)))
            return False
        self.deleted += 1
        return True

    async def _is_stored(self, item: Item, ino: int) -> bool:
        """Read a file back from the store and compare it.

        Lists the reason if the source must stay.
        """
        try:
            reason = await self._difference(item, self._store.index.inode(ino))
        except FsmountError as error:
            reason = str(error)
        except OSError as error:
            reason = error.strerror or str(error)
        if reason:
            self.summary.problems.append((str(item.source), f"kept: {reason}"))
        return reason is None

    async def _shows(self, inode: Inode, data: bytes) -> bool:
        """Whether a file of the store has the bytes `data` of a PNG, or the same samples."""
        if not stat.S_ISREG(inode.mode):
            return False
        stored = b"".join([part async for part in slices(self._store, inode.ino)])
        return stored == data or await threads.call(Kind.STAGED, same_picture, stored, data)

    async def _difference(self, item: Item, inode: Inode) -> str | None:
        """Return the reason why a source must not be deleted, or None.

        Raises FsmountError, OSError.
        """
        if not stat.S_ISREG(item.info.st_mode):
            return None if same(inode, item.source, item.info) else "the store has another"
        if inode.object_id is None:
            return "it is not encoded yet"
        if self._step(item) is not None:
            made = await self._archive.decode(item.source.parent, os.fsencode(item.source.name))
            if made.png is not None:
                shown_there = await self._shows(inode, made.png)
                return None if shown_there else "the store has another picture"
            if not made.is_picture:
                return made.reason
        with item.source.open("rb") as file:
            async for data in slices(self._store, inode.ino):
                if file.read(len(data)) != data:
                    return "the store has other bytes"
            return "it is longer than in the store" if file.read(1) else None


def _names(run: Run) -> Iterator[bytes]:
    """Names of the files of a run in order, a twin directly after its PNG."""
    for step in run:
        yield step.name
        if step.twin is not None:
            yield step.twin.name


def _needs(item: Item) -> int:
    """Bytes that a source takes on a disk, without its holes."""
    info = item.info
    return min(info.st_size, info.st_blocks * _STAT_BLOCK) if stat.S_ISREG(info.st_mode) else 0


def _as_png(item: Item) -> Item:
    """Return the item with the name under which its difference shows its picture."""
    return replace(item, target=png_name(item.target))


def _stamp(info: os.stat_result) -> _Stamp:
    return info.st_ino, info.st_size, info.st_mtime_ns
