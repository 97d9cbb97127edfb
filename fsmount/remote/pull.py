"""Pull: make a store of the newest state at a URL, in a new folder.

The folder is no store until all of it is there: ``fsmount.json`` comes last. A pull that was
stopped goes on with the parts that are whole. The hash of each object is compared before its bytes
are used.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fsmount.errors import Damaged, InsideStore, NotPushed, RemoteMissing, StoreExists
from fsmount.remote import index_pages
from fsmount.remote.objects import Body, State, last_state, read_part, why_missing
from fsmount.remote.transport import Transport, where_of
from fsmount.store import config, contents
from fsmount.store.disk.disk import Disk, pread
from fsmount.store.index import Index, leave_log_mode
from fsmount.store.layout import CONFIG, Layout
from fsmount.store.lock import Lock
from fsmount.store.maintenance import copies
from fsmount.store.ownership import OwnedDisk, Ownership
from fsmount.store.packs import parity
from fsmount.store.transfer.backup_packs import keep_mtime, opened
from fsmount.store.transfer.tree import Progress, naming_full_disk

_NEW = "index.new"
# What a pull that was stopped leaves in the folder.
_OURS = {"packs", "staging", "raw", "lock", "opened", "index.sqlite", CONFIG + ".new", "opened.new"}


@dataclass
class PullSummary:
    """The result of a pull.

    generation : number of the state.
    files : number of files that the store shows.
    received_bytes : bytes of packs, large files and staged files that were read from the URL.
    """

    generation: int = 0
    files: int = 0
    received_bytes: int = 0


def pull(
    remote: Transport,
    dest: Path,
    *,
    progress: Progress = lambda files, count: None,
    disk: Disk | None = None,
) -> PullSummary:
    """Make `dest` a store of the newest state. `progress` gets files and bytes that are done.

    Waits for disk and network. Raises :class:`StoreExists` or :class:`InsideStore` if the folder
    cannot take a store, :class:`StoreLocked` if another pull works there, :class:`NotPushed` if
    there is no state, :class:`StatePruned`, :class:`Damaged` and other errors of the transport,
    :class:`DiskFull`, OSError. The folder is no store then.
    """
    disk = disk or Disk()
    state = last_state(remote)
    if state is None:
        why = "no store was pushed there. Check the URL, or send one: fsmount push STORE URL"
        raise NotPushed(remote.url, reason=why)
    _refuse_others(dest)
    if not dest.exists():
        # No folder above it is made: the disk for it may not be mounted.
        disk.mkdir(dest)
        disk.fsync_folder(dest.parent)
    with ExitStack() as undo:
        layout = Layout(dest)
        ownership = Ownership(Lock(layout.lock))
        undo.callback(ownership.release)
        work = _Pull(remote, state, layout, OwnedDisk(disk, ownership), progress)
        with naming_full_disk(dest):
            try:
                return work.run()
            except RemoteMissing as error:
                raise why_missing(remote, state.generation, error) from error


def _refuse_others(dest: Path) -> None:
    """Refuse a folder that holds other things. Raises StoreExists, InsideStore, OSError."""
    for above in dest.resolve().parents:
        if config.is_store(above):
            raise InsideStore(dest, store=above)
    if not dest.exists():
        return
    if not dest.is_dir() or config.is_store(dest):
        raise StoreExists(dest)
    if any(name not in _OURS and not name.startswith(_NEW) for name in os.listdir(dest)):
        raise StoreExists(dest)


class _Pull:
    """One run of :func:`pull`, which holds the lock of the folder."""

    def __init__(
        self, remote: Transport, state: State, layout: Layout, disk: Disk, progress: Progress
    ) -> None:
        self._remote = remote
        self._state = state
        self._layout = layout
        self._disk = disk
        self._progress = progress
        self._summary = PullSummary(generation=state.generation)
        # Committed bytes of each pack, when the index is there.
        self._committed: dict[int, int] = {}

    def run(self) -> PullSummary:
        """Do all steps; see :func:`pull`."""
        layout, state = self._layout, self._state
        for folder in layout.folders:
            if not folder.is_dir():
                self._disk.mkdir(folder)
        self._disk.fsync_folder(layout.root)
        files = (state.packs, state.staged, state.raw)
        for (folder, form), bodies in zip(contents.forms(layout), files, strict=True):
            for name, body in bodies.items():
                if form.fullmatch(name) is None:
                    where = where_of(self._remote, f"state {state.generation}")
                    raise Damaged(where, reason=f"it names a file {name!r}")
                self._bring(folder / name, body)
            self._remove_others(folder, set(bodies))
            self._disk.fsync_folder(folder)
        self._bring_index()
        self._bring_parity()
        self._disk.write_file(layout.opened, f"{state.opened}\n".encode())
        # It comes last: a folder with a config is a complete store.
        self._disk.write_file(layout.config, state.config.encode())
        return self._summary

    def _remove_others(self, folder: Path, names: set[str]) -> None:
        """Remove what an earlier pull of another state left in a folder."""
        for name in os.listdir(folder):
            if name not in names:
                self._disk.unlink(folder / name)

    def _bring(self, path: Path, body: Body) -> None:
        """Bring the parts of a file that are not there, force it, and give it its mtime."""
        if not path.exists():
            self._disk.close(self._disk.create(path))
        fd = self._disk.open(path, os.O_RDWR)
        try:
            at = 0
            for part in body.parts:
                there = pread(fd, part.length, at)
                if hashlib.sha256(there).hexdigest() != part.sha256:
                    self._disk.pwrite(fd, read_part(self._remote, part), at)
                    self._summary.received_bytes += part.length
                at += part.length
                self._progress(0, part.length)
            self._disk.ftruncate(fd, at)
            self._disk.fsync(fd)
            keep_mtime(self._disk, fd, body.mtime_ns)
        finally:
            self._disk.close(fd)
        self._progress(1, 0)

    def _bring_index(self) -> None:
        """Make the index, and the copy of its rows."""
        fresh = self._layout.index.with_name(_NEW)
        for end in ("", "-wal", "-shm", "-journal"):
            self._disk.unlink(fresh.with_name(fresh.name + end))
        index_pages.receive(self._remote, self._state, fresh, self._disk)
        index = Index(fresh, self._disk)
        try:
            faults = index.integrity()
            if faults:
                raise Damaged(self._remote.url, reason=f"its index: {faults[0]}")
            names = copies.collect(index)
            copies.update(self._layout, self._disk, names)
            index.set_copied(zlib.crc32(names))
            self._summary.files = index.totals()["files"]
            packs = index.packs().items()
            self._committed = {number: length for number, (length, _) in packs if length}
        finally:
            index.close()
        leave_log_mode(fresh)
        with opened(fresh) as fd:
            self._disk.fsync(fd)
        self._disk.rename(fresh, self._layout.index)
        self._disk.fsync_folder(self._layout.root)

    def _bring_parity(self) -> None:
        """Make parity of all packs."""
        percent = config.parity_of(json.loads(self._state.config))
        for number, length in self._committed.items() if percent else ():
            shape = parity.plan(number, length, percent)
            data = parity.build(self._layout.pack(number), shape)
            self._disk.write_file(self._layout.parity(number), data)
