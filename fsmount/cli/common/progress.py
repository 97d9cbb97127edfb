"""Progress bars on stderr, only on a terminal, and not in a quiet command."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from fsmount.cli.common.output import counted, is_quiet, when_interrupted


class Meter:
    """Updates a progress bar: call it with (files, bytes) done since the last call."""

    def __init__(self, progress: Progress, files: int, total_bytes: int, noun: str) -> None:
        self._progress = progress
        # A bar over bytes if their number is known, else over files.
        self._by_bytes = bool(total_bytes)
        self._noun = noun
        self._files = files
        self._done = 0
        self._start = time.monotonic()
        total = total_bytes if self._by_bytes else files
        self._task = progress.add_task("", total=total or None, files=self._shown())

    def __call__(self, files: int, count: int) -> None:
        """Advance the bar by ``files`` and by ``count`` bytes."""
        self._done += files
        step = count if self._by_bytes else files
        self._progress.update(self._task, advance=step, files=self._shown())

    @property
    def done(self) -> str:
        """How many files are done of how many."""
        of_all = f"/{self._files}" if self._files else ""
        return f"{self._done}{of_all} {self._noun}"

    def _shown(self) -> str:
        """Return the same with the rate."""
        passed = time.monotonic() - self._start
        rate = f" ({self._done / passed:.1f}/s)" if self._done and passed > 1 else ""
        return self.done + rate


def _bar(title: str, *columns: ProgressColumn, hidden: bool = False) -> Progress:
    """Return a progress bar with some columns between the bar and the time left."""
    shown = sys.stderr is not None and sys.stderr.isatty() and not hidden and not is_quiet()
    return Progress(
        TextColumn(title),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not shown,
        transient=True,
    )


@contextmanager
def meter(
    title: str,
    files: int,
    total_bytes: int,
    *,
    noun: str = "files",
    hidden: bool = False,
    stopped: str = "",
) -> Iterator[Meter]:
    """Show a progress bar over files and bytes, with the rate and the remaining time.

    Parameters
    ----------
    title : str
        What the command is doing.
    files : int
        Number of files; 0 if unknown.
    total_bytes : int
        Their bytes; 0 if unknown.
    noun : str
        What is counted, in the plural.
    hidden : bool
        Whether to show nothing: the command prints names instead.
    stopped : str
        What to tell after how far it came, if the user interrupts the command.
    """
    columns: list[ProgressColumn] = [TextColumn("{task.fields[files]}")]
    if total_bytes:
        columns.append(DownloadColumn())
    with _bar(title, *columns, hidden=hidden) as progress:
        shown = Meter(progress, files, total_bytes, noun)
        if stopped:
            when_interrupted(lambda: f"stopped after {shown.done}. {stopped}")
        yield shown


@contextmanager
def clock(
    title: str, seconds: float, *, noun: str, stopped: str
) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar over the time that a command takes at most; call it as a :class:`Meter`.

    Parameters
    ----------
    title, noun, stopped : str
        As those of :func:`meter`.
    seconds : float
        The time.
    """
    with _bar(title, TextColumn("{task.fields[files]}")) as progress:
        start = time.monotonic()
        done = 0
        task = progress.add_task("", total=seconds, files=f"0 {noun}")

        def step(files: int, _: int) -> None:
            nonlocal done
            done += files
            passed = min(time.monotonic() - start, seconds)
            progress.update(task, completed=passed, files=f"{done} {noun}")

        when_interrupted(lambda: f"stopped after {done} {noun}. {stopped}")
        yield step


@contextmanager
def countdown(title: str, stopped: Callable[[], str]) -> Iterator[Any]:
    """Show a progress bar for a number that falls to zero; call the result with the number.

    The largest number counts as the whole. If the user interrupts the command, it prints the number
    that is left, if it knows that number, and the text that `stopped` returns.
    """
    with _bar(title, MofNCompleteColumn()) as progress:
        task = progress.add_task("", total=None)
        most = now = 0

        def told() -> str:
            number = f"; {counted(now, 'file')} still to be encoded" if now else ""
            return f"stopped{number}. {stopped()}"

        when_interrupted(told)

        def left(count: int) -> None:
            nonlocal most, now
            most, now = max(most, count), count
            progress.update(task, total=most, completed=most - count)

        yield left
