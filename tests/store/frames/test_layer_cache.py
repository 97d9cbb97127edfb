"""One cache of layers for all workers."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

import pytest
import trio
import trio.testing

from fsmount.store.frames import layer_cache
from fsmount.store.frames.layer_cache import LayerCache
from fsmount.store.frames.layers import Done, Loan
from fsmount.store.packs.location import Location
from fsmount.work.workers import Workers
from tests.store.frames.test_layers import shared

SIZE = shared(30).nbytes
LARGE = 1 << 20


def place(number: int, length: int = 10) -> Location:
    """The location of the entry whose layer :func:`shared` makes with seed `number`."""
    return Location(7 + number, "packs/1.zip", 0, length)


class Jobs:
    """Takes the place of Workers: a job ends when the test says so, and makes the layers it lacks.

    running : the jobs that run, by their name. `lent` has the ids of the layers that each got.
    """

    def __init__(self, tiles: int = 30) -> None:
        self.tiles = tiles
        self.running: dict[str, trio.Event] = {}
        self.lent: dict[str, list[int]] = {}
        self.decoded: list[int] = []

    async def run(
        self, function: Callable[..., Done[str]], name: str, needs: list[int], loan: Loan, **_: Any
    ) -> Done[str]:
        self.lent[name] = [layer.key[1] - 7 for layer in loan.layers]
        self.running[name] = trio.Event()
        await self.running[name].wait()
        missing = [number for number in needs if number not in self.lent[name]]
        self.decoded += missing
        return Done(name, tuple(shared(self.tiles, number) for number in missing))


def job(name: str, needs: list[int], loan: Loan) -> Done[str]:
    raise AssertionError("runs in a worker only")


async def use(cache: LayerCache, jobs: Jobs, name: str, *needs: int, length: int = 10) -> None:
    """Run a job that needs some layers to its end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(start(cache, jobs, name, *needs, length=length))
        await trio.testing.wait_all_tasks_blocked()
        jobs.running.pop(name).set()


def start(
    cache: LayerCache, jobs: Jobs, name: str, *needs: int, length: int = 10, **how: bool
) -> Callable[[], Any]:
    places = [place(number, length) for number in needs]
    workers = cast(Workers, jobs)

    async def run() -> None:
        found = await cache.run(workers, job, name, list(needs), places=places, **how)
        assert found == name

    return run


async def test_a_layer_is_decoded_once_for_all() -> None:
    cache, jobs = LayerCache(100 * SIZE, 5), Jobs()
    await use(cache, jobs, "a", 1, 2)
    await use(cache, jobs, "b", 2, 3)
    await use(cache, jobs, "c", 1, 3)
    assert jobs.decoded == [1, 2, 3]
    assert jobs.lent == {"a": [], "b": [2], "c": [1, 3]}
    assert cache.used == 3 * SIZE


async def test_the_budget_holds_and_the_oldest_goes() -> None:
    cache, jobs = LayerCache(3 * SIZE, 0), Jobs()
    for number in (1, 2, 3, 1, 4):
        await use(cache, jobs, f"{number}", number)
        assert cache.used <= 3 * SIZE
    jobs.decoded.clear()
    await use(cache, jobs, "again", 1, 3, 4)
    assert jobs.decoded == []
    await use(cache, jobs, "gone", 2)
    assert jobs.decoded == [2]


async def test_a_frame_that_needs_more_than_fits_keeps_what_fits() -> None:
    """An ordinary LRU would decode all five each time."""
    cache, jobs = LayerCache(3 * SIZE, 0), Jobs()
    await use(cache, jobs, "other", 9)
    for number in range(4):
        jobs.decoded.clear()
        await use(cache, jobs, f"{number}", 1, 2, 3, 4, 5)
        assert len(jobs.decoded) == (5 if number == 0 else 2)
        assert cache.used <= 3 * SIZE


async def test_a_layer_in_use_stays() -> None:
    cache, jobs = LayerCache(2 * SIZE, 0), Jobs()
    await use(cache, jobs, "a", 1, 2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(start(cache, jobs, "slow", 1))
        await trio.testing.wait_all_tasks_blocked()
        await use(cache, jobs, "b", 3)
        await use(cache, jobs, "c", 4)
        jobs.running["slow"].set()
    jobs.decoded.clear()
    await use(cache, jobs, "d", 1, 4)
    assert jobs.decoded == []


async def test_two_jobs_do_not_decode_a_large_entry_at_once() -> None:
    cache, jobs = LayerCache(100 * SIZE, 0), Jobs()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(start(cache, jobs, "a", 1, length=LARGE))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(start(cache, jobs, "b", 1, 2, length=LARGE))
        nursery.start_soon(start(cache, jobs, "c", 3, length=LARGE))
        await trio.testing.wait_all_tasks_blocked()
        assert set(jobs.running) == {"a", "c"}
        jobs.running["a"].set()
        await trio.testing.wait_all_tasks_blocked()
        assert jobs.lent["b"] == [1]
        for name in "bc":
            jobs.running[name].set()
    assert sorted(jobs.decoded) == [1, 2, 3]


@pytest.mark.parametrize("length", [10, LARGE])
async def test_a_reader_does_not_wait_for_the_background(length: int) -> None:
    cache, jobs = LayerCache(100 * SIZE, 0), Jobs()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(start(cache, jobs, "background", 1, length=length))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(start(cache, jobs, "reader", 1, length=length, urgent=True))
        await trio.testing.wait_all_tasks_blocked()
        assert set(jobs.running) == {"background", "reader"}
        for event in jobs.running.values():
            event.set()
    assert cache.used == SIZE


async def test_nobody_waits_for_a_slow_job() -> None:
    """A mount repacks in a process of low priority."""
    cache, jobs = LayerCache(100 * SIZE, 0), Jobs()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(start(cache, jobs, "slow", 1, length=LARGE, slow=True))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(start(cache, jobs, "b", 1, length=LARGE))
        await trio.testing.wait_all_tasks_blocked()
        assert set(jobs.running) == {"slow", "b"}
        for event in jobs.running.values():
            event.set()


async def test_a_job_that_fails_or_is_cancelled_frees_those_that_wait() -> None:
    cache, jobs = LayerCache(100 * SIZE, 0), Jobs()
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def cancelled() -> None:
            with scope:
                await start(cache, jobs, "a", 1, length=LARGE)()

        nursery.start_soon(cancelled)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(start(cache, jobs, "b", 1, length=LARGE))
        await trio.testing.wait_all_tasks_blocked()
        assert "b" not in jobs.running
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        jobs.running["b"].set()
    assert jobs.decoded == [1]


async def test_descriptors_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_cache, "_MOST_DESCRIPTORS", 5)
    before = len(os.listdir("/proc/self/fd"))
    cache, jobs = LayerCache(1000 * SIZE, 0), Jobs()
    for number in range(20):
        await use(cache, jobs, f"{number}", number)
    assert len(os.listdir("/proc/self/fd")) == before + 5
    jobs.tiles = 2
    for number in range(20, 40):
        await use(cache, jobs, f"{number}", number)
    jobs.decoded.clear()
    await use(cache, jobs, "all", *range(15, 40))
    assert jobs.decoded == []
    del cache
    assert len(os.listdir("/proc/self/fd")) == before


async def test_one_job_gets_no_more_than_a_message_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_cache, "_MOST_LENT", 3)
    cache, jobs = LayerCache(1000 * SIZE, 0), Jobs()
    await use(cache, jobs, "a", 1, 2, 3, 4, 5)
    await use(cache, jobs, "b", 1, 2, 3, 4, 5)
    assert jobs.lent["b"] == [1, 2, 3]


class Decoders:
    """Takes the place of Workers for :meth:`LayerCache.prepare`. `calls` has the decoded ids."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.lent: list[list[int]] = []
        self.go = trio.Event()
        self.fails = False

    async def run(
        self,
        function: Callable[..., Done[None]],
        wanted: tuple[Location, ...],
        places: list[Location],
        loan: Loan,
        **_: Any,
    ) -> Done[None]:
        self.calls.append([each.id - 7 for each in wanted])
        self.lent.append([layer.key[1] - 7 for layer in loan.layers])
        await self.go.wait()
        if self.fails:
            raise OSError
        return Done(None, tuple(shared(30, each.id - 7) for each in wanted))


def prepare(cache: LayerCache, decoders: Decoders, *needs: int) -> Callable[[], Any]:
    places = [place(number) for number in needs]
    return lambda: cache.prepare(cast(Workers, decoders), decode, places)


def decode(wanted: object, places: object, loan: Loan) -> Done[None]:
    raise AssertionError("runs in a worker only")


async def test_layers_that_several_jobs_need_are_decoded_once_before() -> None:
    cache, decoders, jobs = LayerCache(100 * SIZE, 0), Decoders(), Jobs()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prepare(cache, decoders, 1, 2))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(prepare(cache, decoders, 2, 3))
        nursery.start_soon(prepare(cache, decoders, 1, 2))
        nursery.start_soon(start(cache, jobs, "group", 1, 3))
        nursery.start_soon(start(cache, jobs, "reader", 1, urgent=True))
        await trio.testing.wait_all_tasks_blocked()
        assert decoders.calls == [[1, 2], [3]]
        assert set(jobs.running) == {"reader"}, "a reader waits for no background job"
        decoders.go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert jobs.lent["group"] == [1, 3]
        for event in jobs.running.values():
            event.set()
    await prepare(cache, decoders, 1, 2, 3)()
    await prepare(cache, decoders, 3, 4)()
    assert decoders.calls[2:] == [[4]]
    assert decoders.lent[2:] == [[3]]


async def test_two_preparations_never_wait_for_each_other_in_a_circle() -> None:
    cache, decoders = LayerCache(100 * SIZE, 0), Decoders()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prepare(cache, decoders, 1, 2))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(prepare(cache, decoders, 2, 1, 3))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(prepare(cache, decoders, 3, 2, 4))
            await trio.testing.wait_all_tasks_blocked()
            decoders.go.set()
    assert decoders.calls == [[1, 2], [3], [4]]


async def test_a_preparation_that_fails_frees_those_that_wait() -> None:
    cache, decoders, jobs = LayerCache(100 * SIZE, 0), Decoders(), Jobs()
    decoders.fails = True
    with pytest.raises(ExceptionGroup):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prepare(cache, decoders, 1))
            await trio.testing.wait_all_tasks_blocked()
            decoders.go.set()
    await use(cache, jobs, "group", 1)
    assert jobs.decoded == [1]


async def test_without_a_budget_nothing_is_prepared() -> None:
    decoders = Decoders()
    await prepare(LayerCache(0, 0), decoders, 1, 2)()
    assert decoders.calls == []
