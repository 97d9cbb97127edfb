"""How many files are under way, and how much memory their pictures take."""

from __future__ import annotations

import pytest
import trio

from fsmount.store.ingest.under_way import Place, UnderWay


async def enter_now(under_way: UnderWay) -> Place | None:
    """The place of one more file, None if it has to wait."""
    with trio.move_on_after(0.01):
        return await under_way.enter()
    return None


async def entered(under_way: UnderWay, count: int) -> list[Place]:
    places = [await enter_now(under_way) for _ in range(count)]
    assert all(places)
    return [place for place in places if place is not None]


async def test_the_number_of_files_is_bounded() -> None:
    under_way = UnderWay(lambda: 3, 100)
    first, *_ = await entered(under_way, 3)
    assert await enter_now(under_way) is None
    first.leave()
    await entered(under_way, 1)
    assert await enter_now(under_way) is None


async def test_the_bytes_are_bounded_and_what_is_not_looked_at_counts_as_the_latest() -> None:
    under_way = UnderWay(lambda: 9, 100)
    (first,) = await entered(under_way, 1)
    first.looked_at(40)
    (second,) = await entered(under_way, 1)
    assert await enter_now(under_way) is None, "three times 40"
    second.looked_at(10)
    await entered(under_way, 1)
    first.leave()
    await entered(under_way, 1)


async def test_the_first_file_is_let_in_however_large_it_is() -> None:
    under_way = UnderWay(lambda: 9, 100)
    for _ in range(3):
        (place,) = await entered(under_way, 1)
        place.looked_at(1000)
        assert await enter_now(under_way) is None
        place.leave()


@pytest.mark.parametrize("others", [0, 5])
async def test_files_that_are_no_pictures_do_not_let_large_ones_in(others: int) -> None:
    under_way = UnderWay(lambda: 9, 100)
    (large,) = await entered(under_way, 1)
    large.looked_at(90)
    large.leave()
    for _ in range(others):
        (note,) = await entered(under_way, 1)
        note.looked_at(0)
        note.leave()
    await entered(under_way, 1)
    assert await enter_now(under_way) is None


async def test_a_large_picture_is_forgotten_after_some_small_ones() -> None:
    under_way = UnderWay(lambda: 9, 100)
    for nbytes in [1000, *[10] * 25]:
        (place,) = await entered(under_way, 1)
        place.looked_at(nbytes)
        place.leave()
    await entered(under_way, 3)


async def test_a_file_that_waits_enters_as_soon_as_it_may() -> None:
    under_way = UnderWay(lambda: 1, 100)
    (first,) = await entered(under_way, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(under_way.enter)
        await trio.testing.wait_all_tasks_blocked()
        first.leave()
        with trio.fail_after(5):
            while not under_way._places:
                await trio.sleep(0)
