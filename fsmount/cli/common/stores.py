"""Open a store for a command."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import trio

from fsmount.errors import InsideMount, MountNotStore, MountWithoutStore, UsageError
from fsmount.mount.log import log_to
from fsmount.mount.mountpoint import mount_around
from fsmount.mount.options import MountOptions
from fsmount.store import config
from fsmount.store.files import StoreFiles
from fsmount.store.packs.supply import Supply
from fsmount.store.read_store import ReadStore
from fsmount.store.store import open_read_store, open_store
from fsmount.store.writable_store import WritableStore

Result = TypeVar("Result")


def start_log() -> None:
    """Send the log to the file that FSMOUNT_LOG names, or discard it."""
    log_to(os.environ.get("FSMOUNT_LOG") or os.devnull)


Packs = Literal["all", "brought", "here"]
"""What a command does about packs that are at a URL only: it refuses the store ("all"), brings
their bytes as they are read ("brought"), or leaves them alone ("here")."""


@contextmanager
def open_index(path: Path, *, packs: Packs = "all") -> Iterator[StoreFiles]:
    """Open a store, or the store of a mountpoint, for reading its index only; no workers run.

    `packs`: "here" if the command reads no packs.

    Raises
    ------
    InsideMount, MountWithoutStore
        If the path belongs to a mount, and is not the mountpoint of a store.
    NoStore, FormatUnsupported, PacksElsewhere, Damaged, OSError
        If the store cannot be opened.
    """
    path = store_to_read(path)
    start_log()
    with open_read_store(path, elsewhere=packs != "all") as opened:
        yield opened


def store_to_read(path: Path) -> Path:
    """Return the store that a path means for a command that reads: of a mountpoint, its store.

    Reading beside a mount is safe. Raises InsideMount, MountWithoutStore.
    """
    mounted = None if _is_store(path) else mount_around(path)
    if mounted is None:
        return path
    source = Path(mounted.source)
    if not _is_store(source):
        raise MountWithoutStore(mounted.mountpoint, source=source)
    if mounted.mountpoint != Path(os.path.realpath(path)):
        raise InsideMount(path, source=source, mountpoint=mounted.mountpoint)
    return source


def store_to_change(path: Path) -> Path:
    """Return the path, unless it is or lies in a mountpoint.

    Raises MountNotStore, InsideMount, MountWithoutStore.
    """
    store = store_to_read(path)
    if store != path:
        raise MountNotStore(path, source=store)
    return path


def _is_store(path: Path) -> bool:
    """Return whether there is a store; not in a mount whose process has died."""
    try:
        return config.is_store(path)
    except OSError:
        return False


def check_apart(inner: Path, outer: Path) -> None:
    """Raise :class:`UsageError` if ``inner`` is ``outer`` or lies in it, links resolved."""
    inner_path, outer_path = Path(os.path.realpath(inner)), Path(os.path.realpath(outer))
    if inner_path == outer_path or outer_path in inner_path.parents:
        raise UsageError(f"{inner} lies inside {outer}; the store and other files must be apart")


def with_store(
    path: Path,
    work: Callable[[ReadStore], Awaitable[Result]],
    *,
    cache_bytes: int | None = None,
    packs: Packs = "all",
) -> Result:
    """Open a store for reading, without its lock, and run ``work`` on it, with its workers.

    Parameters
    ----------
    path : Path
        The store, or a mountpoint of it.
    work : callable
        Gets the running store.
    cache_bytes : int
        Memory for decoded pictures.
    packs : str
        See :data:`Packs`.

    Returns
    -------
    object
        The result of `work`.

    Raises
    ------
    InsideMount, MountWithoutStore
        If the path belongs to a mount, and is not the mountpoint of a store.
    FsmountError, OSError
        If the store cannot be opened, and what ``work`` raises.
    """
    path = store_to_read(path)

    async def run() -> Result:
        with open_read_store(path, elsewhere=packs != "all") as opened:
            async with (
                _bringing(opened, packs) as supply,
                opened.running(cache_bytes=cache_bytes, packs=supply) as store,
            ):
                return await work(store)

    start_log()
    return trio.run(run)


@asynccontextmanager
async def _bringing(store: StoreFiles, packs: Packs) -> AsyncIterator[Supply | None]:
    """In the block packs that are at a URL only are brought, if they are to be."""
    if not store.away.packs or packs != "brought":
        yield None
        return
    # What reads from URLs takes long to load.
    from fsmount.cli.common.remotes import bringer

    options = MountOptions()
    async with bringer(store.away.url, options)(store, options) as supply:
        yield supply


def with_writable_store(
    path: Path,
    work: Callable[[WritableStore], Awaitable[Result]],
    *,
    cache_bytes: int | None = None,
    force_lock: bool = False,
    packs: Packs = "all",
) -> Result:
    """As :func:`with_store`, for reading and writing, with background encoding.

    `path` must not be a mountpoint. `packs`: "here" if `work` reads no bodies.
    ``force_lock``: whether to take over the lock of a writer that may have died elsewhere.
    Raises :class:`MountNotStore`, too.
    """
    store_to_change(path)

    async def run() -> Result:
        with open_store(path, force_lock=force_lock, elsewhere=packs != "all") as opened:
            async with opened.running(cache_bytes=cache_bytes) as store:
                return await work(store)

    start_log()
    return trio.run(run)
