"""Run async calls side by side and take their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

T = TypeVar("T")


async def run_in_order(
    calls: Sequence[Callable[[], Awaitable[T]]],
    consume: Callable[[int, T], Awaitable[None]],
    ahead: int,
) -> None:
    """Run calls concurrently and pass each result on in the order of the calls.

    Parameters
    ----------
    calls : sequence of callables
        Each is started once.
    consume : callable
        Awaited with (number of the call, its result), one at a time.
    ahead : int
        Number of calls that may run or wait for ``consume`` besides the current one.
    """

    async def run(call: Callable[[], Awaitable[T]], results: list[T], done: trio.Event) -> None:
        results.append(await call())
        done.set()

    started: deque[tuple[int, list[T], trio.Event]] = deque()
    async with trio.open_nursery() as nursery:

        async def consume_next() -> None:
            number, results, done = started.popleft()
            await done.wait()
            await consume(number, results[0])

        for number, call in enumerate(calls):
            results: list[T] = []
            done = trio.Event()
            started.append((number, results, done))
            nursery.start_soon(run, call, results, done)
            if len(started) > ahead:
                await consume_next()
        while started:
            await consume_next()
