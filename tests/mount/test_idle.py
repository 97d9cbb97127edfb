"""When a mount starts an idle repack, and when it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from fsmount.mount import idle
from fsmount.mount.idle import repack_when_idle
from fsmount.store.writable_store import WritableStore
from tests.mount.test_power_supply import supply


class Used:
    """A store that notes the time of each request to repack.

    Each repack takes `works` seconds. The store has work for `left` repacks.
    """

    def __init__(self) -> None:
        self.used = trio.current_time()
        self.asked: list[float] = []
        self.left = 1
        self.works = 0.0
        self.error: Exception | None = None

    def unused_s(self) -> float:
        return trio.current_time() - self.used

    async def repack_in_background(self, go_on: Callable[[], bool]) -> bool:
        self.asked.append(trio.current_time())
        if self.error is not None:
            raise self.error
        end = trio.current_time() + self.works
        used = self.used
        while trio.current_time() < end:
            await trio.sleep(1)
            if not go_on() or self.used != used:
                return False
        self.left -= 1
        return self.left <= 0


async def watch(store: Used, seconds: float, supplies: Path) -> list[float]:
    """Run the idle repack for `seconds`. Returns the time of each request since the start."""
    start = trio.current_time()
    with trio.move_on_after(seconds):
        await repack_when_idle(cast(WritableStore, store), 10, supplies)
    return [round(when - start) for when in store.asked]


async def test_it_waits_until_nobody_uses_it(autojump_clock: MockClock, tmp_path: Path) -> None:
    used = Used()
    async with trio.open_nursery() as nursery:

        async def use() -> None:
            for _ in range(10):
                await trio.sleep(5)
                used.used = trio.current_time()

        nursery.start_soon(use)
        asked = await watch(used, 65, tmp_path)
    assert asked
    assert 60 <= asked[0] <= 63


async def test_it_is_left_off_and_taken_up_again(autojump_clock: MockClock, tmp_path: Path) -> None:
    used = Used()
    used.works = 30
    async with trio.open_nursery() as nursery:

        async def use() -> None:
            await trio.sleep(20.5)
            used.used = trio.current_time()

        nursery.start_soon(use)
        asked = await watch(used, 50, tmp_path)
    assert len(asked) == 2
    assert asked[0] == 10
    assert 30 <= asked[1] <= 34


async def test_with_nothing_to_do_it_rests(autojump_clock: MockClock, tmp_path: Path) -> None:
    asked = await watch(Used(), 200, tmp_path)
    assert len(asked) == 4, "once a minute, and not each ten seconds"


async def test_on_battery_it_rests(autojump_clock: MockClock, tmp_path: Path) -> None:
    supply(tmp_path, "BAT0", type="Battery")
    supply(tmp_path, "AC", type="Mains", online="0")
    used = Used()
    assert await watch(used, 100, tmp_path) == []
    used.works = 30
    supply(tmp_path, "AC", online="1")
    async with trio.open_nursery() as nursery:

        async def unplug() -> None:
            await trio.sleep(20)
            supply(tmp_path, "AC", online="0")

        nursery.start_soon(unplug)
        assert len(await watch(used, 100, tmp_path)) == 1
    assert used.left == 1


async def test_an_error_is_not_the_end(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle, "_RETRY_S", 100.0)
    used = Used()
    used.error = OSError(5, "a disk")
    assert len(await watch(used, 250, tmp_path)) == 3
