"""Goes through many files of a store on all cores: neighbours are rendered as one group.

:mod:`fsmount.store.frames.group` says why. The groups in flight are bounded by their number and by
the bytes of their files.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Generic, NamedTuple, Protocol, TypeVar

import trio

from fsmount.store.frames.group import Rendered
from fsmount.store.index import Object
from fsmount.store.ingest.sequencer import Sequencer, Slot
from fsmount.store.ingest.under_way import Place, UnderWay

T = TypeVar("T")
Tell = Callable[[], None]
"""Says what became of an item."""

# A group has the objects of at most this many items. With 16, each of them takes about as much
# processor time as in one long run. The first takes about twice as long as the others, so more
# cores do not make the groups smaller.
_MOST = 16
# A group of several items has at most so many bytes of files: large files are few and take long.
_GROUP_BYTES = 16 << 20
# Groups in flight, and bytes of their files, by cores. While a worker renders one group, the files
# of another one are written or compared.
_AHEAD = 2
_AHEAD_BYTES = _GROUP_BYTES


class Renderer(Protocol):
    """What renders objects: a running store."""

    @property
    def count(self) -> int:
        """Number of background jobs at a time."""

    async def render(self, object_ids: Sequence[int], *, with_bytes: bool) -> list[Rendered | None]:
        """See :meth:`BodyReader.render`."""


class Wanted(NamedTuple, Generic[T]):
    """An item, and the object whose file is to be rendered for it, if any."""

    item: T
    found: Object | None


async def for_each(
    renderer: Renderer,
    wanted: Iterable[Wanted[T]],
    work: Callable[[T, Rendered | None], Awaitable[Tell]],
    *,
    with_bytes: bool,
) -> None:
    """Call `work` for each item, several at a time, with its rendered file.

    `work` gets None if the item wants no object, if the object is a large raw file, or if it could
    not be rendered together with others. `work` returns what to call when all items before have
    been told of, so that messages come in order. `with_bytes`: whether it needs the bytes of the
    files, or only their hashes. Raises, in an exception group, what `work` raises.
    """
    files = _AHEAD * renderer.count
    under_way = UnderWay(lambda: files, _AHEAD_BYTES * renderer.count)
    order = Sequencer()
    async with trio.open_nursery() as nursery:
        left = iter(wanted)
        # Few items are spread over two cores.
        first = list(islice(left, 2 * _MOST))
        share = math.ceil(len(first) / min(2, renderer.count))
        most = max(1, min(_MOST, share))
        for group, nbytes in _groups(chain(first, left), most):
            place = await under_way.enter()
            place.looked_at(nbytes if with_bytes else 0)
            nursery.start_soon(_do, renderer, group, work, with_bytes, place, order.slot())


def _groups(wanted: Iterable[Wanted[T]], most: int) -> Iterator[tuple[list[Wanted[T]], int]]:
    """Split items into groups of neighbours. Yields each with the bytes of its files."""
    group: list[Wanted[T]] = []
    total = 0
    for each in wanted:
        nbytes = _nbytes(each)
        if group and (len(group) == most or total + nbytes > _GROUP_BYTES):
            yield group, total
            group, total = [], 0
        group.append(each)
        total += nbytes
    if group:
        yield group, total


def _nbytes(wanted: Wanted[T]) -> int:
    found = wanted.found
    return 0 if found is None or found.is_kept else found.size


async def _do(
    renderer: Renderer,
    group: Sequence[Wanted[T]],
    work: Callable[[T, Rendered | None], Awaitable[Tell]],
    with_bytes: bool,
    place: Place,
    slot: Slot,
) -> None:
    """Render a group, and do the work of its items."""
    left = sorted({each.found.id for each in group if each.found and not each.found.is_kept})
    if len(left) == 1:
        left = []  # `work` reads the file alone, and then one render can use several cores.
    known: dict[int, Rendered | None] = {}
    told: list[Tell] = []
    try:
        for item, found in group:
            while found is not None and found.id in left:
                made = await renderer.render(left, with_bytes=with_bytes)
                known.update(zip(left, made, strict=False))
                left = left[len(made) :]
            told.append(await work(item, known.get(found.id) if found is not None else None))
            if slot.opened.is_set():
                _tell(told)
        await slot.enter()
        _tell(told)
    finally:
        slot.leave()
        place.leave()


def _tell(told: list[Tell]) -> None:
    for tell in told:
        tell()
    told.clear()
