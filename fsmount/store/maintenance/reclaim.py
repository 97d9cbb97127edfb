"""Reclaim: frees space on a full disk, and needs hardly any space to work.

What is in the trash leaves it first, the oldest names first, as far as the space is needed.
Deleted files leave garbage in packs: entries that nothing needs. `repack` writes whole new packs
before it removes the old ones, and a full disk has no space for them. Reclaim works on a pack from
its end. It moves the entries there that are still needed to another pack, as many at a time as the
free space allows. Then it cuts the old pack off before them. So each step frees at least the bytes
that it took. When reclaim has worked through a pack, all garbage of the pack is gone. An entry that
is larger than the free space stops this: it and the entries before it stay. The reserve grows to
the size of the largest entry, so that this becomes rare.

After a crash each step is as safe as one of :mod:`~fsmount.store.maintenance.repack`. Reclaim makes
the new entries durable, runs one transaction, makes the index durable, and only then removes the
old entries. A cut pack counts as unsealed until it has its central directory again. So the next
start finishes a cut that a crash has prevented.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from fsmount import threads
from fsmount.errors import Damaged, FsmountError
from fsmount.store.disk.disk import Disk
from fsmount.store.disk.reserve import Reserve
from fsmount.store.index import TRASH, Index, Object
from fsmount.store.ingest.encoder import Encoder
from fsmount.store.layout import Layout
from fsmount.store.maintenance.repack import Repacker, always
from fsmount.store.packs import mover
from fsmount.store.packs.mover import Mover
from fsmount.store.packs.pack import SEAL_BYTES, Pack
from fsmount.store.packs.writer import Writer
from fsmount.store.retention.pruning import WASTE
from fsmount.store.retention.trash import TrashCan
from fsmount.threads import Kind

_log = logging.getLogger(__name__)

# Reclaim ends when this many bytes are free. Then the next one is not soon, and a repack can do the
# rest.
ENOUGH_BYTES = SEAL_BYTES
# Bytes that are moved between two commits, at first and at most. A single entry may be larger.
_FIRST_BYTES, _MOST_BYTES = 512 << 10, 8 << 20
# After an incomplete reclaim, another try needs this many more free bytes or more garbage bytes.
_MORE_BYTES = 256 << 10
# More than any disk has free: all garbage is wanted.
_ALL = 1 << 62


class Reclaimer:
    """Decides when to reclaim, and reclaims. The module docstring says how.

    moved : the writer that moves entries of committed objects.
    repacking : lock. A task holds it while it moves entries of committed objects.
    require_consistent : raises :class:`Damaged` if the index must not be a reason for removing
        anything.
    repacker : makes a :class:`Repacker`, which drops objects.
    shrinker : makes a :class:`Shrinker`, which cuts packs.
    trash : the trash of the store.
    trim : trims objects that no file shows, with a mover, while a function says that it may go on.
    dropped : number of objects that were dropped so far.

    Contract: belongs to the trio task that owns the store.
    """

    def __init__(
        self,
        index: Index,
        reserve: Reserve,
        encoder: Encoder,
        moved: Writer,
        repacking: trio.Lock,
        require_consistent: Callable[[], Awaitable[None]],
        repacker: Callable[[], Repacker],
        shrinker: Callable[[], Shrinker],
        trash: TrashCan,
        trim: Callable[[Mover, Callable[[], bool]], Awaitable[int]],
    ) -> None:
        self._index = index
        self._reserve = reserve
        self._encoder = encoder
        self._moved = moved
        self._repacking = repacking
        self._require_consistent = require_consistent
        self._repacker = repacker
        self._shrinker = shrinker
        self._trash = trash
        self._trim = trim
        # State after a reclaim that could not free enough: the free bytes that another try needs,
        # the garbage bytes at that time, and the number of bodies that files had given up when the
        # garbage was last counted.
        self._wanted = self._left = self._seen = 0
        self.dropped = 0

    async def reclaim(self, enough: int = ENOUGH_BYTES) -> None:
        """Reclaim garbage until `enough` bytes are free, or no more can be freed.

        No-op if enough is free. After an attempt that could free no more, also no-op until enough
        new garbage exists or enough more bytes are free. Waits for the lock `repacking`. Failures
        are logged.
        """
        async with self._repacking:
            try:
                await self._reclaim(enough)
            except (OSError, FsmountError) as error:
                _log.warning("the disk is full, and reclaim could not free all garbage: %s", error)

    async def give_back(self, go_on: Callable[[], bool]) -> None:
        """Give back all garbage, whatever is free: drop unneeded objects, and shrink packs.

        Stops after a pack when `go_on` says no. Waits for the lock `repacking`. Raises OSError,
        FsmountError.
        """
        async with self._repacking:
            await self._require_consistent()
            async with self._encoder.halted():
                await self._give_back(_ALL, go_on, trim=True)

    async def _reclaim(self, enough: int) -> None:
        """As :meth:`reclaim`. The caller holds `repacking`. Raises OSError, FsmountError."""
        free = await threads.call(Kind.FREE_SPACE, self._reserve.free)
        if free < enough and not self._index.is_empty(TRASH):
            await threads.call(Kind.FREE_SPACE, self._reserve.spend_if_full)
            await self._trash.evict(enough - free)
        if free >= enough or not (free >= self._wanted or self._has_more()):
            return
        # This value stays if an error ends the attempt.
        self._wanted = free + _MORE_BYTES
        await self._require_consistent()
        async with self._encoder.halted():
            all_done = await self._give_back(enough)
        free = await threads.call(Kind.FREE_SPACE, self._reserve.free)
        if free >= enough:
            self._wanted = 0
        elif all_done:
            self._wanted = enough
        self._left = self._unreferenced_bytes()

    def _has_more(self) -> bool:
        """Whether so much garbage has been added that it pays to close the open packs.

        Reads all rows, so it returns False at once if no file has given up a body since the last
        call.
        """
        if self._seen == self._index.let_go:
            return False
        self._seen = self._index.let_go
        return self._unreferenced_bytes() - self._left >= _MORE_BYTES

    def _unreferenced_bytes(self) -> int:
        """Number of garbage bytes: in packs outside of entries, and of objects that no file shows.

        Reads all rows.
        """
        packed = sum(length for length, _ in self._index.packs().values())
        return packed - sum(self._index.pack_fill().values()) + self._index.unused_bytes()

    async def _give_back(
        self, enough: int, go_on: Callable[[], bool] = always, *, trim: bool = False
    ) -> bool:
        """Drop unneeded objects and shrink packs. Return False if lack of space stopped a shrink.

        Begins with no pack when `go_on` says no. `trim`: trim objects in between.
        The caller holds `repacking`, and the encoder is halted. Raises OSError, FsmountError.
        """
        await threads.call(Kind.FREE_SPACE, self._reserve.spend_if_full)
        needed: set[int] = set()
        for some in self._index.needed_by_shown():
            needed |= some
            await trio.lowlevel.checkpoint()
        repacker = self._repacker()
        await repacker.drop_unneeded(needed)
        self.dropped += repacker.summary.dropped
        if self._moved.packs.away:
            # A pack that is at a URL only is not shrunk. If nothing needs it, it is forgotten.
            await repacker.drop_emptied()
        # After this no pack is open, so the end of every pack may be cut.
        await self._moved.give_up()
        shrinker = self._shrinker()
        all_done = True
        try:
            if trim:
                await self._trim(shrinker.mover, go_on)
            for number in self._wasted():
                if not go_on():
                    break
                try:
                    all_done &= await shrinker.shrink(number, enough)
                except Damaged as error:
                    _log.error("pack %d keeps its length: %s", number, error)
            await shrinker.finish()
        finally:
            await shrinker.close()
        return all_done

    def _wasted(self) -> list[int]:
        """Return the packs with much garbage. Those that free most for each moved byte come first.

        Reads all rows.
        """
        fill = self._index.pack_fill()
        share = {
            number: fill.get(number, 0) / max(length, 1)
            for number, (length, _) in self._index.packs().items()
            # What is at a URL only takes no space here.
            if number not in self._moved.packs.away
        }
        return sorted((n for n in share if share[n] <= 1 - WASTE), key=share.__getitem__)


class Shrinker:
    """Cuts packs shorter. It moves the entries that are still needed to packs of `writer`.

    mover : moves entries there.

    Contract: belongs to the trio task. Nothing else uses `writer`. The caller makes sure that no
    other writer has an open pack or opens one in the meantime.
    """

    def __init__(
        self,
        layout: Layout,
        index: Index,
        disk: Disk,
        writer: Writer,
        reserve: Reserve,
    ) -> None:
        self._layout = layout
        self._index = index
        self._disk = disk
        self._writer = writer
        self._reserve = reserve
        self.mover = Mover(layout, index, writer)
        self._at_once = _FIRST_BYTES

    async def shrink(self, number: int, enough: int) -> bool:
        """Cut a pack shorter from its end, until `enough` bytes are free or no garbage is left.

        Returns False if lack of space ended this. Raises OSError, :class:`Damaged`. After an error
        the steps before stay done, and the rest of the pack is unchanged.
        """
        objects = self._index.objects_in(number)
        end = self._index.packs()[number][0]
        filled = _bytes(objects)
        while filled < end and await threads.call(Kind.FREE_SPACE, self._reserve.free) < enough:
            await threads.call(Kind.FREE_SPACE, self._reserve.spend_if_full)
            # The log of the index would grow and take the freed space.
            self._index.make_room()
            batch = self._tail(objects, filled)
            if await self._has_moved(number, batch, _end(objects)):
                end = _end(objects)
                filled -= _bytes(batch)
                self._at_once = min(2 * self._at_once, _MOST_BYTES)
            elif len(batch) > 1:
                objects += reversed(batch)
                self._at_once = _bytes(batch) // 2
            else:
                self._reserve.want(_bytes(batch))
                return False
        return True

    def _tail(self, objects: list[Object], filled: int) -> list[Object]:
        """Take the objects to move next from the end of `objects`. Return them, the last first.

        `filled` is the sum of the lengths of `objects` in bytes. Takes objects as long as garbage
        lies before the last one that is left, up to the limit for one commit, but one at least.
        """
        batch: list[Object] = []
        size = 0
        while filled - size < _end(objects):
            length = objects[-1].length
            if batch and size + length > self._at_once:
                break
            size += length
            batch.append(objects.pop())
        return batch

    async def _has_moved(self, number: int, batch: Sequence[Object], end: int) -> bool:
        """Move objects out of a pack and cut it to `end` bytes. Return False if the disk is full.

        The method tries to write instead of asking for the free space: the disk may report too much
        (quotas) or too little (blocks that are reserved for root). Raises other OSErrors, and
        :class:`Damaged`.
        """
        try:
            await self._move(number, batch, end)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            size = _bytes(batch)
            _log.info("pack %d: no room for %d entries of %d bytes", number, len(batch), size)
            return False
        return True

    async def _move(self, number: int, batch: Sequence[Object], end: int) -> None:
        """Move objects out of a pack, and cut it to `end` bytes, or remove it if `end` is 0.

        Raises OSError, :class:`Damaged`.
        """
        entries = {
            found.id: await threads.call(Kind.ENTRY, mover.read, self._writer.place(found.id))
            for found in batch
        }

        def rows(moved: Sequence[Object]) -> None:
            if end:
                self._index.set_pack(number, end, sealed=False)
            else:
                self._index.drop_pack(number)

        await self.mover.relocate(batch, entries, rows)
        path = self._layout.pack(number)
        async with self.mover.left():
            # Parity that outlives its bytes is useless.
            await threads.call(Kind.PACK, _drop, self._disk, self._layout.parity(number))
            if end:
                await threads.call(Kind.PACK, _cut, self._disk, path, end)
            else:
                await threads.call(Kind.PACK, self._disk.unlink, path)

    async def finish(self) -> None:
        """Write the central directory of each unsealed pack, and seal it. Raises OSError.

        These are the packs that were cut, and those that were open. A damaged pack is logged and
        left as it is.
        """
        for number, (length, sealed) in self._index.packs().items():
            if sealed or self._writer.is_open(number):
                continue
            path = self._layout.pack(number)
            try:
                again = await threads.call(Kind.PACK, Pack, path, number, self._disk, length)
            except Damaged as error:
                _log.error("%s; it is left as it is, `fsmount check --full` names the files", error)
            else:
                self._writer.take(again)
        await self._writer.seal()

    async def close(self) -> None:
        """Close all packs, also if the task is cancelled.

        A pack that has no central directory yet gets it at the next start.
        """
        with trio.CancelScope(shield=True):
            await self._writer.give_up()


def _end(objects: Sequence[Object]) -> int:
    """End offset of the last object's entry in its pack, 0 without objects."""
    return objects[-1].offset + objects[-1].length if objects else 0


def _bytes(objects: Sequence[Object]) -> int:
    """Sum of the lengths of the objects' entries in bytes."""
    return sum(found.length for found in objects)


def _drop(disk: Disk, path: Path) -> None:
    """Remove a file for certain, if it exists. Runs in a thread. Raises OSError."""
    if path.exists():
        disk.unlink(path)
        disk.fsync_folder(path.parent)


def _cut(disk: Disk, path: Path, size: int) -> None:
    """Cut a file to `size` bytes. Runs in a thread. Raises OSError."""
    fd = disk.open(path, os.O_RDWR)
    try:
        disk.ftruncate(fd, size)
    finally:
        disk.close(fd)
