"""Worker processes: the only way that CPU work leaves the trio thread.

A codec that holds the GIL, crashes, leaks or hangs costs a worker, not the mount.

**Processes.** Workers are forks of a process that has imported their modules: the template
(:mod:`fsmount.work.template`). They are its children, and known here by descriptors of processes
(pidfd_open(2)), since the number of a process that has ended may be used again.

**Death.** Workers die with the template, and the template dies with this process. They ignore
signals that would end them (LEFT_TO_PARENT). A worker that dies or exceeds its time is replaced,
and its job is tried once more. A worker whose caller is cancelled is killed, so that no answer
reaches the wrong caller. A template that dies is replaced, too.

**Slots.** At most ``count`` jobs run at a time, by priority and in the order of their calls; fewer
if the cores are busy otherwise (:mod:`fsmount.work.concurrency`). Urgent jobs (a reader waits) come
before all others. One more slot is for urgent jobs only: a reader starts at once, however long the
background jobs take. Workers start when they are first needed.

**Series.** Some jobs are cheaper in a worker that did a similar one just before. Their callers give
such jobs the same series. A free worker goes on with its series first, whatever the priority. Among
equal priorities, jobs of a series that another worker has come last. No worker waits for that while
a job waits.

All state belongs to one trio thread, which must live as long as the process (see
:meth:`fsmount.work.template.Template.fork`), and changes only between two awaits.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, TypeVarTuple, Unpack, cast

import trio

from fsmount.errors import WorkerDied
from fsmount.work import machine
from fsmount.work.concurrency import Concurrency
from fsmount.work.messages import (
    ANCILLARY_BYTES,
    HEAD,
    MOST_PIECES,
    PID,
    Answer,
    Packed,
    descriptors,
    pack,
    rest_of,
    sizes_layout,
    unpack,
)
from fsmount.work.template import Template

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

DEFAULT_MEMORY = 4 << 30  # bytes of address space
_START_LIMIT = 60.0  # seconds in which a new worker must report that it is ready
# Seconds between two looks at how long workers wait for cores: at first, and if nothing changes.
_OFTEN, _SELDOM = 0.01, 0.32


class _LostError(Exception):
    """The worker died or was killed; there is no answer."""


class _Worker:
    """One process, and this side's end of its socket."""

    def __init__(self, channel: trio.socket.SocketType, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.series: int | None = None  # of its latest job that had one
        self._channel = channel
        self._pidfd = pidfd
        self._end = select.poll()
        self._end.register(pidfd, select.POLLIN)

    @classmethod
    async def start(cls, template: Template) -> _Worker:
        """Start a worker and return it when it is ready; raises _LostError.

        A template that takes too long is replaced.
        """
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:  # The system has no descriptors left.
            raise _LostError from error
        channel = trio.socket.from_stdlib_socket(ours)
        try:
            with theirs:
                template.fork(theirs)
            with trio.fail_after(_START_LIMIT):
                data, ancillary, _, _ = await channel.recvmsg(
                    PID.size, ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
                )
            (pid,) = PID.unpack(data)
            (pidfd,) = descriptors(ancillary)
        except BaseException as error:
            channel.close()  # The worker, if there is one, then ends by itself.
            if isinstance(error, trio.TooSlowError):
                template.hang_up()
            # The system has no processes, descriptors or memory left; or the worker died.
            if isinstance(error, trio.TooSlowError | OSError | struct.error | ValueError):
                raise _LostError from error
            raise
        return cls(channel, pid, pidfd)

    def alive(self) -> bool:
        """Return whether the process runs."""
        return not self._end.poll(0)

    def waited_s(self) -> float:
        """Return how long the process has waited for a core; 0 if the kernel does not say."""
        with suppress(OSError, ValueError, IndexError):
            return int(Path(f"/proc/{self.pid}/schedstat").read_bytes().split()[1]) / 1e9
        return 0.0

    async def ask(self, request: Packed, limit: float) -> Answer:
        """Send a request and return the answer within ``limit`` seconds; raises _LostError."""
        with trio.move_on_after(limit):
            await self._send(request)
            return await self._receive()
        raise _LostError

    async def _send(self, message: Packed) -> None:
        """Send a message; raises _LostError."""
        pieces, ancillary = message.pieces, message.ancillary()
        try:
            while pieces:
                sent = await self._channel.sendmsg(pieces[:MOST_PIECES], ancillary)
                pieces, ancillary = rest_of(pieces, sent), []
        except OSError as error:
            raise _LostError from error

    async def _receive(self) -> Answer:
        """Receive an answer; raises _LostError."""
        head, received = await self._head()
        try:
            (rest,) = await self._exactly([HEAD.size - len(head)])
            count, _ = HEAD.unpack(head + rest)
            layout = sizes_layout(count)
            (sizes,) = await self._exactly([layout.size])
            parts = await self._exactly(layout.unpack(sizes))
        except BaseException:
            for fd in received:
                os.close(fd)
            raise
        answer = unpack(parts, received)
        assert isinstance(answer, Answer)
        return answer

    async def _head(self) -> tuple[bytes, list[int]]:
        """Receive the first bytes of an answer, and its descriptors; raises _LostError."""
        try:
            head, ancillary, _, _ = await self._channel.recvmsg(
                HEAD.size, ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise _LostError from error
        if not head:
            raise _LostError
        return head, descriptors(ancillary)

    async def _exactly(self, sizes: Iterable[int]) -> list[bytearray]:
        """Receive parts of these sizes in bytes; raises _LostError."""
        parts = [bytearray(size) for size in sizes]
        left = rest_of([memoryview(part) for part in parts], 0)
        while left:
            try:
                received, *_ = await self._channel.recvmsg_into(left[:MOST_PIECES])
            except OSError as error:
                raise _LostError from error
            if not received:
                raise _LostError
            left = rest_of(left, received)
        return parts

    def hang_up(self) -> None:
        """Close the socket: an idle worker then ends by itself."""
        self._channel.close()
        os.close(self._pidfd)

    def kill(self) -> None:
        """Kill the process. Call nothing else afterwards."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self.hang_up()


class _Ticket:
    """A caller that waits for a slot, which comes together with an idle worker if there is one."""

    def __init__(self, priority: int, order: int, series: int | None) -> None:
        self.priority = priority
        self.order = order
        self.series = series
        self.granted = trio.Event()
        self.worker: _Worker | None = None


class Workers:
    """``count`` worker processes, plus one for urgent jobs; an async context manager.

    ``count`` is an attribute, too.

    Parameters
    ----------
    count : int
        Most background jobs at a time.
    time_limit : float
        Seconds for a job.
    memory_limit : int or None
        Bytes of address space of a worker; None means no limit.
    nice : int
        Added to the priority value of the workers.
    preload : sequence of str
        Modules that a worker imports before its first job.

    Raises
    ------
    ValueError
        If ``count`` is less than 1.
    UsageError
        If the environment names no number of jobs.
    """

    def __init__(
        self,
        count: int,
        *,
        time_limit: float = 120.0,
        memory_limit: int | None = DEFAULT_MEMORY,
        nice: int = 0,
        preload: Sequence[str] = (),
    ) -> None:
        if count < 1:
            raise ValueError("at least one worker is needed")
        self.count = count
        self._concurrency = Concurrency(count, is_chosen=machine.chosen_jobs() is not None)
        self._time_limit = time_limit
        self._template = Template(memory_limit, nice, preload, count)
        self._open = False
        self._watching = False
        self._starting = 0
        self._alive: list[_Worker] = []  # those that have started
        self._idle: list[_Worker] = []
        self._running: set[_Ticket] = set()
        self._urgent: deque[_Ticket] = deque()
        self._background: list[_Ticket] = []

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False
        for worker in self._alive:
            if worker in self._idle:
                worker.hang_up()
            else:
                worker.kill()
        self._alive, self._idle = [], []
        self._template.hang_up()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._template.wait)

    async def run(
        self,
        function: Callable[[Unpack[Ts]], T],
        *args: *Ts,
        urgent: bool = False,
        priority: int = 0,
        order: int = 0,
        series: int | None = None,
    ) -> T:
        """Return ``function(*args)``, computed in a worker.

        Leave arrays unchanged until this returns: contiguous ones are sent without a copy. An error
        of the function is raised here, with a note of its place in the worker; an error that cannot
        be pickled becomes an FsmountError.

        Parameters
        ----------
        function : callable
            Importable by name.
        *args : object
            Pickled, as is the result.
        urgent : bool
            Whether a reader waits.
        priority : int
            Of background jobs that wait, those with the highest come first.
        order : int
            Of jobs of equal priority, those with the lowest come first; equal ones in the order of
            their calls.
        series : int, optional
            Background jobs of one series go to the same worker, if they can; see the module.

        Raises
        ------
        WorkerDied
            If the worker died, ran out of memory or exceeded its time limit in two attempts.
        RuntimeError
            Outside the context manager.
        """
        if not self._open:
            raise RuntimeError("the workers are not running")
        async with self._slot(urgent, priority, order, series) as ticket:
            request = pack((function, args))
            name = getattr(function, "__qualname__", repr(function))
            answer = await self._ask(ticket, request, name)
        if answer.error is not None:
            answer.error.add_note(f"In a worker process:\n{answer.where}")
            raise answer.error
        return cast(T, answer.result)

    async def warm(self, count: int | None = None) -> None:
        """Start workers until ``count`` run, by default as many as background jobs may run now.

        It waits for slots as background jobs do.

        Raises
        ------
        WorkerDied
            If the workers do not start.
        """
        wanted = self.limit if count is None else min(count, self.count)
        async with trio.open_nursery() as nursery:
            for _ in range(wanted - self._started()):
                nursery.start_soon(self._warm_one, wanted)
        if self._started() < wanted:
            raise WorkerDied("its start")

    @property
    def limit(self) -> int:
        """How many background jobs run at a time now, at most ``count``."""
        return self._concurrency.limit

    def pids(self) -> list[int]:
        """Return the process ids of all workers that have started and run now."""
        return [worker.pid for worker in self._alive]

    def _started(self) -> int:
        """Return the number of workers that run, with those that start."""
        return len(self._alive) + self._starting

    async def _warm_one(self, wanted: int) -> None:
        """Start one worker, unless enough run."""
        async with self._slot(urgent=False, priority=0):
            if self._started() < wanted:
                with suppress(WorkerDied):
                    self._idle.append(await self._start())

    async def _ask(self, ticket: _Ticket, request: Packed, name: str) -> Answer:
        """Run a job in the ticket's worker or a new one; try twice."""
        worker, ticket.worker = ticket.worker, None
        for _ in range(2):
            worker = worker or await self._start()
            if ticket.series is not None:
                worker.series = ticket.series
            try:
                answer = await worker.ask(request, self._time_limit)
            except BaseException as error:
                # Also if cancelled: a later answer of this worker would belong to no caller.
                self._kill(worker)
                worker = None
                if not isinstance(error, _LostError):
                    raise
            else:
                self._idle.append(worker)
                return answer
        raise WorkerDied(name)

    def _take_idle(self, series: int | None) -> _Worker | None:
        """Return the idle worker that has a series, else the one that became idle last, or None."""
        self._idle.sort(key=lambda worker: series is not None and worker.series == series)
        while self._idle:
            worker = self._idle.pop()
            if worker.alive():
                return worker
            self._kill(worker)
        return None

    async def _start(self) -> _Worker:
        """Start a worker and return it when it is ready; raises WorkerDied.

        It tries twice: the template may die meanwhile.
        """
        for _ in range(2):
            if not self._open:
                raise RuntimeError("the workers have ended")
            self._starting += 1
            try:
                worker = await _Worker.start(self._template)
            except _LostError:
                continue
            finally:
                self._starting -= 1
            if not self._open:
                worker.kill()
                raise RuntimeError("the workers have ended")
            self._alive.append(worker)
            return worker
        raise WorkerDied("its start")

    def _kill(self, worker: _Worker) -> None:
        """Kill a worker and forget it."""
        if worker in self._alive:  # False if the context has ended meanwhile.
            self._alive.remove(worker)
            worker.kill()

    @asynccontextmanager
    async def _slot(
        self, urgent: bool, priority: int, order: int = 0, series: int | None = None
    ) -> AsyncIterator[_Ticket]:
        """Wait for a slot, and hold it."""
        ticket = _Ticket(priority, order, series)
        waiting: deque[_Ticket] | list[_Ticket] = self._urgent if urgent else self._background
        waiting.append(ticket)
        self._admit()
        try:
            await ticket.granted.wait()
            yield ticket
        finally:
            if ticket.granted.is_set():
                self._running.remove(ticket)
                if ticket.worker is not None:  # It was not used.
                    self._idle.append(ticket.worker)
                self._admit()
            else:
                waiting.remove(ticket)

    def _admit(self) -> None:
        """Give free slots to waiting jobs; the last slot only to an urgent one."""
        while len(self._running) <= self.count:
            if self._urgent:
                ticket = self._urgent.popleft()
            elif len(self._running) < self.limit and self._background:
                ticket = self._take_background()
            else:
                break
            self._running.add(ticket)
            ticket.worker = self._take_idle(ticket.series)
            ticket.granted.set()
        if self._background and self._concurrency.adapts and not self._watching:
            self._watching = True
            trio.lowlevel.spawn_system_task(self._watch)

    async def _watch(self) -> None:
        """Adapt the number of jobs at a time to the cores, while jobs wait. Must not raise."""
        pause = _OFTEN
        try:
            while self._background and self._open:
                start = trio.current_time()
                before = {worker: worker.waited_s() for worker in self._alive}
                await trio.sleep(pause)
                there = before.keys() & self._alive
                waited = sum(worker.waited_s() - before[worker] for worker in there)
                took = trio.current_time() - start
                changed = self._concurrency.measured(len(self._running), took, waited)
                pause = _OFTEN if changed else min(2 * pause, _SELDOM)
                self._admit()
        finally:
            self._watching = False

    def _take_background(self) -> _Ticket:
        """Take the background job that comes next. At least one waits."""
        ours = {worker.series for worker in self._idle} - {None}
        theirs = {ticket.series for ticket in self._running}
        theirs |= {worker.series for worker in self._alive} - ours

        def rank(ticket: _Ticket) -> tuple[bool, int, bool, int]:
            is_theirs = ticket.series is not None and ticket.series in theirs
            return ticket.series not in ours, -ticket.priority, is_theirs, ticket.order

        # The first of those that rank equally: in the order of their calls.
        chosen = min(self._background, key=rank)
        self._background.remove(chosen)
        return chosen
