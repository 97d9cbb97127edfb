"""What is done when a store is opened for writing: finish or undo what a crash left half done.

Each step may be repeated, so that a crash during recovery costs nothing; `docs/format.md` says
which step cleans up after which crash.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from fsmount.errors import Damaged
from fsmount.store import contents
from fsmount.store.config import Layout
from fsmount.store.disk import Disk
from fsmount.store.index import Index
from fsmount.store.pack import Pack, has_directory
from fsmount.store.staging import Staging, new_writer, writer_of

_log = logging.getLogger(__name__)


class OpenPacks(NamedTuple):
    """The packs that are open for appending: `fresh` for new objects, `again` for repack.

    `newest`: the highest number a pack has.
    """

    fresh: Pack
    again: Pack | None
    newest: int

    def close(self) -> None:
        """Close the descriptors."""
        try:
            self.fresh.close()
        finally:
            if self.again is not None:
                self.again.close()


def recover(
    layout: Layout, index: Index, staging: Staging, disk: Disk, *, unproved: bool = False
) -> OpenPacks:
    """Bring folder and index together; the packs that are open for appending.

    `unproved`: nobody could tell that the writer before has ended, so what it has done last may
    not have come here yet.
    """
    bin_ = _Bin(layout, index, disk, keep=unproved or not _is_current(layout, index))
    index.make_room()
    _purge_orphans(index)
    # Files go only when the rows that say so would survive a power cut.
    index.force()
    known = _clean_staging(index, staging, bin_)
    _clean_raw(layout, index, bin_)
    packs = _open_packs(layout, index, disk, bin_)
    try:
        _note_opening(layout, index, disk)
        # From the index: on a full disk the writer before is named there still.
        staging.begin(index.writer(), known)
    except BaseException:
        packs.close()
        raise
    return packs


class _Bin:
    """Where files go that the index does not know: away, or aside where it may be the index that
    is wrong (an old copy of it, or one without its journal).

    Raises :class:`Damaged` where it contradicts itself: then rows may be missing, and nothing goes.
    """

    def __init__(self, layout: Layout, index: Index, disk: Disk, *, keep: bool) -> None:
        self._layout = layout
        self._index = index
        self._disk = disk
        self._keep = keep
        self._asked = False

    def _ask(self) -> None:
        """Once, and only if there is something to drop: it takes a look at all rows."""
        if not self._asked:
            why = self._index.contradiction()
            if why:
                raise Damaged(self._layout.index, reason=why)
            self._asked = True

    def drop(self, path: Path) -> None:
        """Delete a file, or move it to ``lost/``."""
        if self._keep:
            self.put_aside(path)
        else:
            self._ask()
            self._disk.unlink(path)

    def put_aside(self, path: Path) -> None:
        """Move a file to ``lost/``."""
        self._ask()
        self._disk.rename(path, self._aside(path))

    def drop_tail(self, path: Path, length: int) -> None:
        """A pack is about to be cut to `length` bytes: keep a copy of it in ``lost/``."""
        if path.exists() and path.stat().st_size > length:
            if not has_directory(path, length):
                self._ask()
            if self._keep:
                self._copy(path, self._aside(path))

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

    def _aside(self, path: Path) -> Path:
        if not self._layout.lost.exists():
            self._disk.mkdir(self._layout.lost)
        place = self._layout.lost / f"{path.parent.name}-{path.name}-{time.time_ns()}"
        _log.error("the index does not know %s; it is kept as %s", path, place)
        return place


def _is_current(layout: Layout, index: Index) -> bool:
    """Whether the index is the newest this folder has had: both count how often it was opened."""
    try:
        noted = int(layout.opened.read_text())
    except (OSError, ValueError):
        return index.opened() == 0
    return noted <= index.opened()


def _note_opening(layout: Layout, index: Index, disk: Disk) -> None:
    """Count one opening, in the index first. A full disk must not keep a store from opening."""
    try:
        index.set_opened(index.opened() + 1, new_writer())
        index.force()
        disk.write_file(layout.opened, f"{index.opened()}\n".encode())
    except OSError as error:
        _log.warning("this opening of the store is not counted: %s", error)


def _purge_orphans(index: Index) -> None:
    """Files unlinked while open have no reader left now."""
    for orphan in index.orphans():
        index.purge(orphan.ino)


def _clean_staging(index: Index, staging: Staging, bin_: _Bin) -> set[int]:
    """Rows of staged files show what was written: their tokens.

    A staged file without a row goes if the last writer made it: it was not acknowledged, or is
    encoded. Of another writer that cannot be told; its file is kept.
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
            bin_.drop(staging.path(token))
        elif token not in known:
            bin_.put_aside(staging.path(token))
    return known


def _clean_raw(layout: Layout, index: Index, bin_: _Bin) -> None:
    """Large files whose object was never committed go; their staged name is still there."""
    for entry in contents.own(layout.raw, contents.RAW):
        if not _is_kept(index, entry.name):
            bin_.drop(layout.raw / entry.name)


def _is_kept(index: Index, name: str) -> bool:
    """Whether a file in raw/ is an object's: asked of each, since objects may be a million."""
    try:
        found = index.known_object(int(name, 16))
    except (ValueError, OverflowError):
        return False
    return found is not None and found.is_kept and name == f"{found.id:08x}"


def _open_packs(layout: Layout, index: Index, disk: Disk, bin_: _Bin) -> OpenPacks:
    """Drop unfinished tails, finish packs that are no longer written, open the newest."""
    packs, repacked = index.packs(), index.repacked()
    for entry in contents.own(layout.packs, contents.PACKS):
        if entry.name in layout.copies:
            continue
        stem = entry.name.removesuffix(".zip")
        if not stem.isdigit() or int(stem) not in packs:
            bin_.drop(layout.packs / entry.name)
    # Packs that repack alone has written, and the others: the newest of each is written on.
    again = {number for number in packs if repacked.get(number, 0) >= packs[number][0]}
    newest = {max(again, default=0), max(packs.keys() - again, default=0)}
    opened: dict[bool, Pack] = {}
    with ExitStack() as undo:
        for number, (length, sealed) in packs.items():
            if sealed:
                continue
            bin_.drop_tail(layout.pack(number), length)
            pack = _reopen(layout, number, disk, length)
            if pack is None:
                continue
            if number in newest:
                opened[number in again] = pack
                undo.callback(pack.close)
            else:
                seal(pack, index)
        last = max(packs, default=0)
        if False not in opened:
            last += 1
            opened[False] = Pack(layout.pack(last), last, disk, 0)
        undo.pop_all()
    return OpenPacks(opened[False], opened.get(True), last)


def _reopen(layout: Layout, number: int, disk: Disk, length: int) -> Pack | None:
    """An unsealed pack; None if it is damaged: what is whole in it can still be read."""
    try:
        return Pack(layout.pack(number), number, disk, length)
    except Damaged as error:
        _log.error("%s; it is left as it is, `fsmount check --full` names the files", error)
        return None


def seal(pack: Pack, index: Index) -> None:
    """Finish a pack: central directory, durable, closed, and the index says so.

    Closed in any case.
    """
    try:
        pack.write_directory()
        pack.fsync()
    finally:
        pack.close()
    index.set_pack(pack.number, pack.length, sealed=True)
