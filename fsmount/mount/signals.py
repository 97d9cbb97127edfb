"""Signals of a process that serves a mount.

- TERM, INT, HUP, QUIT and XCPU end it: it unmounts and closes the store. HUP does nothing if it was
  ignored when the process started (nohup).
- USR1, USR2, timers and the like do nothing. By default they would kill the process.
- Signals of a fault of the process (SEGV, BUS, ABRT, …), KILL and the signals of job control keep
  their meaning.

Until the filesystem is mounted the first kind keeps its default: it ends the process at once.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import trio

from fsmount.work.worker_process import IGNORED

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU)


class EndSignals:
    """Catches the signals that end a mount, until the process or :func:`restored` ends."""

    def __init__(self) -> None:
        """Must be called in the trio thread, which must be the main thread."""
        self._arrived = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._name = ""
        for number in ENDING:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._name = self._name or signal.Signals(number).name
        # The store may be closed already, in the last moments of the process.
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._arrived.set, idempotent=True)

    async def first(self) -> str:
        """Wait for a signal; its name."""
        await self._arrived.wait()
        return self._name


def ignore() -> None:
    """Ignore the signals that should not end this process; processes it starts inherit that."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def restored() -> Iterator[None]:
    """Restore the handlers of all these signals at the end of the context."""
    before = {number: signal.getsignal(number) for number in (*ENDING, *IGNORED)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: not set by Python
                signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Block the signals that end a mount during the context, also in programs started in it.

    fusermount3 is one: it must not end between the mount and its report.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
