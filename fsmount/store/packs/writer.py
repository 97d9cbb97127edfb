"""The end of the write order: entries into packs, commits, and staged files that go.

What is appended can be read at once, but counts only when it is committed: packs forced to the
disk, then one transaction of the index, then the index forced. When a commit fails, everything
appended and not committed is given up, and what comes next goes to a new pack.

A store has two writers, each with an open pack of its own: one of new objects, one of entries that
repack has written. So a pack that repack wrote has no others, and what one writer gives up is
nothing of the other's. They commit in turn (:class:`Packs`).

Threads write; the trio task counts. An entry counts from the moment :meth:`Writer.append` returns:
until then it is behind the pack's end, and no commit takes it for its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

import trio

from fsmount import threads
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index, Object
from fsmount.store.layout import Layout
from fsmount.store.packs.entries import About
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import Entry, Pack
from fsmount.store.packs.pack_set import Packs
from fsmount.store.packs.staging import Staging
from fsmount.threads import Kind

_log = logging.getLogger(__name__)


class Writer:
    """The pack that is open for appending, and what is not committed yet."""

    def __init__(
        self,
        layout: Layout,
        index: Index,
        staging: Staging,
        disk: Disk,
        packs: Packs,
        pack: Pack | None,
    ) -> None:
        self._layout = layout
        self._index = index
        self._staging = staging
        self._disk = disk
        self.packs = packs
        # None before the first entry and after a commit failed: the next one goes to a new pack.
        self._pack = pack
        self._full_packs: list[Pack] = []
        # Given up, and to be closed by whoever holds the lock `Packs.turn`.
        self._given_up: list[Pack] = []
        self._appended: dict[int, Object] = {}
        # Held while a thread writes an entry, or makes the pack for it. Never together with
        # `Packs.turn`.
        self._putting = trio.Lock()
        # How often all was given up.
        self._epoch = 0
        self._removable: list[int] = []

    # -- objects

    def object(self, object_id: int) -> Object:
        """An object, committed or waiting for it; raises :class:`Damaged`."""
        return self._appended.get(object_id) or self._index.object(object_id)

    def place(self, object_id: int) -> Location:
        """Where an object's entry lies."""
        found = self.object(object_id)
        return Location(found.id, str(self._layout.pack(found.pack)), found.offset, found.length)

    def places(self, ids: Iterable[int]) -> tuple[Location, ...]:
        """Where the entries of objects lie, and of those that their own pixels rest on."""
        found = {object_id: self.object(object_id) for object_id in ids}
        below = {object_id for known in found.values() for object_id in known.layer}
        found |= {object_id: self.object(object_id) for object_id in below - found.keys()}
        packs = {known.pack for known in found.values()}
        paths = {number: str(self._layout.pack(number)) for number in packs}
        return tuple(
            Location(number, paths[known.pack], known.offset, known.length)
            for number, known in sorted(found.items())
        )

    def find(self, sha256: bytes, size: int) -> int | None:
        """An object that renders to exactly these bytes, if there is one."""
        for new in self._appended.values():
            if new.sha256 == sha256 and new.size == size:
                return new.id
        return self._index.find_object(sha256, size)

    async def append(
        self,
        entry: Entry,
        about: About,
        *,
        kind: str,
        depth: int = 0,
        needs: tuple[int, ...] = (),
        layer: tuple[int, ...] = (),
        reason: str | None = None,
    ) -> Object | None:
        """Write an entry; from now on its object can be read and taken tiles from.

        None if all was given up meanwhile. Between what makes it count and the return there is no
        await.
        """
        place = await self._put(entry)
        if place is None:
            return None
        pack, offset, length = place
        new = Object(
            id=about.id,
            kind=kind,
            pack=pack,
            offset=offset,
            length=length,
            size=about.size,
            sha256=about.sha256,
            depth=depth,
            needs=needs,
            layer=layer,
            reason=reason,
        )
        self._appended[new.id] = new
        return new

    def next_pack(self) -> str:
        """The path of the pack that the next entry goes to, unless it gets full or another writer
        begins one before. Makes none."""
        old = self._pack
        number = self.packs.newest + 1 if old is None or old.full else old.number
        return str(self._layout.pack(number))

    async def append_again(self, found: Object, entry: Entry) -> Object:
        """Write another entry of an object, which is read there from now on.

        Nobody gives up meanwhile.
        """
        place = await self._put(entry)
        assert place is not None
        pack, offset, length = place
        moved = replace(found, pack=pack, offset=offset, length=length)
        self._appended[moved.id] = moved
        return moved

    def take(self, pack: Pack) -> None:
        """A pack that is not sealed, to be finished with the next commit."""
        self._full_packs.append(pack)

    async def seal(self) -> None:
        """Finish the open pack, and what was taken; what comes next goes to a new pack.

        Entries may wait for a commit meanwhile. A pack that has such is finished by that commit,
        and :meth:`is_open` until then. Raises what the disk or the index raises: the packs are
        given up then, and the next start finishes them.
        """
        async with self._putting:
            if self._pack is not None and self._pack.length:
                self._full_packs.append(self._pack)
                self._pack = None
        async with self.packs.turn:
            # Looked up under the lock: whoever had it may have finished some of them.
            waiting = {new.pack for new in self._appended.values()}
            full = [pack for pack in self._full_packs if pack.number not in waiting]
            if not full:
                return
            try:
                await self._commit({pack: pack.length for pack in full}, full, lambda: None)
            except BaseException:
                # A failed fsync must not be repeated on the same file.
                await self._drop(full)
                raise

    def is_open(self, number: int) -> bool:
        """Whether more may come to a pack, or has come and is not committed."""
        return any(pack.number == number for pack in self._packs())

    async def _put(self, entry: Entry) -> tuple[int, int, int] | None:
        """Pack, offset and length of an entry; None if all was given up meanwhile."""
        epoch = self._epoch
        async with self._putting:
            if epoch != self._epoch:
                return None
            pack = await self._writable_pack()
            if epoch != self._epoch:
                return None
            written = await threads.call(Kind.PACK, pack.write, entry)
            if epoch != self._epoch:
                return None
            offset, length = pack.count(*written)
        self.packs.largest = max(self.packs.largest, length)
        return pack.number, offset, length

    async def _writable_pack(self) -> Pack:
        """The pack for the next entry: a new one where the last is full or was given up.

        The caller holds `_putting`.
        """
        if self._pack is not None and not self._pack.full:
            return self._pack
        # The other writer may begin one meanwhile.
        number = self.packs.newest = self.packs.newest + 1
        try:
            path = self._layout.pack(number)
            fresh = await threads.call(Kind.PACK, Pack, path, number, self._disk, 0)
        except BaseException:
            if self.packs.newest == number:
                self.packs.newest -= 1
            raise
        if self._pack is not None:
            self._full_packs.append(self._pack)
        self._pack = fresh
        return fresh

    def _packs(self) -> list[Pack]:
        """All packs that have entries not committed yet, or may get some."""
        return self._full_packs + ([] if self._pack is None else [self._pack])

    # -- commits

    async def commit(self, rows: Callable[[], None]) -> None:
        """Make what is appended count; `rows` changes the index inside the transaction.

        docs/format.md says what a crash leaves after each step. Raises what the disk or the index
        raises: then nothing of it counts, and :meth:`give_up` is due.
        """
        # Before the first await: what is appended from now on counts with the next commit.
        noted = {pack: pack.length for pack in self._packs()}
        async with self.packs.turn:
            # Looked up under the lock: whoever had it may have finished some of them.
            lengths = {pack: noted[pack] for pack in self._packs() if pack in noted}
            # One that got full meanwhile has entries that do not count yet.
            full = [pack for pack in self._full_packs if pack.length == lengths.get(pack)]
            await self._commit(lengths, full, rows)
            if full:
                self.packs.copies_due.set()

    async def _commit(
        self, lengths: dict[Pack, int], full: list[Pack], rows: Callable[[], None]
    ) -> None:
        """Force packs, of which `full` are finished, and commit. The caller holds `Packs.turn`:
        nobody else closes one of them."""
        for pack in full:
            await threads.call(Kind.PACK, pack.write_directory)
        for pack in lengths:
            await threads.call(Kind.FORCE, pack.fsync)
        with self._index.transaction():
            for pack, length in lengths.items():
                if length:
                    self._index.set_pack(pack.number, length, sealed=pack in full)
            rows()
        # From here on nothing may raise: the rows name what a commit that fails would drop.
        self._full_packs = [pack for pack in self._full_packs if pack not in full]
        for pack in full:
            with suppress(OSError):
                await threads.finish(Kind.PACK, pack.close)

    def forget(self, object_id: int) -> None:
        """The object's row is there, or never will be: it needs not be remembered here any more."""
        self._appended.pop(object_id, None)

    async def give_up(self) -> None:
        """Forget what was appended and not committed, and write to a new pack from here on.

        No commit of this writer is under way; :meth:`seal` and :meth:`append` may be. Cancelled, it
        leaves packs open until it is called again, or :meth:`close`.
        """
        self._appended.clear()
        self._epoch += 1
        # Before the first await: nothing commits what these packs might still get.
        self._leave_packs()
        async with self._putting:
            # No thread writes to them any more.
            pass
        async with self.packs.turn:
            packs, self._given_up = self._given_up, []
            try:
                await self._put_away(packs)
            except Exception:
                _log.exception("not all of it could be cut back; the next start does it")

    def _leave_packs(self) -> None:
        self._given_up += self._packs()
        self._full_packs, self._pack = [], None

    async def _drop(self, packs: list[Pack]) -> None:
        """Close packs that could not be finished. The caller holds `Packs.turn`, and nothing is
        appended to them."""
        # Those that were given up since are closed by who did that: a thread may write to them.
        left = [pack for pack in self._full_packs if pack in packs]
        self._full_packs = [pack for pack in self._full_packs if pack not in packs]
        try:
            await self._put_away(left)
        except Exception:
            _log.exception("the next start finishes them")

    async def _put_away(self, packs: list[Pack]) -> None:
        """Cut packs to what is committed and close them. The caller holds `Packs.turn`."""
        try:
            committed = self._index.packs()
        except BaseException:
            await threads.finish(Kind.PACK, _close, packs)
            raise
        await threads.finish(Kind.PACK, self._cut_and_close, packs, committed)

    # -- durability

    def discard(self, token: int) -> None:
        """Remove a staged file once the rows that no longer name it are durable."""
        self._removable.append(token)

    def has_discarded(self) -> bool:
        """Whether staged files wait to be removed."""
        return bool(self._removable)

    async def force(self) -> None:
        """Make all commits so far survive a power cut. Raises OSError."""
        if self._index.suspect:
            self._index.rewrite()
        await threads.call(Kind.FORCE, self._index.force)

    async def settle(self) -> None:
        """A durability point; staged files go that no row names any more. Raises OSError."""
        going, self._removable = self._removable, []
        try:
            await self.force()
            await threads.call(Kind.WRITE, self._remove, going)
        finally:
            self._removable += going

    def _remove(self, going: list[int]) -> None:
        """Remove staged files; those that are left are in `going`. In a thread."""
        while going:
            self._staging.remove(going[-1])
            going.pop()

    def abandon(self) -> None:
        """Close the packs and leave them as they are: the store is another process's."""
        for pack in self._packs():
            pack.close()

    def close(self) -> None:
        """Leave open packs readable by any unzip. Uncommitted entries are cut off.

        Nothing else is under way with this writer.
        """
        self._leave_packs()
        self._close_given_up()

    def _close_given_up(self) -> None:
        packs, self._given_up = self._given_up, []
        committed: dict[int, tuple[int, bool]] | None = None
        try:
            committed = self._index.packs()
        finally:
            if committed is None:
                _close(packs)
        self._cut_and_close(packs, committed)

    def _cut_and_close(self, packs: list[Pack], committed: dict[int, tuple[int, bool]]) -> None:
        """Cut packs to what is committed and close them. One that was finished is left alone."""
        for pack in packs:
            if pack.is_closed:
                continue
            length = committed.get(pack.number, (0, False))[0]
            try:
                _finish(pack, length)
                if not length:
                    self._disk.unlink(pack.path)
            except OSError as error:
                _log.error("%s: %s; the next start cuts it back", pack.path, error)
        _close(packs)


def _close(packs: list[Pack]) -> None:
    for pack in packs:
        with suppress(OSError):
            pack.close()


def _finish(pack: Pack, length: int) -> None:
    try:
        pack.rewind(length)
        pack.write_directory()
    finally:
        pack.close()
