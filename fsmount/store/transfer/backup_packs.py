"""Brings the packs of a store into a backup.

The packs of the last complete backup stay usable until the next one is complete: bytes that its
index names are never overwritten. So a pack is

- left as it is, if size and mtime say that it has not changed;
- continued behind the bytes that it shares with the pack of the store;
- copied under a new number, if it differs in bytes that the last backup needs. That happens when
  a full disk made fsmount cut a pack and write on, when a number was given again, when the store
  was put back from an older backup, and when the pack of the backup is damaged.

Entries that were copied are read back from the disk, and their checksums compared.
"""

from __future__ import annotations

import errno
import os
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fsmount.errors import Damaged
from fsmount.folder import readable
from fsmount.store import contents
from fsmount.store.disk.disk import Disk, pread
from fsmount.store.index import Index
from fsmount.store.layout import Layout
from fsmount.store.packs.pack import read_entry
from fsmount.store.transfer.tree import Progress

_PIECE = 1 << 20
# Errors of a filesystem that keeps no times or no permissions for this user (CIFS, FAT).
_REFUSED = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS)


class Vanished(Exception):
    """A file of the store was removed or rewritten after the snapshot of the index was taken."""


class Places:
    """The entries of each pack: id, offset and length, in 24 bytes an entry."""

    def __init__(self, index: Index) -> None:
        """Read all objects of `index`. Raises OSError, :class:`Damaged`."""
        self._packs: defaultdict[int, array[int]] = defaultdict(lambda: array("q"))
        for number, pack, offset, length in index.entries():
            self._packs[pack].extend((number, offset, length))

    def of(self, pack: int, after: int) -> Iterator[tuple[int, int, int]]:
        """Yield the entries of a pack that end behind offset `after`: (id, offset, length)."""
        flat = self._packs[pack]
        for at in range(0, len(flat), 3):
            number, offset, length = flat[at : at + 3]
            if offset + length > after:
                yield number, offset, length


@dataclass
class PackCopier:
    """Copies packs of one snapshot; see :meth:`bring`.

    source, target : the paths of the store and of the backup.
    live : the index of the store itself, which says whether an entry has moved meanwhile.
    disk : system calls that change the backup.
    needed : bytes of each pack of the backup that its index names, by number.
    numbers : number of a pack in the store -> that in the backup, where the two differ.
    reread : whether to compare every byte, also if size and mtime say that nothing has changed.
    progress : called with the packs and bytes that are done.
    problems : (path, reason) for each damaged entry of the store.
    copied : bytes that were copied.
    """

    source: Layout
    target: Layout
    live: Index
    disk: Disk
    needed: Mapping[int, int]
    numbers: dict[int, int]
    reread: bool
    progress: Progress
    problems: list[tuple[str, str]] = field(default_factory=list)
    copied: int = 0

    def bring(self, packs: Mapping[int, tuple[int, bool]], places: Places) -> dict[int, int]:
        """Make the backup have the committed bytes of all `packs`, on the disk.

        `packs` and `places` are those of the snapshot. Returns the number of each pack in the
        backup. Raises :class:`Vanished`, OSError, and :class:`Damaged` if the disk of the backup
        does not keep what was written.
        """
        there = {int(entry.name[:-4]) for entry in contents.own(self.target.packs, contents.PACKS)
                 if entry.name.endswith(".zip")}  # fmt: skip
        fresh = max({*packs, *there, *self.needed, *self.numbers.values()}, default=0)
        wanted = {number: self.numbers.get(number, number) for number in packs}
        taken = {self.numbers[number] for number in packs if number in self.numbers}
        found: dict[int, int] = {}
        for number, (length, is_sealed) in packs.items():
            own = wanted[number]
            if own in taken and number not in self.numbers:
                fresh += 1
                own = fresh
            try:
                done = self._bring_one(number, own, length, is_sealed, places)
                if not done:
                    fresh += 1
                    done = self._bring_anew(number, own, fresh, length, is_sealed, places)
            except FileNotFoundError as error:
                raise Vanished(self.source.pack(number).name) from error
            found[number] = done
            self.progress(1, 0)
            # A backup of this store that goes on from here finds the same number.
            if done != number:
                self.numbers[number] = done
        self.disk.fsync_folder(self.target.packs)
        return found

    def _bring_one(
        self, number: int, own: int, length: int, is_sealed: bool, places: Places
    ) -> int:
        """Bring a pack under the number `own`. Return 0 if the last backup needs other bytes."""
        path = self.target.pack(own)
        needed = min(self.needed.get(own, 0), length)
        with opened(self.source.pack(number)) as source:
            info = os.fstat(source)
            end = info.st_size if is_sealed else length
            if info.st_size < length:
                raise Vanished(path.name)
            if not self.reread and is_as_left(path, info):
                self.progress(0, end)
                return own
            start = 0
            if path.exists():
                with opened(path) as known:
                    there = os.fstat(known).st_size
                    start = _common(source, known, min(end, there))
                    if start < min(needed, there):
                        return 0
                self.progress(0, start)
            self._write(source, path, start, end, keep=self.needed.get(own, 0) > end)
            since = 0 if self.reread else start
            self._verify(number, own, places.of(number, since), info.st_mtime_ns)
        return own

    def _bring_anew(
        self, number: int, old: int, fresh: int, length: int, is_sealed: bool, places: Places
    ) -> int:
        """Copy a pack under the number `fresh`, because `old` has other bytes.

        Return the number that counts: `old` if the pack of the store is the damaged one.
        """
        before = len(self.problems)
        self._bring_one(number, fresh, length, is_sealed, places)
        path = self.target.pack(old)
        if len(self.problems) == before or self._faults(path, places.of(number, 0)):
            return fresh
        self.disk.unlink(self.target.pack(fresh))
        del self.problems[before:]
        why = f"it is damaged. The backup has it whole, as {path}; it was not replaced"
        self.problems.append((readable(str(self.source.pack(number))), readable(why)))
        return old

    def _write(self, source: int, path: Path, start: int, end: int, *, keep: bool) -> None:
        """Copy bytes `start` to `end` and force the file. `keep`: leave bytes behind `end`."""
        fd = self.disk.open(path, os.O_RDWR) if path.exists() else self.disk.create(path)
        try:
            for at in range(start, end, _PIECE):
                data = pread(source, min(_PIECE, end - at), at)
                if len(data) < min(_PIECE, end - at):
                    raise Vanished(path.name)
                self.disk.pwrite(fd, data, at)
                self.copied += len(data)
                self.progress(0, len(data))
            if not keep and os.fstat(fd).st_size > end:
                self.disk.ftruncate(fd, end)
            self.disk.fsync(fd)
            # So the bytes that are compared come from the disk, and not from memory.
            with suppress(OSError):
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            self.disk.close(fd)

    def _verify(
        self, number: int, own: int, entries: Iterable[tuple[int, int, int]], mtime_ns: int
    ) -> None:
        """Read entries of the backup back. Then give the pack the mtime of the store's pack.

        Adds entries that are damaged in the store to `problems`. Raises :class:`Vanished` if the
        store has moved one meanwhile, and :class:`Damaged` if only the backup's copy is damaged.
        """
        path, origin = self.target.pack(own), self.source.pack(number)
        for place in self._faults(path, entries):
            now = self.live.known_object(place[0])
            if now is None or (now.pack, now.offset, now.length) != (number, *place[1:]):
                raise Vanished(origin.name)
            if not self._faults(origin, [place]):
                raise Damaged(path, reason="it does not hold what was written")
            what = f"object {place[0]} is damaged: fsmount check --repair may rebuild it"
            self.problems.append((readable(str(origin)), what))
        fd = self.disk.open(path, os.O_RDWR)
        try:
            keep_mtime(self.disk, fd, mtime_ns)
        finally:
            self.disk.close(fd)

    def _faults(
        self, path: Path, entries: Iterable[tuple[int, int, int]]
    ) -> list[tuple[int, int, int]]:
        """Return the entries (id, offset, length) that are not whole in the pack at `path`."""
        bad = []
        for number, offset, length in entries:
            try:
                if read_entry(path, offset, length).object_id != number:
                    bad.append((number, offset, length))
            except Damaged:
                bad.append((number, offset, length))
        return bad


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a file for reading in the block. Gives its descriptor. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        yield file.fileno()


def keep_mtime(disk: Disk, fd: int, mtime_ns: int) -> None:
    """Give a copy the mtime of its original: then the next backup takes it as it is.

    If a filesystem refuses that, the next backup compares all bytes. Raises OSError.
    """
    try:
        disk.set_mtime(fd, mtime_ns)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise


def is_as_left(path: Path, info: os.stat_result) -> bool:
    """Whether a file has the size and mtime of the file that it was copied from (as rsync asks).

    A copy gets the mtime last, when it is on the disk and its entries were compared.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return (found.st_size, found.st_mtime_ns) == (info.st_size, info.st_mtime_ns)


def _common(first: int, second: int, length: int) -> int:
    """Return how many of the first `length` bytes two open files have in common. Raises OSError."""
    for at in range(0, length, _PIECE):
        size = min(_PIECE, length - at)
        one, other = pread(first, size, at), pread(second, size, at)
        if one != other:
            size = min(len(one), len(other))
            differ = np.frombuffer(one, np.uint8, size) != np.frombuffer(other, np.uint8, size)
            return at + (int(differ.argmax()) if differ.any() else size)
    return length
