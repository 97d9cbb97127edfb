"""Collects the errors that a store logs during a run on a disk without faults.

The files alone do not show such errors, because nothing is lost: if a bug of ours makes a commit
fail, the store simply tries it again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        self.messages.append(record.getMessage() + (f" ({cause!r})" if cause else ""))


@contextmanager
def alarms() -> Iterator[list[str]]:
    """Collect the errors that are logged in the block; the list grows."""
    collector = _Collector()
    logger = logging.getLogger("fsmount")
    silent, propagate = logging.root.manager.disable, logger.propagate
    logging.disable(logging.NOTSET)
    logger.addHandler(collector)
    logger.propagate = False
    try:
        yield collector.messages
    finally:
        logger.propagate = propagate
        logger.removeHandler(collector)
        logging.disable(silent)
