"""The number of jobs at a time follows the cores that they get. The machine is a simple model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from fsmount.errors import UsageError
from fsmount.work import machine
from fsmount.work.concurrency import Concurrency
from fsmount.work.workers import Workers
from tests.support import worker_jobs as jobs


def after(limit: Concurrency, cores: float, looks: int = 30, ask: int = 1000) -> list[int]:
    """The limits while `ask` jobs wait, on a machine that has `cores` free cores."""
    seen = [limit.limit]
    for _ in range(looks):
        running = min(limit.limit, ask)
        changed = limit.measured(running, 0.02, 0.02 * max(0.0, running - cores))
        assert changed == (limit.limit != seen[-1])
        seen.append(limit.limit)
    return seen


@pytest.mark.parametrize("most", [1, 2, 3, 4, 8, 16, 64])
def test_all_cores_are_used_if_they_are_free(most: int) -> None:
    limit = Concurrency(most)
    assert limit.limit == min(most, 4)
    assert after(limit, cores=most)[-1] == most


def test_the_limit_doubles() -> None:
    assert after(Concurrency(32), cores=32, looks=3) == [4, 8, 16, 32]


@pytest.mark.parametrize(
    ("cores", "most", "least"), [(2, 3, 2), (1, 2, 2), (1.7, 4, 2), (4, 6, 4), (8, 16, 8)]
)
def test_busy_cores_get_few_jobs(cores: float, most: int, least: int) -> None:
    """The cores stay busy, and not many jobs wait."""
    seen = after(Concurrency(16), cores)[2:]
    assert least <= min(seen) and max(seen) <= most, seen


def test_few_jobs_do_not_raise_the_limit() -> None:
    limit = Concurrency(16)
    assert set(after(limit, cores=16, ask=2)) == {4}


def test_the_limit_recovers() -> None:
    limit = Concurrency(16)
    assert after(limit, cores=1)[-1] == 2
    assert after(limit, cores=16)[-1] == 16


def test_one_worker_stays_one() -> None:
    assert set(after(Concurrency(1), cores=0.1)) == {1}


def test_nothing_is_learned_from_nothing() -> None:
    limit = Concurrency(16)
    assert not limit.measured(0, 0.0, 0.0)


def test_a_chosen_number_stays() -> None:
    limit = Concurrency(16, is_chosen=True)
    assert set(after(limit, cores=1)) == {16}


needs_schedstat = pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="this kernel does not say"
)


@pytest.fixture
def _one_core() -> Iterator[None]:
    """This process and those that it starts share one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


async def limit_after(count: int, function: Callable[[float], None]) -> int:
    """The limit of real workers after 48 jobs of 0.05 seconds."""
    with trio.fail_after(60):
        async with Workers(count) as workers:
            async with trio.open_nursery() as nursery:
                for _ in range(48):
                    nursery.start_soon(workers.run, function, 0.05)
            return workers.limit


@needs_schedstat
@pytest.mark.usefixtures("_one_core")
async def test_real_jobs_that_share_a_core() -> None:
    assert await limit_after(8, jobs.burn) == 2


@pytest.mark.usefixtures("_one_core")
async def test_the_environment_chooses_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSMOUNT_JOBS", "8")
    assert machine.cores() == 8
    assert await limit_after(machine.cores(), jobs.burn) == 8


@pytest.mark.parametrize("text", ["0", "-1", "many", "²"])
def test_a_number_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FSMOUNT_JOBS", text)
    with pytest.raises(UsageError, match="FSMOUNT_JOBS"):
        machine.cores()


@needs_schedstat
@pytest.mark.usefixtures("_one_core")
async def test_real_jobs_that_sleep_do_not_wait_for_a_core() -> None:
    # Other programs may use the core, too, and delay the start of the workers.
    assert await limit_after(8, time.sleep) >= 4
