"""Arguments that several commands share, and opening a store for one of them."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import trio

from fsmount.errors import NoStore, UsageError
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
            return int(float(text.removesuffix(unit)) * _UNITS[unit])
        except ValueError:
            self.fail(f"{value!r} is no size; write for example 512M", param, ctx)


store_argument = click.argument("store", envvar="FSMOUNT_STORE", type=click.Path(path_type=Path))
cache_option = click.option(
    "--cache-size",
    type=Size(),
    default=DEFAULT_CACHE_BYTES,
    envvar="FSMOUNT_CACHE_SIZE",
    help="Memory for decoded pictures, for example 512M. Default 256M.",
)


def split_store(paths: tuple[str, ...], fewest: int = 1) -> tuple[list[str], Path]:
    """The paths before the store, and the store: the last path, or FSMOUNT_STORE."""
    if len(paths) > fewest:
        return list(paths[:-1]), Path(paths[-1])
    store = os.environ.get("FSMOUNT_STORE")
    if store is None or len(paths) < fewest:
        raise UsageError("name the store as the last argument, or in FSMOUNT_STORE")
    return list(paths), Path(store)


def with_store(
    path: Path,
    work: Callable[[Store], Awaitable[int]],
    *,
    read_only: bool = True,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> int:
    """Open a store and run `work` with its workers and background encoding: the exit code."""

    async def run() -> int:
        if not path.is_dir():
            raise NoStore(path)
        store = Store.open(path, read_only=read_only, cache_bytes=cache_bytes)
        try:
            async with store.running():
                return await work(store)
        finally:
            store.close()

    return trio.run(run)
