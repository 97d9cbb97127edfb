"""When a file that was not encoded is tried again.

Contract: everything here belongs to the trio task; only :meth:`Retries._later` awaits.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import groupby

import trio

from fsmount.store.ingest.claims import Claims
from fsmount.store.ingest.queue import Queue

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0


class Retries:
    """Queues files again: at once, or after a while if they have failed.

    `nursery` has the tasks that wait.
    """

    def __init__(self, queue: Queue, claims: Claims, nursery: trio.Nursery) -> None:
        self._queue = queue
        self._claims = claims
        self._nursery = nursery
        self._resting: set[int] = set()

    def resting(self) -> int:
        """Number of files that wait for their next try."""
        return len(self._resting)

    def failed(self, ino: int, error: Exception) -> None:
        """Count and log a failure. The file stays staged."""
        unforeseen = None if isinstance(error, OSError) else error
        _log.warning("encoding inode %d: %s; it stays staged", ino, error, exc_info=unforeseen)
        self._queue.failed(ino)

    def again(self, inos: Iterable[int]) -> None:
        """Queue files that were under way, those that have failed after a while. Does not await.

        The order of files with equal failures is kept.
        """
        failures = self._queue.failures
        for count, group in groupby(sorted(inos, key=failures), failures):
            some = list(group)
            if count:
                self._wait(some)
            else:
                self.at_once(some)

    def at_once(self, inos: Iterable[int]) -> None:
        """Queue files that were under way, if they still have a staged body.

        Does not await, so that none overtakes the one before it. Raises nothing.
        """
        self._wait(self._requeue(inos))

    def later(self, ino: int) -> None:
        """Queue a file that has failed, after 5 s for each of its failures."""
        self._wait([ino])

    def _wait(self, inos: list[int]) -> None:
        if inos:
            # Before the task runs: the committer asks next whether more files join its batch.
            self._resting.update(inos)
            self._queue.notify()
            self._nursery.start_soon(self._later, inos)

    async def _later(self, inos: list[int]) -> None:
        while inos:
            await trio.sleep(_RETRY_SECONDS * max(map(self._queue.failures, inos)))
            self._resting.difference_update(inos)
            inos = self._requeue(inos)
            self._resting.update(inos)

    def _requeue(self, inos: Iterable[int]) -> list[int]:
        """Queue files; returns those whose rows cannot be read now, after counting a failure.

        An exception would end the encoding of all files, so there is none.
        """
        left = []
        for ino in inos:
            spoilt = self._queue.leave(ino)
            try:
                if self._claims.token(ino) is not None:
                    self._queue.put(ino)
                else:
                    # The number may soon belong to another file.
                    self._queue.forgive(ino)
            except Exception as error:
                self.failed(ino, error)
                self._queue.back(ino, spoilt)
                left.append(ino)
        self._queue.notify()
        return left
