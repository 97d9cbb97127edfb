"""A byte-budget cache with single flight: one task makes a value, the others wait for it.

It knows no domain type. It belongs to one trio thread and needs no lock: its state changes only
between two awaits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import trio

from fsmount.lru import Lru

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Flight(Generic[V]):
    """One value in the making, and its outcome.

    When ``landed`` is set, one of three holds: ``result`` has the value; ``failure`` has the error;
    both are None, because the task that made the value was cancelled.
    """

    def __init__(self) -> None:
        self.landed = trio.Event()
        self.result: tuple[V] | None = None
        self.failure: Exception | None = None


class Cache(Generic[K, V]):
    """An :class:`Lru` whose values are made on demand, each by one task at a time.

    A task that asks for a key in the making waits for it. ``make`` may ask for other keys, as long
    as keys do not wait for each other in a circle.

    Parameters
    ----------
    budget : int
        Memory for values, in bytes.
    """

    def __init__(self, budget: int) -> None:
        self.kept: Lru[K, V] = Lru(budget)
        self._flights: dict[K, _Flight[V]] = {}

    async def get(self, key: K, make: Callable[[], Awaitable[tuple[V, int]]]) -> V:
        """Return the value of a key: held, made by another task, or made now.

        A held value is returned without a checkpoint.

        Parameters
        ----------
        key : hashable
            The key.
        make : callable
            Returns the value and its size in bytes. If it raises an Exception, every task that
            waits for this value gets it, and nothing is held. If its task is cancelled, one of the
            waiting tasks calls its own ``make``.
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
                # A second look-up might miss: the value may be too large to be held.
                return flight.result[0]

    async def _make(self, key: K, make: Callable[[], Awaitable[tuple[V, int]]]) -> V:
        """Make a value for this task and for those that wait."""
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
            # After a discard another flight may have its place.
            if self._flights.get(key) is flight:
                del self._flights[key]
            flight.landed.set()

    def discard(self, key: K) -> None:
        """Drop a key. A value in the making still reaches its waiters, but is not held.

        A task that asks after this call gets a new value.
        """
        self.kept.discard(key)
        self._flights.pop(key, None)

    def clear(self) -> None:
        """Drop every key, as :meth:`discard` does."""
        self.kept.clear()
        self._flights.clear()
