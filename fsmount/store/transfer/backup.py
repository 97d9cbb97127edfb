"""Backups: a folder that holds one state of a store, and is itself a store.

The store may be in use. First its staged files are opened, because the encoder removes them. Then
SQLite copies the index in one transaction: this is the state that the backup shows. Packs, large
files and staged files that it names follow. If one of them was removed meanwhile (by a repack, for
example), a new copy of the index is taken; what is copied by then stays.

The new index gets its name in one rename, after everything that it names is on the disk. Until then
nothing that the old index names was changed, so the last backup is whole at every moment. Files
that only the old index named are removed after the rename.

`docs/format.md` (Backups) says which rows the index of a backup has.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fsmount.errors import (
    BackupUnsettled,
    Damaged,
    InsideStore,
    NotABackup,
)
from fsmount.store import config, contents
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.index import Index, leave_log_mode
from fsmount.store.layout import CONFIG, Layout
from fsmount.store.lock import Lock
from fsmount.store.maintenance import copies
from fsmount.store.ownership import OwnedDisk, Ownership
from fsmount.store.packs import parity
from fsmount.store.packs.staging import Staging
from fsmount.store.transfer.backup_files import FileCopier, held, writer_for
from fsmount.store.transfer.backup_packs import PackCopier, Places, Vanished
from fsmount.store.transfer.tree import Progress, naming_full_disk

# How often a snapshot is taken before the store counts as changing too quickly.
_TRIES = 20
_REST_S = 0.25
# Names of a first backup that is not complete yet.
_NEW = "index.new"
_OURS = {"packs", "staging", "raw", "lock", "opened", "index.sqlite", CONFIG + ".new", "opened.new"}


@dataclass
class BackupSummary:
    """The result of a backup.

    files : number of files that the backup shows.
    packs : number of its packs.
    copied_bytes : bytes of packs, large files and staged files that were copied.
    problems : (path, reason) for each damaged part of the store. The backup has it as it is.
    """

    files: int = 0
    packs: int = 0
    copied_bytes: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class _Last:
    """What the index of the last complete backup names.

    packs : committed bytes of each pack.
    numbers : number of a pack in the store -> that in the backup, where the two differ.
    kept : SHA-256 of each file in ``raw/``, by object id.
    """

    packs: dict[int, int] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)
    kept: dict[int, bytes] = field(default_factory=dict)


class _Snapshot(NamedTuple):
    """What the index of the new backup names.

    opened : see :meth:`Index.opened`.
    numbers : number of each pack in the store -> that in the backup.
    lengths : committed bytes of each pack of the backup.
    staged, kept : names of the files in ``staging/`` and ``raw/``.
    """

    opened: int
    numbers: dict[int, int]
    lengths: dict[int, int]
    staged: set[str]
    kept: set[str]


def back_up(
    store: StoreFiles,
    dest: Path,
    *,
    reread: bool = False,
    force_lock: bool = False,
    progress: Progress = lambda files, count: None,
    disk: Disk | None = None,
) -> BackupSummary:
    """Make `dest` a backup of an open store, or bring the backup there up to date.

    `reread` compares every byte of `dest` with the store, also where size and mtime are equal.
    `force_lock`: see :class:`Lock`. `progress` gets packs or files, and bytes, that are done.

    Waits for the disk. Raises :class:`NotABackup` or :class:`InsideStore` if the folder cannot take
    the backup, :class:`StoreLocked` or :class:`LockUnclear` if another process uses it,
    :class:`BackupUnsettled`, :class:`DiskFull`, :class:`Damaged` if the index of the store or the
    disk of the backup is damaged, and OSError. The last complete backup is whole then.
    """
    disk = disk or Disk()
    _refuse_others(store, dest)
    if not dest.exists():
        # No folder above it is made: the disk for it may not be mounted.
        disk.mkdir(dest)
        disk.fsync_folder(dest.parent)
    with ExitStack() as undo:
        folder = config.enter(dest)
        undo.callback(folder.close)
        layout = Layout(folder.path)
        ownership = Ownership(Lock(layout.lock, force=force_lock))
        undo.callback(ownership.release)
        work = _Backup(store, dest, layout, OwnedDisk(disk, ownership), reread, progress)
        with naming_full_disk(dest):
            return work.run()


def size_of(store: StoreFiles) -> int:
    """Bytes of packs, large files and staged files, for progress. Raises OSError."""
    total = 0
    for folder, form in contents.forms(store.layout):
        for entry in contents.own(folder, form):
            is_body = folder != store.layout.packs or entry.name.endswith(".zip")
            with suppress(FileNotFoundError):
                total += entry.stat().st_size if is_body else 0
    return total


def _refuse_others(store: StoreFiles, dest: Path) -> None:
    """Refuse a folder that holds other things. Raises NotABackup, InsideStore, OSError."""
    for above in dest.resolve().parents:
        if config.is_store(above):
            raise InsideStore(dest, store=above)
    if not dest.exists():
        return
    if not dest.is_dir():
        raise NotABackup(dest, reason="it is no folder")
    if dest.samefile(store.layout.root):
        raise NotABackup(dest, reason="it is the store itself")
    if config.is_store(dest):
        if config.read(dest).get("uuid") != store.index.identity():
            raise NotABackup(dest, reason="another store is there")
        return
    foreign = sorted(name for name in os.listdir(dest)
                     if name not in _OURS and not name.startswith(_NEW))  # fmt: skip
    if foreign:
        raise NotABackup(dest, reason=f"{foreign[0]} is there, which no backup made")


class _Backup:
    """One run of :func:`back_up`, which holds the lock of the backup."""

    def __init__(
        self,
        store: StoreFiles,
        dest: Path,
        layout: Layout,
        disk: Disk,
        reread: bool,
        progress: Progress,
    ) -> None:
        self._store = store
        self._dest = dest
        self._layout = layout
        self._disk = disk
        self._reread = reread
        self._progress = progress
        self._fresh = layout.index.with_name(_NEW)
        self._summary = BackupSummary()

    def run(self) -> BackupSummary:
        """Do all steps; see :func:`back_up`."""
        for folder in self._layout.folders:
            if not folder.is_dir():
                self._disk.mkdir(folder)
        self._disk.fsync_folder(self._layout.root)
        last = self._last()
        files = FileCopier(
            self._store,
            self._layout,
            self._dest,
            self._disk,
            self._staging(),
            last.kept,
            self._reread,
            self._progress,
        )
        packs = PackCopier(
            self._store.layout,
            self._layout,
            self._store.index,
            self._disk,
            last.packs,
            last.numbers,
            self._reread,
            self._progress,
        )
        for left in reversed(range(_TRIES)):
            try:
                done = self._try(files, packs)
                break
            except Vanished as error:
                if not left:
                    what = f"{error} is gone"
                    raise BackupUnsettled(self._store.path, reason=what) from error
                time.sleep(_REST_S)
        self._switch(done)
        self._remove_others(done)
        self._bring_parity(done)
        self._summary.copied_bytes = packs.copied + files.copied
        self._summary.problems = packs.problems + files.problems
        self._summary.packs = len(done.numbers)
        return self._summary

    def _staging(self) -> Staging:
        """The staged files of the backup. New tokens are those of no file that is there."""
        staging = Staging(self._layout.staging, self._disk)
        staging.begin(writer_for(self._store.index.identity()))
        return staging

    def _last(self) -> _Last:
        """Read what the last complete backup needs.

        Raises :class:`NotABackup` if its index is none of a backup, or was written since, and
        :class:`Damaged`.
        """
        path = self._layout.index
        if not path.exists():
            return _Last()
        try:
            index = Index(path, self._disk, read_only=True)
            try:
                self._require_untouched(index)
                return _Last(
                    {number: length for number, (length, _) in index.packs().items()},
                    index.backup_packs(),
                    dict(index.kept()),
                )
            finally:
                index.close()
        except Damaged as error:
            why = f"{error.fields['reason']}. Remove this file: the next backup makes it anew"
            raise Damaged(path, reason=why) from error

    def _require_untouched(self, index: Index) -> None:
        """Raise :class:`NotABackup` unless `index` is as a backup of this store left it."""
        if index.identity() != self._store.index.identity():
            raise NotABackup(self._dest, reason="another store is there")
        if index.backup_of() is None:
            raise NotABackup(self._dest, reason="it is a store, and no backup of one")
        if index.backup_of() != index.opened():
            why = "it was opened for writing since the last backup, and may have files of its own"
            raise NotABackup(self._dest, reason=why)

    def _try(self, files: FileCopier, packs: PackCopier) -> _Snapshot:
        """Copy the index, and all that it names. Return what it names.

        The finished index is on the disk under another name. Raises :class:`Vanished` if the store
        removed something meanwhile.
        """
        packs.problems.clear()
        files.problems.clear()
        for path in _with_logs(self._fresh):
            self._disk.unlink(path)
        with held(self._store) as descriptors:
            self._store.index.copy_to(self._fresh)
            index = Index(self._fresh, self._disk)
            try:
                done = self._bring_all(index, files, packs, descriptors)
            finally:
                index.close()
        leave_log_mode(self._fresh)
        with suppress(PermissionError):
            self._disk.chmod(self._fresh, 0o600)
        self._force(self._fresh)
        return done

    def _bring_all(
        self, index: Index, files: FileCopier, packs: PackCopier, descriptors: Mapping[int, int]
    ) -> _Snapshot:
        """Copy all that `index` names, and make it the index of a backup. As :meth:`_try`."""
        # Staged files come first, because they vanish first.
        files.bring_staged(index, descriptors)
        committed = {number: row for number, row in index.packs().items() if row[0]}
        numbers = packs.bring(committed, Places(index))
        files.bring_kept(index, numbers)
        changed = {old: new for old, new in numbers.items() if old != new}
        index.set_backup(index.opened(), writer_for(index.identity()), changed)
        self._copy_names(index)
        self._summary.files = index.totals()["files"]
        return _Snapshot(
            index.opened(),
            numbers,
            {number: length for number, (length, _) in index.packs().items() if length},
            {str(node.staged) for node in index.staged_inodes()},
            {self._layout.kept(number).name for number, _ in index.kept()},
        )

    def _copy_names(self, index: Index) -> None:
        """Write the copy of the index that belongs to this backup.

        Raises :class:`Damaged` if the index is damaged or contradicts itself: it must not replace
        the last one.
        """
        faults = index.integrity()
        if faults:
            raise Damaged(self._store.layout.index, reason=faults[0])
        names = copies.collect(index)
        copies.update(self._layout, self._disk, names)
        index.set_copied(zlib.crc32(names))

    def _switch(self, done: _Snapshot) -> None:
        """Give the new index its name. From here on the new backup is the last complete one."""
        about = self._store.layout.config.read_bytes()
        is_first = not self._layout.config.exists()
        if not is_first and self._layout.config.read_bytes() != about:
            self._disk.write_file(self._layout.config, about)
        # Readers of an older build made these beside the index. SQLite would take them for those
        # of the new one. They hold no changes: an index that was written was refused before.
        for path in _with_logs(self._layout.index)[1:]:
            self._disk.unlink(path)
        self._disk.rename(self._fresh, self._layout.index)
        self._disk.fsync_folder(self._layout.root)
        self._disk.write_file(self._layout.opened, f"{done.opened}\n".encode())
        if is_first:
            # It comes last: a folder with a config is a complete store.
            self._disk.write_file(self._layout.config, about)

    def _remove_others(self, done: _Snapshot) -> None:
        """Remove files that the new index does not name."""
        packs = {path.name for number in done.lengths
                 for path in (self._layout.pack(number), self._layout.parity(number))}  # fmt: skip
        named = packs | {self._layout.names_copy.name}, done.staged, done.kept
        for (folder, form), names in zip(contents.forms(self._layout), named, strict=True):
            for entry in list(contents.own(folder, form)):
                if entry.name not in names:
                    self._disk.unlink(Path(entry.path))

    def _bring_parity(self, done: _Snapshot) -> None:
        """Give each pack parity of its committed bytes: that of the store, or a new one."""
        percent = config.parity_of(config.read(self._layout.root))
        for old, new in done.numbers.items():
            path, length = self._layout.parity(new), done.lengths[new]
            if not percent:
                self._disk.unlink(path)
            elif _covered(path, self._reread) != length:
                data = self._parity_of_store(old, length) if old == new else None
                if data is None:
                    data = parity.build(self._layout.pack(new), parity.plan(new, length, percent))
                self._disk.write_file(path, data)

    def _parity_of_store(self, number: int, length: int) -> bytes | None:
        """The parity file of a pack of the store, if it is whole and covers `length` bytes."""
        path = self._store.layout.pack(number)
        try:
            if parity.load_of(path).shape.covered == length:
                return parity.file_of(path).read_bytes()
        except (OSError, Damaged):
            pass
        return None

    def _force(self, path: Path) -> None:
        fd = self._disk.open(path, os.O_RDWR)
        try:
            self._disk.fsync(fd)
        finally:
            self._disk.close(fd)


def _covered(path: Path, reread: bool) -> int:
    """Bytes that a parity file covers; 0 if there is none, or if it is damaged.

    `reread` reads all of it.
    """
    try:
        known = parity.load(path)
        return 0 if reread and known.damaged_parity() else known.shape.covered
    except (OSError, Damaged):
        return 0


def _with_logs(index: Path) -> list[Path]:
    """The path of an index, and of the files that SQLite makes beside it."""
    return [index.with_name(index.name + end) for end in ("", "-wal", "-shm", "-journal")]
