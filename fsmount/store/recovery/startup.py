"""Opening a store for writing: finish or undo changes that a crash left half done.

Each step can be repeated, so a crash during recovery costs nothing. `docs/format.md` (R1 to R6)
tells which step cleans up after which crash.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection
from contextlib import ExitStack
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from fsmount.errors import Damaged
from fsmount.store import contents
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index
from fsmount.store.layout import Layout
from fsmount.store.packs import parity
from fsmount.store.packs.pack import Pack, has_directory
from fsmount.store.packs.staging import Staging, new_writer, writer_of

_log = logging.getLogger(__name__)


class OpenPacks(NamedTuple):
    """The packs that are open for appending.

    `fresh`: the pack for new objects. `for_repack`: the pack for entries that a repack moves, or
    None. `newest`: the highest number of a pack.
    """

    fresh: Pack
    for_repack: Pack | None
    newest: int

    def close(self) -> None:
        """Close the descriptors. Raises OSError."""
        try:
            self.fresh.close()
        finally:
            if self.for_repack is not None:
                self.for_repack.close()


def recover(
    layout: Layout,
    index: Index,
    staging: Staging,
    disk: Disk,
    *,
    unproved: bool = False,
    away: frozenset[int] = frozenset(),
) -> OpenPacks:
    """Make folders and index agree. Returns the packs that are open; the caller closes them.

    `unproved`: there is no proof that the last writer has ended, so its last changes may not have
    arrived here. `away`: packs that are at a URL only. The caller holds the lock of the store.
    Raises OSError, and :class:`Damaged` if a file must be removed while rows of the index are
    missing.
    """
    current = not unproved and _is_current(layout, index)
    cleaner = _Cleaner(layout, index, disk, _Unknown.DELETE if current else _Unknown.SET_ASIDE)
    index.make_room()
    _purge_orphans(index)
    # The rows must survive a power cut before files are removed because of them.
    index.force()
    tokens = _clean_staging(index, staging, cleaner)
    _clean_raw(layout, index, cleaner)
    packs = _open_packs(layout, index, disk, cleaner, away)
    try:
        _count_opening(layout, index, disk)
        # Take the writer from the index: on a full disk the last one could not be replaced.
        staging.begin(index.writer(), tokens)
    except BaseException:
        packs.close()
        raise
    return packs


class _Unknown(Enum):
    """The treatment of files that the index does not know."""

    DELETE = auto()
    # The file goes to lost/: the index may be an old copy, or lack its journal.
    SET_ASIDE = auto()


class _Cleaner:
    """Removes files that the index does not know, in the way that `unknown` tells.

    Methods raise OSError, and :class:`Damaged` if the index contradicts itself. Then rows may be
    missing, and no file is removed.
    """

    def __init__(self, layout: Layout, index: Index, disk: Disk, unknown: _Unknown) -> None:
        self._layout = layout
        self._index = index
        self._disk = disk
        self._unknown = unknown
        self._is_consistent = False

    def discard(self, path: Path) -> None:
        """Delete a file or move it to ``lost/``."""
        if self._unknown is _Unknown.SET_ASIDE:
            self.set_aside(path)
        else:
            self._require_consistency()
            self._disk.unlink(path)

    def set_aside(self, path: Path) -> None:
        """Move a file to ``lost/``."""
        self._require_consistency()
        self._disk.rename(path, self._place_in_lost(path))

    def keep_tail(self, path: Path, length: int) -> None:
        """Copy a pack to ``lost/`` if necessary, before the caller cuts it to `length` bytes."""
        if path.exists() and path.stat().st_size > length:
            # A central directory can be made again. Other bytes behind `length` may be entries.
            if not has_directory(path, length):
                self._require_consistency()
            if self._unknown is _Unknown.SET_ASIDE:
                self._copy(path, self._place_in_lost(path))

    def _require_consistency(self) -> None:
        """Raise :class:`Damaged` if rows are missing. Asks the index once: it reads all rows."""
        if not self._is_consistent:
            contradiction = self._index.contradiction()
            if contradiction:
                raise Damaged(self._layout.index, reason=contradiction)
            self._is_consistent = True

    def _copy(self, path: Path, place: Path) -> None:
        source = self._disk.open(path, os.O_RDONLY)
        try:
            target = self._disk.create(place)
            try:
                self._disk.copy(source, target, os.fstat(source).st_size)
                self._disk.fsync(target)
            finally:
                self._disk.close(target)
        finally:
            self._disk.close(source)
        self._disk.fsync_folder(place.parent)

    def _place_in_lost(self, path: Path) -> Path:
        if not self._layout.lost.exists():
            self._disk.mkdir(self._layout.lost)
        place = self._layout.lost / f"{path.parent.name}-{path.name}-{time.time_ns()}"
        _log.error("the index does not know %s; it is kept as %s", path, place)
        return place


def _is_current(layout: Layout, index: Index) -> bool:
    """Whether the index is the newest one that this folder has had.

    Index and folder both count the openings of the store for writing.
    """
    try:
        noted = int(layout.opened.read_text())
    except (OSError, ValueError):
        return index.opened() == 0
    return noted <= index.opened()


def _count_opening(layout: Layout, index: Index, disk: Disk) -> None:
    """Count this opening, first in the index. On a full disk it stays uncounted."""
    try:
        index.set_opened(index.opened() + 1, new_writer())
        index.force()
        disk.write_file(layout.opened, f"{index.opened()}\n".encode())
    except OSError as error:
        _log.warning("this opening of the store is not counted: %s", error)


def _purge_orphans(index: Index) -> None:
    """Remove the rows of files that were unlinked while open. They have no reader any more."""
    for orphan in index.orphans():
        index.purge(orphan.ino)


def _clean_staging(index: Index, staging: Staging, cleaner: _Cleaner) -> set[int]:
    """Set rows of staged files to the size on the disk, and remove staged files without a row.

    Returns the tokens that rows name. If the last writer made a staged file without a row, the file
    was not acknowledged, or is encoded: it is removed. Another writer may have acknowledged its
    files: they move to ``lost/``.
    """
    known: set[int] = set()
    for inode in index.staged_inodes():
        assert inode.staged is not None
        known.add(inode.staged)
        try:
            found = staging.path(inode.staged).stat()
        except FileNotFoundError:
            _log.error("%r: its staged file is missing", index.path(inode.ino))
            continue
        if found.st_size < inode.size:
            _log.warning("%r lost its end in a power cut", index.path(inode.ino))
        if found.st_size != inode.size:
            index.update(inode.ino, size=found.st_size, mtime_ns=found.st_mtime_ns)
    for token in staging.tokens():
        if token not in known and writer_of(token) == index.writer():
            cleaner.discard(staging.path(token))
        elif token not in known:
            cleaner.set_aside(staging.path(token))
    return known


def _clean_raw(layout: Layout, index: Index, cleaner: _Cleaner) -> None:
    """Remove large files whose object was never committed. Their staged files still exist."""
    for entry in contents.own(layout.raw, contents.RAW):
        if not _is_committed(index, entry.name):
            cleaner.discard(layout.raw / entry.name)


def _is_committed(index: Index, name: str) -> bool:
    """Whether a file in raw/ belongs to an object. Reads only one row of maybe a million."""
    try:
        found = index.known_object(int(name, 16))
    except (ValueError, OverflowError):
        return False
    return found is not None and found.is_kept and name == f"{found.id:08x}"


def _open_packs(
    layout: Layout, index: Index, disk: Disk, cleaner: _Cleaner, away: frozenset[int]
) -> OpenPacks:
    """Cut off unfinished tails, open the newest pack of each use, and seal all others.

    A pack belongs to repack if repack wrote all its bytes. Else it is for new objects.
    """
    packs, repacked = index.packs(), index.repacked()
    _remove_unknown_packs(layout, packs.keys(), cleaner)
    _remove_old_parity(layout, index, disk)
    by_repack = {number for number in packs if repacked.get(number, 0) >= packs[number][0]}
    newest_by_repack = max(by_repack, default=0)
    newest_fresh = max(packs.keys() - by_repack, default=0)
    newest = max([*packs, *away], default=0)
    fresh: Pack | None = None
    for_repack: Pack | None = None
    with ExitStack() as undo:
        for number, (length, sealed) in packs.items():
            # An old index may take a pack for open that is sealed, and elsewhere.
            if sealed or number in away:
                continue
            cleaner.keep_tail(layout.pack(number), length)
            pack = _reopen(layout, number, disk, length)
            if pack is None:
                continue
            if number == newest_fresh:
                fresh = pack
                undo.callback(pack.close)
            elif number == newest_by_repack:
                for_repack = pack
                undo.callback(pack.close)
            else:
                seal(pack, index)
        if fresh is None:
            newest += 1
            fresh = Pack(layout.pack(newest), newest, disk, 0)
        undo.pop_all()
    return OpenPacks(fresh, for_repack, newest)


def _remove_unknown_packs(layout: Layout, known: Collection[int], cleaner: _Cleaner) -> None:
    """Remove packs that have no row, and unfinished copies."""
    for entry in contents.own(layout.packs, contents.PACKS):
        if entry.name in layout.copies or contents.PARITY.fullmatch(entry.name):
            continue
        stem = entry.name.removesuffix(".zip")
        if not stem.isdigit() or int(stem) not in known:
            cleaner.discard(layout.packs / entry.name)


def _remove_old_parity(layout: Layout, index: Index, disk: Disk) -> None:
    """Remove unfinished parity, and parity of packs that were removed or cut.

    This is forced: a pack may grow again, or get the number of another one. If the index
    contradicts itself, all parity stays for a repair.
    """
    packs = index.packs()
    old = []
    for entry in contents.own(layout.packs, contents.PARITY):
        number, _, kind = entry.name.partition(".")
        length, _ = packs.get(int(number), (0, False))
        path = layout.packs / entry.name
        if kind != "parity" or _covers_more(path, length):
            old.append(path)
    if old and not index.contradiction():
        for path in old:
            disk.unlink(path)
        disk.fsync_folder(layout.packs)


def _covers_more(path: Path, length: int) -> bool:
    """Whether parity covers more than `length` bytes of its pack, as its header says."""
    try:
        return parity.shape_at(path).covered > length
    except (OSError, Damaged):
        return not length


def _reopen(layout: Layout, number: int, disk: Disk, length: int) -> Pack | None:
    """Open an unsealed pack; None if it is damaged. Its whole entries stay readable."""
    try:
        return Pack(layout.pack(number), number, disk, length)
    except Damaged as error:
        _log.error("%s; it is left as it is, `fsmount check --full` names the files", error)
        return None


def seal(pack: Pack, index: Index) -> None:
    """Finish a pack: write its central directory, force it, close it, and mark its row as sealed.

    The pack is closed also if a step fails. Raises OSError.
    """
    try:
        pack.write_directory()
        pack.fsync()
    finally:
        pack.close()
    index.set_pack(pack.number, pack.length, sealed=True)
