"""Tasks that go through a section one at a time, in an order that is fixed before they get there.

Belongs to the trio task.
"""

from __future__ import annotations

from collections import deque

import trio


class Sequencer:
    """Hands out places in order. A place has its turn when all earlier places have been left."""

    def __init__(self) -> None:
        # In the order they were handed out. One that was left early stays until its turn comes.
        self._places: deque[Place] = deque()

    def place(self) -> Place:
        """The next place. Whoever takes it must leave it, also when cancelled. Does not await."""
        made = Place(self)
        self._places.append(made)
        self._pass_on()
        return made

    def _pass_on(self) -> None:
        """Give the turn to the first place that has not been left."""
        while self._places and self._places[0].is_left:
            self._places.popleft()
        if self._places:
            self._places[0].turn.set()


class Place:
    """One task's place. Made by :meth:`Sequencer.place`."""

    def __init__(self, sequencer: Sequencer) -> None:
        self._sequencer = sequencer
        self.turn = trio.Event()
        self.is_left = False

    async def enter(self) -> None:
        """Wait until all earlier places have been left. May be called twice.

        Until :meth:`leave` no later place has its turn.
        """
        await self.turn.wait()

    def leave(self) -> None:
        """Give the place up, entered or not. Does not await; may be called twice.

        The next place has its turn when all places before this one have been left, too.
        """
        self.is_left = True
        self._sequencer._pass_on()
