"""Worker processes: the one way CPU work leaves the trio thread.

A codec that holds the GIL, crashes, leaks or never ends costs a worker, not the mount.

**Processes.** A worker is a fresh interpreter (fork and exec), never a fork of this process, which
has threads and FUSE descriptors. It runs ``python -c`` with this process's ``sys.path`` rather than
:mod:`multiprocessing`, whose spawn method runs the parent's ``__main__`` again and keeps one more
process, the resource tracker. So a function must stand in a module that can be imported, which
``__main__`` is not.

**Death.** A worker dies with the parent (see :mod:`fsmount.work.worker_process`) and ignores
signals that would end it (LEFT_TO_PARENT): the parent decides. One that dies or runs over its time
is replaced, and the job tried once more. One whose caller is cancelled is killed, so that no answer
can reach the wrong caller.

**Places.** `count` jobs run at a time, first come, first served, urgent ones (a reader waits)
before all others. One more place is for urgent jobs alone: however long the background jobs take,
a reader starts at once. Its worker is started when it is first needed.

**Which worker.** A job may ask for the worker that did another one, because that still has in its
memory what need not cross then. It goes before other background jobs as soon as that worker is
free; if that has died, any worker does it.

All state belongs to one trio thread, which must be one that lives as long as the process (see
_launch), and changes only between two awaits.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, TypeVarTuple, Unpack, cast

import trio

import fsmount
from fsmount.errors import WorkerDied
from fsmount.folder import open_numbers
from fsmount.work.worker_process import (
    COUNT,
    ENVIRONMENT,
    LEFT_TO_PARENT,
    Answer,
    pack,
    sizes_layout,
    unpack,
)

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

DEFAULT_MEMORY = 4 << 30  # bytes of address space
_START_LIMIT = 60.0  # seconds until a new worker must say it is ready
_END_LIMIT = 5.0  # seconds an idle worker gets to end by itself


class _LostError(Exception):
    """The worker died or was killed; there is no answer."""


class _Worker:
    """One process and this side's end of its socket."""

    def __init__(self, memory_limit: int | None, nice: int, preload: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        code = (
            "from fsmount.work.worker_process import serve; "
            f"serve({theirs.fileno()}, parent={os.getpid()}, memory_limit={memory_limit!r}, "
            f"nice={nice!r}, preload={tuple(preload)!r})"
        )
        try:
            self.process = _launch(code, theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._channel = trio.socket.from_stdlib_socket(ours)
        self.asked_for = False  # for its newest job

    def alive(self) -> bool:
        return self.process.poll() is None

    async def ask(self, request: Sequence[memoryview], limit: float) -> Answer:
        """Send `request` and return the answer, both within `limit` seconds; raises _LostError."""
        with trio.move_on_after(limit):
            await self._send(request)
            return await self.receive()
        raise _LostError

    async def ready(self) -> None:
        """Wait for the word that the process has started; raises _LostError."""
        with trio.move_on_after(_START_LIMIT):
            await self.receive()
            return
        raise _LostError

    async def _send(self, pieces: Sequence[memoryview]) -> None:
        try:
            for piece in pieces:
                view = piece
                while view:
                    view = view[await self._channel.send(view) :]
        except OSError as error:
            raise _LostError from error

    async def receive(self) -> Answer:
        (count,) = COUNT.unpack(await self._exactly(COUNT.size))
        layout = sizes_layout(count)
        sizes = layout.unpack(await self._exactly(layout.size))
        answer = unpack([await self._exactly(size) for size in sizes])
        assert isinstance(answer, Answer)
        return answer

    async def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            try:
                received = await self._channel.recv_into(view)
            except OSError as error:
                raise _LostError from error
            if not received:
                raise _LostError
            view = view[received:]
        return data

    def hang_up(self) -> None:
        """End the conversation: an idle worker ends by itself."""
        self._channel.close()

    def kill(self) -> None:
        self._channel.close()
        self.process.send_signal(signal.SIGKILL)


class _Ticket:
    """One caller in the queue for a place; granted together with the worker, if one is idle."""

    def __init__(self, by: int | None) -> None:
        self.by = by
        self.granted = trio.Event()
        self.worker: _Worker | None = None


class Workers:
    """`count` worker processes, plus one for urgent jobs; an async context manager.

    `time_limit` is in seconds a job, `memory_limit` in bytes of address space a worker (None: no
    limit), `nice` is added to the priority value of the workers, `preload` names modules that a
    worker imports before its first job.
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
        self._count = count
        self._time_limit = time_limit
        self._settings = (memory_limit, nice, preload)
        self._open = False
        self._alive: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._killed: list[_Worker] = []  # not waited for yet
        self._running = 0
        self._urgent: deque[_Ticket] = deque()
        self._background: deque[_Ticket] = deque()

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
        ending = self._alive + self._killed
        self._alive, self._idle, self._killed = [], [], []
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_wait_for, [worker.process for worker in ending])

    async def run(
        self,
        function: Callable[[Unpack[Ts]], T],
        *args: *Ts,
        urgent: bool = False,
        by: int | None = None,
    ) -> T:
        """`function(*args)`, computed in a worker: in the one with process id `by` while it lives.

        `function` must be importable by name; arguments and result are pickled, contiguous arrays
        without a copy, so leave them unchanged until this returns. An exception of the function is
        raised here, with a note of where in the worker; one that cannot be pickled as FsmountError.
        WorkerDied if the worker died, ran out of memory or over its time limit in two attempts.
        """
        if not self._open:
            raise RuntimeError("the workers are not running")
        async with self._place(urgent, by) as ticket:
            request = pack((function, args))
            name = getattr(function, "__qualname__", repr(function))
            answer = await self._ask(ticket, request, name)
        if answer.error is not None:
            answer.error.add_note(f"In a worker process:\n{answer.where}")
            raise answer.error
        return cast(T, answer.result)

    async def warm(self, count: int | None = None) -> None:
        """Start workers until `count` run, by default all but the one for urgent jobs.

        Needs places as background jobs do. WorkerDied if the workers do not come up.
        """
        wanted = self._count if count is None else min(count, self._count)
        async with trio.open_nursery() as nursery:
            for _ in range(wanted - len(self._alive)):
                nursery.start_soon(self._warm_one, wanted)
        if len(self._alive) < wanted:
            raise WorkerDied("its start")

    def pids(self) -> list[int]:
        """The process ids of all workers that run now."""
        return [worker.process.pid for worker in self._alive]

    async def _warm_one(self, wanted: int) -> None:
        async with self._place(urgent=False, by=None):
            if len(self._alive) < wanted:
                with suppress(_LostError):
                    self._idle.append(await self._start())

    async def _ask(self, ticket: _Ticket, request: Sequence[memoryview], name: str) -> Answer:
        worker, ticket.worker = ticket.worker, None
        for _ in range(2):
            try:
                worker = worker or await self._start()
                answer = await worker.ask(request, self._time_limit)
            except BaseException as error:
                # Also when cancelled: whatever this worker says later is nobody's answer.
                if worker is not None:
                    self._kill(worker)
                    worker = None
                    self._admit()  # who asked for it need not wait any more
                if not isinstance(error, _LostError):
                    raise
            else:
                self._idle.append(worker)
                return answer
        raise WorkerDied(name)

    def _take_idle(self, by: int | None) -> _Worker | None:
        """An idle worker if there is one: `by`, or else one that nobody asked for, used last.

        Those that died meanwhile are forgotten.
        """
        self._idle.sort(key=lambda worker: (worker.process.pid == by, not worker.asked_for))
        while self._idle:
            worker = self._idle.pop()
            if worker.alive():
                worker.asked_for = by is not None
                return worker
            self._kill(worker)
        return None

    async def _start(self) -> _Worker:
        """A new worker, ready; raises _LostError."""
        self._killed = [worker for worker in self._killed if worker.alive()]
        if not self._open:
            raise RuntimeError("the workers have ended")
        try:
            worker = _Worker(*self._settings)
        except OSError as error:  # no more processes, descriptors or memory
            raise _LostError from error
        self._alive.append(worker)
        try:
            await worker.ready()
        except BaseException:
            self._kill(worker)
            raise
        return worker

    def _kill(self, worker: _Worker) -> None:
        worker.kill()
        if worker in self._alive:  # not if the context has ended meanwhile
            self._alive.remove(worker)
            self._killed.append(worker)

    @asynccontextmanager
    async def _place(self, urgent: bool, by: int | None) -> AsyncIterator[_Ticket]:
        """Wait for a place to run in, and hold it."""
        queue = self._urgent if urgent else self._background
        ticket = _Ticket(by)
        if by is None:
            queue.append(ticket)
        else:
            queue.appendleft(ticket)
        self._admit()
        try:
            await ticket.granted.wait()
            yield ticket
        finally:
            if ticket.granted.is_set():
                self._running -= 1
                if ticket.worker is not None:  # not made use of
                    self._idle.append(ticket.worker)
                self._admit()
            else:
                queue.remove(ticket)

    def _admit(self) -> None:
        """Give free places to those who wait: the last one only to an urgent job."""
        while self._running <= self._count:
            if self._urgent:
                ticket = self._urgent.popleft()
            elif self._running < self._count and (first := self._first()) is not None:
                ticket = first
                self._background.remove(ticket)
            else:
                return
            self._running += 1
            ticket.worker = self._take_idle(ticket.by)
            ticket.granted.set()

    def _first(self) -> _Ticket | None:
        """The first background job that waits for no busy worker."""
        idle = {worker.process.pid for worker in self._idle}
        busy = {worker.process.pid for worker in self._alive} - idle
        return next((ticket for ticket in self._background if ticket.by not in busy), None)


def _launch(code: str, fd: int) -> subprocess.Popen[bytes]:
    """A Python that runs `code` and inherits `fd` and all folders that are open.

    OSError if there is no room for a process.

    Not to be called in a helper thread: the kernel sends the child its death signal when the thread
    that started it ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_PARENT)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.DEVNULL,
            # Nothing a library prints may get between what this process writes.
            stdout=subprocess.DEVNULL,
            # Jobs get paths that lead through the descriptors of folders.
            pass_fds=[fd, *open_numbers()],
            # What is sent to the parent's process group is meant for the parent.
            start_new_session=True,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": _import_path()},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _import_path() -> str:
    """``sys.path`` for a worker: it must find the modules this process found, and no others.

    The current folder, which an empty entry means, may be another one by the time it looks.
    """
    home = str(Path(fsmount.__file__).resolve().parent.parent)
    entries = [entry or str(Path.cwd()) for entry in sys.path]
    return os.pathsep.join(entries if home in entries else [*entries, home])


def _wait_for(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until all have ended, at most a few seconds; kill those that have not."""
    for process in processes:
        try:
            process.wait(_END_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_END_LIMIT)
