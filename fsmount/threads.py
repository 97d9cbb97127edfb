"""Threads for calls that may wait for a disk: each request waits only for the disk it needs.

The trio thread answers all requests of a mount. A disk or server that hangs would stop this thread
until it recovers. So every call that may ask a disk runs in another thread, except commits of the
index. Each kind of call has its own limit of threads: if all calls of one kind hang, the other
kinds go on, and so do tasks that use the default limit of trio.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TypeVar, TypeVarTuple, Unpack

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Kind(Enum):
    """The purpose of a call. Calls of one kind may keep each other waiting."""

    OPEN = "opens and closes staged files"
    READ = "reads bodies for programs"
    WRITE = "makes, changes and removes staged files, and writes exported ones"
    FORCE = "forces files to the disk"
    ENTRY = "reads entries of packs, and renders what needs no worker"
    PACK = "writes packs"
    STAGED = "reads staged files for the encoder, and compares"
    FREE_SPACE = "asks how much is free"
    TREE = "reads folders and files that are no store's"
    REMOTE = "asks a server for bytes of a store that lies elsewhere"
    CACHED = "reads and writes the local copy of such bytes"


_AT_ONCE = 16
# All that one picture rests on is asked for at once.
_REQUESTS = 32

_limiters = trio.lowlevel.RunVar[dict[Kind, trio.CapacityLimiter]]("limiters")


def limiter(kind: Kind) -> trio.CapacityLimiter:
    """Return the limiter of a kind, in this run of trio."""
    try:
        known = _limiters.get()
    except LookupError:
        known = {each: trio.CapacityLimiter(_AT_ONCE) for each in Kind}
        known[Kind.REMOTE] = trio.CapacityLimiter(_REQUESTS)
        _limiters.set(known)
    return known[kind]


async def call(kind: Kind, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
    """Run `function(*args)` in a thread of this kind, and return its result.

    A task that is cancelled while it waits for a thread makes no call. A task that is cancelled
    later still gets the result or exception of the call. So no call continues without its task, on
    a descriptor that another task closes.
    """
    return await trio.to_thread.run_sync(function, *args, limiter=limiter(kind))


async def call_or_leave(kind: Kind, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
    """As :func:`call`, but a task that is cancelled leaves the thread to itself, and goes on.

    For calls that change nothing here and use no descriptor of the caller: a server that does not
    answer must not keep its reader. The thread counts until its call returns.
    """
    return await trio.to_thread.run_sync(
        function, *args, limiter=limiter(kind), abandon_on_cancel=True
    )


async def finish(kind: Kind, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
    """As :func:`call`, also in a cancelled task: for cleanup that must happen."""
    found: list[T] = []
    with trio.CancelScope(shield=True):
        found.append(await call(kind, function, *args))
    return found[0]
