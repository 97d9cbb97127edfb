"""Export: writes files of a store to a folder, without a mount.

An exported file gets its name only after all its bytes are written, so no half-written file shows.
The exporter skips a file that already exists with the same size and mtime. It leaves alone an
existing file that differs, unless the caller passes `force`. Blocks of zeros become holes. If the
target filesystem refuses a name, the summary lists the name and the reason: an export could not map
another name back.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import trio

from fsmount import refused
from fsmount.errors import DiskFull, FsmountError
from fsmount.legacy.runs import pairs
from fsmount.legacy.writing import encode_difference
from fsmount.store.disk.holes import nonzero_parts
from fsmount.store.files import StoreFiles
from fsmount.store.index import Inode
from fsmount.store.read_store import ReadStore
from fsmount.store.transfer.patterns import ALL, Patterns
from fsmount.store.transfer.tree import (
    NO_SPACE,
    Progress,
    Report,
    Summary,
    find,
    ignore,
    same,
    slices,
)
from fsmount.work.workers import Workers

_AT_ONCE = 4


def below(store: StoreFiles, path: bytes, chosen: Patterns = ALL) -> Iterator[tuple[bytes, Inode]]:
    """Yield an entry and everything under it that is chosen: (path from the root, inode).

    Raises FsmountError if there is no entry at `path`.
    """
    inode = find(store, path)
    if inode is None:
        raise FsmountError(f"there is no {os.fsdecode(path)!r} in {store.path}")
    if not path:
        entries = store.index.walk(inode.ino, path)
    elif stat.S_ISDIR(inode.mode):
        entries = chain([(path, inode)], store.index.walk(inode.ino, path))
    else:
        entries = iter([(path, inode)])
    left_out: bytes | None = None
    for name, entry in entries:
        if left_out is not None and name.startswith(left_out):
            continue
        folder = stat.S_ISDIR(entry.mode)
        if chosen.chooses(name, folder=folder):
            yield name, entry
        elif folder:
            # Its contents follow directly.
            left_out = name + b"/"


class Exporter:
    """Writes parts of a store to a folder; see :meth:`export`.

    The exporter reports each finished file to `progress`. `force` replaces existing files that
    differ. `chosen` chooses what is exported. `report` is called with the path of each new file.
    """

    def __init__(
        self,
        store: ReadStore,
        dest: Path,
        progress: Progress,
        *,
        force: bool,
        chosen: Patterns = ALL,
        report: Report = ignore,
    ) -> None:
        self._store = store
        self._dest = dest
        self._progress = progress
        self._force = force
        self._chosen = chosen
        self._report = report
        self._folders: set[Path] = set()
        self._links: dict[int, Path] = {}
        # Each file has a fixed scratch name, so that an export after a kill overwrites the
        # leftovers.
        self._scratch = f".fsmount-{store.index.identity()[:8]}-"
        # Case-folded path -> first target exported under it. Used if the filesystem ignores case.
        self._folds = False
        self._written: dict[str, Path] = {}
        self.summary = Summary()

    async def export(self, path: bytes) -> None:
        """Export the entry at `path` and everything under it. The caller keeps the store running.

        Raises :class:`DiskFull`, and FsmountError if there is no entry at `path`. The summary lists
        all other failures of single files.
        """
        self._dest.mkdir(parents=True, exist_ok=True)
        self._folds = refused.folds_case(self._dest, f"{self._scratch}case")
        folders = []
        slots = trio.Semaphore(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for name, inode in below(self._store, path, self._chosen):
                target = self._dest / os.fsdecode(name)
                if stat.S_ISDIR(inode.mode):
                    with self._listed(target):
                        target.mkdir(parents=True, exist_ok=True)
                        folders.append((target, inode))
                    continue
                await slots.acquire()
                # Files with hard links are exported in order, so that the first name exists before
                # the next one.
                if inode.nlink > 1:
                    await self._guarded(inode, target, slots)
                else:
                    nursery.start_soon(self._guarded, inode, target, slots)
        for target, inode in reversed(folders):
            with self._listed(target):
                self._attributes(target, inode)

    async def to_differences(self, workers: Workers) -> None:
        """Replace PNGs by `.jxl` differences.

        The destination was an empty folder before the export. A picture stays a PNG if its name, or
        the name of the picture before it, does not tell for certain which picture a difference
        depends on. In each folder, this method makes all differences before it removes the first
        PNG. It removes the PNGs in order: the PNG that a difference depends on exists until the
        difference is the only form of its picture.
        """
        for folder in sorted(self._folders):
            wanted = pairs(folder)
            made: list[Path] = []
            async with trio.open_nursery() as nursery:
                for before, path in wanted:
                    nursery.start_soon(self._to_difference, workers, before, path, made)
            order = {path: at for at, (_, path) in enumerate(wanted)}
            for path in sorted(made, key=order.__getitem__):
                path.unlink()

    async def _to_difference(
        self, workers: Workers, before: Path, path: Path, made: list[Path]
    ) -> None:
        """Write the difference of one picture, and append `path` to `made` if it was written.

        Leaves the PNG as it is if no difference can be made, if it has hard links, or if the target
        name is taken. Lists failures in the summary.
        """
        target = path.with_suffix(".jxl")
        with self._listed(path):
            info = path.stat()
            data = await workers.run(encode_difference, str(before), str(path))
            if data is None or info.st_nlink > 1 or os.path.lexists(target):
                return
            scratch = path.with_name(f"{self._scratch}{path.stem}")
            scratch.write_bytes(data)
            if os.geteuid() == 0:
                os.chown(scratch, info.st_uid, info.st_gid)
            shutil.copystat(path, scratch)
            scratch.replace(target)
            made.append(path)

    @contextmanager
    def _listed(self, target: Path) -> Iterator[None]:
        """List the failure of one file in the summary, so that the other files are still exported.

        Raises :class:`DiskFull` if the disk is full.
        """
        try:
            yield
        except FsmountError as error:
            self.summary.problems.append((str(target), str(error)))
        except OSError as error:
            if error.errno in NO_SPACE:
                raise DiskFull(self._dest) from error
            below_it = target.relative_to(self._dest)
            self.summary.problems.append((str(target), refused.reason(below_it, error)))

    async def _guarded(self, inode: Inode, target: Path, slots: trio.Semaphore) -> None:
        """Export one file, list its failure, release its slot and report progress."""
        try:
            with self._listed(target):
                await self._one(inode, target)
        finally:
            slots.release()
            self._progress(1, inode.size)

    async def _one(self, inode: Inode, target: Path) -> None:
        """Export one file that is not a folder, through a scratch file.

        Raises FsmountError, OSError.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        if self._is_taken(target):
            raise FsmountError(refused.CLASH)
        if os.path.lexists(target):
            if same(inode, target, target.lstat()):
                self.summary.skipped += 1
                self._note_links(inode, target)
                return
            if not self._force:
                reason = "something else of this name is there; --force replaces it"
                self.summary.problems.append((str(target), reason))
                return
        first = self._links.get(inode.ino)
        scratch = target.with_name(f"{self._scratch}{inode.ino}")
        scratch.unlink(missing_ok=True)
        try:
            if first is not None:
                scratch.hardlink_to(first)
            else:
                await self._write(inode, scratch)
                self._attributes(scratch, inode)
            scratch.replace(target)
            refused.check_listed(target)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        self._note_links(inode, target)
        self._folders.add(target.parent)
        self.summary.files += 1
        self.summary.bytes += inode.size
        self._report(os.fsencode(target.relative_to(self._dest)))

    def _is_taken(self, target: Path) -> bool:
        """Whether another file was exported under a name that this filesystem treats as equal."""
        if not self._folds:
            return False
        return self._written.setdefault(str(target).casefold(), target) != target

    def _note_links(self, inode: Inode, target: Path) -> None:
        """Remember the first exported name of an inode with hard links."""
        if inode.nlink > 1:
            self._links[inode.ino] = target

    async def _write(self, inode: Inode, scratch: Path) -> None:
        """Create the scratch file with its content, of any file type.

        Only its owner can read it.
        """
        if stat.S_ISLNK(inode.mode):
            scratch.symlink_to(os.fsdecode(inode.target or b""))
        elif stat.S_ISREG(inode.mode):
            with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                size = 0
                async for data in slices(self._store, inode.ino):
                    for start, end in nonzero_parts(data):
                        file.seek(size + start)
                        file.write(data[start:end])
                    size += len(data)
                file.truncate(size)
        else:
            os.mknod(scratch, stat.S_IFMT(inode.mode) | 0o600, inode.rdev)

    def _attributes(self, target: Path, inode: Inode) -> None:
        """Set owner, extended attributes, permissions and times of an exported file.

        The summary lists each owner, attribute or permission that the filesystem refuses. Raises
        OSError if the times cannot be set or the disk is full.
        """
        mode = stat.S_IMODE(inode.mode)
        if os.geteuid() == 0:
            # A file that cannot get its owner must not keep the setuid or setgid bit.
            given = mode
            mode &= 0o777
            with self._noted(inode, "owner"):
                os.chown(target, inode.uid, inode.gid, follow_symlinks=False)
                mode = given
        # Set attributes before the permissions, which may forbid it.
        for name, value in self._store.index.xattrs(inode.ino).items():
            with self._noted(inode, f"attribute {os.fsdecode(name)}"):
                os.setxattr(target, name, value, follow_symlinks=False)
        if not stat.S_ISLNK(inode.mode):
            with self._noted(inode, "permissions"):
                target.chmod(mode)
        os.utime(target, ns=(inode.atime_ns, inode.mtime_ns), follow_symlinks=False)

    @contextmanager
    def _noted(self, inode: Inode, what: str) -> Iterator[None]:
        """List a part of a file that the filesystem refuses (`what`). The file itself stays.

        Raises OSError if the disk is full.
        """
        try:
            yield
        except OSError as error:
            if error.errno in NO_SPACE:
                raise
            why = f"{what}: {error.strerror}"
            self.summary.problems.append((os.fsdecode(self._store.index.path(inode.ino)), why))
