"""Opening a store: the module that composes all parts of a store.

A store is first *opened*: its folder, its lock, its index; recovery has finished what a crash left
half done. Names can be looked at then (:class:`StoreFiles`). A *started* store also has workers: a
:class:`ReadStore`, or a :class:`WritableStore`. A *running* one encodes in the background, too.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trio

from fsmount.errors import Damaged, PacksElsewhere
from fsmount.store import config, contents
from fsmount.store.disk.disk import Disk
from fsmount.store.disk.reserve import Reserve
from fsmount.store.elsewhere import Elsewhere, missing, settle
from fsmount.store.files import StoreFiles
from fsmount.store.frames import group, jobs
from fsmount.store.frames.body_reader import BodyReader
from fsmount.store.frames.layer_cache import LayerCache
from fsmount.store.index import Index
from fsmount.store.ingest.durability import DurabilityPoints
from fsmount.store.ingest.encoder import Encoder
from fsmount.store.layout import Layout
from fsmount.store.lock import Lock
from fsmount.store.maintenance.copier import Copier
from fsmount.store.maintenance.maintenance import Maintenance
from fsmount.store.maintenance.parity_keeper import ParityKeeper
from fsmount.store.owned_tasks import OwnedTasks
from fsmount.store.ownership import OwnedDisk, Ownership
from fsmount.store.packs.pack_set import PackSet
from fsmount.store.packs.staging import Staging
from fsmount.store.packs.supply import Supply
from fsmount.store.packs.writer import Writer
from fsmount.store.packs.writers import Writers
from fsmount.store.read_store import ReadStore
from fsmount.store.recovery.consistency import Consistency
from fsmount.store.recovery.startup import recover
from fsmount.store.retention.trash import TrashCan
from fsmount.store.writable_store import WritableStore
from fsmount.work import machine
from fsmount.work.workers import Workers

_log = logging.getLogger(__name__)

_PRELOAD = (jobs.__name__, group.__name__)


def open_read_store(
    path: Path, *, disk: Disk | None = None, elsewhere: bool = False
) -> OpenedReadStore:
    """Open a store for reading, without its lock. A writer may stand beside it.

    `elsewhere`: whether the caller can do with a store some packs of which are at a URL only.

    Raises NoStore, FormatUnsupported, PacksElsewhere, Damaged, OSError.
    """
    with ExitStack() as undo:
        layout, about = _enter(path, undo)
        files = _files(path, layout, about, disk or Disk(), undo, read_only=True)
        files.away = missing(layout)
        _refuse_away(path, files.away, allowed=elsewhere)
        return OpenedReadStore(files, undo.pop_all())


def open_store(
    path: Path,
    *,
    disk: Disk | None = None,
    lock_wait_s: float = 0.0,
    force_lock: bool = False,
    elsewhere: bool = False,
) -> OpenedStore:
    """Open a store for reading and writing.

    `lock_wait_s` is the time to wait for a process that is about to end, in seconds. `force_lock`:
    see :class:`Lock`. `elsewhere`: see :func:`open_read_store`.

    Raises NoStore, FormatUnsupported, PacksElsewhere, StoreLocked, LockUnclear, NotWritable,
    Damaged, OSError.
    """
    # If a step fails, `undo` closes everything that is open. It closes the index before it releases
    # the lock: SQLite must not fold the log of a store that another process has taken.
    with config.writing(path), ExitStack() as undo:
        layout, about = _enter(path, undo)
        ownership = Ownership(Lock(layout.lock, lock_wait_s, force=force_lock))
        undo.callback(ownership.release)
        disk = OwnedDisk(disk or Disk(), ownership)
        if ownership.unproved:
            # The previous holder may still map this file, through FUSE or a network. Its changes to
            # the map come back when it ends, and overwrite ours. So this process creates a new
            # file.
            disk.unlink(layout.index_shared)
        away = settle(layout, disk)
        _refuse_away(path, away, allowed=elsewhere)
        files = _files(path, layout, about, disk, undo, read_only=False)
        files.away = away
        ownership.watch(files.index)
        contents.make_folders(layout, files.index, disk)
        reserve = Reserve(layout.reserve, disk)
        reserve.fill()
        files.index.reserve = reserve
        gone = frozenset(away.packs)
        recovered = recover(
            layout, files.index, files.staging, disk, unproved=ownership.unproved, away=gone
        )
        with ExitStack() as undo_packs:
            undo_packs.callback(recovered.close)
            packs = PackSet(recovered.newest, gone)
            parts = layout, files.index, files.staging, disk
            new = Writer(*parts, packs, recovered.fresh)
            writers = Writers(new, Writer(*parts, packs, recovered.for_repack))
            encoder = Encoder(*parts, new)
            percent = config.parity_of(about)
            keeper = ParityKeeper(layout, files.index, disk, packs, percent, new.force)
            # Two processes may have found the lock free at the same time: only one of them has it.
            ownership.ask()
            config.upgrade(layout, disk)
            files.index.upgrade()
            undo_packs.pop_all()
        return OpenedStore(files, ownership, reserve, writers, encoder, keeper, undo.pop_all())


def _refuse_away(path: Path, away: Elsewhere, *, allowed: bool) -> None:
    """Raise PacksElsewhere if packs are at a URL only, unless the caller can do with that."""
    if away.packs and not allowed:
        raise PacksElsewhere(path, url=away.url)


def _enter(path: Path, undo: ExitStack) -> tuple[Layout, dict[str, Any]]:
    """Open the folder of a store. Returns its paths and its config.

    The store reaches all its files through this descriptor: later, the path may lead to another
    store. Raises NoStore, FormatUnsupported, OSError.
    """
    folder = config.enter(path)
    undo.callback(folder.close)
    layout = Layout(folder.path)
    return layout, config.read(layout.root)


def _files(
    path: Path,
    layout: Layout,
    about: dict[str, Any],
    disk: Disk,
    undo: ExitStack,
    *,
    read_only: bool,
) -> StoreFiles:
    """Open the index of the store with the config `about`. May wait for the disk.

    Raises Damaged, OSError.
    """
    index = Index(layout.index, disk, read_only=read_only)
    undo.callback(index.close)
    if index.identity() != about.get("uuid"):
        raise Damaged(layout.index, reason="it belongs to another store")
    return StoreFiles(path, disk, layout, index, Staging(layout.staging, disk))


class _Opened(StoreFiles):
    """An opened store. `closing` closes everything that is open."""

    def __init__(self, files: StoreFiles, closing: ExitStack) -> None:
        super().__init__(
            files.path, files.disk, files.layout, files.index, files.staging, files.away
        )
        self._closing = closing

    def close(self) -> None:
        """Close everything. No task uses the store any more."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class OpenedReadStore(_Opened):
    """A store that is opened for reading; see the module."""

    @asynccontextmanager
    async def running(
        self,
        *,
        count: int | None = None,
        cache_bytes: int | None = None,
        packs: Supply | None = None,
    ) -> AsyncIterator[ReadStore]:
        """In the block the store has workers: `count` and one more, by default one a core.

        `cache_bytes` is the size of the caches for rendered files and decoded layers. `packs`
        brings those that are at a URL only.
        """
        async with shared_workers(count=count, cache_bytes=cache_bytes) as shared:
            yield ReadStore(self, self._bodies(shared, packs), shared.workers, shared.layers)

    def using(self, shared: Shared, supply: Supply, name: str) -> ReadStore:
        """Let the store use workers that other stores may use, too.

        `supply` brings its bytes to the disk, since all of it lies elsewhere; `name` is its URL.
        """
        bodies = self._bodies(shared, supply)
        return ReadStore(self, bodies, shared.workers, shared.layers, supply, name)

    def _bodies(self, shared: Shared, supply: Supply | None) -> BodyReader:
        find, rendered = self.index.object, shared.rendered_bytes
        workers, layers = shared.workers, shared.layers
        return BodyReader(self.layout, PackSet(), find, workers, layers, rendered, supply)


@dataclass(frozen=True)
class Shared:
    """Workers and caches for one store or several.

    workers, layers : see :class:`ReadStore`.
    rendered_bytes : bytes of rendered files that each store may keep.
    """

    workers: Workers
    layers: LayerCache
    rendered_bytes: int


@asynccontextmanager
async def shared_workers(
    *, count: int | None = None, cache_bytes: int | None = None, stores: int = 1
) -> AsyncIterator[Shared]:
    """In the block `stores` stores can be read. See :meth:`OpenedReadStore.running`."""
    count = count or machine.cores()
    async with Workers(count, preload=_PRELOAD) as workers:
        rendered, layers = _caches(cache_bytes, count)
        yield Shared(workers, layers, rendered // max(1, stores))


class OpenedStore(_Opened):
    """A store that is opened for reading and writing; see the module.

    encoder : encodes staged files while the store runs.
    """

    def __init__(
        self,
        files: StoreFiles,
        ownership: Ownership,
        reserve: Reserve,
        writers: Writers,
        encoder: Encoder,
        keeper: ParityKeeper,
        closing: ExitStack,
    ) -> None:
        super().__init__(files, closing)
        self._ownership = ownership
        self._reserve = reserve
        self._writers = writers
        self._encoder = encoder
        self._durability = DurabilityPoints(
            self.index, self.staging, encoder.queue, writers.new, reserve
        )
        self._keeper = keeper
        self._copier = Copier(self.layout, self.index, self.disk, writers.packs)
        closing.callback(self._finish)

    def _finish(self) -> None:
        """Save what the planner knows, close the writers, renew the copy of the index and parity.

        The next writer encodes the staged files.
        Leaves a store that another process has taken over as it is.
        """
        try:
            self._ownership.ask()
        except OSError as error:
            _log.error("packs and copies stay unchanged: %s", error)
            self._writers.abandon()
            return
        self._encoder.finish()
        self._writers.close()
        self._copier.finish()
        self._keeper.finish()

    @asynccontextmanager
    async def started(
        self,
        *,
        count: int | None = None,
        cache_bytes: int | None = None,
        packs: Supply | None = None,
    ) -> AsyncIterator[WritableStore]:
        """In the block the store has workers: `count` and one more, by default one a core.

        Its background tasks run while :meth:`WritableStore.run` does. `cache_bytes` is the size of
        the caches for rendered files and decoded layers. `packs` brings those that are at a URL
        only.
        """
        count = count or machine.cores()
        async with Workers(count, preload=_PRELOAD) as workers:
            yield self._composed(workers, count, cache_bytes, packs)

    @asynccontextmanager
    async def running(
        self,
        *,
        count: int | None = None,
        cache_bytes: int | None = None,
        packs: Supply | None = None,
    ) -> AsyncIterator[WritableStore]:
        """In the block the store is started, and its background tasks run; see :meth:`started`."""
        async with (
            self.started(count=count, cache_bytes=cache_bytes, packs=packs) as store,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(store.run)
            yield store
            nursery.cancel_scope.cancel()

    def _composed(
        self, workers: Workers, count: int, cache_bytes: int | None, supply: Supply | None
    ) -> WritableStore:
        """Compose the parts of a store that has workers."""
        rendered, layers = _caches(cache_bytes, count)
        find = self._writers.new.object
        packs = self._writers.packs
        bodies = BodyReader(self.layout, packs, find, workers, layers, rendered, supply)
        trash = TrashCan(self.layout, self.index, self._durability.discard)
        maintenance = Maintenance(
            self,
            self._writers,
            self._encoder,
            self._reserve,
            self._ownership,
            workers=workers,
            layers=layers,
            require_consistent=partial(Consistency(self.index).require, workers),
            trash=trash,
        )
        background = (
            self._durability.run,
            partial(self._encoder.run, workers, layers),
            partial(self._copier.run, workers),
            partial(self._keeper.run, workers),
            maintenance.space.run,
        )
        self._reserve.asked_before = True
        return WritableStore(
            self,
            bodies,
            workers,
            layers,
            owned=OwnedTasks(self._ownership, background),
            encoder=self._encoder,
            durability=self._durability,
            writer=self._writers.new,
            maintenance=maintenance,
            keeper=self._keeper,
            trash=trash,
        )


def _caches(cache_bytes: int | None, count: int) -> tuple[int, LayerCache]:
    """Return the bytes of rendered files, and the cache of the layers that the workers decode.

    The layers get half, whatever the number of workers. Rendered files get a quarter. The workers
    share the rest for deflate streams. One worker more than `count` is free for readers.
    """
    quarter = (machine.default_cache_bytes() if cache_bytes is None else cache_bytes) // 4
    return quarter, LayerCache(2 * quarter, quarter // (count + 1))
