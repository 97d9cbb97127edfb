"""Decides when packs get their parity (:mod:`fsmount.store.packs.parity`), and writes it.

- A sealed pack gets it soon after its last commit, in the background.
- An open pack gets it when enough bytes came since, or an hour later, and at a clean end. What came
  later has none.

The parity covers bytes that are committed, and first the index is forced: then no power cut takes a
covered byte back. It is written under another name, forced and renamed. So a crash leaves the old
parity or the new one.

A damaged pack keeps the parity that it has: only this parity can give the bytes back. A pack counts
as damaged if its parity may give bytes back (:mod:`fsmount.store.packs.parity_trust`), or if its
parity knows other bytes and its entries do not follow each other without gaps.

A worker computes the parity while the mount answers requests. This takes a fifth of the time of one
core at most. At a clean end only packs that got new bytes in this opening wait for their parity.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import trio

from fsmount import threads
from fsmount.errors import Damaged
from fsmount.folder import readable
from fsmount.store import contents
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index
from fsmount.store.layout import Layout
from fsmount.store.maintenance import second_entries
from fsmount.store.maintenance.reclaim import ENOUGH_BYTES
from fsmount.store.packs import pack, parity
from fsmount.store.packs.pack_set import PackSet
from fsmount.store.packs.parity import Parity, Shape
from fsmount.store.packs.parity_trust import blocks_to_heal
from fsmount.threads import Kind
from fsmount.work.workers import Workers

_log = logging.getLogger(__name__)

# An open pack gets new parity if it has more new bytes than this, and than this share of the old
# ones. So the background writes hardly more bytes of parity than new bytes come.
_NEW_BYTES, _NEW_SHARE = 64 << 10, 0.125
# Seconds after which all new bytes get parity.
_LATE_SECONDS = 3600.0
# Seconds between two looks, and the rest after each pack, in times of its duration.
_LOOK_SECONDS = 5.0
_REST = 4.0
# Bytes that stay free on the disk: on a full disk, programs get what a reclaim gives back.
_FREE_BYTES = ENOUGH_BYTES


def make(path: str, shape: Shape) -> bytes | None:
    """Compute the parity file of a pack. Runs in a worker process.

    Returns None if the pack is damaged and the parity that it has may give the bytes back. Raises
    OSError, :class:`Damaged`.
    """
    place = Path(path)
    return None if _is_needed(place, shape.covered) else parity.build(place, shape)


def is_wrong(path: Path, length: int) -> bool:
    """Whether a pack of `length` bytes has parity, but damaged or that of other bytes.

    Raises OSError.
    """
    try:
        known = parity.load_of(path)
        if known.shape.covered > length or known.damaged_parity():
            return True
    except FileNotFoundError:
        return False
    except Damaged:
        return True
    return _differs(path, known)


def _differs(path: Path, known: Parity) -> bool:
    """Whether a pack has other bytes than its parity knows. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        return bool(known.damaged(file.fileno()))


def _is_sound(path: Path, length: int) -> bool:
    """Whether whole entries fill the first `length` bytes of a pack. Raises OSError."""
    end = 0
    for offset, size, _ in pack.scan(path):
        if offset != end or end >= length:
            break
        end += size
    return end == length


def _is_needed(path: Path, length: int) -> bool:
    """Whether a pack of `length` bytes is damaged, and its parity may give the bytes back.

    Raises OSError.
    """
    try:
        known = parity.load_of(path)
    except (FileNotFoundError, Damaged):
        return False
    if known.shape.covered > length or not _differs(path, known):
        return False
    return bool(blocks_to_heal(path, known)) or not _is_sound(path, length)


class ParityKeeper:
    """Writes the parity of the packs of a store.

    percent : the share of parity. 0: the packs have none.
    force : forces all commits of the index.

    Contract: belongs to the trio task that owns the store.
    """

    def __init__(
        self,
        layout: Layout,
        index: Index,
        disk: Disk,
        packs: PackSet,
        percent: int,
        force: Callable[[], Awaitable[None]],
    ) -> None:
        self._layout = layout
        self._index = index
        self._disk = disk
        self._packs = packs
        self._percent = percent
        self._force = force
        # The parity on the disk as far as it was looked at, by number of the pack.
        self._known: dict[int, Shape | None] = {}
        # Packs with the right parity, with their length.
        self._complete: dict[int, int] = {}
        # Damaged packs, with their length: their parity stays until they change.
        self._damaged: dict[int, int] = {}
        # Whether the log says that the disk is almost full.
        self._told = False
        # Packs that were sealed when the store was opened. A clean end does not wait for them.
        self._old = {number for number, (_, sealed) in index.packs().items() if sealed}
        packs.parity_due.set()

    async def run(self, workers: Workers) -> None:
        """Write parity whenever some is due, until cancelled. Failures are logged."""
        renewed = trio.current_time()
        while True:
            with trio.move_on_at(renewed + _LATE_SECONDS):
                await self._packs.parity_due.wait()
            self._packs.parity_due = trio.Event()
            late = trio.current_time() >= renewed + _LATE_SECONDS
            if late:
                renewed = trio.current_time()
            due: list[Shape] = []
            try:
                due = await threads.call(Kind.PACK, self._due, self._index.packs(), late)
            except (OSError, Damaged) as error:
                _warn("packs get no parity", error)
            for shape in due:
                start = trio.current_time()
                try:
                    await self._renew(workers, shape)
                except Exception as error:
                    # The pack may have been removed in the meantime.
                    if shape.number in self._index.packs():
                        _warn(f"pack {shape.number} has no new parity", error)
                await trio.sleep(_REST * (trio.current_time() - start))
            await trio.sleep(_LOOK_SECONDS)

    def finish(self) -> None:
        """At a clean end, write what is due. Failures are logged.

        Does not await, so the calling thread waits for the disk and the computation.
        """
        try:
            due = self._due(self._index.packs(), True)
            due = [shape for shape in due if shape.number not in self._old]
            if due and self._index.suspect:
                self._index.rewrite()
            if due:
                self._index.force()
            for shape in due:
                self._write(shape, make(str(self._layout.pack(shape.number)), shape))
            if self._percent:
                self._drop_second_copies()
            else:
                self._drop_all()
        except (OSError, Damaged) as error:
            _warn("packs have no parity for their newest bytes", error)

    def look_again(self) -> None:
        """Look at each parity file once more: packs were cut, and their parity was removed.

        A pack that is cut has its new length in its row before its parity goes. Parity for the new
        length may have been written in between, and may have gone. Such packs may be old ones: a
        clean end writes their parity, too.
        """
        self._old.clear()
        self._known.clear()
        self._complete.clear()
        self._packs.parity_due.set()

    async def repair(self) -> list[int]:
        """Write the parity of all packs that have none, or another one than they should have.

        A pack that is still damaged gets new parity, too: what the old one could give back is
        healed. Returns the numbers of the packs whose parity was wrong. Logs packs that cannot be
        read, or that have lost their end. Raises OSError if the index cannot be forced.
        """
        await self._force()
        wrong = []
        packs = self._index.packs() if self._percent else {}
        for number, (length, _) in packs.items():
            if length and self._layout.pack(number).exists():
                shape = parity.plan(number, length, self._percent)
                try:
                    async with self._packs.turn:
                        if await threads.call(Kind.PACK, self._mend, shape):
                            wrong.append(number)
                except (OSError, Damaged) as error:
                    _warn(f"pack {number} has no new parity", error)
        return wrong

    def _mend(self, shape: Shape) -> bool:
        """Write the parity of a pack, if it has not the right one. Return whether it was wrong."""
        path = self._layout.pack(shape.number)
        was_wrong = is_wrong(path, shape.covered)
        if was_wrong or self._shape(shape.number) != shape:
            self._write(shape, parity.build(path, shape))
        return was_wrong

    # -- what is due

    def _due(self, packs: Mapping[int, tuple[int, bool]], complete: bool) -> list[Shape]:
        """Return the parity to write now. Looks at each file once, so it may wait for the disk.

        `packs` has the rows of all packs. With `complete` open packs get parity for all bytes.
        Returns nothing if the disk is almost full. Raises OSError.
        """
        due: list[Shape] = []
        if not self._has_space():
            return due
        for number in self._known.keys() - packs.keys():
            del self._known[number]
        here = packs.keys() - self._packs.away
        for number in sorted(here) if self._percent else ():
            length, sealed = packs[number]
            settled = self._damaged.get(number) == length or self._complete.get(number) == length
            if length and not settled:
                shape = parity.plan(number, length, self._percent)
                if self._shape(number) == shape:
                    self._complete[number] = length
                elif self._is_due(shape, complete=sealed or complete):
                    due.append(shape)
        return due

    def _has_space(self) -> bool:
        """Whether parity may be written. Logs it if not, once."""
        disk = os.statvfs(self._layout.packs)
        has_space = disk.f_bavail * disk.f_frsize >= _FREE_BYTES
        if not has_space and not self._told:
            _log.warning("the disk is almost full, so new bytes of packs get no parity")
        self._told = not has_space
        return has_space

    def _is_due(self, shape: Shape, *, complete: bool) -> bool:
        """Whether a pack needs this parity. It has another. `complete`: it must have this one."""
        known = self._shape(shape.number)
        if complete:
            return True
        covered = 0 if known is None else known.covered
        new = shape.covered - covered
        return new < 0 or new > max(_NEW_BYTES, _NEW_SHARE * covered)

    def _shape(self, number: int) -> Shape | None:
        """Return the shape of the parity that a pack has."""
        if number not in self._known:
            found = None
            with suppress(OSError, Damaged):
                found = parity.shape_at(self._layout.parity(number))
            self._known[number] = found
        return self._known[number]

    # -- writing

    async def _renew(self, workers: Workers, shape: Shape) -> None:
        """Compute parity in a worker and write it. Raises OSError, and what the worker raises."""
        await self._force()
        path = str(self._layout.pack(shape.number))
        data = await workers.run(make, path, shape)
        # Who cuts or removes a pack holds the lock, and removes its parity.
        async with self._packs.turn:
            length, _ = self._index.packs().get(shape.number, (0, False))
            if length >= shape.covered:
                await threads.call(Kind.PACK, self._write, shape, data)

    def _write(self, shape: Shape, data: bytes | None) -> None:
        """Write a parity file, if there is `data`. May wait for the disk. Raises OSError."""
        number = shape.number
        if data is None:
            self._damaged[number] = shape.covered
            _log.error(
                "pack %d is damaged, so it keeps its parity; `fsmount check --repair` heals it",
                number,
            )
            return
        path = self._layout.parity(number)
        try:
            self._disk.write_file(path, data)
        except OSError:
            with suppress(OSError):
                self._disk.unlink(path.with_name(path.name + ".new"))
            raise
        self._known[number] = shape

    def _drop_all(self) -> None:
        """Remove the parity of all packs. May wait for the disk. Raises OSError."""
        for found in contents.own(self._layout.packs, contents.PARITY):
            self._disk.unlink(self._layout.packs / found.name)

    def _drop_second_copies(self) -> None:
        """Remove the second copies of earlier builds, if packs and parity are whole.

        Raises OSError.
        """
        path = self._layout.second_entries
        if not path.exists() or self._damaged or not self._has_space():
            return
        if self._due(self._index.packs(), True):
            return
        if all(self._is_whole(number) for number, _ in second_entries.read(self._layout)):
            self._disk.unlink(path)

    def _is_whole(self, number: int) -> bool:
        """Whether the entry of an object can be read. An object that is gone needs none."""
        row = self._index.known_object(number)
        if row is None:
            return True
        try:
            found = pack.read_entry(self._layout.pack(row.pack), row.offset, row.length)
        except Damaged:
            return False
        return found.object_id == number


def _warn(what: str, error: Exception) -> None:
    _log.warning("%s: %s", what, readable(str(error)))
