"""Stores at a URL, to be read in place: one store, or those of several machines.

A URL is a store if it has a state. Otherwise it is a folder of stores: each folder directly below
it that has a state is one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

from fsmount.errors import FsmountError, NotPushed
from fsmount.remote.cached_store import cached
from fsmount.remote.objects import FOLDERS, STATES, State, last_state
from fsmount.remote.opening import NotEncrypted, Unlock, open_remote
from fsmount.remote.transport import Transport, patience_of
from fsmount.store.read_store import ReadStore
from fsmount.store.store import shared_workers

Connect = Callable[[str], Transport]
"""Returns the transport to a URL."""

_NOTHING = (
    "no store was pushed there, nor to a folder directly below. Check the URL, or send one:"
    " fsmount push STORE URL"
)


LIMIT_S = 60.0
"""After so many seconds a read ends with an error, if the user chooses no other limit."""


def for_reading(url: str, limit_s: float = LIMIT_S, unlock: Unlock | None = None) -> Transport:
    """Return the transport to a URL for a mount. Asks for the keys. Raises as `open_remote`."""
    return open_remote(url, unlock, patience_of(limit_s))


def stores_at(url: str, connect: Connect = for_reading) -> dict[str, tuple[Transport, State]]:
    """The stores at a URL: under the name "" that of the URL itself, or else those below it.

    Asks for one list if it is a store. Raises :class:`NotPushed` if there is none,
    :class:`Damaged`, and other errors of the transport.
    """
    refused: FsmountError = NotPushed(url, reason=_NOTHING)
    try:
        remote = connect(url)
        state = last_state(remote)
        if state is not None:
            return {"": (remote, state)}
    except NotEncrypted as error:
        # The keys may be those of the folders. No state that lies here is read.
        assert error.remote is not None
        refused, remote = error, error.remote
    found = {}
    for name in remote.folders():
        if name not in (STATES, *FOLDERS):
            below = connect(f"{url.rstrip('/')}/{quote(name, errors='surrogateescape')}")
            state = last_state(below)
            if state is not None:
                found[name] = below, state
    if not found:
        raise refused
    return found


@asynccontextmanager
async def remote_stores(
    url: str,
    caches: Path,
    *,
    budget: int,
    cache_bytes: int | None = None,
    limit_s: float = LIMIT_S,
    unlock: Unlock | None = None,
    connect: Connect | None = None,
) -> AsyncIterator[dict[str, ReadStore]]:
    """In the block the stores at a URL can be read; see :func:`stores_at` for their names.

    `caches` is the folder for local blocks and `budget` their bytes, which the stores share.
    `cache_bytes`: see :meth:`OpenedReadStore.running`. `limit_s`: after so many seconds a read ends
    with an error. `unlock` opens encrypted ones. `connect` is for tests. Before the block begins,
    it waits for disk and network. Raises as :func:`stores_at` and :func:`cached`.
    """
    found = stores_at(url, connect or partial(for_reading, limit_s=limit_s, unlock=unlock))
    with ExitStack() as files:
        opened = {
            name: files.enter_context(cached(remote, state, caches, budget // len(found), limit_s))
            for name, (remote, state) in found.items()
        }
        async with (
            shared_workers(cache_bytes=cache_bytes, stores=len(found)) as shared,
            AsyncExitStack() as running,
        ):
            for _, supply in opened.values():
                await running.enter_async_context(supply.running())
            yield {
                name: store.using(shared, supply, found[name][0].url)
                for name, (store, supply) in opened.items()
            }
