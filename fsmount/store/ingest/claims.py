"""Claims on files: which body is being encoded, and whether it is still the same.

A program may write to a file, remove it or replace it while the file is being encoded. So each
step of the pipeline works on a :class:`Claim`, and asks after each await whether it still holds.

Everything here belongs to the trio task. No method but :meth:`Claims.claim` awaits.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from fsmount.store.ingest.inputs import Inputs
from fsmount.store.ingest.queue import Queue
from fsmount.store.packs.staging import Staging


@dataclass(frozen=True, slots=True)
class Claim:
    """One body that is being encoded.

    `ino` and `token` are those of :class:`Inputs`, `epoch` is the number of give-ups before the
    claim was made.
    """

    ino: int
    token: int
    epoch: int


class Claims:
    """Makes claims, and tells which of them still hold."""

    def __init__(self, inputs: Inputs, staging: Staging, queue: Queue) -> None:
        self._inputs = inputs
        self._staging = staging
        self._queue = queue
        self._epoch = 0
        self._open = trio.Event()
        self._open.set()

    def token(self, ino: int) -> int | None:
        """The token of a file that waits to be encoded and has no writer; else None."""
        return None if self._queue.is_held(ino) else self._inputs.token(ino)

    async def claim(self, ino: int) -> Claim | None:
        """A claim on the body of a file; None if it does not wait. Waits while halted."""
        while not self._open.is_set():
            await self._open.wait()
        # No await from here to the return: a claim made before a halt must have the old epoch.
        token = self.token(ino)
        return None if token is None else Claim(ino, token, self._epoch)

    def is_current(self, claim: Claim) -> bool:
        """Whether the file still has the claimed body, unspoilt by a writer or a failed fsync."""
        safe = self.is_same_body(claim) and not self._staging.has_failed(claim.token)
        return safe and self._queue.is_whole(claim.ino) and not self.is_void(claim)

    def is_same_body(self, claim: Claim) -> bool:
        """Whether the file still has the claimed body, and no writer."""
        return self.token(claim.ino) == claim.token

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
