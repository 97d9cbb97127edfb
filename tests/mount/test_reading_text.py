"""When a mount reads text, and when it does not."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import trio

from fsmount.mount import reading_text
from fsmount.mount.reading_text import command, read_text_when_idle
from fsmount.store.writable_store import WritableStore
from tests.mount.test_power_supply import supply


class Used:
    """A store of which the test says how long it was not used."""

    def __init__(self, unused: float = 100.0) -> None:
        self.unused = unused

    def unused_s(self) -> float:
        return self.unused


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_text, "_LOOK_S", 0.01)
    monkeypatch.setattr(reading_text, "_EVERY_S", 0.02)


async def until(is_so: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not is_so():
            await trio.sleep(0.01)


def state(pid: int) -> str:
    """The state of a process: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def reading(store: Used, words: list[str], supplies: Path) -> Callable[[], object]:
    return lambda: read_text_when_idle(cast(WritableStore, store), 0.05, words, supplies)


async def test_it_runs_again_and_again(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    words = ["sh", "-c", f"echo run >> {runs}"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reading(Used(), words, tmp_path / "none"))  # type: ignore[arg-type]
        await until(lambda: runs.exists() and len(runs.read_text().split()) >= 2)
        nursery.cancel_scope.cancel()


async def test_not_on_battery_and_not_in_use(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    words = ["sh", "-c", f"echo run >> {runs}"]
    battery = tmp_path / "supplies"
    supply(battery, "AC", type="Mains", online="0")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reading(Used(), words, battery))  # type: ignore[arg-type]
        nursery.start_soon(reading(Used(0.0), words, tmp_path / "none"))  # type: ignore[arg-type]
        await trio.sleep(0.3)
        nursery.cancel_scope.cancel()
    assert not runs.exists()


async def test_it_is_held_back_while_the_store_is_used(tmp_path: Path) -> None:
    store = Used()
    pid = tmp_path / "pid"
    words = ["sh", "-c", f"echo $$ > {pid}.new; mv {pid}.new {pid}; while :; do sleep 0.01; done"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reading(store, words, tmp_path / "none"))  # type: ignore[arg-type]
        await until(pid.exists)
        number = int(pid.read_text())
        store.unused = 0.0
        await until(lambda: state(number) == "T")
        store.unused = 100.0
        await until(lambda: state(number) != "T")
        nursery.cancel_scope.cancel()
    # It ends with the mount, also while it is stopped.
    assert not Path(f"/proc/{number}").exists()


async def test_a_failure_is_logged_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [sys.executable, "-c", "import sys; sys.exit('no tesseract')"]
    with caplog.at_level(logging.ERROR):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reading(Used(), words, tmp_path / "none"))  # type: ignore[arg-type]
            await until(lambda: caplog.text.count("no tesseract") >= 2)
            nursery.cancel_scope.cancel()
    assert "reading text ended with 1" in caplog.text


def test_the_command(tmp_path: Path) -> None:
    words = command(tmp_path)
    assert words[:5] == [sys.executable, "-P", "-m", "fsmount", "text"]
    assert words[-1] == str(tmp_path)
