"""A store with workers, for reading and writing: it also encodes, repacks and reclaims space."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

from fsmount.store.files import StoreFiles
from fsmount.store.frames.body_reader import Body, BodyReader
from fsmount.store.frames.layer_cache import LayerCache
from fsmount.store.ingest.durability import DurabilityPoints
from fsmount.store.ingest.encoder import Encoder
from fsmount.store.ingest.inputs import Settled, Source
from fsmount.store.maintenance.maintenance import Maintenance
from fsmount.store.maintenance.parity_keeper import ParityKeeper
from fsmount.store.maintenance.reclaim import ENOUGH_BYTES
from fsmount.store.maintenance.repack import RepackSummary, always, due
from fsmount.store.owned_tasks import OwnedTasks
from fsmount.store.packs.pack import Entry
from fsmount.store.packs.writer import Writer
from fsmount.store.read_store import ReadStore
from fsmount.store.retention.trash import Name, TrashCan
from fsmount.work.workers import Workers


class WritableStore(ReadStore):
    """A store that this process may change. :meth:`run` runs its background tasks.

    owned : the background tasks, and the question whether the store still belongs to this process.
    encoder : encodes staged files.
    durability : makes staged files survive a power cut.
    writer : commits new objects.
    maintenance : repacks, and keeps space free.
    keeper : writes the parity of packs.
    trash : the trash of the store.

    Contract: belongs to the trio task.
    """

    read_only: ClassVar[bool] = False

    def __init__(
        self,
        files: StoreFiles,
        bodies: BodyReader,
        workers: Workers,
        layers: LayerCache,
        *,
        owned: OwnedTasks,
        encoder: Encoder,
        durability: DurabilityPoints,
        writer: Writer,
        maintenance: Maintenance,
        keeper: ParityKeeper,
        trash: TrashCan,
    ) -> None:
        super().__init__(files, bodies, workers, layers)
        self._owned = owned
        self._encoder = encoder
        self._durability = durability
        self._writer = writer
        self._maintenance = maintenance
        self._keeper = keeper
        self.trash = trash
        # The time when a program last used the store.
        self._used = time.monotonic()

    async def run(self) -> None:
        """See :meth:`OwnedTasks.run`."""
        await self._owned.run()

    # -- reading

    async def body(self, object_id: int) -> Body:
        """See :meth:`ReadStore.body`."""
        self._used = time.monotonic()
        return await super().body(object_id)

    # -- writing

    def hold(self, ino: int) -> None:
        """Note that a writer opened the file: the encoder waits for :meth:`unhold`."""
        self._used = time.monotonic()
        self._encoder.queue.hold(ino)

    def unhold(self, ino: int) -> None:
        """Note that a writer closed the file."""
        self._used = time.monotonic()
        self._encoder.queue.unhold(ino)

    def held(self) -> list[int]:
        """Inodes that have a writer."""
        return self._encoder.queue.held()

    def queue(self, ino: int) -> None:
        """Queue a staged file for encoding: its last writer closed it."""
        self._used = time.monotonic()
        self._durability.add(ino)
        self._encoder.queue.put(ino)

    def add_source(self, source: Source) -> None:
        """See :meth:`Encoder.add_source`."""
        self._used = time.monotonic()
        self._encoder.add_source(source)

    def settled_sources(self) -> list[Settled]:
        """See :meth:`Encoder.settled_sources`."""
        return self._encoder.settled_sources()

    def withdraw_sources(self) -> None:
        """See :meth:`Encoder.withdraw_sources`."""
        self._encoder.withdraw_sources()

    def discard(self, token: int) -> None:
        """See :meth:`DurabilityPoints.discard`. Does not await."""
        self._durability.discard(token)

    # -- copies of objects of another store

    @property
    def writer(self) -> Writer:
        """Appends entries that are coded already. Only for a store that does not :meth:`run`."""
        return self._writer

    def new_id(self) -> int:
        """Return the id for another object. No other object of the store ever gets it."""
        return self._encoder.new_id()

    def save_tiles(self) -> None:
        """Save what the planner knows, as the end of the mount does. Does not await."""
        self._encoder.finish()

    async def durable(self) -> None:
        """Make everything that the index holds survive a power cut. Raises OSError."""
        await self._writer.force()

    def pending(self) -> int:
        """Number of files that are not encoded yet, without staged files that have a writer.

        0 if another process took the store over.
        """
        return 0 if self._owned.is_lost else self._encoder.queue.pending()

    async def drain(self) -> None:
        """Wait until no file is pending.

        Raises OSError EIO if another process takes the store over.
        """
        await self._owned.wait(self._encoder.queue.drain)

    # -- space

    async def need_space(self, size: int = 0) -> None:
        """Make space before files grow by `size` bytes.

        See :meth:`FreeSpace.need`. Raises OSError ENOSPC, EIO.
        """
        self._used = time.monotonic()
        await self._maintenance.space.need(size)

    async def before_deleting(self) -> None:
        """See :meth:`FreeSpace.before_deleting`."""
        await self._maintenance.space.before_deleting()

    async def reclaim(self, enough: int = ENOUGH_BYTES) -> None:
        """See :meth:`FreeSpace.reclaim`. Logs failures."""
        await self._maintenance.space.reclaim(enough)

    def renew_copies(self) -> None:
        """Ask for a new copy of the index: it is written soon, or at the latest at the end."""
        self._writer.packs.renew_copies()

    async def repair_parity(self) -> list[int]:
        """See :meth:`ParityKeeper.repair`. Raises OSError, :class:`Damaged`."""
        return await self._keeper.repair()

    def repack_size(self) -> int:
        """Number of objects that :meth:`repack` would examine."""
        return sum(len(self.index.objects_in(number)) for number in due(self.index))

    async def repack(
        self, progress: Callable[[int], None], known: Mapping[int, Entry] | None = None
    ) -> RepackSummary:
        """Reclaim space and write smaller entries. Encodes the staged files first.

        `known` has entries that were coded again and proved before, by object id. The caller keeps
        :meth:`run` running. Raises :class:`Damaged`, and OSError if the disk is full and not enough
        space could be reclaimed beforehand.
        """
        await self._maintenance.space.reclaim()
        await self.drain()
        await self._maintenance.prepare()
        return await self._maintenance.repack(progress, known or {})

    async def repack_in_background(self, go_on: Callable[[], bool]) -> bool:
        """Repack a part, as :mod:`background` describes. The caller makes one call at a time.

        Returns False if a file was written or read, or `go_on` returned False; True if nothing is
        left to do. Raises :class:`Damaged`, OSError.
        """
        await self._owned.ask()
        await self._maintenance.prepare()
        used = self._used
        return await self._maintenance.repack_in_background(lambda: self._used == used and go_on())

    # -- pruning

    async def prune(
        self, names: Iterable[Name], moved: Callable[[int, bytes], None] = lambda folder, name: None
    ) -> int:
        """Move names of files to the trash, durably. Returns their number.

        See :meth:`TrashCan.put`. Raises OSError, Damaged.
        """
        await self._maintenance.space.before_deleting()
        count = await self.trash.put(names, moved)
        await self.durable()
        return count

    async def let_expire(self) -> int:
        """Let names leave the trash by its limits, durably. Returns their number.

        :meth:`give_back` gives their space back. Raises OSError, FsmountError.
        """
        await self._maintenance.space.before_deleting()
        count = await self.trash.expire()
        if count:
            await self.durable()
        return count

    async def give_back(self, go_on: Callable[[], bool] = always, *, compact: bool = True) -> None:
        """Give back the space of what nothing shown needs, durably.

        Stops when `go_on` says no. `compact`: write the index anew, which stops all other work for
        a moment. Raises OSError, FsmountError.
        """
        await self.durable()
        try:
            await self._maintenance.give_back(go_on, compact=compact)
        finally:
            self._keeper.look_again()
        await self.durable()

    def while_unused(self) -> Callable[[], bool]:
        """Return what says whether no program has used the store since this call."""
        used = self._used
        return lambda: self._used == used

    def unused_s(self) -> float:
        """Seconds since a file was last written or read; 0 while files are pending."""
        return 0.0 if self.pending() else time.monotonic() - self._used
