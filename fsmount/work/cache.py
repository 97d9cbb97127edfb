"""Single flight on top of a cache with a byte budget. Knows no domain type.

It belongs to one trio thread. There is no lock: state changes only between two awaits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import trio

from fsmount.lru import Lru

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Flight(Generic[V]):
    """One piece of work in progress, and what came of it.

    When `landed` is set, exactly one is true: `result` holds the value, `failure` the error, or
    both are None because the task that worked was cancelled.
    """

    def __init__(self) -> None:
        self.landed = trio.Event()
        self.result: tuple[V] | None = None
        self.failure: Exception | None = None


class Cache(Generic[K, V]):
    """An :class:`Lru` whose values are made on demand, each by one task at a time.

    Whoever asks for a key that another task is making waits for that work. A `make` may get other
    keys, as long as keys do not wait for each other in a circle.
    """

    def __init__(self, budget: int) -> None:
        self.kept: Lru[K, V] = Lru(budget)
        self._flights: dict[K, _Flight[V]] = {}

    async def get(self, key: K, make: Callable[[], Awaitable[tuple[V, int]]]) -> V:
        """The value of `key`: held, being made by another task, or made now by `make`.

        `make` returns value and size in bytes. Its Exception reaches every task that waits for
        this flight, and nothing is kept. If its task is cancelled, one of those that wait starts
        its own `make`. A value that is held comes back without a checkpoint.
        """
        while True:
            value = self.kept.get(key)
            if value is not None:
                return value
            flight = self._flights.get(key)
            if flight is None:
                return await self._make(key, make)
            await flight.landed.wait()
            if flight.failure is not None:
                raise flight.failure
            if flight.result is not None:
                # Not looked up again: it may have been too large to be kept.
                return flight.result[0]

    async def _make(self, key: K, make: Callable[[], Awaitable[tuple[V, int]]]) -> V:
        flight = self._flights[key] = _Flight()
        try:
            value, size = await make()
            flight.result = (value,)
            if self._flights.get(key) is flight:
                self.kept.put(key, value, size)
            return value
        except Exception as error:
            flight.failure = error
            raise
        finally:
            # Another flight may be in its place since a discard.
            if self._flights.get(key) is flight:
                del self._flights[key]
            flight.landed.set()

    def discard(self, key: K) -> None:
        """Forget `key`; what is being made for it now still reaches its waiters, but is not kept
        and not given to anyone who asks after this call."""
        self.kept.discard(key)
        self._flights.pop(key, None)

    def clear(self) -> None:
        """:meth:`discard` every key."""
        self.kept.clear()
        self._flights.clear()
