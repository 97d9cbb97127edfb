"""Open a store for a command."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from fsmount.errors import MountNotStore, UsageError
from fsmount.mount.log import log_to
from fsmount.mount.mountpoint import FSTYPE, mounted_at
from fsmount.store import config
from fsmount.store.files import StoreFiles
from fsmount.store.read_store import ReadStore
from fsmount.store.store import DEFAULT_CACHE_BYTES, open_read_store, open_store
from fsmount.store.writable_store import WritableStore


def start_log() -> None:
    """Send the log to the file that FSMOUNT_LOG names, or discard it."""
    log_to(os.environ.get("FSMOUNT_LOG") or os.devnull)


@contextmanager
def open_index(path: Path) -> Iterator[StoreFiles]:
    """Open a store for reading its index only; no workers run.

    Raises
    ------
    MountNotStore
        If a store is mounted at the path.
    NoStore, FormatUnsupported, Damaged, OSError
        If the store cannot be opened.
    """
    _refuse_mount(path)
    start_log()
    with open_read_store(path) as opened:
        yield opened


def _refuse_mount(path: Path) -> None:
    """Raise MountNotStore if a store is mounted at the path."""
    mounted = None if config.is_store(path) or not path.is_dir() else mounted_at(path)
    if mounted is not None and mounted.fstype == FSTYPE:
        raise MountNotStore(path, source=mounted.source)


def check_apart(inner: Path, outer: Path) -> None:
    """Raise :class:`UsageError` if ``inner`` is ``outer`` or lies in it, links resolved."""
    inner_path, outer_path = Path(os.path.realpath(inner)), Path(os.path.realpath(outer))
    if inner_path == outer_path or outer_path in inner_path.parents:
        raise UsageError(f"{inner} lies inside {outer}; the store and other files must be apart")


def with_store(
    path: Path,
    work: Callable[[ReadStore], Awaitable[int]],
    *,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> int:
    """Open a store for reading, without its lock, and run ``work`` on it, with its workers.

    Parameters
    ----------
    path : Path
        The store.
    work : callable
        Gets the store and returns the exit code.
    cache_bytes : int
        Memory for decoded pictures.

    Returns
    -------
    int
        The exit code.

    Raises
    ------
    MountNotStore
        If a store is mounted at the path.
    FsmountError, OSError
        If the store cannot be opened, and what ``work`` raises.
    """
    _refuse_mount(path)

    async def run() -> int:
        with open_read_store(path) as opened:
            async with opened.running(cache_bytes=cache_bytes) as store:
                return await work(store)

    start_log()
    return trio.run(run)


def with_writable_store(
    path: Path,
    work: Callable[[WritableStore], Awaitable[int]],
    *,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    force_lock: bool = False,
) -> int:
    """As :func:`with_store`, for reading and writing, with background encoding.

    ``force_lock``: whether to take over the lock of a writer that may have died elsewhere.
    """
    _refuse_mount(path)

    async def run() -> int:
        with open_store(path, force_lock=force_lock) as opened:
            async with opened.running(cache_bytes=cache_bytes) as store:
                return await work(store)

    start_log()
    return trio.run(run)
