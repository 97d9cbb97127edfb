"""Which files are rendered together, how many are under way, and the order of the messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pytest
import trio
import trio.testing

from fsmount.store.frames.group import Rendered
from fsmount.store.index import Object
from fsmount.store.transfer import groups
from fsmount.store.transfer.groups import Tell, Wanted, for_each


def found(number: int, size: int = 10, length: int | None = None) -> Object:
    kind = "key" if length is None else "raw"
    return Object(number, kind, 1, 0, length or size, size, b"hash", 0)


class Store:
    """Renders at once, at most `most` objects a call. `asked` has the ids of each call."""

    def __init__(self, count: int = 2, most: int = 99) -> None:
        self.count = count
        self.most = most
        self.asked: list[list[int]] = []

    async def render(self, object_ids: Sequence[int], *, with_bytes: bool) -> list[Rendered | None]:
        await trio.lowlevel.checkpoint()
        self.asked.append(list(object_ids))
        return [Rendered(each, b"", bytearray()) for each in object_ids[: self.most]]


async def sizes(store: Store, wanted: Sequence[Wanted[str]]) -> dict[str, int | None]:
    """Go through the items. Returns what was rendered for each, as told, in that order."""
    told: dict[str, int | None] = {}

    async def work(item: str, rendered: Rendered | None) -> Tell:
        return partial(told.__setitem__, item, rendered and rendered.size)

    await for_each(store, wanted, work, with_bytes=True)
    return told


def items(*objects: Object | None) -> list[Wanted[str]]:
    return [Wanted(f"{number}", each) for number, each in enumerate(objects)]


async def test_neighbours_are_rendered_together_each_once() -> None:
    store = Store(count=1)
    wanted = items(found(5), None, found(6), found(5), found(7, 5000, 100), found(8))
    assert await sizes(store, wanted) == {"0": 5, "1": None, "2": 6, "3": 5, "4": None, "5": 8}
    assert store.asked == [[5, 6, 8]], "a large raw file is not rendered"


async def test_one_object_is_left_to_a_render_on_several_cores() -> None:
    store = Store()
    assert await sizes(store, items(found(5), None, found(5))) == {"0": None, "1": None, "2": None}
    assert store.asked == []


@pytest.mark.parametrize("count", [2, 64])
async def test_many_items_make_large_groups_whatever_the_cores(count: int) -> None:
    for total, most in ((400, 16), (40, 16), (20, 10), (8, 4), (4, 2)):
        store = Store(count)
        await sizes(store, items(*map(found, range(total))))
        assert max(map(len, store.asked)) == most
        assert sum(map(len, store.asked)) == total


async def test_a_group_is_bounded_by_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_GROUP_BYTES", 100)
    store = Store(count=1)
    objects = [found(1, 40), found(2, 50), found(3, 20), found(4, 900), found(5, 30), found(6, 30)]
    told = await sizes(store, items(*objects))
    assert store.asked == [[1, 2], [5, 6]]
    assert (told["2"], told["3"]) == (None, None)


async def test_a_job_that_ends_early_is_asked_again_for_the_rest() -> None:
    store = Store(count=1, most=2)
    told = await sizes(store, items(*map(found, (3, 1, 2, 5, 4))))
    assert told == {"0": 3, "1": 1, "2": 2, "3": 5, "4": 4}
    assert store.asked == [[1, 2, 3, 4, 5], [3, 4, 5], [5]]


async def test_results_are_told_in_order_and_little_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(groups, "_MOST", 1)
    begun: list[int] = []
    told: list[int] = []
    gates = [trio.Event() for _ in range(30)]

    async def work(item: int, _: Rendered | None) -> Tell:
        begun.append(item)
        await gates[item].wait()
        return partial(told.append, item)

    def wanted() -> Iterator[Wanted[int]]:
        for number in range(30):
            yield Wanted(number, found(number))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(for_each, Store(2), wanted(), work, with_bytes=True))
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(begun) == [0, 1, 2, 3]
        gates[1].set()
        await trio.testing.wait_all_tasks_blocked()
        assert told == []
        gates[0].set()
        await trio.testing.wait_all_tasks_blocked()
        assert told == [0, 1]
        assert len(begun) == 6
        for gate in gates:
            gate.set()
    assert told == list(range(30))


async def test_the_bytes_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_MOST", 1)
    monkeypatch.setattr(groups, "_AHEAD_BYTES", 100)
    under_way = most = 0

    async def work(item: int, _: Rendered | None) -> Tell:
        nonlocal under_way, most
        under_way += item
        most = max(most, under_way)
        await trio.sleep(0.001)
        under_way -= item
        return lambda: None

    large = [Wanted(40, found(number, 40)) for number in range(12)]
    monkeypatch.setattr(groups, "_AHEAD", 99)
    await for_each(Store(2), large, work, with_bytes=True)
    assert 80 < most <= 200
    most = 0
    await for_each(Store(2), large, work, with_bytes=False)
    assert most > 200, "hashes take no memory"


async def test_an_error_ends_all() -> None:
    async def work(item: str, _: Rendered | None) -> Tell:
        if item == "1":
            raise OSError("no")
        return lambda: None

    with pytest.raises(ExceptionGroup):
        await for_each(Store(), items(*map(found, range(90))), work, with_bytes=True)
