"""Copies files of a store to another store: the tree. `copying_objects` copies what they show.

A file gets the path that it has in the source, or this path below a folder of the target. A file of
the same path with the same bytes is not copied again. One with other bytes stays, and the summary
names it. Files that the source has not encoded yet are copied as staged files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field

from fsmount.errors import Damaged, DiskFull, FsmountError
from fsmount.store.files import StoreFiles
from fsmount.store.frames.group import Rendered
from fsmount.store.index import ROOT, Inode, Object
from fsmount.store.read_store import ReadStore
from fsmount.store.transfer.copying_objects import ObjectCopier
from fsmount.store.transfer.exporting import below
from fsmount.store.transfer.groups import Tell, Wanted, for_each
from fsmount.store.transfer.patterns import ALL, Patterns
from fsmount.store.transfer.tree import NO_SPACE, SLICE, Progress, Report, Summary, find, ignore
from fsmount.store.writable_store import WritableStore

_TAKEN = "the target has something else of this name; it was left as it is"


@dataclass
class CopySummary(Summary):
    """The result of a copy.

    objects : number of entries that were copied.
    shown : ids of the objects of the target that new files show.
    """

    objects: int = 0
    shown: set[int] = field(default_factory=set)

    def add(self, other: CopySummary) -> None:
        """Add the result of another copy."""
        self.files += other.files
        self.bytes += other.bytes
        self.skipped += other.skipped
        self.objects += other.objects
        self.problems += other.problems
        self.shown |= other.shown


@dataclass
class _File:
    """A file that gets its name with the next commit."""

    inode: Inode
    target: bytes
    object_id: int


class StoreCopier:
    """Copies files of `source` to `target`; see :meth:`copy`.

    Parameters
    ----------
    source, target : StoreFiles, WritableStore
        The stores. The target is started and does not run: nothing encodes meanwhile.
    into : bytes
        The folder of the target for the files, b"" for its root. It is made if it is missing.
    progress, report
        As for an import.
    """

    def __init__(
        self,
        source: StoreFiles,
        target: WritableStore,
        *,
        into: bytes = b"",
        progress: Progress = lambda files, count: None,
        report: Report = ignore,
    ) -> None:
        self._source = source
        self._target = target
        self._into = into.strip(b"/")
        self._progress = progress
        self._report = report
        self._objects = ObjectCopier(source, target)
        self._top = ROOT
        self._files: list[_File] = []
        # Inode of a file with hard links in the source -> in the target.
        self._links: dict[int, int] = {}
        # Folders of the target, with the inode of the source.
        self._folders: list[tuple[int, Inode]] = []
        self.summary = CopySummary()

    async def copy(self, path: bytes = b"", chosen: Patterns = ALL) -> None:
        """Copy the entry at `path` and everything under it that is chosen.

        Raises :class:`DiskFull`, FsmountError if there is no entry at `path`, :class:`Damaged` if
        the target is damaged, and OSError. What was committed before stays. The summary names
        files that were left out.
        """
        try:
            self._top = self._make_top()
            for name, inode in below(self._source, path, chosen):
                await self._one(name, inode)
                if self._objects.is_full:
                    await self._commit()
            await self._commit()
            for ino, inode in reversed(self._folders):
                self._target.index.update(ino, mtime_ns=inode.mtime_ns)
            await self._target.durable()
        except BaseException as error:
            await self._objects.give_up()
            if isinstance(error, OSError) and error.errno in NO_SPACE:
                raise DiskFull(self._target.path) from error
            raise
        finally:
            self.summary.objects = self._objects.copied

    def _make_top(self) -> int:
        """Make the folder of the target, with those above it. Return its inode number.

        Raises FsmountError if it cannot be one.
        """
        folder = ROOT
        root = self._source.index.inode(ROOT)
        for name in filter(None, self._into.split(b"/")):
            there = self._target.index.lookup(folder, name)
            if there is None:
                there = self._create(folder, name, root)
            elif not stat.S_ISDIR(there.mode):
                into = os.fsdecode(self._into)
                raise FsmountError(f"{into!r} is no folder in {self._target.path}")
            folder = there.ino
        return folder

    def _parent(self, folder: bytes) -> int:
        """Make a folder of the source in the target, with those above it. Return its number.

        Raises FsmountError if the target has something else there.
        """
        at, here = self._top, b""
        for name in filter(None, folder.split(b"/")):
            here += b"/" * bool(here) + name
            there = self._target.index.lookup(at, name)
            if there is None:
                inode = find(self._source, here)
                if inode is None:
                    raise FsmountError("its folder was removed")
                there = self._create(at, name, inode)
                self._folders.append((there.ino, inode))
            elif not stat.S_ISDIR(there.mode):
                raise FsmountError(_TAKEN)
            at = there.ino
        return at

    async def _one(self, name: bytes, inode: Inode) -> None:
        """Copy one entry, or name it in the summary."""
        target = self._into + b"/" * bool(self._into) + name
        regular = stat.S_ISREG(inode.mode)
        try:
            folder, _, last = name.rpartition(b"/")
            if stat.S_ISDIR(inode.mode):
                self._parent(name)
                return
            parent = self._parent(folder)
            there = self._target.index.lookup(parent, last)
            if there is not None and await self._is_same(inode, there):
                self._note_link(inode, there.ino)
                self.summary.skipped += 1
            elif there is not None:
                raise FsmountError(_TAKEN)
            elif inode.ino in self._links:
                self._target.index.link(parent, last, self._links[inode.ino], inode.ctime_ns)
                self._count(inode, target)
            elif not regular:
                self._create(parent, last, inode)
                self._count(inode, target)
            else:
                await self._regular(parent, last, target, inode)
        except FsmountError as error:
            self.summary.problems.append((os.fsdecode(name), str(error)))
        self._progress(1, inode.size if regular else 0)

    async def _is_same(self, inode: Inode, there: Inode) -> bool:
        """Whether an entry of the target is the entry of the source already."""
        if stat.S_IFMT(inode.mode) != stat.S_IFMT(there.mode):
            return False
        if not stat.S_ISREG(inode.mode):
            return (inode.target, inode.rdev) == (there.target, there.rdev)
        if inode.size != there.size:
            return False
        if inode.object_id is None or there.object_id is None:
            return inode.mtime_ns == there.mtime_ns
        known = self._source.index.object(inode.object_id).sha256
        other = self._target.index.object(there.object_id).sha256
        return known == other and (bool(known) or inode.mtime_ns == there.mtime_ns)

    async def _regular(self, parent: int, name: bytes, target: bytes, inode: Inode) -> None:
        """Copy a regular file: its object, or its staged file."""
        while inode.object_id is None:
            assert inode.staged is not None
            token = self._stage(inode.staged)
            if token is not None:
                self._add_staged(parent, name, inode, token)
                self._count(inode, target)
                return
            # The source has encoded it since. Raises NoSuchInode if it was removed.
            again = self._source.index.inode(inode.ino)
            if again.staged == inode.staged:
                raise Damaged(os.fsdecode(target), reason="its staged file is missing")
            inode = again
        object_id = await self._objects.file(inode.object_id, target)
        self._files.append(_File(inode, target, object_id))
        if inode.nlink > 1:
            # Its next name is a link to this one.
            await self._commit()

    def _stage(self, token: int) -> int | None:
        """Copy a staged file. Return the new token, None if it is gone."""
        staging, disk = self._target.staging, self._target.disk
        try:
            source = self._source.staging.open(token, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            new, fd = staging.create_open()
            try:
                disk.copy(source, fd, os.fstat(source).st_size)
            except BaseException:
                staging.remove(new)
                raise
            finally:
                disk.close(fd)
            return new
        finally:
            self._source.disk.close(source)

    def _add_staged(self, parent: int, name: bytes, inode: Inode, token: int) -> None:
        """Add a file with a staged body."""
        size = self._target.staging.size(token)
        made = self._create(parent, name, inode, staged=token, size=size)
        self._note_link(inode, made.ino)
        self._target.queue(made.ino)

    async def _commit(self) -> None:
        """Commit all copies, and give the files of this batch their names."""
        files, self._files = self._files, []
        await self._objects.commit(lambda: self._add_all(files))
        for each in files:
            self._count(each.inode, each.target)
            self.summary.shown.add(each.object_id)

    def _add_all(self, files: list[_File]) -> None:
        """Add the rows of files. Runs inside the transaction; does not await."""
        for each in files:
            folder, _, name = each.target.rpartition(b"/")
            parent = find(self._target, folder)
            assert parent is not None
            made = self._create(parent.ino, name, each.inode, object_id=each.object_id)
            self._note_link(each.inode, made.ino)

    def _create(
        self,
        parent: int,
        name: bytes,
        inode: Inode,
        *,
        staged: int | None = None,
        object_id: int | None = None,
        size: int | None = None,
    ) -> Inode:
        """Add an entry with the attributes of `inode`."""
        index = self._target.index
        with index.transaction():
            made = index.create(
                parent,
                name,
                mode=inode.mode,
                uid=inode.uid,
                gid=inode.gid,
                now_ns=inode.mtime_ns,
                rdev=inode.rdev,
                target=inode.target,
                staged=staged,
                size=inode.size if size is None else size,
            )
            if object_id is not None:
                index.show(made.ino, object_id)
            index.update(made.ino, atime_ns=inode.atime_ns)
            for key, value in self._source.index.xattrs(inode.ino).items():
                index.set_xattr(made.ino, key, value)
            return made

    def _note_link(self, inode: Inode, made: int) -> None:
        if inode.nlink > 1:
            self._links[inode.ino] = made

    def _count(self, inode: Inode, target: bytes) -> None:
        """Count a file that is new in the target."""
        self.summary.files += 1
        self.summary.bytes += inode.size
        self._report(target)


async def rebuild(
    store: ReadStore, object_ids: Iterable[int], progress: Progress
) -> list[tuple[str, str]]:
    """Render the files of objects on all cores, and compare their hashes with the index.

    Returns (path, reason) for each file that cannot be rebuilt. `progress` gets (1, 0) for each
    object. Raises OSError.
    """
    problems: list[tuple[str, str]] = []

    async def work(found: Object, rendered: Rendered | None) -> Tell:
        why = ""
        if rendered is None or rendered[:2] != (found.size, found.sha256):
            try:
                # A body is compared with its hash before it gives a byte, or as it is read.
                body = await store.body(found.id)
                for offset in range(0, body.size, SLICE):
                    await body.pread(offset, SLICE)
            except FsmountError as error:
                why = str(error)

        def tell() -> None:
            progress(1, 0)
            if why:
                names = map(os.fsdecode, store.index.names_of(found.id))
                problems.extend((name, why) for name in names)

        return tell

    objects = map(store.index.object, sorted(object_ids))
    wanted = (Wanted(found, found) for found in objects)
    await for_each(store, wanted, work, with_bytes=False)
    return problems
