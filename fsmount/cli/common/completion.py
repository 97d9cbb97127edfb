"""What a shell offers for the arguments of a command: stores, paths in a store, mountpoints.

The shell asks by running the program (click's `shell completion`), also while the user types. So
nothing here changes a file, waits for a lock or prints an error: if there is no answer, the list is
empty.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from fsmount.mount import mount_table
from fsmount.mount.mountpoint import FSTYPE
from fsmount.store import config
from fsmount.store.index import glance
from fsmount.store.layout import Layout

_MOUNTS = Path("/proc/self/mountinfo")
# More names than anybody reads.
_MOST = 1000


def by_metavar(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Offer what the argument's metavar says, such as ``STORE [PATH]``.

    A word STORE means stores, PATH after it paths in that store, DEST, DIR and FOLDER folders, and
    any other word files. FSMOUNT_STORE may stand for the store, as in :func:`split_store`.
    """
    try:
        return _by_metavar(ctx, param, incomplete)
    except (Exception, SystemExit):
        return []


def mountpoints(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Offer the mountpoints of this program, also those whose process has died."""
    try:
        found = [str(one.mountpoint) for one in mount_table.read(_MOUNTS) if one.fstype == FSTYPE]
    except (OSError, ValueError):
        return []
    if incomplete and not incomplete.startswith(("/", "~")):
        found = [os.path.relpath(path) for path in found]
    elif incomplete.startswith("~/"):
        home = str(Path.home()).rstrip("/")
        found = [f"~{path.removeprefix(home)}" for path in found if path.startswith(home + "/")]
    return _items(path for path in sorted(set(found)) if path.startswith(incomplete))


def _by_metavar(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    words = (param.metavar or str(param.name).upper()).replace("[", "").replace("]", "").split()
    given = ctx.params.get(str(param.name)) or ()
    before = [given] if isinstance(given, str | Path) else list(given)
    store = os.environ.get("FSMOUNT_STORE")
    if words[0] == "STORE" and before and (not store or config.is_store(_path(before[0]))):
        store = str(before[0])
    elif words[0] == "STORE" and store and len(words) > 1:
        words = words[1:]
    word = words[min(len(before), len(words) - 1)].removesuffix("...")
    if word == "STORE" and words[0] == "STORE":
        return _items(_stores(incomplete)) or [CompletionItem(incomplete, type="dir")]
    if word == "PATH" and store:
        return _items(_paths(_path(store), incomplete))
    return [CompletionItem(incomplete, type="dir" if word in ("DEST", "DIR", "FOLDER") else "file")]


def _items(values: Iterator[str]) -> list[CompletionItem[str]]:
    """Values for the shell, which reads one a line."""
    return [CompletionItem(value) for value in values if "\n" not in value]


def _path(text: str | Path) -> Path:
    """A path as the shell would pass it on."""
    return Path(text).expanduser()


def _stores(incomplete: str) -> Iterator[str]:
    """The stores whose path begins so, in one folder."""
    folder, slash, start = incomplete.rpartition("/")
    with os.scandir(_path(folder + slash or ".")) as entries:
        names = sorted(entry.name for entry in entries if entry.name.startswith(start))
    for name in names:
        if config.is_store(_path(folder + slash + name if slash else name)):
            yield folder + slash + name


def _paths(store: Path, incomplete: str) -> Iterator[str]:
    """The paths in a store that begin so; a folder ends in a slash."""
    folder, slash, start = incomplete.rpartition("/")
    index = Layout(store).index
    for name, is_folder in glance(index, os.fsencode(folder), os.fsencode(start), _MOST):
        yield folder + slash + os.fsdecode(name) + ("/" if is_folder else "")
