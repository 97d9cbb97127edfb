"""Jobs of one series go to one worker, if no other worker would wait. The time is virtual."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fsmount.work import workers as workers_module
from fsmount.work.messages import Answer, Packed, unpack
from fsmount.work.workers import Workers

DONE: list[tuple[int, str]] = []


def job(name: str, seconds: float) -> str:
    """Take this time, in a fake worker."""
    return f"{name} {seconds}"


class Fake:
    """A worker that only sleeps, and notes its number and the name of the job in DONE."""

    numbers: Iterator[int]

    def __init__(self) -> None:
        self.pid = next(Fake.numbers)
        self.series: int | None = None

    @classmethod
    async def start(cls, _: object) -> Fake:
        await trio.lowlevel.checkpoint()
        return cls()

    def alive(self) -> bool:
        return True

    def waited_s(self) -> float:
        return 0.0

    async def ask(self, request: Packed, limit: float) -> Answer:
        _, (name, seconds) = unpack([bytearray(piece) for piece in request.pieces[1:]])
        DONE.append((self.pid, name))
        await trio.sleep(seconds)
        return Answer(name)

    def hang_up(self) -> None:
        pass

    def kill(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    Fake.numbers = itertools.count(1)
    DONE.clear()
    monkeypatch.setattr(workers_module, "_Worker", Fake)


async def run(
    count: int, jobs: Sequence[tuple[str, float, int, int | None]], busy_s: float = 1.0
) -> dict[str, int]:
    """Run jobs (name, seconds, priority, series) while all workers are busy at first.

    Returns the number of the worker of each job. DONE has their order.
    """
    async with Workers(count) as workers, trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(workers.run, job, f"busy {number}", busy_s + number / 1000)
        await wait_all_tasks_blocked()
        for order, (name, seconds, priority, series) in enumerate(jobs):

            async def one(
                name: str = name,
                seconds: float = seconds,
                priority: int = priority,
                order: int = order,
                series: int | None = series,
            ) -> None:
                await workers.run(job, name, seconds, priority=priority, order=order, series=series)

            nursery.start_soon(one)
    return {name: pid for pid, name in DONE if not name.startswith("busy")}


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


async def test_each_worker_has_a_series(autojump_clock: MockClock) -> None:
    jobs = [(f"{number}", 1.0, 0, number // 4) for number in range(8)]
    found = await run(2, jobs)
    assert len({found[f"{number}"] for number in range(4)}) == 1
    assert len({found[f"{number}"] for number in range(4, 8)}) == 1
    assert found["0"] != found["4"]


async def test_the_order_of_a_series_is_kept(autojump_clock: MockClock) -> None:
    await run(2, [(f"{number}", 1.0, 0, number // 4) for number in reversed(range(8))])
    names = [name for _, name in DONE if not name.startswith("busy")]
    assert [name for name in names if int(name) < 4] == ["3", "2", "1", "0"], "`order` rules"


async def test_no_worker_waits_while_a_job_waits(autojump_clock: MockClock) -> None:
    start = trio.current_time()
    found = await run(4, [(f"{number}", 1.0, 0, 7) for number in range(8)], busy_s=0.0)
    assert set(found.values()) == {1, 2, 3, 4}
    assert trio.current_time() - start == pytest.approx(2.0, abs=0.1)


async def test_a_worker_goes_on_with_its_series_before_jobs_of_higher_priority(
    autojump_clock: MockClock,
) -> None:
    jobs = [("a", 1.0, 0, 1), ("b", 1.0, 0, 1), ("other", 1.0, 0, 2), ("urging", 1.0, 5, None)]
    await run(1, jobs)
    assert [name for _, name in DONE] == ["busy 0", "urging", "a", "b", "other"]
    DONE.clear()
    Fake.numbers = itertools.count(1)
    await run(1, [("a", 1.0, 9, 1), ("b", 1.0, 0, 1), ("urging", 1.0, 5, None)])
    assert [name for _, name in DONE] == ["busy 0", "a", "b", "urging"]
