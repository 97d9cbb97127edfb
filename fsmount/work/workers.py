"""Worker processes: the only way that CPU work leaves the trio thread.

A codec that holds the GIL, crashes, leaks or hangs costs a worker, not the mount.

**Processes.** A worker is a new interpreter (fork and exec). It is never a fork of this process,
which has threads and FUSE descriptors. It runs ``python -c`` with this process's ``sys.path``, not
:mod:`multiprocessing`, whose spawn method runs the parent's ``__main__`` again and keeps a resource
tracker process. Therefore a function must be in a module that can be imported; ``__main__`` cannot.

**Death.** A worker dies with the parent (see :mod:`fsmount.work.worker_process`). It ignores
signals that would end it (LEFT_TO_PARENT). A worker that dies or exceeds its time is replaced, and
its job is tried once more. A worker whose caller is cancelled is killed, so that no answer reaches
the wrong caller.

**Slots.** ``count`` jobs run at a time, in the order of their calls; urgent jobs (a reader waits)
come before all others. One more slot is for urgent jobs only: a reader starts at once, however long
the background jobs take. The worker of that slot starts when it is first needed.

All state belongs to one trio thread, which must live as long as the process (see _launch), and
changes only between two awaits.
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
from fsmount.work.messages import (
    ANCILLARY_BYTES,
    HEAD,
    Answer,
    Packed,
    descriptors,
    pack,
    sizes_layout,
    unpack,
)
from fsmount.work.worker_process import ENVIRONMENT, LEFT_TO_PARENT

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

DEFAULT_MEMORY = 4 << 30  # bytes of address space
_START_LIMIT = 60.0  # seconds in which a new worker must report that it is ready
_END_LIMIT = 5.0  # seconds in which an idle worker must end by itself


class _LostError(Exception):
    """The worker died or was killed; there is no answer."""


class _Worker:
    """One process, and this side's end of its socket."""

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

    def alive(self) -> bool:
        """Return whether the process runs."""
        return self.process.poll() is None

    async def ask(self, request: Packed, limit: float) -> Answer:
        """Send a request and return the answer within ``limit`` seconds; raises _LostError."""
        with trio.move_on_after(limit):
            await self._send(request)
            return await self.receive()
        raise _LostError

    async def ready(self) -> None:
        """Wait until the process reports that it has started; raises _LostError."""
        with trio.move_on_after(_START_LIMIT):
            await self.receive()
            return
        raise _LostError

    async def _send(self, message: Packed) -> None:
        """Send a message; raises _LostError."""
        first, *others = message.pieces
        try:
            sent = await self._channel.sendmsg([first], message.ancillary())
            for piece in (first[sent:], *others):
                view = piece
                while view:
                    view = view[await self._channel.send(view) :]
        except OSError as error:
            raise _LostError from error

    async def receive(self) -> Answer:
        """Receive an answer; raises _LostError."""
        head, received = await self._head()
        try:
            count, _ = HEAD.unpack(head + await self._exactly(HEAD.size - len(head)))
            layout = sizes_layout(count)
            sizes = layout.unpack(await self._exactly(layout.size))
            parts = [await self._exactly(size) for size in sizes]
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

    async def _exactly(self, size: int) -> bytearray:
        """Receive ``size`` bytes; raises _LostError."""
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
        """Close the socket: an idle worker then ends by itself."""
        self._channel.close()

    def kill(self) -> None:
        """Kill the process."""
        self._channel.close()
        self.process.send_signal(signal.SIGKILL)


class _Ticket:
    """A caller that waits for a slot, which comes together with an idle worker if there is one."""

    def __init__(self) -> None:
        self.granted = trio.Event()
        self.worker: _Worker | None = None


class Workers:
    """``count`` worker processes, plus one for urgent jobs; an async context manager.

    Parameters
    ----------
    count : int
        Number of background jobs at a time.
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
        self._killed: list[_Worker] = []  # ended, but not waited for
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
        first: bool = False,
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
        first : bool
            Whether the job comes before the background jobs that wait already.

        Raises
        ------
        WorkerDied
            If the worker died, ran out of memory or exceeded its time limit in two attempts.
        RuntimeError
            Outside the context manager.
        """
        if not self._open:
            raise RuntimeError("the workers are not running")
        async with self._slot(urgent, first) as ticket:
            request = pack((function, args))
            name = getattr(function, "__qualname__", repr(function))
            answer = await self._ask(ticket, request, name)
        if answer.error is not None:
            answer.error.add_note(f"In a worker process:\n{answer.where}")
            raise answer.error
        return cast(T, answer.result)

    async def warm(self, count: int | None = None) -> None:
        """Start workers until ``count`` run, by default all but the one for urgent jobs.

        It waits for slots as background jobs do.

        Raises
        ------
        WorkerDied
            If the workers do not start.
        """
        wanted = self._count if count is None else min(count, self._count)
        async with trio.open_nursery() as nursery:
            for _ in range(wanted - len(self._alive)):
                nursery.start_soon(self._warm_one, wanted)
        if len(self._alive) < wanted:
            raise WorkerDied("its start")

    def pids(self) -> list[int]:
        """Return the process ids of all workers that run now."""
        return [worker.process.pid for worker in self._alive]

    async def _warm_one(self, wanted: int) -> None:
        """Start one worker, unless enough run."""
        async with self._slot(urgent=False, first=False):
            if len(self._alive) < wanted:
                with suppress(_LostError):
                    self._idle.append(await self._start())

    async def _ask(self, ticket: _Ticket, request: Packed, name: str) -> Answer:
        """Run a job in the ticket's worker or a new one; try twice."""
        worker, ticket.worker = ticket.worker, None
        for _ in range(2):
            try:
                worker = worker or await self._start()
                answer = await worker.ask(request, self._time_limit)
            except BaseException as error:
                # Also if cancelled: a later answer of this worker would belong to no caller.
                if worker is not None:
                    self._kill(worker)
                    worker = None
                if not isinstance(error, _LostError):
                    raise
            else:
                self._idle.append(worker)
                return answer
        raise WorkerDied(name)

    def _take_idle(self) -> _Worker | None:
        """Return the worker that became idle last, or None."""
        while self._idle:
            worker = self._idle.pop()
            if worker.alive():
                return worker
            self._kill(worker)
        return None

    async def _start(self) -> _Worker:
        """Start a worker and return it when it is ready; raises _LostError."""
        self._killed = [worker for worker in self._killed if worker.alive()]
        if not self._open:
            raise RuntimeError("the workers have ended")
        try:
            worker = _Worker(*self._settings)
        except OSError as error:  # The system has no processes, descriptors or memory left.
            raise _LostError from error
        self._alive.append(worker)
        try:
            await worker.ready()
        except BaseException:
            self._kill(worker)
            raise
        return worker

    def _kill(self, worker: _Worker) -> None:
        """Kill a worker and forget it."""
        worker.kill()
        if worker in self._alive:  # False if the context has ended meanwhile.
            self._alive.remove(worker)
            self._killed.append(worker)

    @asynccontextmanager
    async def _slot(self, urgent: bool, first: bool) -> AsyncIterator[_Ticket]:
        """Wait for a slot, and hold it."""
        queue = self._urgent if urgent else self._background
        ticket = _Ticket()
        if first:
            queue.appendleft(ticket)
        else:
            queue.append(ticket)
        self._admit()
        try:
            await ticket.granted.wait()
            yield ticket
        finally:
            if ticket.granted.is_set():
                self._running -= 1
                if ticket.worker is not None:  # It was not used.
                    self._idle.append(ticket.worker)
                self._admit()
            else:
                queue.remove(ticket)

    def _admit(self) -> None:
        """Give free slots to waiting jobs; the last slot only to an urgent one."""
        while self._running <= self._count:
            if self._urgent:
                ticket = self._urgent.popleft()
            elif self._running < self._count and self._background:
                ticket = self._background.popleft()
            else:
                return
            self._running += 1
            ticket.worker = self._take_idle()
            ticket.granted.set()


def _launch(code: str, fd: int) -> subprocess.Popen[bytes]:
    """Start a Python that runs ``code`` and inherits ``fd`` and all open folders.

    Call it in the main trio thread only: the kernel sends the child its death signal when the
    thread that started it ends.

    Raises
    ------
    OSError
        If the system has no room for a process.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_PARENT)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.DEVNULL,
            # Output of libraries must not mix with the output of this process.
            stdout=subprocess.DEVNULL,
            # Jobs get paths that lead through the descriptors of open folders.
            pass_fds=[fd, *open_numbers()],
            # Signals to the parent's process group are meant for the parent alone.
            start_new_session=True,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": _import_path()},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _import_path() -> str:
    """Return ``sys.path`` for a worker, which must find the same modules as this process.

    An empty entry means the current folder, which may change, so it is replaced by its path.
    """
    home = str(Path(fsmount.__file__).resolve().parent.parent)
    entries = [entry or str(Path.cwd()) for entry in sys.path]
    return os.pathsep.join(entries if home in entries else [*entries, home])


def _wait_for(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until all processes have ended; kill those that do not end within seconds."""
    for process in processes:
        try:
            process.wait(_END_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_END_LIMIT)
