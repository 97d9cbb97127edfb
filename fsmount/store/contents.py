"""The files in the folders of a store: files of the store, and files of other programs.

The form of a name tells them apart. A NAS makes ``@eaDir``, a disk has ``lost+found``, a desktop
leaves ``.DS_Store``, and a sync tool leaves temporary files. fsmount never opens, moves or removes
files of other programs.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from fsmount.errors import Damaged
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index
from fsmount.store.layout import Layout

_EMPTY = "the folder is missing; if it was empty, the next start for writing makes it"
MISSING = (
    "the folder is missing, and files of the store belong in it. Bring it back, or make an empty"
    " one to go on without them"
)
_NUMBER = r"(?:[0-9]{8}|[1-9][0-9]{8,})"
# Names of packs, of their parity and of copies, as in :class:`Layout`.
PACKS = re.compile(
    rf"{_NUMBER}\.zip|(?:{_NUMBER}\.parity|names\.gz|second\.entries)(?:\.new)?", re.ASCII
)
PARITY = re.compile(rf"{_NUMBER}\.parity(?:\.new)?", re.ASCII)
# Tokens of staged files.
STAGED = re.compile(r"[1-9][0-9]*", re.ASCII)
# Object ids of large files.
RAW = re.compile(r"[0-9a-f]{8}", re.ASCII)


def own(folder: Path, form: re.Pattern[str]) -> Iterator[os.DirEntry[str]]:
    """Yield the files of the store in a folder: files whose name has this form.

    Yields nothing if the folder is missing. Raises OSError.
    """
    if folder.is_dir():
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if _is_own(entry, form))


def _is_own(entry: os.DirEntry[str], form: re.Pattern[str]) -> bool:
    """Whether an entry is a regular file whose name has this form."""
    return form.fullmatch(entry.name) is not None and entry.is_file()


def forms(layout: Layout) -> Iterator[tuple[Path, re.Pattern[str]]]:
    """Yield each folder of a store, with the form of the names that the store uses in it."""
    yield from zip(layout.folders, (PACKS, STAGED, RAW), strict=True)


def make_folders(layout: Layout, index: Index, disk: Disk) -> None:
    """Create missing folders: a program that copies a store may leave out empty folders.

    Raises :class:`Damaged` if the index knows files in a missing folder: perhaps a disk is not
    mounted, and all its files would look lost. Raises OSError, and
    PermissionError if a folder is not writable.
    """
    missing = [folder for folder in layout.folders if not folder.is_dir()]
    for folder in missing:
        if _has_files(folder, layout, index):
            raise Damaged(folder, reason=MISSING)
        disk.mkdir(folder)
    if missing:
        disk.fsync_folder(layout.root)
    for folder in layout.folders:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def _has_files(folder: Path, layout: Layout, index: Index) -> bool:
    """Whether the index knows files in this folder."""
    if folder == layout.packs:
        return any(length for length, _ in index.packs().values())
    if folder == layout.staging:
        return bool(index.staged_inodes())
    return any(found.is_kept for found in index.all_objects())


def notices(layout: Layout) -> Iterator[tuple[str, str]]:
    """Yield notices about the folders that are not damage: (name, explanation). Raises OSError."""
    for folder, form in forms(layout):
        if not folder.is_dir():
            yield folder.name, _EMPTY
            continue
        with os.scandir(folder) as entries:
            foreign = sorted(entry.name for entry in entries if not _is_own(entry, form))
        for name in foreign:
            yield f"{folder.name}/{name}", "not made by fsmount; it is left alone"
