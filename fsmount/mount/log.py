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


def log_to(path: str | None) -> int:
    """Send the log to a file (readable by its owner only), or to stderr; returns the descriptor.

    If the file cannot be written (a store on a read-only disk), the log goes to /dev/null.
    """
    root = logging.getLogger()
    handler: logging.StreamHandler[Any]
    handler = logging.StreamHandler() if path is None else _file_handler(path)
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    return int(handler.stream.fileno())


class _Lines(logging.Formatter):
    """Writes one line for each message, also if names with line feeds are in it.

    Lines of a traceback are indented.
    """

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


def _file_handler(path: str) -> logging.StreamHandler[Any]:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return logging.handlers.RotatingFileHandler(
            path, maxBytes=_LOG_BYTES, backupCount=1, errors="backslashreplace"
        )
    except OSError:
        return logging.FileHandler(os.devnull)
