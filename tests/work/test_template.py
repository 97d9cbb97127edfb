from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fsmount.errors import WorkerDied
from fsmount.folder import Folder
from fsmount.store import store
from fsmount.store.maintenance import repack
from fsmount.work import template as template_module
from fsmount.work import workers as workers_module
from fsmount.work.template_process import _place
from fsmount.work.workers import Workers
from tests.bench.measure import children
from tests.support import worker_jobs as jobs
from tests.support.paths import CHECKOUT
from tests.work.test_workers import (
    LONG,
    end_of,
    make_fifo,
    meet,
    starting_template,
    template_of,
    templates,
    wait_for,
    workers,
)


def make_module(folder: Path, patch: pytest.MonkeyPatch, text: str) -> str:
    """Write a module that a template can import. Returns its name."""
    (folder / "a_module.py").write_text(text)
    patch.syspath_prepend(folder)
    return "a_module"


@contextmanager
def ending(pid: int) -> Iterator[None]:
    """Assert that a process ends in the block or soon after it."""
    fd = os.pidfd_open(pid)
    yield
    wait_for(fd)


# What workers inherit


async def test_workers_have_one_parent() -> None:
    async with workers(3) as some:
        await some.warm()
        parent = await template_of(some)
        assert sorted(children(parent)) == sorted(some.pids())
        assert templates() == [parent]


@pytest.mark.parametrize(
    "preload",
    [store._PRELOAD, (repack.__name__,), ("fsmount.album.jobs", "av")],
    ids=["store", "repack", "album"],
)
async def test_the_template_has_one_thread(preload: tuple[str, ...]) -> None:
    pytest.importorskip(preload[-1])
    async with Workers(1, preload=preload) as some:
        parent = await template_of(some)
        assert len(os.listdir(f"/proc/{parent}/task")) == 1


async def test_a_module_that_starts_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = "import threading\nthreading.Timer(99, print).start()\n"
    name = make_module(tmp_path, monkeypatch, text)
    async with Workers(1, preload=[name]) as some:
        with trio.fail_after(LONG), pytest.raises(WorkerDied, match="in its start"):
            await some.run(jobs.add, 1, 2)
    assert "2 threads after importing ('a_module',)" in capfd.readouterr().err


async def test_a_fork_that_fails_ends_no_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first fork fails. A new template would have a first one, too."""
    text = (
        "import os\n"
        "real = os.fork\n"
        "def fork():\n"
        "    os.fork = real\n"
        "    raise BlockingIOError\n"
        "os.fork = fork\n"
    )
    async with Workers(1, preload=[make_module(tmp_path, monkeypatch, text)]) as some:
        with trio.fail_after(LONG):
            assert await some.run(jobs.add, 1, 2) == 3


async def run_in(some: Workers, pid: int, function: Callable[..., Any], *args: Any) -> Any:
    """Run a job in one of several idle workers. The one that became idle last gets the next job."""
    some._idle.sort(key=lambda worker: worker.pid == pid)
    return await some.run(function, *args)


async def test_each_worker_has_a_session_of_its_own() -> None:
    async with workers() as some:
        assert [await some.run(os.getsid, 0)] == some.pids()


async def test_a_worker_sees_how_its_children_end() -> None:
    async with workers() as some:
        assert await some.run(subprocess.call, ["sh", "-c", "exit 3"]) == 3


async def test_each_worker_draws_its_own_lots() -> None:
    async with Workers(2, preload=("random", "tempfile", "uuid", "numpy")) as some:
        await some.warm()
        one, other = [await run_in(some, pid, jobs.draw) for pid in some.pids()]
    assert not set(one) & set(other)


def test_no_module_uses_the_generator_of_numpy_that_forks_share() -> None:
    for path in (CHECKOUT / "fsmount").rglob("*.py"):
        assert "np.random" not in path.read_text(), path


async def test_the_time_of_workers_counts_as_of_children() -> None:
    def spent() -> float:
        return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])

    before = spent()
    async with workers() as some:
        await some.run(jobs.burn, 0.3)
        with pytest.raises(WorkerDied):
            await some.run(jobs.die, "exit")
    assert spent() - before >= 0.3


# Folders


async def test_a_folder_that_is_opened_later(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with workers(2) as some:
        before = await some.run(jobs.pid)
        folder = Folder(tmp_path)
        try:
            await some.warm()
            (after,) = set(some.pids()) - {before}
            assert await run_in(some, after, os.listdir, folder.path) == ["file"]
            with pytest.raises(FileNotFoundError):
                await run_in(some, before, os.listdir, folder.path)
        finally:
            folder.close()
        end_of(after)
        assert await some.run(jobs.pid) == before
        await some.warm()
        (newest,) = set(some.pids()) - {before}
        with pytest.raises(FileNotFoundError):
            await run_in(some, newest, os.listdir, folder.path)


def test_folders_whose_numbers_are_taken(tmp_path: Path) -> None:
    """Each of four descriptors has the number that another one is to get."""
    places = [tmp_path / name for name in "abcd"]
    for place in places:
        place.mkdir()
    received = [os.open(place, os.O_RDONLY) for place in places]
    wanted = [received[2], received[3], received[0]]
    count = len(os.listdir("/proc/self/fd"))
    own = _place([0, *wanted], received)
    try:
        found = [os.readlink(f"/proc/self/fd/{number}") for number in (own, *wanted)]
        assert found == list(map(str, places))
        assert not any(map(os.get_inheritable, (own, *wanted)))
    finally:
        for number in {own, *wanted, *received}:
            with suppress(OSError):
                os.close(number)
    assert len(os.listdir("/proc/self/fd")) == count - 4


# Death


async def test_jobs_survive_the_template(tmp_path: Path) -> None:
    fifos = [make_fifo(tmp_path, name) for name in "ab"]
    got = list[str]()

    async def one(some: Workers, fifo: Path) -> None:
        got.append(await some.run(jobs.rendezvous, fifo, fifo.name))

    async with workers(2) as some:
        await some.warm()
        before, first = some.pids(), await template_of(some)
        async with trio.open_nursery() as nursery:
            for fifo in fifos:
                nursery.start_soon(one, some, fifo)
            await wait_all_tasks_blocked()
            end_of(first)
            for pid in before:
                while Path(f"/proc/{pid}").exists():
                    await trio.sleep(0.01)
            for fifo in fifos:
                await meet(fifo)
        assert sorted(got) == ["a", "b"]
        assert not set(before) & set(some.pids())
        assert await template_of(some) != first


async def test_a_template_that_died_costs_no_attempt(tmp_path: Path) -> None:
    async with workers(2) as some:
        await some.warm()
        for pid in (await template_of(some), *some.pids()):
            with suppress(ProcessLookupError):
                end_of(pid)
        await some.run(jobs.die_once, tmp_path / "marker", "kill")


async def test_a_template_that_dies_while_it_starts() -> None:
    async with workers(2) as some:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(some.warm)
            await wait_all_tasks_blocked()
            end_of(await starting_template())
        assert len(some.pids()) == 2


async def test_templates_and_workers_that_die_again_and_again() -> None:
    """Each death loses the jobs of the moment at most."""
    done = list[int]()

    async def one(some: Workers, number: int) -> None:
        # Two deaths in a row end a job with an error: a caller tries again, or does without it.
        while number not in done:
            with suppress(WorkerDied):
                done.append(await some.run(jobs.add, number, 0))

    async def kill(some: Workers) -> None:
        for turn in range(20):
            await trio.sleep(0.02)
            for pid in some.pids()[:1] if turn % 2 else templates():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    with trio.fail_after(LONG):
        async with Workers(2) as some:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(kill, some)
                for number in range(200):
                    nursery.start_soon(one, some, number)
            assert sorted(done) == list(range(200))
            pids = some.pids()
        # Nobody waits for the workers of a killed template. They die by themselves.
        for pid in pids:
            with suppress(ProcessLookupError):
                while True:
                    os.kill(pid, 0)
                    await trio.sleep(0.001)


async def test_a_stopped_template_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_module, "_END_LIMIT", 0.2)
    async with Workers(2) as some:
        kept = await some.run(jobs.pid)
        first = await template_of(some)
        end = os.pidfd_open(first)
        os.kill(first, signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(workers_module, "_START_LIMIT", 0.3)
            with suppress(WorkerDied):  # The new one may need longer than that.
                await some.warm()
        await some.warm()
        assert kept in some.pids(), "its workers go on"
        assert len(some.pids()) == 2
    wait_for(end)


async def test_a_stopped_worker_is_killed_at_its_time_limit() -> None:
    async with workers(time_limit=0.3) as some:
        pid = await some.run(jobs.pid)
        with ending(pid):
            os.kill(pid, signal.SIGSTOP)
            assert await some.run(jobs.pid) != pid


async def test_leaving_while_a_worker_starts() -> None:
    async def be_late(some: Workers) -> None:
        with pytest.raises(RuntimeError, match="have ended"):
            await some.run(jobs.add, 1, 2)

    with trio.fail_after(LONG):
        async with trio.open_nursery() as nursery, Workers(1) as some:
            nursery.start_soon(be_late, some)
            # A thread starts the process, so it takes a moment to appear.
            while not (started := templates()):
                await trio.sleep(0.001)
    (parent,) = started
    assert not Path(f"/proc/{parent}").exists()


async def test_a_hundred_starts_leave_nothing_behind() -> None:
    async with workers() as some:
        parent = await template_of(some)
        before = open_files(os.getpid()), open_files(parent)
        for _ in range(50):
            with pytest.raises(WorkerDied):
                await some.run(jobs.die, "exit")
        (last,) = [await some.run(jobs.pid)]
        assert await template_of(some) == parent
        end = time.monotonic() + LONG
        while children(parent) != [last]:
            assert time.monotonic() < end, "zombies"
            await trio.sleep(0.01)
        # The template may have had one more open while it forked.
        assert open_files(os.getpid()) <= before[0]
        assert open_files(parent) <= before[1]


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
