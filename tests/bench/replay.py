"""Replays an import on any number of virtual cores: the real scheduler, with jobs that only sleep.

:func:`record` imports a folder with one worker, and keeps the CPU seconds and the answer of each
job. :func:`replay` imports the same folder again. Everything in the process that owns the store is
real code: queue, pipeline, planner, committer, and the admission of jobs to workers. In place of
the worker processes there are virtual ones: each sleeps the recorded seconds of a job, on trio's
MockClock, and gives the recorded answer. So the result does not depend on this machine.

A recorded answer fits, because an answer depends on the plan of its file, and plans depend only on
the order of the files, which is the same in each replay. In another order objects would have other
numbers. The check before the commit would refuse them, and the replay would end because a file is
encoded again.

A virtual core has one worker. The times are those of a worker that does all jobs, so no time is
lost because another worker has something in its cache. (A look takes longer then. :func:`replay`
tells which worker did which.) The trio thread of the owner is one more core: its CPU time, in equal
parts for all jobs, passes for one job after the other. Calls in threads, mostly of the disk, take
no virtual time.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple, Unpack, cast
from unittest import mock

import trio
from trio.testing import MockClock

from fsmount.store import config
from fsmount.store import store as store_module
from fsmount.store.disk.disk import Disk
from fsmount.store.frames.jobs import Encoded, EncodeOrder, look
from fsmount.store.frames.layers import Done, Loan, SharedLayer
from fsmount.store.packs.entries import entry_digest
from fsmount.store.packs.pack import build_entry
from fsmount.store.store import open_store
from fsmount.store.transfer.importing import Importer
from fsmount.work import workers as workers_module
from fsmount.work.messages import Answer, Packed, unpack
from fsmount.work.workers import Workers
from tests.support.pngs import SIGNATURE

Ts = TypeVarTuple("Ts")
T = TypeVar("T")
Times = dict[str, list[float]]
"""Seconds of the jobs of each function, by the name of the function, in the order of the files."""


@dataclass(frozen=True)
class Job:
    """The CPU seconds of a job, and its answer."""

    seconds: float
    answer: Answer


@dataclass(frozen=True)
class Recording:
    """The jobs of an import of `folder`, by function and file, each in the order of the calls.

    `owner_s` is the CPU seconds of the owner's trio thread, for each job.
    """

    folder: Path
    owner_s: float
    jobs: dict[tuple[str, str], list[Job]]

    def times(self) -> Times:
        """The seconds of all jobs."""
        found: Times = defaultdict(list)
        for (name, _), jobs in self.jobs.items():
            found[name] += [job.seconds for job in jobs]
        return dict(found)

    def record_of(self, object_id: int) -> bytes:
        """The SHA-256 of the stored record of an object, b"" if there is none."""
        for jobs in self.jobs.values():
            found = getattr(jobs[-1].answer.result, "result", None)
            if isinstance(found, Encoded) and found.entry.object_id == object_id:
                return hashlib.sha256(found.entry.record).digest()
        return b""

    def with_times(self, times: Times, owner_s: float = 0.0) -> Recording:
        """The same jobs with other seconds, whatever the order in which they were recorded.

        The jobs of a function, sorted by the hash of their file, get the seconds of its list in
        turn. A list that is too short begins anew. Raises KeyError for a function without a list.
        """
        left = {name: itertools.cycle(seconds) for name, seconds in times.items()}
        jobs = {
            key: [replace(job, seconds=next(left[key[0]])) for job in self.jobs[key]]
            for key in sorted(self.jobs)
        }
        return Recording(self.folder, owner_s, jobs)


def record(folder: Path) -> Recording:
    """Import a folder with one worker, and note what its jobs take and answer."""
    jobs: dict[tuple[str, str], list[Job]] = defaultdict(list)
    with mock.patch.object(store_module, "Workers", partial(_Recorder, jobs)):
        _, owner = _import(folder, 1)
    return Recording(folder, owner / sum(map(len, jobs.values())), dict(jobs))


class Unlike(BaseException):
    """A replay asked for a job that was not recorded, or for one more often than that.

    No Exception: the pipeline takes these for faults of a file.
    """


def replay(recording: Recording, cores: int, looks: list[tuple[int, Path]] | None = None) -> float:
    """Virtual seconds of the import on so many cores. Each call gives the same.

    `looks` gets the worker and the file of each look, in order. Raises :class:`Unlike`.
    """
    scheduler, state = trio._core._run, _Replay(recording, [] if looks is None else looks)
    with ExitStack() as patches:
        for place, name, value in (
            (workers_module._Worker, "start", partial(_VirtualWorker.start, state)),
            (trio.to_thread, "run_sync", run_here),
            # As Hypothesis does it: trio orders tasks that are ready at the same time by chance.
            (scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
            (scheduler, "_r", random.Random(0)),
        ):
            patches.enter_context(mock.patch.object(place, name, value))
        try:
            return _import(recording.folder, cores, MockClock(autojump_threshold=0))[0]
        except BaseExceptionGroup:
            if state.unlike:
                raise Unlike(state.unlike) from None
            raise


def _import(folder: Path, count: int, clock: MockClock | None = None) -> tuple[float, float]:
    """Import a folder into a new store with `count` workers.

    Returns the seconds of the clock, and the CPU seconds of this thread.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return trio.run(_imported, folder, Path(scratch) / "store", count, clock=clock)


async def _imported(folder: Path, store_path: Path, count: int) -> tuple[float, float]:
    # When parity is made depends on the time of day.
    config.make(store_path, Disk(), parity=0)
    with open_store(store_path) as opened:
        async with opened.running(count=count) as store:
            start, cpu = trio.current_time(), time.thread_time()
            await Importer(store, lambda files, size: None).add(folder, b"")
            return trio.current_time() - start, time.thread_time() - cpu


class _Recorder(Workers):
    """Workers that note each job."""

    def __init__(self, jobs: dict[tuple[str, str], list[Job]], count: int, **settings: Any) -> None:
        super().__init__(count, **settings)
        self._jobs = jobs

    async def run(
        self,
        function: Callable[[Unpack[Ts]], T],
        *args: *Ts,
        urgent: bool = False,
        priority: int = 0,
        order: int = 0,
        series: int | None = None,
    ) -> T:
        key, job = await super().run(
            _timed, function, args, urgent=urgent, priority=priority, order=order, series=series
        )
        self._jobs[key].append(job)
        if job.answer.error is not None:
            raise job.answer.error
        return cast(T, job.answer.result)


def _timed(function: Callable[..., Any], args: Sequence[Any]) -> tuple[tuple[str, str], Job]:
    """Do a job in the worker. Returns its key and what to keep of it."""
    key = _key(function, args)
    start = time.process_time()
    try:
        answer = Answer(function(*args))
    except Exception as error:
        answer = Answer(error=error)
    return key, Job(time.process_time() - start, answer)


def _key(function: Callable[..., Any], args: Iterable[Any]) -> tuple[str, str]:
    """The name of a function, and the SHA-256 of the picture that a job is about, "" for none.

    A job names its picture by an order, or by the path of the staged file.
    """
    for arg in args:
        if hasattr(arg, "about"):
            return function.__name__, arg.about.sha256.hex()
        if isinstance(arg, str) and Path(arg).is_file():
            data = Path(arg).read_bytes()
            if data.startswith(SIGNATURE):
                return function.__name__, hashlib.sha256(data).hexdigest()
    return function.__name__, ""


@dataclass
class _Replay:
    """The state of one replay."""

    recording: Recording
    looks: list[tuple[int, Path]]
    taken: Counter[tuple[str, str]] = field(default_factory=Counter)
    unlike: str = ""
    # Recorded layers by the id of their object.
    layers: dict[int, SharedLayer] = field(default_factory=dict)
    pids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    owner: trio.Lock = field(default_factory=trio.Lock)

    def take(self, function: Callable[..., Any], args: Iterable[Any]) -> Job:
        """The next job that was recorded for this function and file. Raises :class:`Unlike`."""
        key = _key(function, args)
        jobs = self.recording.jobs.get(key, [])
        at = self.taken[key]
        self.taken[key] += 1
        if at >= len(jobs):
            self.unlike = f"{key[0]} number {at + 1} of the file {key[1] or '-'}"
            raise Unlike(self.unlike)
        return jobs[at]

    def adapted(self, answer: Answer, args: Sequence[Any]) -> Answer:
        """An answer as the job gives it here.

        The recorded job had other layers at hand, and layers are named by the path of their pack,
        which is another one here. Its anchor was pending or not; that may be otherwise here.
        """
        order = next((arg for arg in args if isinstance(arg, EncodeOrder)), None)
        if order is None or not isinstance(answer.result, Done):
            return answer
        for layer in answer.result.made:
            self.layers[layer.key[1]] = layer
        lent = {layer.key for arg in args if isinstance(arg, Loan) for layer in arg.layers}
        keys = {(place.pack, place.id) for place in order.places} - lent
        if isinstance(answer.result.result, Encoded):
            keys.add((order.pack, order.about.id))
        made = (replace(self.layers[key[1]], key=key) for key in keys if key[1] in self.layers)
        result = answer.result.result
        if isinstance(result, Encoded):
            anchor = result.proof.references.anchor
            is_pending = anchor in {each.about.id for each in order.pending}
            assumed = self.recording.record_of(anchor) if is_pending else b""
            proof = result.proof._replace(anchor=assumed)
            entry = build_entry(result.entry)
            digest = entry_digest(entry, order.about, result.kind, proof[:-1])
            result = replace(result, proof=proof._replace(digest=digest))
        return replace(answer, result=Done(result, tuple(made)))


class _VirtualWorker:
    """Takes the place of a worker process in :class:`Workers`."""

    def __init__(self, replay: _Replay) -> None:
        self._replay = replay
        self.pid = next(replay.pids)
        self.series: int | None = None

    @classmethod
    async def start(cls, replay: _Replay, _: object) -> _VirtualWorker:
        await trio.lowlevel.checkpoint()
        return cls(replay)

    def alive(self) -> bool:
        return True

    def waited_s(self) -> float:
        return 0.0

    async def ask(self, request: Packed, limit: float) -> Answer:
        # Sealed memory does not arrive, and no job looks at it.
        function, args = unpack([bytearray(piece) for piece in request.pieces[1:]])
        job = self._replay.take(function, args)
        if function is look:
            self._replay.looks.append((self.pid, Path(args[0])))
        async with self._replay.owner:
            await trio.sleep(self._replay.recording.owner_s)
        await trio.sleep(job.seconds)
        return self._replay.adapted(job.answer, args)

    def hang_up(self) -> None:
        pass

    def kill(self) -> None:
        pass


async def run_here(function: Callable[..., Any], *args: Any, **_: object) -> Any:
    """Takes the place of :func:`trio.to_thread.run_sync`: a thread would not stop the clock."""
    await trio.lowlevel.checkpoint()
    return function(*args)
