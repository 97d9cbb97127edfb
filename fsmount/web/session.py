"""The life of a server: opens a store and its albums, and serves the page until a signal comes."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from starlette.routing import Route

from fsmount.album.tree import AlbumTree
from fsmount.caches import default_folder
from fsmount.mount.signals import EndSignals
from fsmount.store.frames import previews
from fsmount.store.store import open_read_store
from fsmount.web import serving
from fsmount.web.albums import Albums
from fsmount.web.routes import AlbumPages, StorePages
from fsmount.web.serving import Running
from fsmount.work.workers import Workers


@dataclass(frozen=True)
class Source:
    """What to show: a store, or albums, or both.

    `cache_bytes` is for decoded pictures. `caches` is the folder for what is kept until the next
    time.
    """

    store: Path | None
    albums: Path | None
    cache_bytes: int
    caches: Path = field(default_factory=default_folder)


async def serve(
    source: Source,
    socket: Path | None,
    ready: Callable[[Running], Awaitable[None]],
    renewed: Callable[[str], None],
) -> str:
    """Serve the page until a signal comes; return its name.

    `ready` is called when the server answers, and `renewed` with another link for each SIGUSR1.
    Only this user and root can send it. Raises FsmountError, OSError.
    """
    # A signal that comes before the server answers ends it, too.
    signals = EndSignals()
    with trio.open_signal_receiver(signal.SIGUSR1) as asked:
        return await _serve(source, socket, ready, renewed, signals, asked)


async def _serve(
    source: Source,
    socket: Path | None,
    ready: Callable[[Running], Awaitable[None]],
    renewed: Callable[[str], None],
    signals: EndSignals,
    asked: AsyncIterator[int],
) -> str:
    async with trio.open_nursery() as nursery:
        found: list[str] = []

        async def wait() -> None:
            found.append(await signals.first())
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait)
        async with pages(source) as routes, serving.running(routes, socket) as server:
            await ready(server)
            async for _ in asked:
                renewed(server.new_url())
    return found[0]


@asynccontextmanager
async def pages(source: Source) -> AsyncIterator[list[Route]]:
    """In the block the store is open, and the routes answer. Raises FsmountError, OSError."""
    async with AsyncExitStack() as stack:
        found: list[Route] = []
        tree = None
        if source.albums is not None:
            tree = AlbumTree(source.albums, source.cache_bytes // 4)
            await stack.enter_async_context(tree.running())
        if source.store is not None:
            opened = stack.enter_context(open_read_store(source.store))
            running = opened.running(cache_bytes=source.cache_bytes)
            store = await stack.enter_async_context(running)
            nursery = await stack.enter_async_context(trio.open_nursery())
            stack.callback(nursery.cancel_scope.cancel)
            shown = StorePages(store, source.caches, has_albums=tree is not None)
            nursery.start_soon(shown.read_ahead)
            found += shown.routes()
            workers = store.workers
        else:
            workers = Workers(1, preload=(previews.__name__,))
            await stack.enter_async_context(workers)
            assert source.albums is not None
            found += AlbumPages(source.albums).routes()
        found += Albums(tree, workers).routes()
        yield found
