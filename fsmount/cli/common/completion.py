"""What a shell offers for the arguments of a command: stores, paths in a store, mountpoints.

The shell asks by running the program (click's `shell completion`), also while the user types. So
nothing here changes a file, waits for a lock or prints an error: if there is no answer, the list is
empty.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
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


class Argument(click.ParamType):  # type: ignore[type-arg]
    """Completes an argument by its metavar, such as ``STORE [PATH]``.

    A word STORE means stores, PATH after it paths in that store, DEST, DIR and FOLDER folders, and
    any other word files. FSMOUNT_STORE may stand for the store, as in :func:`split_store`. DIR of
    ``umount`` is a mountpoint.
    """

    name = "argument"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """Return what may stand there; nothing if that cannot be found out."""
        try:
            if ctx.command.name == "umount":
                return _items(_mountpoints(incomplete))
            return _by_metavar(ctx, param, incomplete)
        except (Exception, SystemExit):
            return []


def prepare(group: click.Group, words: Sequence[str]) -> None:
    """Let :class:`Argument` complete the arguments of the command that a command line begins with.

    Commands need no word about completion, then. Those of a group inside have types of click's.
    """
    named = [word for word in words if not word.startswith("-")]
    command = group.get_command(click.Context(group), named[0]) if named else None
    if command is not None and not isinstance(command, click.Group):
        for parameter in command.params:
            if isinstance(parameter, click.Argument):
                parameter.type = Argument()


def _mountpoints(incomplete: str) -> Iterator[str]:
    """The mountpoints of this program that begin so, also those whose process has died."""
    found = {str(one.mountpoint) for one in mount_table.read(_MOUNTS) if one.fstype == FSTYPE}
    home = str(Path.home()).rstrip("/")
    for path in sorted(found):
        written = path
        if incomplete.startswith("~/") and path.startswith(home + "/"):
            written = f"~{path.removeprefix(home)}"
        elif incomplete and not incomplete.startswith(("/", "~")):
            written = os.path.relpath(path)
        if written.startswith(incomplete):
            yield written


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
