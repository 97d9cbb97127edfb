"""The end of the write order: append entries to packs, commit, and remove staged files.

An appended entry can be read at once, but it is permanent only after a commit. A commit forces the
packs to the disk, then runs one transaction of the index. Then the index is forced. If a commit
fails, the writer gives up everything that is appended and not committed, and writes the next entry
to a new pack.

A store has two writers, and each has an open pack of its own. One writes new objects, the other
writes entries that repack moves. So a pack that repack wrote has no other entries, and one writer
never gives up entries of the other. They commit one after the other, under the lock
:attr:`PackSet.turn`.

Threads write entries, and the trio task counts them. An entry counts from the moment
:meth:`Writer.append` returns. Before that it lies behind the counted end of the pack, and no commit
includes it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

import trio

from fsmount import threads
from fsmount.errors import Damaged
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index, Object
from fsmount.store.layout import Layout
from fsmount.store.packs.entries import FileFacts
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import Entry, Pack
from fsmount.store.packs.pack_set import PackSet
from fsmount.store.packs.staging import Staging
from fsmount.threads import Kind

_log = logging.getLogger(__name__)


class Writer:
    """Appends entries to an open pack and commits them.

    Contract: belongs to the trio task. Methods that are not `async` do not await.
    """

    def __init__(
        self,
        layout: Layout,
        index: Index,
        staging: Staging,
        disk: Disk,
        packs: PackSet,
        pack: Pack | None,
    ) -> None:
        self._layout = layout
        self._index = index
        self._staging = staging
        self._disk = disk
        self.packs = packs
        # None before the first entry and after a failed commit: the next entry makes a new pack.
        self._pack = pack
        self._full_packs: list[Pack] = []
        # Packs that were given up. A task that holds the lock `PackSet.turn` closes them.
        self._given_up: list[Pack] = []
        self._appended: dict[int, Object] = {}
        # Held while a thread writes an entry or makes its pack. No task holds it together with
        # `PackSet.turn`.
        self._putting = trio.Lock()
        # Number of give-ups.
        self._epoch = 0
        self._removable: list[int] = []

    # -- objects

    def object(self, object_id: int) -> Object:
        """Return an object that is committed, or appended and not yet committed.

        Raises :class:`Damaged` if there is none with this id.
        """
        return self._appended.get(object_id) or self._index.object(object_id)

    def place(self, object_id: int) -> Location:
        """Return the location of an object's entry. Raises :class:`Damaged`."""
        found = self.object(object_id)
        path = str(self._layout.pack(found.pack))
        return Location(found.id, path, found.offset, found.length, found.has_layer)

    def places(self, ids: Iterable[int]) -> tuple[Location, ...]:
        """Return the locations of objects' entries, and of all entries that their layers need.

        They are sorted by object id. Raises :class:`Damaged` if an object has no row, or if one of
        the entries is at a URL only.
        """
        found = {object_id: self.object(object_id) for object_id in ids}
        below = {object_id for known in found.values() for object_id in known.layer}
        found |= {object_id: self.object(object_id) for object_id in below - found.keys()}
        packs = {known.pack for known in found.values()}
        if away := packs & self.packs.away:
            raise Damaged(self._layout.pack(min(away)), reason="it is at a URL only")
        paths = {number: str(self._layout.pack(number)) for number in packs}
        return tuple(
            Location(number, paths[known.pack], known.offset, known.length, known.has_layer)
            for number, known in sorted(found.items())
        )

    def find(self, sha256: bytes, size: int) -> int | None:
        """Return the id of an object that renders to a file of this hash and bytes, or None.

        Objects that rest on a pack at a URL do not count: a new file gets all its bytes here.
        """
        for new in self._appended.values():
            if new.sha256 == sha256 and new.size == size:
                return new.id
        if self.packs.away:
            rows = map(self._index.object, self._index.objects_of(sha256))
            return next((row.id for row in rows if row.size == size and self.is_here(row)), None)
        return self._index.find_object(sha256, size)

    def is_here(self, found: Object) -> bool:
        """Whether an object, and all that it needs, is in packs of the store itself."""
        if not self.packs.away:
            return True
        try:
            needed = map(self.object, {*found.needs, *found.layer})
            return self.packs.away.isdisjoint({found.pack, *(row.pack for row in needed)})
        except Damaged:
            return False

    async def append(
        self,
        entry: Entry,
        about: FileFacts,
        *,
        kind: str,
        depth: int = 0,
        needs: tuple[int, ...] = (),
        layer: tuple[int, ...] = (),
        reason: str | None = None,
    ) -> Object | None:
        """Append the entry of a new object. Return the object, or None after a give-up.

        From the return on, tasks can read the object and plans can take tiles from it. None means
        that :meth:`give_up` was called in the meantime. There is no await between the moment when
        the entry counts and the return. `kind`, `depth`, `needs`, `layer` and `reason` are the
        columns of the object's row. Raises OSError, :class:`Damaged`.
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
        """Return the probable path of the pack for the next entry. Makes no pack.

        The path is wrong if this pack gets full, or the other writer begins a pack, before that
        entry is appended.
        """
        old = self._pack
        number = self.packs.newest + 1 if old is None or old.full else old.number
        return str(self._layout.pack(number))

    async def append_again(self, found: Object, entry: Entry) -> Object:
        """Append another entry of an existing object. Return the object with the new location.

        From the return on, tasks read the object from the new location. The caller makes sure that
        no task calls :meth:`give_up` in the meantime. Raises OSError, :class:`Damaged`.
        """
        place = await self._put(entry)
        assert place is not None
        pack, offset, length = place
        moved = replace(found, pack=pack, offset=offset, length=length)
        self._appended[moved.id] = moved
        return moved

    def take(self, pack: Pack) -> None:
        """Take over an unsealed pack. The next commit finishes it."""
        self._full_packs.append(pack)

    async def seal(self) -> None:
        """Finish the open pack and all packs of :meth:`take`. The next entry goes to a new pack.

        Entries may wait for a commit during the call. That commit then finishes their pack, and
        :meth:`is_open` is true for it until then. Raises what the disk or the index raises. After
        an error the packs are given up, and the next start finishes them.
        """
        async with self._putting:
            if self._pack is not None and self._pack.length:
                self._full_packs.append(self._pack)
                self._pack = None
        async with self.packs.turn:
            # Look the packs up under the lock: its last holder may have finished some of them.
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
        """Whether the pack may get more entries, or has entries that are not committed."""
        return any(pack.number == number for pack in self._packs())

    async def _put(self, entry: Entry) -> tuple[int, int, int] | None:
        """Write an entry and count it. Return (pack number, offset, length) in bytes.

        Returns None if :meth:`give_up` was called in the meantime. Raises OSError,
        :class:`Damaged`.
        """
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
        """Return the pack for the next entry. Make a new pack if the last is full or given up.

        The caller holds `_putting`.
        """
        if self._pack is not None and not self._pack.full:
            return self._pack
        # Take the number before the await: the other writer may begin a pack in the meantime.
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
        """Return all packs that have uncommitted entries or may get some."""
        return self._full_packs + ([] if self._pack is None else [self._pack])

    # -- commits

    async def commit(self, rows: Callable[[], None]) -> None:
        """Commit all entries that are appended before the call.

        `rows` changes the index inside the transaction and does not await. docs/format.md says
        which state a crash leaves after each step. Raises what the disk, the index or `rows`
        raises. Then nothing is committed, and the caller must call :meth:`give_up`.
        """
        # Before the first await: later entries belong to the next commit.
        noted = {pack: pack.length for pack in self._packs()}
        async with self.packs.turn:
            # Look the packs up under the lock: its last holder may have finished some of them.
            lengths = {pack: noted[pack] for pack in self._packs() if pack in noted}
            # A pack that got full in the meantime has entries of the next commit.
            full = [pack for pack in self._full_packs if pack.length == lengths.get(pack)]
            await self._commit(lengths, full, rows)
            if full:
                self.packs.renew_copies()

    async def _commit(
        self, lengths: dict[Pack, int], full: list[Pack], rows: Callable[[], None]
    ) -> None:
        """Write the directories of the packs `full`, force all packs, and commit.

        `lengths` has the bytes to commit of each pack. The caller holds `PackSet.turn`, so no other
        task closes one of the packs.
        """
        for pack in full:
            await threads.call(Kind.PACK, pack.write_directory)
        for pack in lengths:
            await threads.call(Kind.FORCE, pack.fsync)
        with self._index.transaction():
            for pack, length in lengths.items():
                if length:
                    self._index.set_pack(pack.number, length, sealed=pack in full)
            rows()
        # From here on nothing may raise: after an error the caller would drop entries that the
        # committed rows name.
        self._full_packs = [pack for pack in self._full_packs if pack not in full]
        self.packs.parity_due.set()
        for pack in full:
            with suppress(OSError):
                await threads.finish(Kind.PACK, pack.close)

    def forget(self, object_id: int) -> None:
        """Forget an appended object, because its row is committed or will never exist."""
        self._appended.pop(object_id, None)

    async def give_up(self) -> None:
        """Give up all entries that are appended and not committed. The next one makes a new pack.

        The caller makes sure that no :meth:`commit` of this writer is running. A :meth:`seal` or an
        :meth:`append` may be running. If the task is cancelled here, packs stay open until the next
        call, or until :meth:`close`. Failures of the disk and the index are logged, not raised.
        """
        self._appended.clear()
        self._epoch += 1
        # Before the first await: no commit includes an entry that these packs may still get.
        self._leave_packs()
        async with self._putting:
            # From here on no thread writes to these packs.
            pass
        async with self.packs.turn:
            packs, self._given_up = self._given_up, []
            try:
                await self._put_away(packs)
            except Exception:
                _log.exception("cannot cut all packs back; the next start does it")

    def _leave_packs(self) -> None:
        """Turn all packs of this writer into given-up ones."""
        self._given_up += self._packs()
        self._full_packs, self._pack = [], None

    async def _drop(self, packs: list[Pack]) -> None:
        """Close packs that :meth:`seal` could not finish.

        The caller holds `PackSet.turn`, and makes sure that nothing is appended to the packs.
        """
        # Leave out packs that were given up in the meantime: a thread may still write to them, and
        # give_up() closes them.
        left = [pack for pack in self._full_packs if pack in packs]
        self._full_packs = [pack for pack in self._full_packs if pack not in packs]
        try:
            await self._put_away(left)
        except Exception:
            _log.exception("cannot finish all packs; the next start does it")

    async def _put_away(self, packs: list[Pack]) -> None:
        """Cut packs to their committed length and close them. The caller holds `PackSet.turn`.

        Also works in a cancelled task. Raises what the index raises; the packs are closed then.
        """
        try:
            committed = self._index.packs()
        except BaseException:
            await threads.finish(Kind.PACK, _close, packs)
            raise
        await threads.finish(Kind.PACK, self._cut_and_close, packs, committed)

    # -- durability

    def discard(self, token: int) -> None:
        """Schedule a staged file for removal. :meth:`settle` removes it.

        No row names the file any more, but that change may not be durable yet.
        """
        self._removable.append(token)

    def has_discarded(self) -> bool:
        """Whether staged files wait to be removed."""
        return bool(self._removable)

    async def force(self) -> None:
        """Force all commits to the disk, so that they survive a power cut.

        Raises OSError, and what :meth:`Index.rewrite` raises.
        """
        if self._index.suspect:
            self._index.rewrite()
        await threads.call(Kind.FORCE, self._index.force)

    async def settle(self) -> None:
        """Run a durability point: :meth:`force`, then remove the files of :meth:`discard`.

        Raises OSError. Files that could not be removed stay scheduled.
        """
        going, self._removable = self._removable, []
        try:
            await self.force()
            await threads.call(Kind.WRITE, self._remove, going)
        finally:
            self._removable += going

    def _remove(self, going: list[int]) -> None:
        """Remove staged files and their tokens from `going`. Runs in a thread.

        If it raises OSError, `going` has the tokens that are left.
        """
        while going:
            self._staging.remove(going[-1])
            going.pop()

    def abandon(self) -> None:
        """Close the packs and do not change them: another process has taken over the store.

        A :meth:`give_up` that was cancelled may have left packs open, too.
        """
        self._leave_packs()
        packs, self._given_up = self._given_up, []
        _close(packs)

    def close(self) -> None:
        """Cut off uncommitted entries, write the central directories and close all packs.

        Any unzip opens the packs then. The caller makes sure that no other method of this writer is
        running. May wait for the disk. Raises what the index raises; the packs are closed then.
        """
        self._leave_packs()
        self._close_given_up()

    def _close_given_up(self) -> None:
        """Cut given-up packs to their committed length and close them. May wait for the disk."""
        packs, self._given_up = self._given_up, []
        committed: dict[int, tuple[int, bool]] | None = None
        try:
            committed = self._index.packs()
        finally:
            if committed is None:
                _close(packs)
        self._cut_and_close(packs, committed)

    def _cut_and_close(self, packs: list[Pack], committed: dict[int, tuple[int, bool]]) -> None:
        """Cut packs to their committed length, write their directories and close them.

        Removes a pack without committed entries, and leaves closed packs alone. `committed` has
        (length, whether sealed) by pack number. May wait for the disk. Failures are logged.
        """
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
    """Close packs. Failures are ignored."""
    for pack in packs:
        with suppress(OSError):
            pack.close()


def _finish(pack: Pack, length: int) -> None:
    """Cut a pack to `length` bytes, write its directory and close it. Raises OSError."""
    try:
        pack.rewind(length)
        pack.write_directory()
    finally:
        pack.close()
