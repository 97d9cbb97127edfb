"""Keeps space free: before a file grows, before a commit that deletes, and while nobody writes.

On a full disk the space of deleted files comes back by reclaim
(:mod:`fsmount.store.maintenance.reclaim`), and the reserve lets a deletion commit
(:mod:`fsmount.store.disk.reserve`).
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

import trio

from fsmount import threads
from fsmount.store.disk.reserve import Reserve
from fsmount.store.maintenance.reclaim import ENOUGH_BYTES, Reclaimer
from fsmount.store.ownership import Ownership
from fsmount.threads import Kind

# Seconds between two looks whether the disk is full.
LOOK_SECONDS = 5.0


class FreeSpace:
    """Keeps space free on the disk of a store; see the module.

    Contract: belongs to the trio task.
    """

    def __init__(self, ownership: Ownership, reserve: Reserve, reclaimer: Reclaimer) -> None:
        self._ownership = ownership
        self._reserve = reserve
        self._reclaimer = reclaimer

    async def need(self, size: int = 0) -> None:
        """Make space before files grow by `size` bytes.

        On a full disk, this method first reclaims the space of deleted files. It asks no disk if
        there was much free space a moment ago.

        Raises OSError ENOSPC while the disk has no room for the reserve. The reserve gave its space
        to deletions, and other writes must not take that space. Raises OSError EIO if another
        process took the store over.
        """
        if self._ownership.is_lost:
            self._ownership.ask()
        if self._reserve.allows(size):
            return
        if await threads.call(Kind.FREE_SPACE, self._has_space):
            return
        await self.reclaim()
        if not await threads.call(Kind.FREE_SPACE, self._reserve.fill):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _has_space(self) -> bool:
        """Whether files may grow. Runs in a thread.

        Raises OSError EIO if another process took the store over.
        """
        self._ownership.ask()
        return self._reserve.has_space()

    async def before_deleting(self) -> None:
        """Prepare for a commit that deletes: on a full disk, the commit gets the reserve."""
        if not self._reserve.allows(0):
            await threads.call(Kind.FREE_SPACE, self._reserve.spend_if_full)

    async def reclaim(self, enough: int = ENOUGH_BYTES) -> None:
        """Reclaim space as on a full disk, until `enough` bytes are free. Logs failures."""
        await self._reclaimer.reclaim(enough)

    async def run(self) -> None:
        """Reclaim space on a full disk even when no write triggers it, until cancelled."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            with suppress(OSError):
                if await threads.call(Kind.FREE_SPACE, self._is_full):
                    await self.reclaim()

    def _is_full(self) -> bool:
        """Whether the disk is full. Runs in a thread."""
        return self._reserve.is_low or self._reserve.is_spent
