"""Frames that refer to frames which are still being coded: every way in which one of these fails.

The first picture is the anchor. Each later one copies all tiles of the ones before, and has one
tile of its own.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from fsmount.codec.delta.delta import Fill
from fsmount.errors import NotExact
from fsmount.store.frames import jobs
from fsmount.store.frames.layers import Done
from fsmount.store.index import Object
from fsmount.store.ingest import retries
from fsmount.store.store import open_store
from fsmount.store.writable_store import WritableStore
from tests.support.encoding import Inline, put, reopened, rewrite, settled, unlink_staged
from tests.support.frames import png, scrolled, stacked

pytestmark = pytest.mark.usefixtures("inline")
COUNT = 5


FILES = {b"%d" % number: png(frame) for number, frame in enumerate(stacked(COUNT))}


class Together:
    """Lets all frames but the first be coded at the same time, and holds back their answers.

    `order` has the order of each file by its name. `fault` may replace the answer to the first
    order for the file `name`, or raise.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.orders: dict[str, list[jobs.EncodeOrder]] = {}
        self.all_coded = trio.Event()
        self.go = trio.Event()
        self.name = ""
        self.fault: Callable[[jobs.Encoded], jobs.Encoded] | None = None
        whole = Inline.run

        async def run(inline: Inline, asked: Callable[..., Any], *args: Any, **how: Any) -> Any:
            answer = await whole(inline, asked, *args, **how)
            if asked is not jobs.encode:
                return answer
            order = args[0]
            self.orders.setdefault(order.about.path, []).append(order)
            if len(self.orders) == COUNT:
                self.all_coded.set()
            await self.go.wait()
            first = len(self.orders[order.about.path]) == 1
            if first and order.about.path == self.name and self.fault is not None:
                return Done(self.fault(answer.result), answer.made)
            return answer

        monkeypatch.setattr(Inline, "run", run)

    async def reached(self, store: WritableStore) -> dict[bytes, int]:
        """Put all files, and wait until all are coded and none is appended."""
        inodes = {name: put(store, name, data) for name, data in FILES.items()}
        with trio.fail_after(20):
            await self.all_coded.wait()
        assert list(store.index.all_objects()) == []
        for number in range(1, COUNT):
            order = self.orders[str(number)][0]
            assert {each.about.path for each in order.pending} >= set(map(str, range(1, number)))
        return inodes

    def times(self) -> list[int]:
        """How often each file was coded."""
        return [len(self.orders[str(number)]) for number in range(COUNT)]


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Iterator[Together]:
    monkeypatch.setattr(retries, "_RETRY_SECONDS", 0.05)
    yield Together(monkeypatch)


def rows(store: WritableStore) -> list[Object]:
    """All objects. Each names objects alone that exist, and that came before it."""
    found = list(store.index.all_objects())
    for row in found:
        assert all(below < row.id for below in row.needs)
        assert {store.index.object(below).id for below in row.needs} == set(row.needs)
    return found


async def test_each_is_coded_once_and_names_those_before(root: Path, together: Together) -> None:
    opened = open_store(root)
    async with opened.running(count=2) as store:
        await together.reached(store)
        together.go.set()
        await settled(store, FILES)
        assert together.times() == [1] * COUNT
        assert [row.needs for row in rows(store)] == [tuple(range(1, n)) for n in range(1, 6)]
    opened.close()
    await reopened(root, FILES)


def _io_error(_: jobs.Encoded) -> jobs.Encoded:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _not_exact(_: jobs.Encoded) -> jobs.Encoded:
    raise NotExact("told to fail")


def _wrong_entry(encoded: jobs.Encoded) -> jobs.Encoded:
    return replace(encoded, entry=replace(encoded.entry, payload=encoded.entry.payload[:-1]))


def _codes_less(encoded: jobs.Encoded) -> jobs.Encoded:
    tiles = np.ones_like(encoded.layout.tiles)
    return replace(encoded, layout=replace(encoded.layout, tiles=tiles, sources=(Fill((0, 0, 0)),)))


@pytest.mark.parametrize("name", ["0", "1", "3"])
@pytest.mark.parametrize("fault", [_io_error, _not_exact, _wrong_entry, _codes_less])
async def test_those_that_refer_to_one_that_fails_are_coded_anew(
    root: Path,
    together: Together,
    name: str,
    fault: Callable[[jobs.Encoded], jobs.Encoded],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    together.name, together.fault = name, fault
    opened = open_store(root)
    async with opened.running(count=2) as store:
        await together.reached(store)
        together.go.set()
        await settled(store, FILES)
        found = rows(store)
        kept_raw = [row.kind for row in found].count("raw")
        assert kept_raw == (fault is _not_exact)
        number = int(name)
        assert all(times >= 2 for times in together.times()[number + 1 :])
        if fault is not _wrong_entry:  # that is found out by the commit, which gives all up
            assert together.times()[:number] == [1] * number
    opened.close()
    await reopened(root, FILES)


@pytest.mark.parametrize("name", [b"0", b"2"])
async def test_one_is_removed(root: Path, together: Together, name: bytes) -> None:
    opened = open_store(root)
    async with opened.running(count=2) as store:
        await together.reached(store)
        unlink_staged(store, name)
        together.go.set()
        left = {other: data for other, data in FILES.items() if other != name}
        await settled(store, left)
        rows(store)
    opened.close()
    await reopened(root, left)


@pytest.mark.parametrize("name", [b"0", b"2"])
async def test_one_is_written_to(root: Path, together: Together, name: bytes) -> None:
    other = png(255 - stacked(1)[0])
    opened = open_store(root)
    async with opened.running(count=2) as store:
        inodes = await together.reached(store)
        store.hold(inodes[name])
        store.unhold(inodes[name])
        rewrite(store, inodes[name], other)
        together.go.set()
        changed = {**FILES, name: other}
        await settled(store, changed)
        rows(store)
    opened.close()
    await reopened(root, changed)


async def test_an_equal_file_comes_while_the_first_is_coded_which_then_fails(
    root: Path, together: Together
) -> None:
    together.name, together.fault = "1", _io_error
    files = {**FILES, b"9": FILES[b"1"]}
    opened = open_store(root)
    async with opened.running(count=2) as store:
        await together.reached(store)
        put(store, b"9", FILES[b"1"])
        await trio.testing.wait_all_tasks_blocked(0.01)
        together.go.set()
        await settled(store, files)
        assert len({row.sha256 for row in rows(store)}) == len(FILES)
    opened.close()
    await reopened(root, files)


async def test_a_record_is_not_packed_against_what_its_anchor_did_not_become(
    root: Path, together: Together
) -> None:
    """The first file is the anchor. Its record turns out to be another one than was taken."""

    def other_record(encoded: jobs.Encoded) -> jobs.Encoded:
        stored = encoded.entry.record
        return replace(encoded, entry=replace(encoded.entry, record=stored + b"x"))

    together.name, together.fault = "0", other_record
    opened = open_store(root)
    async with opened.running(count=2) as store:
        await together.reached(store)
        assert together.orders["1"][0].plan.anchor == 1
        together.go.set()
        await settled(store, FILES)
        rows(store)
    opened.close()
    await reopened(root, FILES)


async def test_a_frame_with_another_anchor_than_expected_costs_no_other_frame(
    root: Path, together: Together
) -> None:
    """It is coded again by the same plan, so the frames that refer to it need not be."""

    def other_anchor(encoded: jobs.Encoded) -> jobs.Encoded:
        return replace(encoded, proof=encoded.proof._replace(anchor=b"another record"))

    together.name, together.fault = "1", other_anchor
    opened = open_store(root)
    async with opened.running(count=2) as store:
        await together.reached(store)
        together.go.set()
        await settled(store, FILES)
        assert together.times() == [1, 2, 1, 1, 1]
        assert [row.needs for row in rows(store)] == [tuple(range(1, n)) for n in range(1, 6)]
    opened.close()
    await reopened(root, FILES)


async def test_a_frame_whose_anchor_is_appended_between_its_two_jobs_is_coded_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page scrolls: its anchor is pending for the search for moved tiles, and no more after."""
    searching = trio.Event()
    searched, coded = dict[str, jobs.EncodeOrder](), list[jobs.EncodeOrder]()
    whole = Inline.run

    async def run(inline: Inline, asked: Callable[..., Any], *args: Any, **how: Any) -> Any:
        answer = await whole(inline, asked, *args, **how)
        if asked is jobs.find_moves:
            searched[args[0].about.path] = args[0]
            searching.set()
            while not list(store.index.all_objects()):
                await trio.sleep(0)
        if asked is jobs.encode:
            coded.append(args[0])
            await searching.wait()
        return answer

    monkeypatch.setattr(Inline, "run", run)
    # Beside noise, so that most of each picture is that of the first.
    noise = np.random.default_rng(1).integers(0, 256, (240, 960, 3), np.uint8)
    pages = [np.concatenate([noise, page], axis=1) for page in scrolled(2)]
    files = {b"%d" % number: png(frame) for number, frame in enumerate(pages)}
    opened = open_store(root)
    async with opened.running(count=2) as store:
        for name, data in files.items():
            put(store, name, data)
        with trio.fail_after(20):
            await settled(store, files)
        names = [order.about.path for order in coded]
        assert sorted(names) == sorted(name.decode() for name in files)
        first = next(iter(searched))
        order = coded[names.index(first)]
        assert order.plan.anchor in [each.about.id for each in searched[first].pending]
        assert order.plan.anchor not in [each.about.id for each in order.pending]
    opened.close()
    await reopened(root, files)


async def test_everything_is_given_up_while_all_are_coded(root: Path, together: Together) -> None:
    opened = open_store(root)
    async with opened.running(count=2) as store:
        await together.reached(store)
        async with store._encoder.halted():
            pass
        together.go.set()
        await settled(store, FILES)
        rows(store)
        assert all(times >= 2 for times in together.times())
    opened.close()
    await reopened(root, FILES)
