"""Arguments that several commands share, and opening a store for one of them."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import trio

from fsmount.errors import MountNotStore, UsageError
from fsmount.mount.log import log_to
from fsmount.mount.mountpoint import FSTYPE, mounted_at
from fsmount.store import config
from fsmount.store.store import DEFAULT_CACHE_BYTES, Store

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Size(click.ParamType):  # type: ignore[type-arg]
    """Bytes, with an optional K, M or G (powers of 1024)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes."""
        if isinstance(value, int):
            return value
        text = str(value).upper().removesuffix("IB").removesuffix("B")
        unit = text[-1:] if text[-1:] in _UNITS else ""
        try:
            count = int(float(text.removesuffix(unit)) * _UNITS[unit])
        except (ValueError, OverflowError):
            count = -1
        if count < 0:
            self.fail(f"{value!r} is no size; write for example 512M", param, ctx)
        return count


store_argument = click.argument("store", envvar="FSMOUNT_STORE", type=click.Path(path_type=Path))
cache_option = click.option(
    "--cache-size",
    type=Size(),
    default=DEFAULT_CACHE_BYTES,
    envvar="FSMOUNT_CACHE_SIZE",
    help="Memory for decoded pictures, for example 512M. Default 256M.",
)
force_lock_option = click.option(
    "--force-lock",
    is_flag=True,
    help="Take the store from a process on another host or in another container that has ended"
    " without closing it. Watches for its heartbeat first (25 s).",
)


def split_store(paths: Sequence[str], where: int, fewest: int = 1) -> tuple[Path, list[str]]:
    """The store, and the other paths (at least `fewest`).

    The store stands first (`where` 0) or last (-1). If FSMOUNT_STORE names one, it may be left
    out: a path in its place that is no store is one of the others.
    """
    others = list(paths)
    store = os.environ.get("FSMOUNT_STORE")
    if others and not (store and (len(others) <= fewest or not _is_store(others[where]))):
        store = others.pop(where)
    if not store or len(others) < fewest:
        command = click.get_current_context().command_path
        raise UsageError(
            f"a path is missing, or the store (which FSMOUNT_STORE may name); see {command} --help"
        )
    return Path(store), others


def _is_store(path: str) -> bool:
    return config.is_store(Path(path))


def start_log() -> None:
    """What the store notes on the way goes to the file FSMOUNT_LOG names, or nowhere."""
    log_to(os.environ.get("FSMOUNT_LOG") or os.devnull)


@contextmanager
def reading(path: Path) -> Iterator[Store]:
    """A store open for looking at its index."""
    _refuse_mount(path)
    start_log()
    store = Store.open(path, read_only=True)
    try:
        yield store
    finally:
        store.close()


def _refuse_mount(path: Path) -> None:
    """Raise :class:`MountNotStore` if a store is mounted there."""
    mounted = None if config.is_store(path) or not path.is_dir() else mounted_at(path)
    if mounted is not None and mounted.fstype == FSTYPE:
        raise MountNotStore(path, source=mounted.source)


def check_apart(inner: Path, outer: Path) -> None:
    """Raise :class:`UsageError` if one path is, or lies in, the other."""
    place, around = Path(os.path.realpath(inner)), Path(os.path.realpath(outer))
    if place == around or around in place.parents:
        raise UsageError(f"{inner} lies inside {outer}; the store and other files must be apart")


def with_store(
    path: Path,
    work: Callable[[Store], Awaitable[int]],
    *,
    read_only: bool = True,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    force_lock: bool = False,
) -> int:
    """Open a store and run `work` with its workers and background encoding: the exit code."""
    _refuse_mount(path)

    async def run() -> int:
        store = Store.open(
            path, read_only=read_only, cache_bytes=cache_bytes, force_lock=force_lock
        )
        try:
            async with store.running():
                return await work(store)
        finally:
            store.close()

    start_log()
    return trio.run(run)
