"""Which objects go when pictures go: compared with a plain count of what is needed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fsmount.store.packs import parity
from fsmount.store.retention import freeing
from fsmount.store.retention.freeing import DEAD, Objects
from fsmount.store.retention.pruning import freed_bytes
from fsmount.store.retention.rules import KEPT, Ints

Store = tuple[Objects, list[list[int]], list[tuple[int, int]], dict[int, int]]


@st.composite
def stores(draw: st.DrawFn) -> Store:
    """Objects, their needs, (object, rank) of pictures, and the uses that the trash has."""
    count = draw(st.integers(1, 12))
    ids = sorted(draw(st.sets(st.integers(1, 40), min_size=count, max_size=count)))
    needs = [
        draw(st.lists(st.sampled_from(ids[:at]), max_size=4)) if at else [] for at in range(count)
    ]
    pictures = draw(
        st.lists(st.tuples(st.sampled_from(ids), st.sampled_from([0, 1, 2, 3, KEPT])), max_size=20)
    )
    trash = draw(st.dictionaries(st.sampled_from(ids), st.integers(1, 2), max_size=3))
    others = draw(st.lists(st.sampled_from(ids), max_size=2))
    shown = [number for number, _ in pictures]
    uses = [shown.count(n) + others.count(n) + trash.get(n, 0) for n in ids]
    lengths = draw(st.lists(st.integers(1, 99), min_size=count, max_size=count))
    zeros = np.zeros(count, np.int64)
    objects = Objects(
        np.array(ids), zeros, zeros, np.array(lengths), zeros, np.array(uses), zeros == 0
    )
    return objects, needs, pictures, trash


def ranks_of(
    objects: Objects,
    needs: list[list[int]],
    pictures: list[tuple[int, int]],
    trash: dict[int, int],
) -> Ints:
    table = np.array(pictures, np.int64).reshape(-1, 2)
    of_use = freeing.ranks_of_use(objects, table[:, 0], table[:, 1], trash)
    used = objects.uses > 0
    of_used = [each for each, is_used in zip(needs, used, strict=True) if is_used]
    counts = np.array([len(each) for each in of_used], np.int64)
    needed = np.array([number for each in of_used for number in each], np.int64)
    parts = [(objects.ids[used], counts, needed)]
    return freeing.ranks_of_objects(objects, of_use, parts)


@given(stores())
def test_what_goes_is_what_nothing_shown_needs(
    store: Store,
) -> None:
    objects, needs, pictures, trash = store
    found = ranks_of(*store)
    ids = objects.ids.tolist()
    for limit in (-1, 0, 1, 2, 3):
        left = dict(zip(ids, objects.uses.tolist(), strict=True))
        for number, files in trash.items():
            left[number] -= files
        for number, rank in pictures:
            left[number] -= rank <= limit
        needed = {n for at, number in enumerate(ids) if left[number] > 0 for n in needs[at]}
        gone = [number for number in ids if left[number] <= 0 and number not in needed]
        assert objects.ids[found <= limit].tolist() == gone


@given(stores(), st.integers(0, 1500))
def test_the_budget_is_met_with_as_few_as_possible(store: Store, most: int) -> None:
    objects = store[0]
    found = ranks_of(*store)
    limit = freeing.least_rank(found, objects.length, most)

    def left(rank: int) -> int:
        return int(objects.length[found > rank].sum())

    if limit == KEPT - 1:
        assert left(KEPT - 1) > most
    else:
        assert left(limit) <= most
        assert all(left(rank) > most for rank in range(limit))


def test_ids_that_do_not_exist_are_ignored() -> None:
    """A damaged row names them; the objects that exist must not go for it."""
    one = np.array([5], np.int64)
    objects = Objects(one, one * 0, one * 0, one, one * 0, one * 0 + 1, one > 0)
    part = (one, np.array([2]), np.array([3, 99]))
    found = freeing.ranks_of_objects(objects, np.array([KEPT]), [part])
    assert found.tolist() == [KEPT]
    assert freeing.ranks_of_use(objects, one[:0], one[:0]).tolist() == [KEPT]
    empty = one[:0]
    none = Objects(empty, empty, empty, empty, empty, empty, empty > 0)
    assert freeing.ranks_of_use(none, one[:0], one[:0]).tolist() == []
    assert DEAD < 0


def test_packs_with_little_garbage_stay() -> None:
    """Of a pack with more garbage, the entries before the first garbage stay where they are."""
    column = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], np.int64)
    packs = np.where(column <= 11, 1, 2)
    offset = np.where(column <= 11, (column - 1) * 100_000, 0)
    objects = Objects(
        column, packs, offset, column * 0 + 100_000, column * 0, column * 0, column > 0
    )
    packed = {1: 1_100_000, 2: 100_000}

    def frees(*ids: int, percent: int = 0) -> int:
        return freed_bytes(objects, np.isin(column, ids), packed, percent)

    assert frees() == 0
    assert frees(3) == 0  # a tenth at least
    assert frees(3, 4) == 2 * (100_000 + 60)
    assert frees(12) == 100_000 + 60
    before = parity.size_of(1_100_000, 5) + parity.size_of(100_000, 5)
    after = parity.size_of(200_000, 5) + parity.size_of(700_000, 5) + parity.size_of(100_000, 5)
    assert frees(3, 4, percent=5) == 200_120 + before - after
    # A smaller entry moves, and its old bytes are garbage.
    nothing = np.zeros(12, bool)
    found = freed_bytes(objects, nothing, packed, 0, {1: 1000, 2: 500, 3: 200_000})
    assert found == 2 * 100_000 - 1500
