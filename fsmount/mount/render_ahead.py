"""Rendering ahead: renders the next files of a reader that goes through a folder in name order."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from fsmount.store.index import Index

_log = logging.getLogger(__name__)

# Number of files rendered ahead of a reader in name order: one on each core.
_AHEAD = 2
# Number of pictures read in one direction before any is rendered ahead. Among pictures opened at
# random two are neighbours now and then; a useless rendering delayed the next one by 100 ms.
_STEADY = 3


class RenderAhead:
    """Renders files ahead of readers in name order, in either direction.

    `index` knows the neighbours of a file. `prefetch` renders the file of an inode. Belongs to the
    trio task.
    """

    def __init__(self, index: Index, prefetch: Callable[[int], Awaitable[None]]) -> None:
        self._index = index
        self._prefetch = prefetch
        # For each neighbour of the file read last: the number of files read in one direction if
        # that neighbour is read next; below 0 for backwards.
        self._expected: dict[int, int] = {}
        self._wanted, self._requests = trio.open_memory_channel[int](_AHEAD)

    async def run(self) -> None:
        """Background task: render what :meth:`file_was_read` asks for. Runs until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(_AHEAD):
                nursery.start_soon(self._render)

    async def _render(self) -> None:
        async for ino in self._requests:
            try:
                await self._prefetch(ino)
            except Exception:
                _log.exception("rendering inode %d ahead failed", ino)

    def file_was_read(self, ino: int) -> None:
        """Note that a reader closed a file. Ask for the next files if the reader goes in order.

        Does not await.
        """
        place = self._index.folder_of(ino)
        run = self._expected.get(ino, 0)
        self._expected = {}
        if place is None:
            return
        after = self._index.next_names(*place, _AHEAD)
        before = self._index.previous_names(*place, _AHEAD)
        back, on = min(run, -1) - 1, max(run, 1) + 1
        self._expected = {ino: back for _, ino in before[:1]} | {ino: on for _, ino in after[:1]}
        wanted = after if run >= _STEADY else before if run <= -_STEADY else []
        for _, follower in wanted:
            try:
                self._wanted.send_nowait(follower)
            except trio.WouldBlock:
                _log.debug("already rendering ahead")
