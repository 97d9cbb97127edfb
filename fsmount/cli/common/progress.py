"""Progress bars on stderr, only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


class Meter:
    """Updates a progress bar: call it with (files, bytes) done since the last call."""

    def __init__(self, progress: Progress, files: int, total_bytes: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total_bytes or None, files=f"0/{files}")
        self._files = files
        self._done = 0

    def __call__(self, files: int, count: int) -> None:
        """Advance the bar by ``files`` and by ``count`` bytes."""
        self._done += files
        shown = f"{self._done}/{self._files}"
        self._progress.update(self._task, advance=count, files=shown)


@contextmanager
def meter(title: str, files: int, total_bytes: int) -> Iterator[Meter]:
    """Show a progress bar over files and bytes, with the remaining time.

    Parameters
    ----------
    title : str
        What the command is doing.
    files : int
        Number of files.
    total_bytes : int
        Their bytes; 0 if unknown.
    """
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
    """Show a progress bar for a number that falls to zero; call the result with the number.

    The largest number counts as the whole.
    """
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
