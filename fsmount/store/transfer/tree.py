"""Folders outside a store and paths inside it: shared by import, export and verify."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fsmount import threads
from fsmount.errors import Damaged, DiskFull
from fsmount.store.files import StoreFiles
from fsmount.store.index import ROOT, Inode
from fsmount.store.read_store import ReadStore
from fsmount.store.retention.pictures import KEEP_XATTR
from fsmount.store.transfer.patterns import ALL, Patterns
from fsmount.threads import Kind

SLICE = 1 << 20
THUMBNAILS = b".sh_thumbnails"
"""The name of a folder of thumbnails beside pictures (freedesktop.org, Thumbnail Managing)."""
_TRASH = re.compile(rb"\.Trash(?:-[0-9]+)?")
_OUR_XATTRS = b"user.fsmount."
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

# Called with the (files, bytes) done since the last call.
Progress = Callable[[int, int], None]

# Called with the path of each finished file, from the top of the transfer.
Report = Callable[[bytes], None]


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Turn "no space left" inside the block into :class:`DiskFull`, which names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise DiskFull(path) from error
        raise


def is_virtual(xattr: bytes) -> bool:
    """Whether a mount makes an extended attribute up, so that it is not copied."""
    return xattr.startswith(_OUR_XATTRS) and xattr != KEEP_XATTR


def ignore(_: bytes) -> None:
    """A :data:`Report` that does nothing."""


@dataclass
class Summary:
    """Result of a transfer.

    `problems` lists (path, reason) for each file that was left out or differs.
    """

    files: int = 0
    bytes: int = 0
    skipped: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Item:
    """An entry below a source: its path outside, its path in the store, and its attributes."""

    source: Path
    target: bytes
    info: os.stat_result


def source_of(source: str) -> Path:
    """Return the file or folder that the user means by `source`.

    Follows a symbolic link only if `source` ends in a slash. Raises OSError if there is no such
    file.
    """
    path = Path(os.path.realpath(source)) if target_of(source) == b"" else Path(source)
    path.lstat()
    if source.endswith("/"):
        # The target of a link must exist, too, and a link must not lead to itself.
        path.stat()
    return path


def target_of(source: str) -> bytes:
    """Return the target path of a source: its own name, or the root if it ends in a slash."""
    if source.endswith("/") or os.path.basename(source) in ("", ".", ".."):
        return b""
    return os.fsencode(os.path.basename(source))


def walk(source: Path, target: bytes, summary: Summary, chosen: Patterns = ALL) -> Iterator[Item]:
    """Yield each chosen entry from `source` down in name order, folders before their contents.

    `chosen` is asked about targets. Lists entries that cannot be read in `summary`.
    """
    left = [(source, target)]
    while left:
        source, target = left.pop()
        try:
            info = source.lstat()
            if not chosen.takes(target, info.st_mode, info.st_mtime_ns):
                continue
            names = os.listdir(source) if stat.S_ISDIR(info.st_mode) else []
        except OSError as error:
            summary.problems.append((str(source), error.strerror or str(error)))
            continue
        if chosen.shows_folders or not stat.S_ISDIR(info.st_mode):
            yield Item(source, target, info)
        for name in sorted(names, key=os.fsencode, reverse=True):
            left.append((source / name, _join(target, os.fsencode(name))))


def _join(folder: bytes, name: bytes) -> bytes:
    """Join a path from the root and a name."""
    return folder + b"/" + name if folder else name


def is_trash(name: bytes) -> bool:
    """Whether a desktop keeps deleted files in a folder of this name (freedesktop.org, Trash)."""
    return _TRASH.fullmatch(name) is not None


def is_for_desktops(name: bytes) -> bool:
    """Whether a folder of this name holds deleted files, or thumbnails of the files beside it."""
    return is_trash(name) or name == THUMBNAILS


def measure(sources: Sequence[tuple[Path, bytes]], chosen: Patterns = ALL) -> tuple[int, int]:
    """Count the chosen files and their bytes below some (source, target), for progress.

    Leaves out unreadable entries.
    """
    files = total = 0
    for source, target in sources:
        for item in walk(source, target, Summary(), chosen):
            if not stat.S_ISDIR(item.info.st_mode):
                files, total = files + 1, total + item.info.st_size
    return files, total


def find(store: StoreFiles, path: bytes) -> Inode | None:
    """Return the inode at a path from the root, or None."""
    inode: Inode | None = store.index.inode(ROOT)
    for name in filter(None, path.split(b"/")):
        if inode is None or not stat.S_ISDIR(inode.mode):
            return None
        inode = store.index.lookup(inode.ino, name)
    return inode


def same(inode: Inode, path: Path, info: os.stat_result) -> bool:
    """Whether a file needs no new copy: it has the same type, size and mtime.

    Compares the target of a symbolic link, and the number of a device, instead of size and mtime.
    False for folders. Raises OSError.
    """
    if stat.S_IFMT(inode.mode) != stat.S_IFMT(info.st_mode) or stat.S_ISDIR(inode.mode):
        return False
    if stat.S_ISREG(inode.mode):
        return inode.size == info.st_size and inode.mtime_ns == info.st_mtime_ns
    if stat.S_ISLNK(inode.mode):
        return inode.target == os.fsencode(os.readlink(path))
    return inode.rdev == info.st_rdev


async def slices(store: ReadStore, ino: int) -> AsyncIterator[bytes]:
    """Yield the bytes of a regular file in slices of at most SLICE bytes, staged or encoded.

    Raises :class:`Damaged`, OSError.
    """
    tried = None
    while (inode := store.index.inode(ino)).staged not in (None, tried):
        tried = inode.staged
        assert tried is not None
        try:
            file = store.staging.path(tried).open("rb", buffering=0)
        except FileNotFoundError:
            # A mount that runs at the same time has encoded the file since the row was read. Its
            # row says so now.
            continue
        with file:
            while data := await threads.call(Kind.STAGED, file.read, SLICE):
                yield data
        return
    if inode.object_id is None:
        why = "it has no body" if inode.staged is None else "its staged file is missing"
        raise Damaged(os.fsdecode(store.index.path(ino)), reason=why)
    body = await store.body(inode.object_id)
    for offset in range(0, body.size, SLICE):
        yield await body.pread(offset, SLICE)
