"""What runs inside a worker process, and the messages both sides speak. Imports no trio.

A message is a number of parts (4 bytes), the size of each (8 bytes each; all little endian) and
the parts: a pickle (protocol 5) and its out-of-band buffers. So arrays cross without being copied
into the pickle, and arrive in memory of their own.

A request is ``(function, args)``. An answer is :class:`Answer`.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import os
import pickle
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fsmount.errors import FsmountError

# One thread a worker: there are as many workers as jobs that may run.
ENVIRONMENT = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
# Frames come and go: glibc keeps this much for the next one instead of asking the system for zeroed
# pages anew each time, which took a twentieth of the time of an import.
ENVIRONMENT |= dict.fromkeys(
    ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"), str(64 << 20)
)
# One heap for the threads that decode images, too, in huge pages: page faults were a sixth of the
# time of the first picture that a worker renders.
ENVIRONMENT |= {"MALLOC_ARENA_MAX": "1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

# Signals that programs define for themselves, timers and the like: by default they kill whoever
# does not know them. Not every system has all.
_NAMES = ("USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "PWR", "XFSZ", "PIPE", "STKFLT")
_REAL_TIME = range(getattr(signal, "SIGRTMIN", 0), getattr(signal, "SIGRTMAX", -1) + 1)
IGNORED: tuple[int, ...] = (
    *(getattr(signal, f"SIG{name}") for name in _NAMES if hasattr(signal, f"SIG{name}")),
    *_REAL_TIME,
)
# What a worker leaves to its parent to decide.
LEFT_TO_PARENT: tuple[int, ...] = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    *IGNORED,
)

COUNT = struct.Struct("<I")
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What a function returned, or what it raised and where."""

    result: Any = None
    error: Exception | None = None
    where: str = ""


def pack(message: object) -> list[memoryview]:
    """The pieces to send for `message`, in order. Buffers are not copied: leave them unchanged."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(head), *(buffer.raw() for buffer in buffers)]
    sizes = struct.pack(f"<{len(parts)}Q", *(part.nbytes for part in parts))
    return [memoryview(COUNT.pack(len(parts)) + sizes), *parts]


def sizes_layout(count: int) -> struct.Struct:
    """How the sizes of `count` parts stand in a message."""
    return struct.Struct(f"<{count}Q")


def unpack(parts: Sequence[bytearray]) -> Any:
    """The message whose parts were received. Arrays in it are views of the parts."""
    return pickle.loads(parts[0], buffers=parts[1:])


def serve(
    fd: int, *, parent: int, memory_limit: int | None, nice: int, preload: Sequence[str]
) -> None:
    """The life of a worker: answer requests on the socket `fd` until it ends.

    `parent` is the process to die with, `memory_limit` a bound on the address space in bytes,
    `preload` names modules to import before the worker says it is ready.
    """
    for number in LEFT_TO_PARENT:
        signal.signal(number, signal.SIG_IGN)
    # The parent held them back, so that none could come before.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_PARENT)
    _die_with(parent)
    if sys.stderr is not None:  # closed
        faulthandler.enable()
    if memory_limit is not None:
        _limit_memory(memory_limit)
    if nice:
        os.nice(nice)
    for name in preload:
        importlib.import_module(name)
    # What was imported stays; jobs make hardly any cycles, and looking for them took a fiftieth of
    # the time of an import.
    gc.freeze()
    gc.set_threshold(50_000)
    with socket.socket(fileno=fd) as channel, contextlib.suppress(EOFError, ConnectionError):
        _send(channel, pack(Answer()))
        while True:
            _send(channel, _answer(_receive(channel)))


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` dies, even in the middle of a job.

    The end of the socket does the same between two jobs, on every system.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The parent may have died before the call; then there is nobody left to send the signal.
    if os.getppid() != parent:
        os._exit(1)


def _limit_memory(limit: int) -> None:
    import resource  # not on every system

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _answer(parts: Sequence[bytearray]) -> list[memoryview]:
    """Do a request; the packed answer."""
    try:
        function, args = unpack(parts)
        return pack(Answer(result=function(*args)))
    except MemoryError:
        # Counts as a death: a fresh worker has its whole limit to try with.
        os._exit(1)
    except Exception as error:
        return pack(_failure(error))


def _failure(error: Exception) -> Answer:
    where = "".join(traceback.format_exception(error))
    try:
        # What does not survive the way would be noticed only by the receiver.
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = FsmountError(f"{type(error).__name__}: {error}")
    return Answer(error=error, where=where)


def _send(channel: socket.socket, pieces: Sequence[memoryview]) -> None:
    for piece in pieces:
        channel.sendall(piece)


def _receive(channel: socket.socket) -> list[bytearray]:
    (count,) = COUNT.unpack(_exactly(channel, COUNT.size))
    layout = sizes_layout(count)
    return [_exactly(channel, size) for size in layout.unpack(_exactly(channel, layout.size))]


def _exactly(channel: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        received = channel.recv_into(view)
        if not received:
            raise EOFError
        view = view[received:]
    return data
