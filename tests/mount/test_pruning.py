"""When a mount prunes by the policy of its store, and when it looks after the trash."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from fsmount import threads
from fsmount.errors import TextDamaged, TextLocked
from fsmount.mount import pruning
from fsmount.mount.pruning import prune_when_idle
from fsmount.store.layout import Layout
from fsmount.store.retention.amounts import Amount
from fsmount.store.retention.policy import Policy
from fsmount.store.retention.rules import Rules
from fsmount.store.retention.trash import Name
from fsmount.store.transfer.policing import Run, run_at
from fsmount.store.writable_store import WritableStore
from fsmount.text.wiping import Wiped, wipe_at
from fsmount.threads import Kind
from tests.mount.test_power_supply import supply

NAME = Name(1, b"a.png", b"a.png", 5)
POLICY = Policy(Rules(last=Amount(count=1)), every_hours=2)


@dataclass
class Store:
    """A store that notes what it is asked for, by the seconds since its start."""

    root: Path
    used: float = 0.0
    expiring: int = 0
    done: list[tuple[int, str]] = field(default_factory=list)
    last: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        self.layout = Layout(self.root)
        self.workers = SimpleNamespace(run=self._run)
        self.index = SimpleNamespace(
            pruned=lambda: self.last, set_pruned=self._set_pruned, let_go=0
        )
        # What removing words gives or raises, the last one again and again.
        self.wiped: list[Wiped | Exception] = [Wiped(0, 0)]
        self.start = trio.current_time()

    def set_config(self, **values: object) -> None:
        (self.root / "fsmount.json").write_text(json.dumps({"format": 2, **values}))

    def _note(self, what: str) -> None:
        self.done.append((round(trio.current_time() - self.start), what))

    def unused_s(self) -> float:
        return trio.current_time() - self.start - self.used

    def while_unused(self) -> Callable[[], bool]:
        return lambda: True

    async def _run(self, function: object, root: str, rules: object) -> Run | Wiped:
        if (function, root) == (wipe_at, str(self.root)):
            self._note("wipe")
            found = self.wiped.pop(0) if len(self.wiped) > 1 else self.wiped[0]
            if isinstance(found, Exception):
                raise found
            return found
        assert (function, root, rules) == (run_at, str(self.root), POLICY.rules)
        return Run([NAME], 7, 100, is_over_budget=True)

    async def prune(self, names: list[Name], moved: Callable[[int, bytes], None]) -> int:
        self._note("prune")
        for name in names:
            moved(name.folder, name.name)
        return len(names)

    def _set_pruned(self, *run: int) -> None:
        self.last = (run[0], run[1], run[2])

    async def let_expire(self) -> int:
        self._note("expire")
        return self.expiring

    async def give_back(self, go_on: Callable[[], bool], *, compact: bool) -> None:
        assert go_on() and not compact
        self._note("give back")


async def watch(store: Store, seconds: float, after_s: float | None, supplies: Path) -> list[Any]:
    """Run it for `seconds`. Returns the names that the kernel was told of."""
    told: list[Any] = []
    with trio.move_on_after(seconds):
        await prune_when_idle(
            cast(WritableStore, store), after_s, lambda *name: told.append(name), supplies
        )
    return told


@pytest.fixture(autouse=True)
def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of these tests jumps while a thread works."""

    async def call(_: Kind, function: Callable[..., object], *args: object) -> object:
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr(threads, "call", call)


def a_store(root: Path) -> Store:
    """A store with a policy."""
    made = Store(root)
    made.set_config(policy=POLICY.value())
    return made


async def test_a_run_when_the_mount_is_idle(autojump_clock: MockClock, tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.used = 5
    assert await watch(store, 700, 10, tmp_path / "supplies") == [(1, b"a.png")]
    # The second look is too early for a second run.
    assert store.done == [(15, "prune"), (15, "expire"), (15, "wipe"), (618, "expire")]
    assert store.last is not None
    assert store.last[1:] == (1, 7)
    store.last = (time.time_ns() - 2 * 3600 * 10**9, 1, 7)
    store.done.clear()
    await watch(store, 50, 10, tmp_path / "supplies")
    assert "prune" in [what for _, what in store.done]


async def test_without_the_option_only_the_trash(autojump_clock: MockClock, tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.expiring = 3
    assert await watch(store, 100, None, tmp_path / "supplies") == []
    assert store.done == [(60, "expire"), (60, "give back"), (60, "wipe")]


async def test_a_policy_that_makes_no_sense(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = a_store(tmp_path)
    store.set_config(policy={"keep": {"fortnightly": "1"}})
    with caplog.at_level(logging.INFO):
        await watch(store, 30, 10, tmp_path / "supplies")
    assert store.done == [(10, "expire"), (10, "wipe")]
    assert "nothing is pruned: the policy in fsmount.json has rules" in caplog.text


async def test_no_policy(autojump_clock: MockClock, tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.set_config()
    await watch(store, 30, 10, tmp_path / "supplies")
    assert store.done == [(10, "expire"), (10, "wipe")]


async def test_not_on_a_battery(autojump_clock: MockClock, tmp_path: Path) -> None:
    store = a_store(tmp_path)
    supply(tmp_path / "supplies", "AC", type="Mains", online="0")
    await watch(store, 5000, 10, tmp_path / "supplies")
    assert store.done == []


async def test_an_error_is_logged_and_it_goes_on(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = a_store(tmp_path)

    async def broken(*_: object) -> None:
        raise OSError(5, "broken")

    monkeypatch.setattr(pruning, "_keep_policy", broken)
    await watch(store, 700, 10, tmp_path / "supplies")
    assert [what for _, what in store.done] == ["expire", "wipe", "expire"]


async def test_words_of_what_went_are_removed(autojump_clock: MockClock, tmp_path: Path) -> None:
    """At the first time, after a prune, and after programs deleted files."""
    store = a_store(tmp_path)
    store.set_config()
    store.wiped = [Wiped(5, 2), Wiped(2, 0)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, store, 2000, 10, tmp_path / "supplies")
        await trio.sleep(100)
        assert [what for _, what in store.done] == ["expire", "wipe", "wipe"]
        await trio.sleep(800)
        assert [what for _, what in store.done].count("wipe") == 2
        store.index.let_go += 1
        await trio.sleep(600)
        assert [what for _, what in store.done].count("wipe") == 3


@pytest.mark.parametrize("error", [TextLocked("s"), TextDamaged("s", reason="r"), OSError(5, "x")])
async def test_words_that_cannot_be_removed_are_tried_again(
    autojump_clock: MockClock, tmp_path: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    store = a_store(tmp_path)
    store.wiped = [error, Wiped(1, 0)]
    with caplog.at_level(logging.INFO):
        await watch(store, 1900, 10, tmp_path / "supplies")
    assert [what for _, what in store.done].count("wipe") == 2
    told = "words of pictures that are gone may still be in the store" in caplog.text
    assert told == (not isinstance(error, TextLocked))
    assert "words of 1 pictures that are gone were removed" in caplog.text
