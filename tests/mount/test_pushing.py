"""Pushes by a mount: when they come, and what their failures do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing

from fsmount.mount import pushing
from fsmount.mount.pushing import Pushing
from fsmount.store.pushed import Pushed
from fsmount.store.read_store import ReadStore
from tests.support.fake_store import FakeStore

URL = "s3://bucket/shots"


class Child:
    """Takes the place of the process: notes the time of each start, and how it ends."""

    def __init__(self, endings: list[str]) -> None:
        self.endings = endings
        self.times: list[float] = []
        self.nice: set[int] = set()
        self.killed = 0

    async def run(self, command: list[str], **_: object) -> object:
        assert command[:2] == ["nice", "-n"]
        self.nice.add(int(command[2]))
        assert command[-2:] == ["/the store", URL]
        self.times.append(trio.current_time())
        ending = self.endings.pop(0) if self.endings else ""
        if ending == "slow":
            try:
                await trio.sleep(1000)
            except trio.Cancelled:
                self.killed += 1
                raise
        if ending == "missing":
            raise FileNotFoundError("nice")
        return _Done(bool(ending), ending.encode())


class _Done:
    def __init__(self, code: int, stderr: bytes) -> None:
        self.returncode, self.stderr = code, stderr


@pytest.fixture(name="child")
def _child(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], Child]:
    def make(endings: list[str]) -> Child:
        made = Child(endings)
        monkeypatch.setattr(trio, "run_process", made.run)
        return made

    return make


@pytest.fixture(name="quiet")
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(store: ReadStore) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(pushing, "look", look)


def test_pushes_come_at_the_interval_whatever_happens(
    store: FakeStore,
    child: Callable[[list[str]], Child],
    quiet: None,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    made = child(["", "no network", "no network", "another", "missing", "", ""])
    caplog.set_level(logging.INFO)

    async def look() -> None:
        with trio.move_on_after(6.5 * 3600):
            await Pushing("/the store", URL, 3600).run(cast(ReadStore, store))

    trio.run(look, clock=autojump_clock)
    assert made.nice == {19}
    first = made.times[0]
    # Soon after the start, then once an hour; nothing was noted in this store.
    assert [round(when - first) for when in made.times[1:4]] == [60, 3660, 7260]
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in lines] == ["WARNING", "WARNING", "WARNING", "INFO"]
    for text, (_, line) in zip(("no network", "another", "nice", "again"), lines, strict=True):
        assert text in line


def test_the_last_push_is_counted_from(
    store: FakeStore,
    child: Callable[[list[str]], Child],
    quiet: None,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = child([])
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    store.pushed = [Pushed("file:///other", 1, 999_999, ""), Pushed(URL, 1, 1_000_000 - 600, "")]

    async def look() -> float:
        start = trio.current_time()
        with trio.move_on_after(3500):
            await Pushing("/the store", URL, 3600).run(cast(ReadStore, store))
        return start

    start = trio.run(look, clock=autojump_clock)
    assert [round(when - start) for when in made.times] == [3000]


def test_the_push_at_the_end_is_short(
    child: Callable[[list[str]], Child], autojump_clock: trio.testing.MockClock
) -> None:
    made = child(["", "slow", "failed"])

    async def ends() -> float:
        start = trio.current_time()
        one = Pushing("/the store", URL, 3600)
        for _ in range(5):
            await one.at_end()
        return trio.current_time() - start

    # The second one is slow; the third one fails, and then nothing more is tried.
    assert round(trio.run(ends, clock=autojump_clock)) == pushing.END_S
    assert (len(made.times), made.killed) == (3, 1)


def test_a_real_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "END_S", 300)
    caplog.set_level(logging.INFO)
    trio.run(Pushing(str(tmp_path / "gone"), f"file://{tmp_path}/remote", 60).at_end)
    assert "is not an fsmount store" in caplog.text
