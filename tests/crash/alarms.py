"""What a store reports as an error, in a run in which the disk does all it should.

Where nothing is lost the files do not tell that something went wrong: a commit that fails for a
bug of ours is simply tried again.
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
    """The errors that are reported in the block; the list grows."""
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
