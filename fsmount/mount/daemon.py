"""A mount in the background: a starter process, and a new process (the server) that serves it.

The server reports through a pipe: its process number, then "ready" or an error. Until then the
two end together: a starter that gets a signal ends the server and waits for it, and a server
whose starter has ended unmounts. So the folder is either mounted or free when the starter ends.
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
from fsmount.mount.mountpoint import is_automounted
from fsmount.mount.unmount import free_if_dead

_log = logging.getLogger(__name__)

_READY = b"ready"
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Serve = Callable[[Callable[[], None]], None]
"""Runs in the server; is given the function to call when the mount answers."""


def in_background(mountpoint: Path, serve: Serve) -> None:
    """Run `serve` in a new process without a terminal; returns when it reports that it is ready.

    An error of `serve` before that is raised here; a later one is logged there. `mountpoint` is
    resolved. If the server is killed before it is ready, this process unmounts `mountpoint` and
    raises FsmountError.

    If the kernel mounts `mountpoint` on demand, the server stays in the process group of this
    process until it is ready. Of all other processes, also of a server with a session of its own,
    the kernel lets each path wait that leads there (Documentation/filesystems/autofs.rst, "oz
    mode").
    """
    in_group = is_automounted(mountpoint)
    receiver, sender = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        _become_daemon(_Report(sender), serve, in_group)
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
    """The server's end of the pipe; closed after the first report."""

    def __init__(self, sender: int) -> None:
        self._sender: int | None = sender

    def introduce(self) -> None:
        """Report the number of this process."""
        assert self._sender is not None
        os.write(self._sender, b"%d\n" % os.getpid())

    def ready(self) -> None:
        """Report that the mount answers. Raises :class:`FsmountError` if the starter has ended."""
        if not self._say(_READY):
            raise FsmountError("the process that started the mount ended before it was ready")

    def failed(self, error: FsmountError) -> None:
        """Report an error; no-op after another report."""
        if not self._say(pickle.dumps(error)):
            _log.debug("the starter does not wait any more")

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


def _become_daemon(report: _Report, serve: Serve, in_group: bool) -> NoReturn:
    """The forked process: leave the terminal, with `in_group` when ready, and serve."""
    code = 1

    def ready() -> None:
        if in_group:
            os.setsid()
        report.ready()

    try:
        if not in_group:
            os.setsid()
        # A process that leads no session gets no controlling terminal when it opens one.
        if os.fork():
            os._exit(0)
        report.introduce()
        os.umask(0o077)
        serve(ready)
        code = 0
    except FsmountError as error:
        code = error.exit_code
        _log.error("%s", error)
        logging.shutdown()
        report.failed(error)
    except BaseException as error:
        _log.critical("the mount ended", exc_info=error)
        logging.shutdown()
        report.failed(FsmountError(readable(f"the mount ended: {error!r}")))
    finally:
        logging.shutdown()
        os._exit(code)


class _Starter:
    """The starter while it waits. A signal ends the server; `caught` is the signal's number."""

    def __init__(self, receiver: int) -> None:
        self._receiver = receiver
        self._server: int | None = None  # a pidfd
        self.caught: int | None = None

    def wait(self) -> bytes:
        """Wait until the server has reported or ended; the report, b"" for none.

        If a signal was caught, the server has ended.
        """
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
            # The second signal ends this process; the server notices it, and unmounts by itself.
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
    """End this process by a signal, as its parent expects."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    raise AssertionError("the signal has ended this process")
