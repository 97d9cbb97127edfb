"""Room back while the disk is full, of which there is hardly any to work with.

Files that are deleted leave entries in packs that nothing needs. `repack` writes whole packs anew
before it removes the old ones, for which a full disk has no room. Here a pack is taken from its
end: what is still needed there is moved to another pack, as much at a time as there is room for,
and then the pack is cut off before it. So each step gives back at least what it took, and with the
whole of a pack gone through it has lost what was nobody's. Only an entry larger than the room there
is keeps those before it where they are, and the reserve grows to the largest.

In the way of a crash each step is like one of :mod:`repack`: entries durable, one transaction, the
index durable, and only then the old ones go. A pack that was cut counts as unsealed until it has
its directory again, so that the next start cuts it where it was not done.
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
from fsmount.store.index import Index, Object
from fsmount.store.ingest.encoder import Encoder
from fsmount.store.layout import Layout
from fsmount.store.maintenance.repack import Repacker
from fsmount.store.packs import mover
from fsmount.store.packs.mover import Mover
from fsmount.store.packs.pack import SEAL_BYTES, Pack
from fsmount.store.packs.writer import Writer
from fsmount.threads import Kind

_log = logging.getLogger(__name__)

# It ends when so much is free: the next time is not soon, and a repack can do the rest.
ENOUGH_BYTES = SEAL_BYTES
# A pack is left alone when less of it is nobody's.
_WASTE = 0.1
# Moved between two commits at first and at most, unless it is one entry.
_FIRST_BYTES, _MOST_BYTES = 512 << 10, 8 << 20
# Worth a try again: with so much more room, or so much more that is nobody's.
_MORE_BYTES = 256 << 10


class Room:
    """See the module. Belongs to the task that owns the store.

    `repacking` is held by whoever moves entries of committed objects, `again` a writer of such;
    `sound` raises :class:`Damaged` if the index cannot be the reason for removing anything.
    `repacker` makes what forgets objects, and `shrinker` what cuts packs. `dropped`: how many
    objects it has forgotten.
    """

    def __init__(
        self,
        index: Index,
        reserve: Reserve,
        encoder: Encoder,
        again: Writer,
        repacking: trio.Lock,
        sound: Callable[[], Awaitable[None]],
        repacker: Callable[[], Repacker],
        shrinker: Callable[[], Shrinker],
    ) -> None:
        self._index = index
        self._reserve = reserve
        self._encoder = encoder
        self._again = again
        self._repacking = repacking
        self._sound = sound
        self._repacker = repacker
        self._shrinker = shrinker
        # When no more could be done: the free bytes with which there could, what was nobody's
        # then, and how many bodies had been let go when that was last looked at.
        self._wanted = self._left = self._seen = 0
        self.dropped = 0

    async def make(self, enough: int = ENOUGH_BYTES) -> None:
        """Give back what nothing needs until `enough` bytes are free, or as far as it can be.

        Nothing if there is as much, or if hardly anything was deleted since no more could be done.
        Failures are logged.
        """
        async with self._repacking:
            try:
                await self._make(enough)
            except (OSError, FsmountError) as error:
                _log.warning("the disk is full, and not all could be given back: %s", error)

    async def _make(self, enough: int) -> None:
        free = await threads.call(Kind.ROOM, self._reserve.free)
        if free >= enough or not (free >= self._wanted or self._has_more()):
            return
        # Unless it ends well.
        self._wanted = free + _MORE_BYTES
        await self._sound()
        async with self._encoder.halted():
            all_done = await self._give_back(enough)
        free = await threads.call(Kind.ROOM, self._reserve.free)
        if free >= enough:
            self._wanted = 0
        elif all_done:
            self._wanted = enough
        self._left = self._nobodys()

    def _has_more(self) -> bool:
        """Whether enough has become nobody's to close the open packs for it: goes through all
        rows, so not before something was deleted."""
        if self._seen == self._index.let_go:
            return False
        self._seen = self._index.let_go
        return self._nobodys() - self._left >= _MORE_BYTES

    def _nobodys(self) -> int:
        """Bytes of objects that no file shows, and in packs of none."""
        packed = sum(length for length, _ in self._index.packs().values())
        return packed - sum(self._index.pack_fill().values()) + self._index.unused_bytes()

    async def _give_back(self, enough: int) -> bool:
        """Whether that was not ended by want of room. Raises OSError, FsmountError."""
        await threads.call(Kind.ROOM, self._reserve.spend_if_full)
        needed: set[int] = set()
        for some in self._index.needed_by_shown():
            needed |= some
            await trio.lowlevel.checkpoint()
        repacker = self._repacker()
        await repacker.drop_unneeded(needed)
        self.dropped += repacker.summary.dropped
        # No pack is open now: of this one, too, the end may go.
        await self._again.give_up()
        shrinker = self._shrinker()
        all_done = True
        try:
            for number in self._wasted():
                try:
                    all_done &= await shrinker.shrink(number, enough)
                except Damaged as error:
                    _log.error("pack %d keeps its length: %s", number, error)
            await shrinker.finish()
        finally:
            await shrinker.close()
        return all_done

    def _wasted(self) -> list[int]:
        """Packs of which much is nobody's, those first that give most for what is moved."""
        fill = self._index.pack_fill()
        share = {
            number: fill.get(number, 0) / max(length, 1)
            for number, (length, _) in self._index.packs().items()
        }
        return sorted((n for n in share if share[n] <= 1 - _WASTE), key=share.__getitem__)


class Shrinker:
    """Cuts packs shorter. What is needed of them goes to `writer`, which is used for nothing else.

    No pack is open, and none is opened meanwhile.
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
        self._mover = Mover(layout, index, writer)
        self._at_once = _FIRST_BYTES

    async def shrink(self, number: int, enough: int) -> bool:
        """Take a pack from its end, until `enough` bytes are free.

        False if it was ended by want of room. Raises OSError, :class:`Damaged`. What was done is
        done, and the rest is as it was.
        """
        objects = self._index.objects_in(number)
        end = self._index.packs()[number][0]
        filled = _bytes(objects)
        while filled < end and await threads.call(Kind.ROOM, self._reserve.free) < enough:
            await threads.call(Kind.ROOM, self._reserve.spend_if_full)
            # A log that grows would take what is given back.
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
        """Take from the end of `objects`, which have `filled` bytes, those to move next: one at
        least, if one stands behind what is nobody's."""
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
        """Move objects out of a pack and cut it to `end` bytes, unless there is no room for them.

        What a disk says of its room may be too much (quotas) or too little (what is root's).
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
        """Move objects out of a pack, and cut it to `end` bytes."""
        entries = {
            found.id: await threads.call(Kind.ENTRY, mover.read, self._writer.place(found.id))
            for found in batch
        }

        def rows(moved: Sequence[Object]) -> None:
            if end:
                self._index.set_pack(number, end, sealed=False)
            else:
                self._index.drop_pack(number)

        await self._mover.relocate(batch, entries, rows)
        path = self._layout.pack(number)
        async with self._mover.left():
            if end:
                await threads.call(Kind.PACK, _cut, self._disk, path, end)
            else:
                await threads.call(Kind.PACK, self._disk.unlink, path)

    async def finish(self) -> None:
        """Give all packs that were open or cut their directories. Raises OSError."""
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
        """Close all, also when cancelled; what has no directory yet gets it at the next start."""
        with trio.CancelScope(shield=True):
            await self._writer.give_up()


def _end(objects: Sequence[Object]) -> int:
    return objects[-1].offset + objects[-1].length if objects else 0


def _bytes(objects: Sequence[Object]) -> int:
    return sum(found.length for found in objects)


def _cut(disk: Disk, path: Path, size: int) -> None:
    fd = disk.open(path, os.O_RDWR)
    try:
        disk.ftruncate(fd, size)
    finally:
        disk.close(fd)
