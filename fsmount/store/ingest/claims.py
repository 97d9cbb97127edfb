"""Claims on staged bodies: which body is being encoded, and whether it is still the same.

A program may write to a file, remove it or replace it while the file is being encoded. So each
step of the pipeline works on a :class:`Claim`, and asks after each await whether it still holds.

Everything here belongs to the trio task. No method but :meth:`Claims.claim` awaits.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from fsmount.errors import FsmountError
from fsmount.store.index import Index, Inode
from fsmount.store.ingest.queue import Queue
from fsmount.store.packs.staging import Staging


@dataclass(frozen=True, slots=True)
class Claim:
    """One staged body that is being encoded.

    `ino` is the inode, `token` the name of its staged file, `epoch` the number of give-ups before
    the claim was made.
    """

    ino: int
    token: int
    epoch: int


class Claims:
    """Makes claims, and tells which of them still hold."""

    def __init__(self, index: Index, staging: Staging, queue: Queue) -> None:
        self._index = index
        self._staging = staging
        self._queue = queue
        self._epoch = 0
        self._open = trio.Event()
        self._open.set()

    def staged(self, ino: int) -> Inode | None:
        """The inode, if it has a name, a staged body and no writer; else None."""
        try:
            inode = self._index.inode(ino)
        except FsmountError:
            return None
        if inode.staged is None or not inode.nlink or self._queue.is_held(ino):
            return None
        return inode

    async def claim(self, ino: int) -> Claim | None:
        """A claim on the staged body of a file; None if it has none. Waits while halted."""
        while not self._open.is_set():
            await self._open.wait()
        # No await from here to the return: a claim made before a halt must have the old epoch.
        inode = self.staged(ino)
        if inode is None or inode.staged is None:
            return None
        return Claim(ino, inode.staged, self._epoch)

    def is_current(self, claim: Claim) -> bool:
        """Whether the file still has the claimed body, unspoilt by a writer or a failed fsync."""
        inode = self.staged(claim.ino)
        same = inode is not None and inode.staged == claim.token
        safe = not self._staging.has_failed(claim.token)
        return same and safe and self._queue.is_whole(claim.ino) and not self.is_void(claim)

    def is_void(self, claim: Claim) -> bool:
        """Whether everything appended was given up since the claim was made."""
        return claim.epoch != self._epoch

    def void_all(self) -> None:
        """Make all claims void. The files need new ones."""
        self._epoch += 1

    def halt(self) -> None:
        """Let :meth:`claim` wait until :meth:`go_on`."""
        self._open = trio.Event()

    def go_on(self) -> None:
        """End a :meth:`halt`."""
        self._open.set()
