"""Threads for calls that may wait for a disk, so that no request waits for one it does not need.

The trio thread answers all requests of a mount. A disk or a server that hangs would stop it for
good, so whatever may ask a disk runs in a thread; commits of the index alone do not. Threads come
in kinds, each with places of its own: where all calls of one kind hang, the others go on, and so
does whoever uses trio's own places.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TypeVar, TypeVarTuple, Unpack

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Kind(Enum):
    """What a call does, by whom it would keep waiting."""

    OPEN = "opens and closes staged files"
    READ = "reads bodies for programs"
    WRITE = "makes, changes and removes staged files"
    FORCE = "forces files to the disk"
    ENTRY = "reads entries of packs, and renders what needs no worker"
    PACK = "writes packs"
    STAGED = "reads staged files for the encoder, and compares"
    ROOM = "asks how much is free"
    TREE = "reads folders that are no store"


_AT_ONCE = 16

_limiters = trio.lowlevel.RunVar[dict[Kind, trio.CapacityLimiter]]("limiters")


def limiter(kind: Kind) -> trio.CapacityLimiter:
    """The places of a kind, in this run of trio."""
    try:
        known = _limiters.get()
    except LookupError:
        known = {each: trio.CapacityLimiter(_AT_ONCE) for each in Kind}
        _limiters.set(known)
    return known[kind]


async def call(kind: Kind, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
    """`function(*args)`, in a thread of this kind.

    A task that is cancelled while it waits for a place makes no call. One that is cancelled later
    gets what the call returns or raises: no call goes on behind the back of its task, with a
    descriptor that somebody closes.
    """
    return await trio.to_thread.run_sync(function, *args, limiter=limiter(kind))


async def finish(kind: Kind, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
    """As :func:`call`, also in a task that has been cancelled: for what must be put away."""
    found: list[T] = []
    with trio.CancelScope(shield=True):
        found.append(await call(kind, function, *args))
    return found[0]
