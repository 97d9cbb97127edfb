"""The log of a process: where it goes, and one line for each message."""

from __future__ import annotations

import copy
import logging
import logging.handlers
import os
from typing import Any

from fsmount.folder import readable
from fsmount.quoting import escaped

_LOG_BYTES = 4 << 20
# The priorities of syslog, from these levels on.
_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, 0: 7}


def log_to(path: str | None) -> int:
    """Send the log to a file (readable by its owner only), or to stderr; returns the descriptor.

    If the file cannot be written (a store on a read-only disk), the log goes to /dev/null. The
    journal of systemd gets lines with its priorities, and without a time: it has its own.
    """
    root = logging.getLogger()
    handler: logging.StreamHandler[Any]
    handler = logging.StreamHandler() if path is None else _file_handler(path)
    in_journal = path is None and _is_journal(handler.stream.fileno())
    handler.setFormatter(_JournalLines() if in_journal else _Lines())
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    return int(handler.stream.fileno())


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


def _file_handler(path: str) -> logging.StreamHandler[Any]:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return logging.handlers.RotatingFileHandler(
            path, maxBytes=_LOG_BYTES, backupCount=1, errors="backslashreplace"
        )
    except OSError:
        return logging.FileHandler(os.devnull)
