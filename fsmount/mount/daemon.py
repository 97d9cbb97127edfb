"""A mount in the background: the process that starts it, and the new one that serves it.

The new process reports through a pipe: its number, then either that the mount answers or what
went wrong. Until then the two end together. A starter that is told to end ends the new process and
waits for it. A new process whose starter has gone unmounts. So whoever starts a mount finds it
mounted, or the folder free.
"""

from __future__ import annotations

import logging
import os
import pickle
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from fsmount.errors import FsmountError
from fsmount.folder import readable
from fsmount.mount.unmount import free_if_dead

_log = logging.getLogger(__name__)

_READY = b"ready"
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# What the new process does, given the function that says that the mount answers.
Serve = Callable[[Callable[[], None]], None]


def in_background(mountpoint: Path, serve: Serve) -> None:
    """Run `serve` in a new process without a terminal; returns when that says that it is ready.

    An error of `serve` before that is raised here, one after that is logged there. `mountpoint` is
    resolved. If the new process is killed before it is ready, what it has mounted there is freed.
    """
    receiver, sender = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        _become_daemon(_Report(sender), serve)
    try:
        os.close(sender)
        starter = _Starter(receiver)
        message = starter.wait()
    finally:
        os.close(receiver)
    with suppress(ChildProcessError):
        os.waitpid(child, 0)
    if message != _READY:
        free_if_dead(mountpoint)
    if starter.caught is not None:
        _end_by(starter.caught)
    if message == _READY:
        return
    if message:
        error = pickle.loads(message)
        assert isinstance(error, FsmountError)
        raise error
    raise FsmountError(f"the process that was to serve {mountpoint} ended before it was ready")


class _Report:
    """The new process's end of the pipe: closed after the first thing that it says."""

    def __init__(self, sender: int) -> None:
        self._sender: int | None = sender

    def introduce(self) -> None:
        """Say which process this is."""
        assert self._sender is not None
        os.write(self._sender, b"%d\n" % os.getpid())

    def ready(self) -> None:
        """Say that the mount answers; raises :class:`FsmountError` if nobody waits for it."""
        if not self._say(_READY):
            raise FsmountError("who started the mount ended before it was ready")

    def failed(self, error: FsmountError) -> None:
        """Say what went wrong, if nothing was said before."""
        if not self._say(pickle.dumps(error)):
            _log.debug("nobody waits for the mount any more")

    def _say(self, message: bytes) -> bool:
        sender, self._sender = self._sender, None
        if sender is None:
            return False
        try:
            os.write(sender, message)
        except BrokenPipeError:
            return False
        finally:
            os.close(sender)
        return True


def detach_streams(log: int) -> None:
    """Send stdin and stdout to /dev/null, and stderr, which libfuse prints to, to the log."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.dup2(log, 2)
    if nowhere > 2:
        os.close(nowhere)


def _become_daemon(report: _Report, serve: Serve) -> NoReturn:
    """The forked process: leaves the terminal and serves."""
    code = 1
    try:
        os.setsid()
        # Not the leader of its session, so that no terminal that it opens becomes its own.
        if os.fork():
            os._exit(0)
        report.introduce()
        os.umask(0o077)
        serve(report.ready)
        code = 0
    except FsmountError as error:
        code = error.exit_code
        _log.error("%s", error)
        report.failed(error)
    except BaseException as error:
        _log.critical("the mount ended", exc_info=error)
        report.failed(FsmountError(readable(f"the mount ended: {error!r}")))
    finally:
        logging.shutdown()
        os._exit(code)


class _Starter:
    """The starting process while it waits. A signal ends the new process, and `caught` names it."""

    def __init__(self, receiver: int) -> None:
        self._receiver = receiver
        self._server: int | None = None  # a descriptor of the process
        self.caught: int | None = None

    def wait(self) -> bytes:
        """What the new process reports before it closes the pipe, or ends; then it has ended if a
        signal was caught."""
        wanted = [number for number in _STOPPING if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._stop) for number in wanted}
        try:
            message = self._read()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._server is not None:
            if self.caught is not None:
                _await_end(self._server)
            os.close(self._server)
        return message

    def _read(self) -> bytes:
        message = b""
        while data := os.read(self._receiver, 65536):
            message += data
            number, line, rest = message.partition(b"\n")
            if self._server is None and line and number.isdigit():
                message = rest
                with suppress(ProcessLookupError):
                    self._server = os.pidfd_open(int(number))
                self._forward()
        return message

    def _stop(self, number: int, _: FrameType | None) -> None:
        if self.caught is not None:
            # Told twice: the new process finds that nobody waits, and unmounts by itself.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.caught = number
        self._forward()

    def _forward(self) -> None:
        if self._server is not None and self.caught is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._server, signal.SIGTERM)


def _await_end(process: int) -> None:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.poll()


def _end_by(number: int) -> NoReturn:
    """End as a process does that the signal was sent to."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    raise AssertionError("the signal has ended this process")
