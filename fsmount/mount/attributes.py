"""Values that the mount's modules pass to each other.

They are attributes, changes of attributes, the caller of a request, and bodies to read from.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from typing import NamedTuple, Protocol

NAME_BYTES = 255
"""Longest name of an entry, in bytes."""

VALID_S = 86_400.0
"""How long attributes and names stay true where only this mount changes the tree."""

SHARED_VALID_S = 1.0
"""The same where another process may change it."""

_TIME_LIMIT_NS = (1 << 63) - 1


class Bytes(Protocol):
    """The bytes of a file, to read from: those of a staged file, or rendered ones."""

    @property
    def size(self) -> int:
        """Number of bytes."""

    async def pread(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; fewer only at the end."""


class Attributes(NamedTuple):
    """What stat(2) shows of an inode. `blocks` counts 512 bytes each; times in ns since 1970.

    The kernel may remember the attributes, and the name they were asked by, for `valid_s` seconds.
    (A listing makes one for every entry; a frozen dataclass takes five times as long to make.)
    """

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
    valid_s: float = VALID_S


DirEntry = tuple[int, bytes, Attributes]
"""An entry of a folder: its cookie (the place after which a listing goes on), name, attributes."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What setattr is to set; None leaves a field as it is. `size` is in bytes."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None

    def is_empty(self) -> bool:
        """Whether nothing is set: the kernel passes ``chown(-1, -1)`` on in this way."""
        return self == Changes()


@dataclass(frozen=True, slots=True)
class Caller:
    """The process that makes a system call."""

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
    """A time in ns since 1970, limited to the range of the index (the years 1678 to 2262)."""
    return max(-_TIME_LIMIT_NS, min(_TIME_LIMIT_NS, value))


def without_privileges(mode: int) -> int:
    """`mode` after a write by a user without privileges, or after a change of owner.

    Set-group-id without group execution gives no privilege and stays.
    """
    mode &= ~stat.S_ISUID
    if mode & stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    return mode
