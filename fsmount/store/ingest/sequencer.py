"""Tasks that enter a section one at a time, in an order that is fixed beforehand.

Everything here belongs to the trio task.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import trio


class Sequencer:
    """Hands out slots in order. A slot is open when all earlier slots have been left."""

    def __init__(self) -> None:
        # In order. A slot that was left early stays until all before it have been left.
        self._slots: deque[Slot] = deque()

    def slot(self) -> Slot:
        """The next slot. Does not await.

        The task that takes it must leave it, also when cancelled.
        """
        made = Slot(self)
        self._slots.append(made)
        self._open_first()
        return made

    def _open_first(self) -> None:
        """Open the first slot that has not been left."""
        while self._slots and self._slots[0].is_left:
            self._slots.popleft()
        if self._slots:
            self._slots[0].opened.set()


class Turns(NamedTuple):
    """The slots of one file: `plan` for planning its frame, `append` for appending its entry.

    `number` is the place of the file in the order of the queue.
    """

    number: int
    plan: Slot
    append: Slot

    def leave(self) -> None:
        """Leave both slots."""
        self.plan.leave()
        self.append.leave()


class Slot:
    """One task's slot. Made by :meth:`Sequencer.slot`."""

    def __init__(self, sequencer: Sequencer) -> None:
        self._sequencer = sequencer
        self.opened = trio.Event()
        self.is_left = False

    async def enter(self) -> None:
        """Wait until all earlier slots have been left. May be called twice.

        Until :meth:`leave` no later slot is open.
        """
        await self.opened.wait()

    def leave(self) -> None:
        """Give the slot up, entered or not. Does not await; may be called twice."""
        self.is_left = True
        self._sequencer._open_first()
