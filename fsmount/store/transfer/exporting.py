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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum, auto
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import trio

from fsmount import refused, threads
from fsmount.errors import DiskFull, FsmountError
from fsmount.legacy.runs import pairs
from fsmount.legacy.writing import encode_difference
from fsmount.store.disk.holes import nonzero_parts
from fsmount.store.files import StoreFiles
from fsmount.store.frames.group import Rendered
from fsmount.store.index import Inode
from fsmount.store.read_store import ReadStore
from fsmount.store.transfer.groups import Tell, Wanted, for_each
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
from fsmount.threads import Kind
from fsmount.work.workers import Workers


class _Entry(NamedTuple):
    """An entry to export.

    `is_taken`: an earlier one has a name that this filesystem treats as equal.
    """

    inode: Inode
    target: Path
    is_taken: bool


class _Outcome(Enum):
    """What became of an entry."""

    WRITTEN = auto()
    SKIPPED = auto()
    FOLDER = auto()
    FAILED = auto()


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
        if chosen.takes(name, entry.mode, entry.mtime_ns, entry.object_id):
            if chosen.shows_folders or not folder:
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
        # Folders that were made or there, in the order of their paths.
        self._made: list[tuple[Path, Inode]] = []
        # The exported name of each inode with hard links.
        self._links: dict[int, Path] = {}
        self._linking = trio.Lock()
        # Each file has a fixed scratch name, so that an export after a kill overwrites the
        # leftovers.
        self._scratch = f".fsmount-{store.index.identity()[:8]}-"
        # Case-folded path -> first target exported under it. Used if the filesystem ignores case.
        self._folds = False
        self._written: dict[str, Path] = {}
        self.summary = Summary()

    async def export(self, path: bytes) -> None:
        """Export the entry at `path` and everything under it. The caller keeps the store running.

        Raises :class:`DiskFull`, and FsmountError if there is no entry at `path`, both in exception
        groups. The summary lists all other failures of single files, in the order of their paths.
        """
        self._dest.mkdir(parents=True, exist_ok=True)
        self._folds = refused.folds_case(self._dest, f"{self._scratch}case")
        self._made.clear()
        await for_each(self._store, self._wanted(path), self._export_one, with_bytes=True)
        for target, inode in reversed(self._made):
            xattrs = self._store.index.xattrs(inode.ino)
            with self._listed(target, self.summary.problems):
                self._note(inode, _set_attributes(target, inode, xattrs), self.summary.problems)

    def _wanted(self, path: bytes) -> Iterator[Wanted[_Entry]]:
        """Yield all entries, and which object to render for each: that of a file to be written."""
        linked: set[int] = set()
        for name, inode in below(self._store, path, self._chosen):
            target = self._dest / os.fsdecode(name)
            is_taken = not stat.S_ISDIR(inode.mode) and self._is_taken(target)
            found = None
            # A file that is there is looked at again before it is replaced.
            if inode.object_id is not None and (self._force or not os.path.lexists(target)):
                if inode.ino not in linked:
                    found = self._store.index.known_object(inode.object_id)
                if inode.nlink > 1:
                    linked.add(inode.ino)
            yield Wanted(_Entry(inode, target, is_taken), found)

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
        with self._listed(path, self.summary.problems):
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
    def _listed(self, target: Path, problems: list[tuple[str, str]]) -> Iterator[None]:
        """Add the failure of one file to `problems`, so that the other files are still exported.

        Raises :class:`DiskFull` if the disk is full.
        """
        try:
            yield
        except FsmountError as error:
            problems.append((str(target), str(error)))
        except OSError as error:
            if error.errno in NO_SPACE:
                raise DiskFull(self._dest) from error
            below_it = target.relative_to(self._dest)
            problems.append((str(target), refused.reason(below_it, error)))

    def _note(self, inode: Inode, refusals: list[str], problems: list[tuple[str, str]]) -> None:
        """Add the parts of a file that the filesystem refused to `problems`. The file stays."""
        if refusals:
            name = os.fsdecode(self._store.index.path(inode.ino))
            problems += [(name, why) for why in refusals]

    async def _export_one(self, entry: _Entry, rendered: Rendered | None) -> Tell:
        """Export one entry. Returns what adds the result to the summary and reports the file."""
        problems: list[tuple[str, str]] = []
        outcome = _Outcome.FAILED
        try:
            with self._listed(entry.target, problems):
                data = None if rendered is None else rendered.data
                outcome = await self._one(entry, data, problems)
        finally:
            if outcome is not _Outcome.FOLDER:
                self._progress(1, entry.inode.size)
        return partial(self._tell, entry, outcome, problems)

    def _tell(self, entry: _Entry, outcome: _Outcome, problems: list[tuple[str, str]]) -> None:
        """Add one result to the summary, and report a new file."""
        self.summary.problems += problems
        if outcome is _Outcome.FOLDER:
            self._made.append((entry.target, entry.inode))
        elif outcome is _Outcome.SKIPPED:
            self.summary.skipped += 1
        elif outcome is _Outcome.WRITTEN:
            self._folders.add(entry.target.parent)
            self.summary.files += 1
            self.summary.bytes += entry.inode.size
            self._report(os.fsencode(entry.target.relative_to(self._dest)))

    async def _one(
        self, entry: _Entry, data: bytearray | None, problems: list[tuple[str, str]]
    ) -> _Outcome:
        """Export one entry. `data` are the bytes of a regular file, None if they are to be read.

        Raises FsmountError, OSError.
        """
        inode, target = entry.inode, entry.target
        if stat.S_ISDIR(inode.mode):
            make = partial(target.mkdir, parents=True, exist_ok=True)
            await threads.call(Kind.TREE, make)
            return _Outcome.FOLDER
        if entry.is_taken:
            raise FsmountError(refused.CLASH)
        if inode.nlink == 1:
            return await self._file(inode, target, data, problems)
        # The first name exists before the next one links to it.
        async with self._linking:
            outcome = await self._file(inode, target, data, problems)
            if outcome is not _Outcome.FAILED:
                self._links[inode.ino] = target
            return outcome

    async def _file(
        self, inode: Inode, target: Path, data: bytearray | None, problems: list[tuple[str, str]]
    ) -> _Outcome:
        """Export one file that is no folder, through a scratch file. Raises FsmountError, OSError.

        Only calls in threads wait for the disk.
        """
        is_there, is_same = await threads.call(Kind.TREE, _look, inode, target)
        if is_same:
            return _Outcome.SKIPPED
        if is_there and not self._force:
            reason = "something else of this name is there; --force replaces it"
            problems.append((str(target), reason))
            return _Outcome.FAILED
        first = self._links.get(inode.ino)
        xattrs = self._store.index.xattrs(inode.ino)
        scratch = target.with_name(f"{self._scratch}{inode.ino}")
        try:
            if first is not None:
                await threads.call(Kind.WRITE, _link, scratch, first)
            elif not stat.S_ISREG(inode.mode):
                await threads.call(Kind.WRITE, _make, scratch, inode)
            elif data is not None:
                await threads.call(Kind.WRITE, _write_whole, scratch, data)
            else:
                await self._write(inode, scratch)
            given = xattrs if first is None else None
            refusals = await threads.call(Kind.WRITE, _finish, inode, scratch, target, given)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        self._note(inode, refusals, problems)
        return _Outcome.WRITTEN

    def _is_taken(self, target: Path) -> bool:
        """Whether another file was exported under a name that this filesystem treats as equal."""
        if not self._folds:
            return False
        return self._written.setdefault(str(target).casefold(), target) != target

    async def _write(self, inode: Inode, scratch: Path) -> None:
        """Read a regular file from the store, and write it to a scratch file."""
        size = 0
        with await threads.call(Kind.WRITE, _create, scratch) as file:
            async for data in slices(self._store, inode.ino):
                await threads.call(Kind.WRITE, _write_part, file, size, data)
                size += len(data)


def _look(inode: Inode, target: Path) -> tuple[bool, bool]:
    """Make the folder of a target. Returns whether something is there, and whether it is the file.

    Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(target):
        return False, False
    return True, same(inode, target, target.lstat())


def _link(scratch: Path, first: Path) -> None:
    """Make a scratch file that is a hard link to `first`."""
    scratch.unlink(missing_ok=True)
    scratch.hardlink_to(first)


def _make(scratch: Path, inode: Inode) -> None:
    """Make a scratch file that is a symbolic link, a device, a socket or a FIFO."""
    scratch.unlink(missing_ok=True)
    if stat.S_ISLNK(inode.mode):
        scratch.symlink_to(os.fsdecode(inode.target or b""))
    else:
        os.mknod(scratch, stat.S_IFMT(inode.mode) | 0o600, inode.rdev)


def _create(scratch: Path) -> BinaryIO:
    """Create an empty scratch file that only its owner can read."""
    scratch.unlink(missing_ok=True)
    return open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _write_whole(scratch: Path, data: bytearray) -> None:
    """Create a scratch file with these bytes."""
    with _create(scratch) as file:
        _write_part(file, 0, data)


def _write_part(file: BinaryIO, size: int, data: bytes | bytearray) -> None:
    """Append to a file of `size` bytes, and flush it. Blocks of zeros become holes."""
    for start, end in nonzero_parts(data):
        file.seek(size + start)
        file.write(data[start:end])
    file.truncate(size + len(data))


def _finish(
    inode: Inode, scratch: Path, target: Path, xattrs: Mapping[bytes, bytes] | None
) -> list[str]:
    """Give a scratch file its attributes, unless it is a link (`xattrs` is None), and its name.

    Returns what the filesystem refused. Raises OSError, FsmountError.
    """
    refusals = [] if xattrs is None else _set_attributes(scratch, inode, xattrs)
    scratch.replace(target)
    refused.check_listed(target)
    return refusals


def _set_attributes(target: Path, inode: Inode, xattrs: Mapping[bytes, bytes]) -> list[str]:
    """Set owner, extended attributes, permissions and times of an exported file.

    Returns a line for each owner, attribute or permission that the filesystem refuses. Raises
    OSError if the times cannot be set or the disk is full.
    """
    refusals: list[str] = []
    mode = stat.S_IMODE(inode.mode)
    if os.geteuid() == 0:
        # A file that cannot get its owner must not keep the setuid or setgid bit.
        given = mode
        mode &= 0o777
        with _noted("owner", refusals):
            os.chown(target, inode.uid, inode.gid, follow_symlinks=False)
            mode = given
    # Set attributes before the permissions, which may forbid it.
    for name, value in xattrs.items():
        with _noted(f"attribute {os.fsdecode(name)}", refusals):
            os.setxattr(target, name, value, follow_symlinks=False)
    if not stat.S_ISLNK(inode.mode):
        with _noted("permissions", refusals):
            target.chmod(mode)
    os.utime(target, ns=(inode.atime_ns, inode.mtime_ns), follow_symlinks=False)
    return refusals


@contextmanager
def _noted(what: str, refusals: list[str]) -> Iterator[None]:
    """Note a part of a file that the filesystem refuses (`what`). The file itself stays.

    Raises OSError if the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        refusals.append(f"{what}: {error.strerror}")
