"""How commands speak: results to stdout (words or JSON), progress and warnings to stderr.

Names go verbatim into pipes and files. On a terminal they are quoted where they hold characters
that would control it (:mod:`fsmount.quoting`). JSON is ASCII; a byte of a name that is not UTF-8
stands there as the escape of a lone surrogate, from ``\\udc80`` to ``\\udcff``.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from fsmount.quoting import escaped, quoted

VERSION = 1
SOME_SKIPPED = 3
_VERBATIM = "fsmount.verbatim"

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead of words."
)


def emit(data: dict[str, Any], text: str, as_json: bool) -> None:
    """The result of a command; names in `text`, which may have several lines, are quoted."""
    if as_json:
        say(json.dumps({"version": VERSION, **data}))
        return
    for line in text.split("\n"):
        say(line)


def warn(text: str) -> None:
    """Something the user should know that is no result."""
    say(text, err=True)


def printable(path: str | bytes | os.PathLike[str], *, err: bool = False) -> str:
    """A name or path as it is printed to stdout, or to stderr."""
    text = os.fsdecode(path)
    stream = sys.stderr if err else sys.stdout
    return quoted(text) if stream is not None and stream.isatty() else text


def print_verbatim(stream: TextIO | None) -> None:
    """Let names that are not UTF-8 go to a stream as they are."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=_VERBATIM)


def _as_it_is(error: UnicodeError) -> tuple[str | bytes, int]:
    """The byte that an escaped byte of a name stands for, or a backslash escape."""
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
    """Print a line to stdout, or to stderr."""
    stream = sys.stderr if err else sys.stdout
    if stream is not None:
        # click.echo would take escape sequences out of names in a pipe.
        print(escaped(line) if stream.isatty() else line, file=stream, flush=True)


def problems(found: Sequence[tuple[str, str]]) -> None:
    """List what was left out or differs: (path, why)."""
    listing([f"{printable(path, err=True)}: {why}" for path, why in found])


def listing(lines: Sequence[str], most: int = 20) -> None:
    """The first few of many lines."""
    for line in lines[:most]:
        warn(f"  {line}")
    if len(lines) > most:
        warn(f"  … and {len(lines) - most} more (--json lists all)")


def counted(count: int, noun: str) -> str:
    """A number and a regular noun: "1 file", "2 files"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def size(count: float) -> str:
    """Bytes for people, in powers of 1000 as disks and `ls --si` count."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


class Meter:
    """Progress on a terminal; silent elsewhere."""

    def __init__(self, progress: Progress, files: int, total_bytes: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total_bytes or None, files=f"0/{files}")
        self._files = files
        self._done = 0

    def __call__(self, files: int, count: int) -> None:
        self._done += files
        shown = f"{self._done}/{self._files}"
        self._progress.update(self._task, advance=count, files=shown)


@contextmanager
def meter(title: str, files: int, total_bytes: int) -> Iterator[Meter]:
    """A progress bar over files and bytes with the time that is left."""
    console = Console(stderr=True)
    with Progress(
        TextColumn(title),
        BarColumn(),
        TextColumn("{task.fields[files]} files"),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not sys.stderr.isatty(),
        transient=True,
    ) as progress:
        yield Meter(progress, files, total_bytes)


@contextmanager
def countdown(title: str) -> Iterator[Any]:
    """A progress bar that is told how much is left; its greatest value is the whole."""
    console = Console(stderr=True)
    with Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not sys.stderr.isatty(),
        transient=True,
    ) as progress:
        task = progress.add_task("", total=None)
        most = 0

        def left(count: int) -> None:
            nonlocal most
            most = max(most, count)
            progress.update(task, total=most, completed=most - count)

        yield left
