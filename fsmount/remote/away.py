"""Packs of a store that are at a URL only, for those who read the store.

The blocks that are read stay in a folder of the cache, as those of a mounted URL do
(:mod:`fsmount.remote.blocks`). The record of the store names all objects, so nothing is asked for
before somebody reads: a store can be mounted, and takes pictures, without a network.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from threading import Lock

from fsmount import threads
from fsmount.errors import CacheFailed, FsmountError
from fsmount.remote.blocks import Files, Table
from fsmount.remote.cached_store import folder_of, held_folder
from fsmount.remote.fetching import Fetching, torn
from fsmount.remote.objects import Body, Part
from fsmount.remote.transport import Transport
from fsmount.store.disk.disk import Disk
from fsmount.store.elsewhere import Away, Elsewhere
from fsmount.store.layout import Layout
from fsmount.store.packs.supply import Range, Supply
from fsmount.threads import Kind

_log = logging.getLogger(__name__)

Connect = Callable[[str], Transport]
"""Returns the transport to a URL; may ask the server for its keys."""


class Later:
    """The transport to a URL that is opened by the first call, and again after a failure.

    See :class:`Transport`. Calls also raise what `connect` raises. Any thread may make one.
    """

    def __init__(self, url: str, connect: Connect) -> None:
        self.url = url
        self._connect = connect
        self._opening = Lock()
        self._opened: Transport | None = None

    def _remote(self) -> Transport:
        with self._opening:
            if self._opened is None:
                self._opened = self._connect(self.url)
            return self._opened

    @property
    def keeps_versions(self) -> bool:
        """See :attr:`Transport.keeps_versions`."""
        return self._remote().keeps_versions

    def put(self, name: str, data: bytes) -> bool:
        """See :meth:`Transport.put`."""
        return self._remote().put(name, data)

    def get(self, name: str) -> bytes:
        """See :meth:`Transport.get`."""
        return self._remote().get(name)

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """See :meth:`Transport.get_range`."""
        return self._remote().get_range(name, start, length)

    def size(self, name: str) -> int | None:
        """See :meth:`Transport.size`."""
        return self._remote().size(name)

    def list(self, folder: str) -> Iterator[tuple[str, int]]:
        """See :meth:`Transport.list`."""
        return self._remote().list(folder)

    def folders(self) -> Sequence[str]:
        """See :meth:`Transport.folders`."""
        return self._remote().folders()

    def delete(self, name: str) -> None:
        """See :meth:`Transport.delete`."""
        self._remote().delete(name)


class AwayPacks:
    """The supply of a store some packs of which are at a URL only. See :class:`Supply`.

    fetching : brings their bytes. layout : the store in which these are sparse files.

    Contract: belongs to the trio task.
    """

    def __init__(self, fetching: Fetching, layout: Layout, numbers: frozenset[int]) -> None:
        self._fetching = fetching
        self._layout = layout
        self._numbers = numbers
        self._paths = {str(layout.pack(number)) for number in numbers}

    def pack(self, number: int) -> Path | None:
        """See :meth:`Supply.pack`."""
        return self._layout.pack(number) if number in self._numbers else None

    def held(self, ranges: Sequence[Range]) -> AbstractAsyncContextManager[None]:
        """See :meth:`Supply.held`."""
        mine = self._mine(ranges)
        return self._fetching.held(mine) if mine else nullcontext()

    async def renew(self, ranges: Sequence[Range]) -> bool:
        """See :meth:`Supply.renew`."""
        mine = self._mine(ranges)
        return await self._fetching.renew(mine) if mine else False

    async def blame(self, ranges: Sequence[Range], error: FsmountError) -> FsmountError:
        """See :meth:`Supply.blame`. What is wrong may as well be here."""
        guilty = await threads.call(Kind.CACHED, torn, self._mine(ranges))
        return await self._fetching.blame(guilty, error) if guilty else error

    def _mine(self, ranges: Sequence[Range]) -> list[Range]:
        return [each for each in ranges if each.path in self._paths]


class _NoCache:
    """The supply of a store whose packs cannot be read, since the cache cannot be used."""

    def __init__(self, layout: Layout, numbers: frozenset[int], error: FsmountError) -> None:
        self._layout = layout
        self._numbers = numbers
        self._paths = {str(layout.pack(number)) for number in numbers}
        self._error = error

    def pack(self, number: int) -> Path | None:
        """See :meth:`Supply.pack`."""
        return self._layout.pack(number) if number in self._numbers else None

    def held(self, ranges: Sequence[Range]) -> AbstractAsyncContextManager[None]:
        """Raise the error for bytes that are not here."""
        if any(each.path in self._paths for each in ranges):
            raise CacheFailed(self._error.detail, **self._error.fields)
        return nullcontext()

    async def renew(self, ranges: Sequence[Range]) -> bool:
        """There is no other source."""
        return False

    async def blame(self, ranges: Sequence[Range], error: FsmountError) -> FsmountError:
        """The error says all."""
        return error


@asynccontextmanager
async def away_packs(
    away: Elsewhere,
    store: str,
    caches: Path,
    *,
    budget: int,
    limit_s: float,
    connect: Connect,
) -> AsyncIterator[Supply]:
    """In the block the packs that are at a URL only can be read.

    `store` is the identity of the store. `caches` is the folder for caches; `budget` is for blocks,
    in bytes. A read ends after `limit_s` seconds. Before the block begins, no network is asked, but
    it waits for the disk. If the cache cannot be used, that is logged, and each read of these packs
    raises :class:`CacheFailed`: the other packs can be read.
    """
    numbers = frozenset(away.packs)
    with ExitStack() as undo:
        folder = folder_of(f"{away.url}\n{store}", caches)
        fetching: Fetching | None = None
        supply: Supply
        try:
            place = undo.enter_context(held_folder(folder, away.url, Disk()))
            layout = Layout(place / "store")
            fetching = _fetching(away, layout, place / "blocks", budget, limit_s, connect)
            supply = AwayPacks(fetching, layout, numbers)
        except (OSError, FsmountError) as error:
            failed = _as_error(error, caches)
            _log.error("pictures that are only at %s cannot be read: %s", away.url, failed)
            supply = _NoCache(Layout(folder), numbers, failed)
        async with fetching.running() if fetching is not None else nullcontext():
            yield supply


def _as_error(error: OSError | FsmountError, caches: Path) -> FsmountError:
    if isinstance(error, FsmountError):
        return CacheFailed(caches, reason=str(error))
    return CacheFailed(error.filename or caches, reason=error.strerror)


def _fetching(
    away: Elsewhere, layout: Layout, notes: Path, budget: int, limit_s: float, connect: Connect
) -> Fetching:
    """Prepare the folder for blocks. Waits for the disk. Raises OSError, UsageError."""
    disk = Disk()
    for folder in (layout.root, *layout.folders, notes):
        disk.mkdir(folder, parents=True)
    bodies = {f"packs/{layout.pack(n).name}": body_of(each) for n, each in away.packs.items()}
    sizes = {name: body.length for name, body in bodies.items()}
    files = Files(layout.root, notes, sizes, disk)
    table = Table(files, files.prepare(), budget)
    return Fetching(Later(away.url, connect), None, bodies, files, table, limit_s)


def body_of(away: Away) -> Body:
    """The pack as a state names it."""
    return Body(away.length, away.mtime_ns, [Part(*part) for part in away.parts])
