"""The command group, and how an error becomes one sentence and an exit code."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import click

from fsmount import __version__
from fsmount.cli.common import streams
from fsmount.cli.common.output import interruption, print_verbatim, printable, say
from fsmount.errors import Damaged, FsmountError
from fsmount.folder import readable

# Command -> (module of this package, name in that module).
_COMMANDS = {
    "init": ("init", "init"),
    "mount": ("mount", "mount"),
    "umount": ("umount", "umount"),
    "mounts": ("mounts", "mounts"),
    "setup": ("setup", "setup"),
    "estimate": ("estimate", "estimate_"),
    "import": ("import_", "import_"),
    "adopt": ("adopt", "adopt_"),
    "export": ("export", "export"),
    "verify": ("verify", "verify"),
    "backup": ("backup", "backup"),
    "copy": ("copy", "copy"),
    "push": ("push", "push_"),
    "pull": ("pull", "pull_"),
    "evict": ("evict", "evict_"),
    "thaw": ("thaw", "thaw_"),
    "key": ("key", "key"),
    "ls": ("ls", "ls"),
    "cat": ("cat", "cat"),
    "runs": ("runs", "runs"),
    "diff": ("diff", "diff"),
    "thumbs": ("thumbs", "thumbs"),
    "video": ("video", "video"),
    "text": ("text", "text"),
    "search": ("search", "search"),
    "exclude": ("exclude", "exclude"),
    "serve": ("serve", "serve"),
    "stats": ("stats", "stats"),
    "check": ("check", "check"),
    "prune": ("prune", "prune"),
    "trash": ("trash", "trash"),
    "policy": ("policy", "policy"),
    "repack": ("repack", "repack"),
    "album": ("album", "album"),
}
# Other names of commands. The list of commands leaves them out.
_ALIASES = {"unmount": "umount"}
# The command for mount(8). The list of commands does not have it.
_HELPER = "mount.fsmount"
_HELPER_MODULE = ("mount_helper", "mount_helper")
_HELPER_NAMES = (_HELPER, "mount.fuse.fsmount")
_USAGE, _INTERRUPTED = 2, 130
# Exit codes of mount(8) for ours. Any other error is "mount failure".
_MOUNT_CODES = {0: 0, _USAGE: 1, _INTERRUPTED: 8}
_MOUNT_FAILED = 32


class _Commands(click.Group):
    """Imports a command's module when needed: importing all takes as long as a short command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order in which people come to need them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a name, or None."""
        cmd_name = _ALIASES.get(cmd_name, cmd_name)
        found = _HELPER_MODULE if cmd_name == _HELPER else _COMMANDS.get(cmd_name)
        if found is None:
            return None
        module, name = found
        command = getattr(importlib.import_module(f"fsmount.cli.{module}"), name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; if it is interrupted, tell what it has done and how to go on."""
        try:
            return super().invoke(ctx)
        except BaseException as error:
            if isinstance(_first(error), KeyboardInterrupt) and (text := interruption(ctx)):
                say(f"fsmount: {text}", err=True)
            raise


_HELP = """\
Keep a folder of screenshots many times smaller, and see it as the same PNG files.

\b
Exit codes: 0 ok, 1 error, 2 usage, 3 some files skipped or kept raw with a warning,
10 no store there, 11 store locked, 12 mountpoint unusable, 13 FUSE not available,
14 unmounted but still in use elsewhere, 20 damage found, 30 format not supported.
A command whose output cannot be written (a closed stdout, a full disk) does its work and ends
with 1 instead of 0.

A name is printed unchanged to pipes and files. On a terminal a name with control characters is
quoted, as by ls. In JSON a byte that is not UTF-8 is written as \\udc80 to \\udcff.

Environment: FSMOUNT_STORE (the store, if the arguments do not name one), FSMOUNT_CACHE_SIZE,
FSMOUNT_JOBS, FSMOUNT_LOG (a file for the log; without it a mount logs to STORE/mount.log),
NO_COLOR.
"""


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, help=_HELP)
@click.version_option(__version__, prog_name="fsmount")
def group() -> None:
    """Run a command of ``fsmount``."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the code of the command or of its error.

    `arguments` are those of the process by default. Then mount(8) may have called it.
    """
    words = _words(sys.argv) if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        print_verbatim(stream)
    try:
        code = group.main(words, prog_name="fsmount", standalone_mode=False)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.Abort:
        code = _INTERRUPTED
    except click.ClickException as error:
        _show(error)
        code = error.exit_code
    except BaseException as error:
        code = _report(error)
    code = code if isinstance(code, int) else 0
    unwritten = streams.finish()
    if unwritten is not None:
        output_code = _report(unwritten)
        code = code or output_code
    sys.exit(_MOUNT_CODES.get(code, _MOUNT_FAILED) if words[:1] == [_HELPER] else code)


def _words(argv: Sequence[str]) -> list[str]:
    """Return the arguments, with the name of the helper first if mount(8) runs this program.

    mount(8) looks for ``/sbin/mount.fsmount`` or ``/sbin/mount.fuse.fsmount``: links to this
    program. Without the latter it runs ``/sbin/mount.fuse`` of libfuse, which runs ``fsmount SOURCE
    DIR -o OPTIONS``. No other command line of fsmount begins with a path or a URL.
    """
    program, *words = argv
    by_fuse = len(words) == 4 and words[2] == "-o"
    by_fuse = by_fuse and (words[0].startswith("/") or "://" in words[0])
    return [_HELPER, *words] if by_fuse or Path(program).name in _HELPER_NAMES else words


def _show(error: click.ClickException) -> None:
    """Print click's message about a wrong command line, with its names quoted."""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        # Otherwise click deletes escape sequences from the names.
        error.ctx.color = True
    text = io.StringIO()
    error.show(text)
    for line in text.getvalue().removesuffix("\n").split("\n"):
        say(line, err=True)


def _first(error: BaseException) -> BaseException:
    """Return the first error inside the exception groups of nurseries."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _report(error: BaseException) -> int:
    """Print an error as one sentence and return its exit code; raise it if it is not expected."""
    error = _first(error)
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    if isinstance(error, apsw.Error):
        error = Damaged("the store's index.sqlite", reason=error)
    if isinstance(error, FsmountError):
        say(f"fsmount: {error.text(_name)}", err=True)
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        # The reader of the pipe has ended, as in `fsmount ls | head`.
        return 1
    if isinstance(error, OSError) and error.errno is not None:
        where = "" if error.filename is None else f"{_name(error.filename)}: "
        say(f"fsmount: {where}{error.strerror}", err=True)
        return 1
    raise error


def _name(path: str | bytes) -> str:
    """Return a path as messages print it."""
    return printable(readable(os.fsdecode(path)), err=True)
