"""Tasks of a store that end when another process takes the store over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import trio

from fsmount import threads
from fsmount.store.ownership import Ownership
from fsmount.threads import Kind


class OwnedTasks:
    """Runs tasks while the store belongs to this process.

    background : the tasks of :meth:`run`.

    Contract: belongs to the trio task.
    """

    def __init__(
        self, ownership: Ownership, background: Sequence[Callable[[], Awaitable[None]]]
    ) -> None:
        self._ownership = ownership
        self._background = background
        # Set when another process has taken the store over.
        self._lost = trio.Event()

    @property
    def is_lost(self) -> bool:
        """See :attr:`Ownership.is_lost`."""
        return self._ownership.is_lost

    async def ask(self) -> None:
        """Raise OSError EIO if another process has taken the store over."""
        await threads.call(Kind.FREE_SPACE, self._ownership.ask)

    async def run(self) -> None:
        """Run the background tasks until another process takes the store over, or cancelled."""
        trio_token = trio.lowlevel.current_trio_token()

        def tell() -> None:
            with suppress(trio.RunFinishedError):
                trio_token.run_sync_soon(self._lost.set)

        self._ownership.when_lost = tell
        if self._ownership.is_lost:
            self._lost.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_lost, nursery.cancel_scope)
            for task in self._background:
                nursery.start_soon(task)

    async def wait(self, function: Callable[[], Awaitable[None]]) -> None:
        """Call `function`. The caller keeps :meth:`run` running.

        Cancels it and raises OSError EIO if another process takes the store over.
        """
        await self.ask()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_lost, nursery.cancel_scope)
            await function()
            nursery.cancel_scope.cancel()
        await self.ask()

    async def _cancel_when_lost(self, scope: trio.CancelScope) -> None:
        await self._lost.wait()
        scope.cancel()
