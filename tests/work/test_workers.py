from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fsmount.errors import Damaged, FsmountError, WorkerDied
from fsmount.work.worker_process import LEFT_TO_PARENT
from fsmount.work.workers import Workers
from tests.bench.measure import children
from tests.support import worker_jobs as jobs
from tests.support.paths import CHECKOUT

LONG = 20.0  # seconds; every step of these tests takes far less


@asynccontextmanager
async def workers(count: int = 1, time_limit: float = LONG) -> AsyncIterator[Workers]:
    with trio.fail_after(LONG):
        async with Workers(count, time_limit=time_limit) as opened:
            yield opened
            pids = opened.pids()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def make_fifo(folder: Path, name: str) -> Path:
    path = folder / name
    os.mkfifo(path)
    return path


def end_of(pid: int) -> None:
    """Kill a worker, or the template, and wait until it has ended."""
    fd = os.pidfd_open(pid)
    signal.pidfd_send_signal(fd, signal.SIGKILL)
    wait_for(fd)


def wait_for(pidfd: int) -> None:
    """Wait until a process has ended, and close its descriptor."""
    ended, _, _ = select.select([pidfd], [], [], LONG)
    assert ended
    os.close(pidfd)


def templates() -> list[int]:
    """The templates that this process has started and that run; it may have other children."""
    return [
        pid
        for pid in children(os.getpid())
        if b"template_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


async def starting_template() -> int:
    """The one template that this process starts. Waits until it is the program of a template."""
    with trio.fail_after(30):
        while not (found := templates()):
            await trio.sleep(0.001)
    (template,) = found
    return template


async def template_of(some: Workers) -> int:
    """The process that the workers are forked from."""
    return await some.run(os.getppid)


async def meet(fifo: Path) -> None:
    """Wait until a job waits at `fifo`, and let it go on."""

    def read() -> None:
        with fifo.open("rb"):
            pass

    await trio.to_thread.run_sync(read)


# Results and errors


async def test_result() -> None:
    async with workers() as some:
        assert some.pids() == []
        assert await some.run(jobs.add, 1, 2) == 3
        assert some.pids() == [await some.run(os.getpid)]


async def test_big_arrays_and_bytes() -> None:
    array = np.random.default_rng(1).integers(0, 256, (1080, 1920, 4), np.uint8)
    data = array.tobytes()
    expected = array.copy()
    async with workers() as some:
        got, same, height = await some.run(jobs.pair, array, data)
        assert np.array_equal(array, expected)
        expected[0, 0] = 1
        assert np.array_equal(got.transpose(), expected)
        assert (same == data, height) == (True, 1080)
        got[0] = 2  # the caller owns the array that comes back


async def test_many_at_once() -> None:
    got = dict[int, int]()

    async def one(some: Workers, number: int) -> None:
        got[number] = await some.run(jobs.add, number, 1, urgent=number % 3 == 0)

    async with workers(2) as some:
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(one, some, number)
        assert len(some.pids()) <= 3
    assert got == {number: number + 1 for number in range(60)}


@pytest.mark.parametrize("error", [ValueError("no"), Damaged("this", reason="that"), KeyError("k")])
async def test_exceptions_come_back(error: Exception) -> None:
    async with workers() as some:
        with pytest.raises(type(error)) as caught:
            await some.run(jobs.fail, error)
        assert str(caught.value) == str(error)
        assert "in fail" in caught.value.__notes__[0]
        pids = some.pids()
        assert await some.run(jobs.add, 1, 2) == 3
        assert some.pids() == pids


async def test_exception_that_cannot_be_pickled() -> None:
    async with workers() as some:
        with pytest.raises(FsmountError, match="OddError: 1 and 2"):
            await some.run(jobs.fail_oddly)


async def test_result_or_function_that_cannot_be_pickled() -> None:
    async with workers() as some:
        with pytest.raises(Exception, match="pickle"):
            await some.run(jobs.unpicklable)
        with pytest.raises(Exception, match="pickle"):
            await some.run(lambda: None)
        assert await some.run(jobs.add, 1, 2) == 3


async def test_outside_of_the_context() -> None:
    some = Workers(1)
    with pytest.raises(RuntimeError):
        await some.run(jobs.add, 1, 2)
    with pytest.raises(ValueError, match="at least one"):
        Workers(0)


# Death


@pytest.mark.parametrize("how", ["kill", "exit", "memory"])
async def test_one_death_costs_one_more_attempt(tmp_path: Path, how: str) -> None:
    marker = tmp_path / "marker"
    async with workers() as some:
        (before,) = await started(some)
        after = await some.run(jobs.die_once, marker, how)
        assert after != before
        assert some.pids() == [after]
    assert marker.read_text().splitlines() == ["attempt"] * 2


async def started(some: Workers) -> list[int]:
    await some.warm()
    return some.pids()


@pytest.mark.parametrize("how", ["kill", "exit", "memory"])
async def test_two_deaths(how: str) -> None:
    async with workers() as some:
        with pytest.raises(WorkerDied, match=r"\bdie\b"):
            await some.run(jobs.die, how)
        assert some.pids() == []
        assert await some.run(jobs.add, 1, 2) == 3


async def test_time_limit() -> None:
    async with workers(time_limit=0.3) as some:
        with pytest.raises(WorkerDied):
            await some.run(jobs.die, "time")
        assert some.pids() == []


async def test_a_worker_that_died_idle_costs_no_attempt(tmp_path: Path) -> None:
    async with workers(2) as some:
        for pid in await started(some):
            end_of(pid)
        await some.run(jobs.die_once, tmp_path / "marker", "kill")


async def test_workers_that_cannot_start() -> None:
    async with Workers(2, preload=["no_such_module"]) as some:
        with pytest.raises(WorkerDied):
            await some.warm()
        with pytest.raises(WorkerDied):
            await some.run(jobs.add, 1, 2)
        assert some.pids() == []


async def test_memory_limit() -> None:
    async with Workers(1, memory_limit=1 << 29) as some:
        assert len(await some.run(bytearray, 1 << 26)) == 1 << 26
        with pytest.raises(WorkerDied):
            await some.run(bytearray, 1 << 29)


async def test_signals_are_left_to_the_parent() -> None:
    async with workers() as some:
        (pid,) = await started(some)
        assert all(await some.run(jobs.ignored))
        assert await some.run(jobs.blocked) == set()
        for number in LEFT_TO_PARENT:
            os.kill(pid, number)
        assert await some.run(os.getpid) == pid


async def test_signals_to_a_worker_that_starts() -> None:
    """The signals are blocked before the template runs, which unblocks and ignores them.

    Its workers inherit that.
    """
    async with workers() as some, trio.open_nursery() as nursery:
        nursery.start_soon(some.warm)
        await wait_all_tasks_blocked()
        template = await starting_template()
        for number in LEFT_TO_PARENT:
            os.kill(template, number)
        assert await template_of(some) == template
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(LEFT_TO_PARENT)


def test_a_worker_without_a_stderr(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = f"exec '{sys.executable}' script.py 2>&-"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0
    assert len(done.stdout.split()) == 3


async def test_environment_and_nice() -> None:
    async with Workers(1, nice=5) as some:
        threads, nice = await some.run(jobs.settings, "OPENBLAS_NUM_THREADS")
        assert (threads, nice) == ("1", min(os.nice(0) + 5, 19))


async def test_warm_a_few() -> None:
    async with workers(2) as some:
        await some.warm(1)
        assert len(some.pids()) == 1
        await some.warm(1)
        assert len(some.pids()) == 1
        await some.warm(5)
        assert len(some.pids()) == 2


async def test_warm() -> None:
    async with workers(2) as some:
        await some.run(jobs.add, 1, 2)
        first = some.pids()
        pids = await started(some)
        assert len(pids) == 2
        assert set(first) < set(pids)
        assert await started(some) == pids


# Cancellation


async def test_a_cancelled_answer_reaches_nobody(tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path, "fifo")
    async with workers() as some:
        (pid,) = await started(some)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(some.run, jobs.rendezvous, fifo, "wrong")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert some.pids() == []
        assert await some.run(jobs.echo, "right") == "right"
        assert some.pids() != [pid]


async def test_cancelled_while_starting_or_waiting_for_a_place(tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path, "fifo")
    async with workers() as some:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(some.run, jobs.rendezvous, fifo, "starting")
            nursery.start_soon(some.run, jobs.add, 1, 2)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert some.pids() == []
        assert await some.run(jobs.add, 1, 2) == 3


@pytest.mark.parametrize("running", [False, True])
async def test_leaving_the_context_with_jobs_left(tmp_path: Path, running: bool) -> None:
    fifo = make_fifo(tmp_path, "fifo")
    with trio.fail_after(LONG), pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery, workers() as some:
            if running:
                await some.warm()
            nursery.start_soon(some.run, jobs.rendezvous, fifo, "never")
            nursery.start_soon(some.run, jobs.add, 1, 2)
            await wait_all_tasks_blocked()
    kinds = {type(error) for error in caught.value.exceptions}
    assert kinds <= {trio.ClosedResourceError, RuntimeError}


# Order


async def test_background_jobs_run_in_their_order(tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path, "fifo")
    order = list[int]()

    async def one(some: Workers, number: int) -> None:
        order.append(await some.run(jobs.add, number, 0))

    async with workers() as some, trio.open_nursery() as nursery:
        nursery.start_soon(some.run, jobs.rendezvous, fifo, "")
        for number in range(5):
            await wait_all_tasks_blocked()
            nursery.start_soon(one, some, number)
        await wait_all_tasks_blocked()
        assert order == []
        await meet(fifo)
    assert order == list(range(5))


async def test_jobs_of_higher_priority_overtake_the_others(tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path, "fifo")
    order = list[int]()

    async def one(some: Workers, priority: int) -> None:
        await some.run(jobs.pid, priority=priority)
        order.append(priority)

    async with workers() as some, trio.open_nursery() as nursery:
        nursery.start_soon(some.run, jobs.rendezvous, fifo, "")
        for priority in (0, 1, 0, 2, 1):
            await wait_all_tasks_blocked()
            nursery.start_soon(one, some, priority)
        with trio.move_on_after(0.01):
            await some.run(jobs.pid, priority=3)  # given up while it waits
        assert order == []
        await meet(fifo)
    assert order == [2, 1, 1, 0, 0]


async def test_an_urgent_job_runs_beside_background_jobs(tmp_path: Path) -> None:
    fifos = [make_fifo(tmp_path, name) for name in "ab"]
    async with workers(2) as some, trio.open_nursery() as nursery:
        for fifo in fifos:
            nursery.start_soon(some.run, jobs.rendezvous, fifo, "")
        nursery.start_soon(some.run, jobs.add, 1, 2)
        while len(some.pids()) < 2:
            await trio.sleep(0.01)
        assert await some.run(jobs.add, 3, 4, urgent=True) == 7
        assert len(some.pids()) == 3
        for fifo in fifos:
            await meet(fifo)


async def test_urgent_jobs_go_first(tmp_path: Path) -> None:
    background, urgent = make_fifo(tmp_path, "background"), make_fifo(tmp_path, "urgent")
    done = list[str]()
    second = trio.Event()

    async def one(some: Workers, name: str, is_urgent: bool) -> None:
        done.append(await some.run(jobs.echo, name, urgent=is_urgent))
        second.set()

    async def blocked(some: Workers, fifo: Path, is_urgent: bool) -> None:
        await some.run(jobs.rendezvous, fifo, "", urgent=is_urgent)

    async with workers() as some, trio.open_nursery() as nursery:
        nursery.start_soon(blocked, some, background, False)
        await wait_all_tasks_blocked()
        nursery.start_soon(blocked, some, urgent, True)
        await wait_all_tasks_blocked()
        nursery.start_soon(one, some, "background", False)
        await wait_all_tasks_blocked()
        nursery.start_soon(one, some, "urgent", True)
        await wait_all_tasks_blocked()
        assert done == []
        await meet(background)
        await second.wait()
        await wait_all_tasks_blocked()
        # An urgent job still runs. The other place stays free for the next urgent job.
        assert done == ["urgent"]
        await meet(urgent)
    assert done == ["urgent", "background"]


# The parent

# No `if __name__ == "__main__"`: the script must not run again in a worker.
SCRIPT = """
import os, signal, sys, trio
from fsmount.work.worker_process import LEFT_TO_PARENT
from fsmount.work.workers import Workers

async def main():
    async with Workers(2) as workers:
        await workers.warm()
        await workers.run(print, "not to be seen")
        print(*workers.pids(), await workers.run(os.getppid), flush=True)
        if "wait" in sys.argv:
            await workers.run(signal.pause)

if "daemon" in sys.argv:
    if os.fork():
        os.wait()
        os._exit(0)
    os.setsid()
    os.chdir("/")
trio.run(main)
"""

STRICT = [sys.executable, "-X", "dev", "-W", "error"]


def test_a_killed_parent_leaves_no_worker(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with subprocess.Popen([*STRICT, script, "wait"], stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            # They are alive now, so that these pids cannot belong to other processes.
            fds = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
        finally:
            parent.kill()
    assert len(fds) == 3
    for fd in fds:
        wait_for(fd)


@pytest.mark.parametrize("kind", ["script", "module", "code", "daemon"])
def test_every_kind_of_main(tmp_path: Path, kind: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = {
        "script": ["script.py"],
        "module": ["-m", "script"],
        "code": ["-c", SCRIPT],
        "daemon": ["script.py", "daemon"],
    }[kind]
    done = subprocess.run(
        [*STRICT, *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=LONG,
        check=True,
    )
    assert done.stderr == ""
    assert len(done.stdout.split()) == 3
    for pid in done.stdout.split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
