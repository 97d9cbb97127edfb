"""Slots in order: which slot has the turn if others leave early, fail or are cancelled."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fsmount.store.ingest.sequencer import Sequencer, Slot


class Walkers:
    """Tasks that enter their slots and stay until the test stops them."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._sequencer = Sequencer()
        self.slots: list[Slot] = []
        self.inside: list[int] = []
        self.entered: list[int] = []
        self._scopes: list[trio.CancelScope] = []

    def start(self, count: int) -> None:
        for _ in range(count):
            slot = self._sequencer.slot()
            self.slots.append(slot)
            self._scopes.append(trio.CancelScope())
            self._nursery.start_soon(self._walk, len(self.slots) - 1, slot)

    async def _walk(self, number: int, slot: Slot) -> None:
        try:
            with self._scopes[number]:
                await slot.enter()
                self.entered.append(number)
                self.inside.append(number)
                try:
                    await trio.sleep_forever()
                finally:
                    self.inside.remove(number)
        finally:
            slot.leave()

    async def stop(self, number: int) -> None:
        """End one task, wherever it is."""
        self._scopes[number].cancel()
        await wait_all_tasks_blocked()


async def test_places_have_their_turn_one_after_the_other() -> None:
    async with trio.open_nursery() as nursery:
        walkers = Walkers(nursery)
        walkers.start(4)
        await wait_all_tasks_blocked()
        for number in range(4):
            assert walkers.inside == [number]
            await walkers.stop(number)
        assert walkers.entered == [0, 1, 2, 3]


@pytest.mark.parametrize("gone", [[1], [2], [1, 2], [2, 1], [3, 1, 2]])
async def test_a_place_left_early_lets_nobody_overtake(gone: list[int]) -> None:
    async with trio.open_nursery() as nursery:
        walkers = Walkers(nursery)
        walkers.start(5)
        await wait_all_tasks_blocked()
        for number in gone:
            await walkers.stop(number)
            assert walkers.inside == [0]
        await walkers.stop(0)
        assert walkers.inside == [min({1, 2, 3, 4} - set(gone))]
        nursery.cancel_scope.cancel()


async def test_a_place_after_none_and_after_all_have_left_has_its_turn() -> None:
    sequencer = Sequencer()
    for _ in range(3):
        slot = sequencer.slot()
        with trio.fail_after(5):
            await slot.enter()
            await slot.enter()
        slot.leave()
        slot.leave()


async def test_a_task_that_is_cancelled_as_its_turn_comes_passes_it_on() -> None:
    sequencer = Sequencer()
    first, second, third = (sequencer.slot() for _ in range(3))

    async def walk() -> None:
        try:
            await second.enter()
        finally:
            second.leave()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(walk)
        await wait_all_tasks_blocked()
        first.leave()
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        await third.enter()


@pytest.mark.parametrize("seed", range(10))
async def test_hundreds_of_places_in_any_order(seed: int) -> None:
    """Some tasks leave before they enter, some early, some after they are through."""
    chance = random.Random(seed)
    sequencer = Sequencer()
    inside = 0
    entered: list[int] = []

    async def walk(number: int, slot: Slot) -> None:
        nonlocal inside
        try:
            for _ in range(chance.randrange(20)):
                await trio.lowlevel.checkpoint()
            if chance.random() < 0.3:
                return
            await slot.enter()
            entered.append(number)
            inside += 1
            assert inside == 1
            for _ in range(chance.randrange(4)):
                await trio.lowlevel.checkpoint()
            inside -= 1
            if chance.random() < 0.1:
                raise ValueError
        except ValueError:
            pass
        finally:
            slot.leave()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for number in range(500):
                slot = sequencer.slot()
                if chance.random() < 0.1:
                    slot.leave()
                else:
                    nursery.start_soon(walk, number, slot)
                if chance.random() < 0.2:
                    await trio.lowlevel.checkpoint()
    assert entered == sorted(entered)
    assert len(entered) > 200
