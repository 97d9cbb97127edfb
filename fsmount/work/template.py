"""The template: the process that all workers are forked from. This side, in the parent.

Starting a worker as a new interpreter takes a third of a second of processor time, nearly all of it
for imports. The template imports once, and a fork takes milliseconds.

The template is a new interpreter itself (fork and exec), never a fork of this process, which has
threads and FUSE descriptors. It runs ``python -c`` with this process's ``sys.path``, not
:mod:`multiprocessing`, whose fork server runs the parent's ``__main__`` again and keeps a resource
tracker process. Therefore a function must be in a module that can be imported; ``__main__`` cannot.

:mod:`fsmount.work.template_process` is the other side. This module imports no trio.
"""

from __future__ import annotations

import array
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import fsmount
from fsmount.folder import open_numbers
from fsmount.work.template_process import environment
from fsmount.work.worker_process import LEFT_TO_PARENT

_END_LIMIT = 2.0  # seconds in which a template and its workers must end by themselves


class Template:
    """A template with these settings. It starts when it is first needed, and anew if it has died.

    Parameters
    ----------
    memory_limit : int or None
        Bytes of address space of a worker; None means no limit.
    nice : int
        Added to the priority value of the workers.
    preload : sequence of str
        Modules that the template imports before it forks the first worker.
    workers : int
        How many workers there will be.
    """

    def __init__(
        self, memory_limit: int | None, nice: int, preload: Sequence[str], workers: int
    ) -> None:
        self._environment = environment(workers)
        self._settings = f"memory_limit={memory_limit!r}, nice={nice!r}, preload={tuple(preload)!r}"
        self._channel: socket.socket | None = None
        self._processes: list[subprocess.Popen[bytes]] = []  # not waited for; the last one serves

    def fork(self, channel: socket.socket) -> None:
        """Ask for a worker that uses `channel` and has all open folders. Does not wait for it.

        If the worker does not start, the other end of `channel` has no peer when `channel` is
        closed here. Call it in the main trio thread only: the kernel sends the template its death
        signal when the thread that started it ends.

        Raises
        ------
        OSError
            If the system has no room for a process.
        """
        if self._channel is not None:
            with suppress(OSError):  # It has died.
                _request(self._channel, channel)
                return
            self.hang_up()
        self._channel = self._start()
        _request(self._channel, channel)

    def hang_up(self) -> None:
        """Let the template end as soon as all its workers have ended. The next fork starts one."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def wait(self) -> None:
        """Wait until all templates and their workers have ended; kill them after some seconds.

        Call it after :meth:`hang_up`.
        """
        for process in self._processes:
            try:
                process.wait(_END_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()  # Its workers die with it.
                with suppress(subprocess.TimeoutExpired):  # It hangs in the kernel.
                    process.wait(_END_LIMIT)
        self._processes = []

    def _start(self) -> socket.socket:
        """Start the process, and return this side's end of its socket; raises OSError."""
        self._processes = [process for process in self._processes if process.poll() is None]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        code = (
            "from fsmount.work.template_process import serve; "
            f"serve({theirs.fileno()}, parent={os.getpid()}, {self._settings})"
        )
        before = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_PARENT)
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.DEVNULL,
                # Output of libraries must not mix with the output of this process.
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Signals to the parent's process group are meant for the parent alone.
                start_new_session=True,
                env={**os.environ, **self._environment, "PYTHONPATH": _import_path()},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._processes.append(process)
        return ours


def _request(template: socket.socket, channel: socket.socket) -> None:
    """Send a request; raises OSError if the template has died."""
    # Jobs get paths that lead through the descriptors of open folders.
    numbers = array.array("i", [channel.fileno(), *open_numbers()])
    socket.send_fds(template, [numbers], numbers)


def _import_path() -> str:
    """Return ``sys.path`` for a worker, which must find the same modules as this process.

    An empty entry means the current folder, which may change, so it is replaced by its path.
    """
    home = str(Path(fsmount.__file__).resolve().parent.parent)
    entries = [entry or str(Path.cwd()) for entry in sys.path]
    return os.pathsep.join(entries if home in entries else [*entries, home])
