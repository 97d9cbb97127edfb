"""The log of a process: where it goes, and one line for each message."""

from __future__ import annotations

import copy
import logging
import os
import queue
import signal
import stat
import threading
from contextlib import suppress
from typing import Any

from fsmount.folder import readable
from fsmount.quoting import escaped

_LOG_BYTES = 4 << 20
# Lines that wait for the thread that writes them; later lines are lost, and counted.
_MOST_LINES = 10_000
# How long the end of a process waits for a log that nobody takes.
_END_S = 5.0
# The priorities of syslog, from these levels on.
_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, 0: 7}


def log_to(path: str | None, *, in_thread: bool = False) -> int:
    """Send the log to a file (readable by its owner only), or to stderr; returns the descriptor.

    If the file cannot be written (a store on a read-only disk), the log goes to /dev/null. The
    journal of systemd gets lines with its priorities, and without a time: it has its own.

    `in_thread`: a thread writes the log, so that nobody who logs waits for a disk, a pipe or a
    terminal that takes nothing. :func:`logging.shutdown` waits for the thread, at most _END_S. Only
    SIGKILL or a fault of the process loses the last lines.
    """
    root = logging.getLogger()
    output = _Output(path)
    handler = _ThreadHandler(output) if in_thread else _Handler(output)
    in_journal = path is None and _is_journal(output.descriptor)
    handler.setFormatter(_JournalLines() if in_journal else _Lines())
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    return output.descriptor


class _Output:
    """Takes lines for a file, which is renamed to FILE.1 when it is full, or for stderr (None).

    It has no buffer. `descriptor` stays the same.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self.descriptor = 2
        if path is not None:
            try:
                self.descriptor = _opened(path)
            except OSError:
                self.descriptor = _opened(os.devnull)

    def write(self, line: str) -> None:
        """Write a line. May wait for ever. Raises OSError."""
        data = line.encode(errors="backslashreplace") + b"\n"
        if self._path is not None:
            status = os.fstat(self.descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_size + len(data) > _LOG_BYTES:
                self._rotate(self._path)
        while data:
            data = data[os.write(self.descriptor, data) :]

    def _rotate(self, path: str) -> None:
        os.replace(path, f"{path}.1")
        fresh = _opened(path)
        os.dup2(fresh, self.descriptor, inheritable=False)
        os.close(fresh)

    def close(self) -> None:
        """Close the file; nothing is written any more. May be called twice."""
        if self._path is not None and self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1


def _opened(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


class _Handler(logging.Handler):
    """Writes messages to an output. A message that the output refuses is lost."""

    def __init__(self, output: _Output) -> None:
        super().__init__()
        self.output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
        else:
            self.take(line)

    def take(self, line: str) -> None:
        """Write a line. Raises nothing."""
        with suppress(OSError):
            self.output.write(line)

    def close(self) -> None:
        """Close the output."""
        super().close()
        self.output.close()


class _ThreadHandler(_Handler):
    """Passes lines to a thread that writes them."""

    def __init__(self, output: _Output) -> None:
        super().__init__(output)
        # An event is set when its turn comes; None ends the thread.
        self._lines: queue.SimpleQueue[str | threading.Event | None] = queue.SimpleQueue()
        self._lost = 0
        self._end_s = _END_S
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        # The thread starts with all signals blocked: they are for the main thread.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def take(self, line: str) -> None:
        """Queue a line. Does not wait."""
        if not self._thread.is_alive():
            # The log is closed, or this process was forked: it has no such thread.
            super().take(line)
        elif self._lines.qsize() < _MOST_LINES:
            self._lines.put(line)
        else:
            self._lost += 1

    def _write(self) -> None:
        told = 0
        while (line := self._lines.get()) is not None:
            if isinstance(line, threading.Event):
                line.set()
                continue
            super().take(line)
            if self._lost > told and not self._lines.qsize():
                lost = self._lost
                super().take(self.format(_lost_lines(lost - told)))
                told = lost

    def flush(self) -> None:
        """Wait until all lines so far are written, or the log takes nothing for too long."""
        if self._thread.is_alive():
            written = threading.Event()
            self._lines.put(written)
            if not written.wait(self._end_s):
                # The process waits once.
                self._end_s = 0.0

    def close(self) -> None:
        """Write the lines that are left, and close the output."""
        self._lines.put(None)
        self._thread.join(self._end_s)
        if not self._thread.is_alive():
            super().close()


def _lost_lines(count: int) -> logging.LogRecord:
    message = "%d lines of the log are lost: nothing took them in time"
    return logging.LogRecord(__name__, logging.WARNING, "", 0, message, (count,), None)


class _Lines(logging.Formatter):
    """Writes one line for each message, also if names with line feeds are in it.

    Lines of a traceback are indented.
    """

    def __init__(self, form: str = "%(asctime)s %(levelname)s %(name)s: %(message)s") -> None:
        super().__init__(form)

    def format(self, record: logging.LogRecord) -> str:
        """The message. The traceback is formatted anew: another handler may have cached its own."""
        record = copy.copy(record)
        record.exc_text = None
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line."""
        return escaped(readable(super().formatMessage(record)))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """The traceback."""
        lines = readable(super().formatException(ei)).split("\n")
        return "\n".join(f"  {escaped(line)}" for line in lines)


class _JournalLines(_Lines):
    """Writes lines as sd-daemon(3) wants them: each begins with its priority, such as ``<3>``."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The message; each of its lines has the priority."""
        lines = super().format(record).split("\n")
        level = next(level for level in _PRIORITIES if record.levelno >= level)
        return "\n".join(f"<{_PRIORITIES[level]}>{line}" for line in lines)


def _is_journal(descriptor: int) -> bool:
    """Whether what is written there reaches the journal: systemd.exec(5), JOURNAL_STREAM."""
    status = os.fstat(descriptor)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
