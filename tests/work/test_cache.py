from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from fsmount.lru import Lru
from fsmount.work.cache import Cache

Make = Callable[[], Awaitable[tuple[str, int]]]


def test_least_recently_used_goes_first() -> None:
    lru: Lru[str, int] = Lru(10)
    lru.put("a", 1, 4)
    lru.put("b", 2, 4)
    assert lru.get("a") == 1
    lru.put("c", 3, 4)
    assert (lru.get("a"), lru.get("b"), lru.get("c")) == (1, None, 3)
    assert (lru.used, len(lru)) == (8, 2)


def test_membership_is_no_use() -> None:
    lru: Lru[str, int] = Lru(2)
    lru.put("a", 1, 1)
    lru.put("b", 2, 1)
    assert "a" in lru
    lru.put("c", 3, 1)
    assert "a" not in lru


def test_too_large_is_not_kept_and_drops_what_it_replaces_only() -> None:
    lru: Lru[str, int] = Lru(10)
    lru.put("a", 1, 4)
    lru.put("b", 2, 4)
    lru.put("b", 3, 11)
    assert (lru.get("a"), lru.get("b"), lru.used) == (1, None, 4)


def test_discard_and_clear() -> None:
    lru: Lru[str, int] = Lru(10)
    lru.put("a", 1, 4)
    lru.put("b", 2, 4)
    lru.discard("a")
    lru.discard("never there")
    assert (len(lru), lru.used) == (1, 4)
    lru.clear()
    assert (len(lru), lru.used, lru.get("b")) == (0, 0, None)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 12))))
def test_lru_against_a_model(steps: list[tuple[int, int]]) -> None:
    lru: Lru[int, int] = Lru(20)
    model: OrderedDict[int, int] = OrderedDict()
    for key, size in steps:
        if size < 0:
            assert lru.get(key) == model.get(key)
            if key in model:
                model.move_to_end(key)
        else:
            lru.put(key, size, size)
            model.pop(key, None)
            model[key] = size
            while sum(model.values()) > 20:
                model.popitem(last=False)
        assert lru.used == sum(model.values())
        assert {key for key in range(6) if key in lru} == set(model)


class Maker:
    """Makes a value once `go` is set, and counts its calls."""

    def __init__(self, value: str = "made", size: int = 1) -> None:
        self.calls = 0
        self.go = trio.Event()
        self.value = value
        self.size = size

    async def __call__(self) -> tuple[str, int]:
        self.calls += 1
        await self.go.wait()
        return self.value, self.size


async def never() -> tuple[str, int]:
    raise AssertionError("must not be asked")


async def at_once() -> tuple[str, int]:
    return "at once", 1


async def get(cache: Cache[str, str], make: Make, got: list[str]) -> None:
    got.append(await cache.get("key", make))


async def test_one_makes_the_others_wait() -> None:
    cache: Cache[str, str] = Cache(10)
    maker, got = Maker(), list[str]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(get, cache, maker, got)
        await wait_all_tasks_blocked()
        for _ in range(3):
            nursery.start_soon(get, cache, never, got)
        await wait_all_tasks_blocked()
        assert await cache.get("another key", at_once) == "at once"
        maker.go.set()
    assert got == ["made"] * 4
    assert maker.calls == 1
    assert await cache.get("key", never) == "made"


async def test_too_large_still_reaches_all_who_wait() -> None:
    cache: Cache[str, str] = Cache(10)
    maker, got = Maker(size=11), list[str]()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(get, cache, maker, got)
        await wait_all_tasks_blocked()
        maker.go.set()
    assert (got, maker.calls) == (["made"] * 3, 1)
    assert await cache.get("key", at_once) == "at once"


async def test_a_failure_reaches_all_who_wait_and_is_forgotten() -> None:
    cache: Cache[str, str] = Cache(10)
    go = trio.Event()
    caught = list[Exception]()

    async def fail() -> tuple[str, int]:
        await go.wait()
        raise ValueError("no")

    async def try_get(make: Make) -> None:
        try:
            await cache.get("key", make)
        except ValueError as error:
            caught.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(try_get, fail)
        await wait_all_tasks_blocked()
        nursery.start_soon(try_get, never)
        nursery.start_soon(try_get, never)
        await wait_all_tasks_blocked()
        go.set()
    assert len(caught) == 3
    assert await cache.get("key", at_once) == "at once"


async def test_when_the_maker_is_cancelled_one_waiter_takes_over() -> None:
    cache: Cache[str, str] = Cache(10)
    first, second, got = Maker("first"), Maker("second"), list[str]()
    scope = trio.CancelScope()

    async def cancelled() -> None:
        with scope:
            await cache.get("key", first)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancelled)
        await wait_all_tasks_blocked()
        for _ in range(3):
            nursery.start_soon(get, cache, second, got)
        await wait_all_tasks_blocked()
        scope.cancel()
        await wait_all_tasks_blocked()
        assert (first.calls, second.calls, got) == (1, 1, [])
        second.go.set()
    assert scope.cancelled_caught
    assert (got, second.calls) == (["second"] * 3, 1)


async def test_a_cancelled_waiter_disturbs_nobody() -> None:
    cache: Cache[str, str] = Cache(10)
    maker, got = Maker(), list[str]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(get, cache, maker, got)
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as waiters:
            waiters.start_soon(get, cache, never, got)
            await wait_all_tasks_blocked()
            waiters.cancel_scope.cancel()
        maker.go.set()
    assert (got, maker.calls) == (["made"], 1)


@pytest.mark.parametrize("everything", [False, True])
async def test_what_is_discarded_while_it_is_made_is_not_kept(everything: bool) -> None:
    cache: Cache[str, str] = Cache(10)
    old, new, got = Maker("old"), Maker("new"), list[str]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(get, cache, old, got)
        await wait_all_tasks_blocked()
        if everything:
            cache.clear()
        else:
            cache.discard("key")
        nursery.start_soon(get, cache, new, got)
        await wait_all_tasks_blocked()
        old.go.set()
        await wait_all_tasks_blocked()
        assert got == ["old"]
        assert "key" not in cache.kept
        new.go.set()
    assert got == ["old", "new"]
    assert await cache.get("key", never) == "new"
