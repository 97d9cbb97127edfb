"""The worker's side: the main loop of a worker process. Imports no trio."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Iterable

from fsmount.errors import FsmountError
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

# Signals with meanings of a program's own, of timers and the like. By default they kill a process.
# Not every system has all of them.
_NAMES = ("USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "PWR", "XFSZ", "PIPE", "STKFLT")
_REAL_TIME = range(getattr(signal, "SIGRTMIN", 0), getattr(signal, "SIGRTMAX", -1) + 1)
IGNORED: tuple[int, ...] = (
    *(getattr(signal, f"SIG{name}") for name in _NAMES if hasattr(signal, f"SIG{name}")),
    *_REAL_TIME,
)
# Signals that a worker ignores: the parent decides.
LEFT_TO_PARENT: tuple[int, ...] = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    *IGNORED,
)

_PR_SET_PDEATHSIG = 1


def serve(fd: int) -> None:
    """Answer requests on a socket until it ends: the whole life of a worker.

    Its first message is the process id, with a descriptor of the process (pidfd_open(2)). The
    receiver is not the parent, so it could not know by the id alone which process it kills.

    Parameters
    ----------
    fd : int
        The socket.
    """
    with socket.socket(fileno=fd) as channel, contextlib.suppress(EOFError, ConnectionError):
        pid = os.getpid()
        pidfd = os.pidfd_open(pid)
        socket.send_fds(channel, [PID.pack(pid)], [pidfd])
        os.close(pidfd)
        while True:
            _send(channel, _answer(*_receive(channel)))


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the parent dies, even in the middle of a job.

    Between two jobs the end of the socket does the same, on every system.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # If the parent died before the call, the signal never comes.
    if os.getppid() != parent:
        os._exit(1)


def _answer(parts: list[bytearray], received: list[int]) -> Packed:
    """Run a request and return the packed answer."""
    try:
        function, args = unpack(parts, received)
        return pack(Answer(result=function(*args)))
    except MemoryError:
        # The job is tried again in a new worker, which has its whole limit free.
        os._exit(1)
    except Exception as error:
        return pack(_failure(error))


def _failure(error: Exception) -> Answer:
    """Return an error as an answer."""
    where = "".join(traceback.format_exception(error))
    try:
        # An error that cannot be unpickled would fail in the receiver only.
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = FsmountError(f"{type(error).__name__}: {error}")
    return Answer(error=error, where=where)


def _send(channel: socket.socket, message: Packed) -> None:
    """Send a message."""
    pieces, ancillary = message.pieces, message.ancillary()
    while pieces:
        sent = channel.sendmsg(pieces[:MOST_PIECES], ancillary)
        pieces, ancillary = rest_of(pieces, sent), []


def _receive(channel: socket.socket) -> tuple[list[bytearray], list[int]]:
    """Receive the parts of a message, and its descriptors; raises EOFError if the socket ends."""
    head, ancillary, _, _ = channel.recvmsg(HEAD.size, ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
    if not head:
        raise EOFError
    found = descriptors(ancillary)
    (rest,) = _exactly(channel, [HEAD.size - len(head)])
    count, _ = HEAD.unpack(head + rest)
    layout = sizes_layout(count)
    (sizes,) = _exactly(channel, [layout.size])
    return _exactly(channel, layout.unpack(sizes)), found


def _exactly(channel: socket.socket, sizes: Iterable[int]) -> list[bytearray]:
    """Receive parts of these sizes in bytes; raises EOFError if the socket ends."""
    parts = [bytearray(size) for size in sizes]
    left = rest_of([memoryview(part) for part in parts], 0)
    while left:
        received, *_ = channel.recvmsg_into(left[:MOST_PIECES])
        if not received:
            raise EOFError
        left = rest_of(left, received)
    return parts
