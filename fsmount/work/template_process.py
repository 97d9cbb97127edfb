"""The template's side: the main loop of the process that workers are forked from.

A request is a list of numbers (4 bytes each), and as many descriptors: the worker's socket, and the
open folders of the parent. The worker gets the folders under the numbers that they have in the
parent. There is no answer: the worker itself reports on its socket that it is ready.

The template has one thread when it forks. Otherwise a lock that another thread holds would stay
locked in the worker. It waits for workers that have ended, but knows none by its number: the parent
has a descriptor of each (see :func:`fsmount.work.worker_process.serve`).
"""

from __future__ import annotations

import array
import faulthandler
import gc
import importlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from fsmount.work.messages import ANCILLARY_BYTES, descriptors
from fsmount.work.worker_process import LEFT_TO_PARENT, die_with
from fsmount.work.worker_process import serve as serve_jobs

# Libraries use one thread in a worker: there is one worker for each job that may run. Nor may a
# library start a thread in the template.
ENVIRONMENT = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
# glibc keeps this much freed memory for the next frame. Otherwise it requests zeroed pages from the
# system each time, which took a twentieth of the time of an import.
ENVIRONMENT |= dict.fromkeys(
    ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"), str(64 << 20)
)
# All threads share one heap.
ENVIRONMENT |= {"MALLOC_ARENA_MAX": "1"}
# So many workers have their heap in huge pages. Page faults were a sixth of the time of the first
# picture that a worker renders. More workers do few jobs each when a folder is imported. Then huge
# pages that are hardly used cost more than they save: 16 workers that import 120 screenshots on a
# virtual machine take 7.8 to 8.1 CPU seconds without them, and 8.5 to 9.0 with them.
_MOST_WITH_HUGE_PAGES = 4


def environment(workers: int) -> dict[str, str]:
    """Return the variables of the environment for a template of so many workers."""
    if workers > _MOST_WITH_HUGE_PAGES:
        return ENVIRONMENT
    return ENVIRONMENT | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def serve(
    fd: int, *, parent: int, memory_limit: int | None, nice: int, preload: Sequence[str]
) -> None:
    """Fork a worker for each request on a socket until it ends: the whole life of a template.

    Workers inherit the limit of memory, the priority, the signals that are ignored, and all
    modules. If a module has started a thread, the template says so on stderr. It never returns.

    Parameters
    ----------
    fd : int
        The socket.
    parent : int
        The process to die with.
    memory_limit : int or None
        Limit of the address space of each process, in bytes.
    nice : int
        Added to the priority value.
    preload : sequence of str
        Modules to import first.
    """
    for number in LEFT_TO_PARENT:
        signal.signal(number, signal.SIG_IGN)
    # The parent blocked these signals while it started this process.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_PARENT)
    die_with(parent)
    if sys.stderr is not None:  # closed
        faulthandler.enable()
    if memory_limit is not None:
        _limit_memory(memory_limit)
    if nice:
        os.nice(nice)
    for name in preload:
        importlib.import_module(name)
    if (threads := len(os.listdir("/proc/self/task"))) != 1:
        if sys.stderr is not None:
            text = f"fsmount: no worker can start: {threads} threads after importing {preload}\n"
            sys.stderr.write(text)
            sys.stderr.flush()
        os._exit(1)  # Otherwise Python would wait for the threads.
    # Imported objects stay, and jobs make few cycles. Searching for cycles took a fiftieth of the
    # time of an import, and would write to memory that all workers share.
    gc.freeze()
    gc.set_threshold(50_000)
    signal.signal(signal.SIGCHLD, _wait_for_the_ended)
    with socket.socket(fileno=fd) as channel:
        while True:
            message, ancillary, _, _ = channel.recvmsg(
                ANCILLARY_BYTES, ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
            )
            if not message:
                break
            _fork(channel, array.array("i", message), descriptors(ancillary))
    with suppress(ChildProcessError):  # The last worker has ended.
        while True:
            os.wait()
    os._exit(0)  # Python would take down all modules first. With a high `nice` that takes seconds.


def _wait_for_the_ended(*_: object) -> None:
    """Remove the workers that have ended, and count the time that they took as of this process."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _limit_memory(limit: int) -> None:
    """Limit the address space of this process, in bytes."""
    import resource  # not on every system

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _fork(template: socket.socket, numbers: Sequence[int], received: Sequence[int]) -> None:
    """Fork a worker. If that is impossible, its socket ends, which the parent notices."""
    parent = os.getpid()
    with suppress(OSError):  # The system has no processes or memory left.
        if os.fork() == 0:
            _be_worker(parent, template, numbers, received)
    for fd in received:
        os.close(fd)


def _be_worker(
    parent: int, template: socket.socket, numbers: Sequence[int], received: Sequence[int]
) -> None:
    """Live as a worker; never returns."""
    try:
        die_with(parent)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        template.close()
        serve_jobs(_place(numbers, received))
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(0)


def _place(numbers: Sequence[int], received: Sequence[int]) -> int:
    """Move all descriptors but the first to their numbers. Returns the first, maybe moved."""
    _, *wanted = numbers
    own, *folders = (_away_from(wanted, fd) for fd in received)
    for fd, number in zip(folders, wanted, strict=True):
        os.dup2(fd, number, inheritable=False)
        os.close(fd)
    return own


def _away_from(numbers: Sequence[int], fd: int) -> int:
    """Return `fd`, or a duplicate if it has one of the numbers, where it stays open for now."""
    return _away_from(numbers, os.dup(fd)) if fd in numbers else fd
