"""Durability points: what programs wrote survives a power cut a few seconds later without fsync.

A durability point forces staged files before the index. So after a power cut no row shows bytes
that the disk does not have. Then it removes the staged files that no row names any more.
"""

from __future__ import annotations

import logging

import trio

from fsmount import threads
from fsmount.errors import FsmountError
from fsmount.store.disk.reserve import Reserve
from fsmount.store.index import Index
from fsmount.store.ingest.queue import Queue
from fsmount.store.packs.staging import Staging
from fsmount.store.packs.writer import Writer
from fsmount.threads import Kind

_log = logging.getLogger(__name__)

# A write that was acknowledged without fsync survives a power cut after this long.
DURABLE_SECONDS = 5.0


class DurabilityPoints:
    """Reaches a durability point every DURABLE_SECONDS; see the module.

    queue : tells which files have a writer.
    writer : forces the index, and removes discarded files.

    Contract: belongs to the trio task. Methods that are not `async` do not await.
    """

    def __init__(
        self, index: Index, staging: Staging, queue: Queue, writer: Writer, reserve: Reserve
    ) -> None:
        self._index = index
        self._staging = staging
        self._queue = queue
        self._writer = writer
        self._reserve = reserve
        # Files that were closed since the last point, by inode number.
        self._closed: set[int] = set()
        # Set when the next point must not wait.
        self._hurry = trio.Event()

    def add(self, ino: int) -> None:
        """Note that the last writer has closed a file: the next point forces it."""
        self._closed.add(ino)

    def discard(self, token: int) -> None:
        """Remove a staged file that no row names any more, once that is durable."""
        self._writer.discard(token)
        if self._reserve.is_spent:
            # A writer waits for the space that this gives.
            self._hurry.set()

    async def run(self) -> None:
        """Reach durability points, until cancelled.

        One comes after each DURABLE_SECONDS, or at once if a discarded file gives space to a full
        disk. Fills the reserve again each time. Logs failures, and tries again at the next point.
        """
        while True:
            with trio.move_on_after(DURABLE_SECONDS):
                await self._hurry.wait()
            self._hurry = trio.Event()
            touched, self._closed = self._closed | set(self._queue.held()), set()
            try:
                self._reserve.want(self._writer.packs.largest)
                await threads.call(Kind.FREE_SPACE, self._reserve.fill)
                if not (touched or self._index.dirty or self._writer.has_discarded()):
                    continue
                await threads.call(Kind.FORCE, self._force_staged, self._tokens(touched))
                await self._writer.settle()
            except (OSError, FsmountError) as error:
                self._closed |= touched
                _log.error("a durability point failed: %s", error)

    def _tokens(self, inodes: set[int]) -> dict[int, bytes]:
        """Map the tokens of the staged files of some inodes to their paths."""
        tokens = {}
        for ino in inodes:
            try:
                token = self._index.inode(ino).staged
            except FsmountError:
                continue
            if token is not None:
                tokens[token] = self._index.path(ino)
        return tokens

    def _force_staged(self, tokens: dict[int, bytes]) -> None:
        """Force staged files to the disk. Runs in a thread.

        A file that fails does not stop the others: it is logged. Raises OSError if a file cannot be
        opened.
        """
        for token, path in tokens.items():
            if self._staging.has_failed(token):
                continue
            try:
                self._staging.force_by_name(token)
            except FileNotFoundError:
                continue
            except OSError as error:
                if not self._staging.has_failed(token):
                    raise
                _log.error("%r may have lost bytes: forcing it to the disk failed: %s", path, error)
