"""Options of commands that open a URL: what opens it if it is encrypted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from fsmount.errors import KeyRefused
from fsmount.remote.encryption import passphrases
from fsmount.remote.encryption.seen import seen_at
from fsmount.remote.opening import Unlock

_Command = TypeVar("_Command", bound=Callable[..., Any])
_IDENTITY = "fsmount.identity"
_PASSPHRASE_FILE = "fsmount.passphrase_file"

UNLOCK_HELP = """\
An encrypted URL opens with a secret key of age or ssh (--identity, or FSMOUNT_IDENTITY), or with a
passphrase: the first line of --passphrase-file, or what the command in FSMOUNT_PASSCOMMAND prints,
or what you type."""


def unlock_options(command: _Command) -> _Command:
    """Give a command the options; :func:`unlock` returns what they say."""
    for name, key, text in (
        ("--passphrase-file", _PASSPHRASE_FILE, "A file whose first line is the passphrase."),
        ("--identity", _IDENTITY, "A secret key of age or ssh, which opens an encrypted URL."),
    ):
        command = click.option(
            name,
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            expose_value=False,
            callback=_keeper(key),
            help=text,
        )(command)
    return command


def _keeper(key: str) -> Callable[[click.Context, click.Parameter, Path | None], None]:
    def keep(context: click.Context, _: click.Parameter, value: Path | None) -> None:
        context.meta[key] = value

    return keep


def unlock() -> Unlock:
    """Return what opens an encrypted URL for the running command."""
    meta = click.get_current_context().meta
    identity: Path | None = meta.get(_IDENTITY)
    file: Path | None = meta.get(_PASSPHRASE_FILE)
    named = os.environ.get("FSMOUNT_IDENTITY")
    chosen = identity
    if identity is None and named and file is None:
        chosen = Path(named)
    return Unlock(chosen, passphrase, identity is not None or file is not None)


def unlock_in_background(url: str) -> Unlock:
    """Return what opens an encrypted URL for a process without a terminal.

    If a passphrase is needed and must be typed, it is typed now. No network is asked whether that
    is so: only what this machine has noted of the URL. Raises :class:`UsageError`, OSError.
    """
    found = unlock()
    typed = _given()
    if typed is None and found.identity is None and seen_at(url) is not None:
        typed = passphrase(url)

    def known(what: str) -> str:
        if typed is None:
            why = (
                "name its key or passphrase: FSMOUNT_IDENTITY, FSMOUNT_PASSCOMMAND, --identity or"
                " --passphrase-file"
            )
            raise KeyRefused(what, reason=why)
        return typed

    return replace(found, passphrase=known)


def passphrase(what: str) -> str:
    """Return the passphrase for a URL or file: from the options, by the command, or typed.

    Raises :class:`KeyRefused`, :class:`UsageError`, OSError.
    """
    return _given() or _typed(f"Passphrase of {what}", what, is_new=False)


def first_passphrase(what: str) -> str:
    """Return the passphrase for a URL that is encrypted from now on; typed twice.

    Raises :class:`KeyRefused`, :class:`UsageError`, OSError.
    """
    return _given() or new_passphrase(what)


def new_passphrase(what: str) -> str:
    """Let somebody type a new passphrase, twice. Raises :class:`KeyRefused`."""
    return _typed(f"New passphrase for {what}", what, is_new=True)


def _given() -> str | None:
    file: Path | None = click.get_current_context().meta.get(_PASSPHRASE_FILE)
    return passphrases.from_file(file) if file is not None else passphrases.from_command()


def _typed(prompt: str, what: str, *, is_new: bool) -> str:
    if sys.stdin is None or not sys.stdin.isatty():
        why = "nobody can type a passphrase here: use FSMOUNT_PASSCOMMAND or --passphrase-file"
        raise KeyRefused(what, reason=why)
    typed = click.prompt(prompt, hide_input=True, confirmation_prompt=is_new, err=True)
    assert isinstance(typed, str)
    return typed
