"""Arguments and options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from fsmount.cli.common.output import be_quiet
from fsmount.errors import UsageError
from fsmount.mount.mountpoint import all_mounts, mounted_at
from fsmount.store import config
from fsmount.work.machine import JOBS, choose_jobs, default_cache_bytes

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Size(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes, with an optional K, M or G (powers of 1024)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes; fail if it is malformed or negative."""
        if isinstance(value, int):
            return value
        text = str(value).upper().removesuffix("IB").removesuffix("B")
        unit = text[-1:] if text[-1:] in _UNITS else ""
        try:
            count = int(float(text.removesuffix(unit)) * _UNITS[unit])
        except (ValueError, OverflowError):
            count = -1
        if count < 0:
            self.fail(f"{value!r} is not a size; write for example 512M", param, ctx)
        return count


store_argument = click.argument("store", envvar="FSMOUNT_STORE", type=click.Path(path_type=Path))
# click completes no argument of a command in a group that has no type.
url_argument = click.argument("url", metavar="URL", type=click.Path())
cache_option = click.option(
    "--cache-size",
    type=Size(),
    default=default_cache_bytes,
    envvar="FSMOUNT_CACHE_SIZE",
    help="Memory for decoded pictures, for example 512M. By default an eighth of the free memory,"
    " 128M to 2G.",
)
jobs_option = click.option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1),
    envvar=JOBS,
    expose_value=False,
    callback=lambda context, _, value: choose_jobs(value) if value else None,
    help="Processes that code and decode. By default as many as cores are free.",
)


def resource_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options for its memory and its processes."""
    return cache_option(jobs_option(command))


force_lock_option = click.option(
    "--force-lock",
    is_flag=True,
    help="Take the store over from a process on another host or in another container that ended"
    " without closing it. Waits 25 s for a sign of life of that process first.",
)
quiet_option = click.option(
    "-q",
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=lambda context, _, value: be_quiet(context) if value else None,
    help="Print warnings and errors only.",
)
verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Name each file on stdout; show no progress."
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead of words."
)


def split_store(paths: Sequence[str], where: int, fewest: int = 1) -> tuple[Path, list[str]]:
    """Split the arguments of a command into the store and the other paths.

    FSMOUNT_STORE may name the store. Then it may be left out of the arguments: a path at its
    position that is neither a store nor a mountpoint of one counts as one of the others.

    Parameters
    ----------
    paths : sequence of str
        The arguments.
    where : int
        Position of the store: 0 (first) or -1 (last).
    fewest : int
        How many other paths the command needs at least.

    Raises
    ------
    UsageError
        If a path or the store is missing.
    """
    others = list(paths)
    store = os.environ.get("FSMOUNT_STORE")
    if others and not (store and (len(others) <= fewest or not _is_store(others[where], where))):
        store = others.pop(where)
    if not store or len(others) < fewest:
        command = click.get_current_context().command_path
        raise UsageError(
            f"a path is missing, or the store (FSMOUNT_STORE may name it); see {command} --help"
        )
    return Path(store), others


def _is_store(path: str, where: int) -> bool:
    """Return whether a path means a store; a mountpoint only where the store comes first.

    At the end it may be one of the sources.
    """
    if where == 0 and mounted_at(Path(path)) in all_mounts():
        return True
    return config.is_store(Path(path))
