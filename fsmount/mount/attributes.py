"""What crosses the mount's rooms: attributes, changes to them, the caller, bodies to read from."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from typing import NamedTuple, Protocol

NAME_BYTES = 255
"""Longest name of an entry, in bytes."""

_TIME_LIMIT_NS = (1 << 63) - 1


class Bytes(Protocol):
    """A body to read from: a staged file, or a rendered one."""

    @property
    def size(self) -> int:
        """Bytes in it."""

    async def pread(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; fewer only at the end."""


class Attributes(NamedTuple):
    """What stat(2) shows of an inode. `blocks` counts 512 bytes each; times in ns since 1970."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What setattr is to set; None leaves a field as it is."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None

    def is_empty(self) -> bool:
        """Whether nothing is set, which is how the kernel hands on ``chown(-1, -1)``."""
        return self == Changes()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a system call."""

    uid: int
    gid: int
    umask: int = 0


def failure(code: int) -> OSError:
    """The :class:`OSError` of an errno."""
    return OSError(code, os.strerror(code))


def now_ns() -> int:
    """The time of day in ns since 1970."""
    return time.time_ns()


def clamp_ns(value: int) -> int:
    """A time cut to what the index can hold (the years 1678 to 2262), as kernels do it."""
    return max(-_TIME_LIMIT_NS, min(_TIME_LIMIT_NS, value))


def without_privileges(mode: int) -> int:
    """`mode` after a write by a user without privileges, or a change of owner.

    Set-group-id without group execution is no privilege and stays.
    """
    mode &= ~stat.S_ISUID
    if mode & stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    return mode
