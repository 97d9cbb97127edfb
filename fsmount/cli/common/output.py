r"""Output of commands: results to stdout (words or JSON), warnings to stderr.

A name is printed unchanged to pipes and files. On a terminal it is quoted if it holds characters
that would control the terminal (:mod:`fsmount.quoting`). JSON is ASCII; a byte of a name that is
not UTF-8 is written as the escape of a lone surrogate, ``\udc80`` to ``\udcff`` (PEP 383).
"""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TextIO

import click

from fsmount.quoting import escaped, quoted

VERSION = 1
SOME_SKIPPED = 3
_VERBATIM = "fsmount.verbatim"
_QUIET = "fsmount.quiet"
_INTERRUPTED = "fsmount.interrupted"


def be_quiet(context: click.Context) -> None:
    """Let a command print no results in words, and show no progress."""
    context.meta[_QUIET] = True


def is_quiet() -> bool:
    """Return whether the running command was told to be quiet."""
    context = click.get_current_context(silent=True)
    return context is not None and _QUIET in context.meta


def when_interrupted(text: Callable[[], str]) -> None:
    """Let the running command print this if the user interrupts it with Ctrl-C."""
    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta[_INTERRUPTED] = text


def interruption(context: click.Context) -> str:
    """Return what the command told :func:`when_interrupted`, else ""."""
    text: Callable[[], str] = context.meta.get(_INTERRUPTED, str)
    return text()


def say_path(path: bytes) -> None:
    """Print a path to stdout, if somebody reads it: the work goes on without a reader."""
    with suppress(BrokenPipeError):
        say(printable(path))


def emit(data: dict[str, Any], text: str, as_json: bool) -> None:
    """Print the result of a command.

    Parameters
    ----------
    data : dict
        The result for JSON; a field ``version`` is added.
    text : str
        The result in words, of one line or several; names in it are quoted already.
    as_json : bool
        Whether to print ``data`` instead of ``text``. A quiet command prints no text.
    """
    if as_json:
        say(json.dumps({"version": VERSION, **data}))
        return
    if is_quiet():
        return
    for line in text.split("\n"):
        say(line)


def warn(text: str) -> None:
    """Print a warning to stderr."""
    say(text, err=True)


def printable(path: str | bytes | os.PathLike[str], *, err: bool = False) -> str:
    """Return a name or path as it is printed to stdout, or to stderr if ``err``."""
    text = os.fsdecode(path)
    stream = sys.stderr if err else sys.stdout
    return quoted(text) if stream is not None and stream.isatty() else text


def print_verbatim(stream: TextIO | None) -> None:
    """Let a stream print names that are not UTF-8 as they are."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=_VERBATIM)


def _as_it_is(error: UnicodeError) -> tuple[str | bytes, int]:
    """Encode an escaped byte of a name as that byte, another character as a backslash escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    code = ord(error.object[error.start])
    if 0xDC80 <= code <= 0xDCFF:
        return bytes([code - 0xDC00]), error.start + 1
    one = UnicodeEncodeError(
        error.encoding, error.object, error.start, error.start + 1, error.reason
    )
    return codecs.backslashreplace_errors(one)


codecs.register_error(_VERBATIM, _as_it_is)


def say(line: str, *, err: bool = False) -> None:
    """Print a line to stdout, or to stderr if ``err``."""
    stream = sys.stderr if err else sys.stdout
    if stream is not None:
        # click.echo would delete escape sequences from names in a pipe.
        print(escaped(line) if stream.isatty() else line, file=stream, flush=True)


def list_problems(found: Sequence[tuple[str, str]]) -> None:
    """Print (path, reason) pairs to stderr."""
    listing([f"{printable(path, err=True)}: {why}" for path, why in found])


def list_skipped(found: Sequence[tuple[str, str]], heading: str, as_json: bool) -> int:
    """Print a heading and the (path, reason) pairs of files that a command left out.

    Prints nothing if there are none, or if the command prints JSON. Returns the exit code of the
    command.
    """
    if found and not as_json:
        warn(heading)
        list_problems(found)
    return SOME_SKIPPED if found else 0


def listing(lines: Sequence[str], most: int = 20) -> None:
    """Print the first ``most`` of many lines to stderr."""
    for line in lines[:most]:
        warn(f"  {line}")
    if len(lines) > most:
        warn(f"  … and {len(lines) - most} more (--json lists all)")


def counted(count: int, noun: str) -> str:
    """Return a number with a regular noun: "1 file", "2 files"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def times_smaller(whole: int, stored: int) -> str:
    """Return how much smaller files are in a store, with a comma before; "" if they are not."""
    if not stored or whole < 1.05 * stored:
        return ""
    return f", {whole / stored:.1f} times smaller"


def size(count: float) -> str:
    """Return a size in bytes for people, in powers of 1000 like ``ls --si``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Return a duration in words."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
