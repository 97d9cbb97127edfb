"""Holes of sparse files: found in a file, and left where zeros are written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

_BLOCK = 4096
_ZEROS = bytes(_BLOCK)
# What lseek(2) says on a filesystem that does not tell holes.
_UNTOLD = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


def data_parts(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of what is no hole in the first `size` bytes of an open file, in order.

    All of them, where the filesystem does not tell holes. Moves the file's position.
    """
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno in _UNTOLD:
                yield at, size
            elif error.errno != errno.ENXIO:
                raise
            # ENXIO: nothing but a hole up to the end.
            return
        if start >= size:
            return
        yield start, min(end, size)
        at = end


def hole_bytes(fd: int, size: int) -> int:
    """How much of the first `size` bytes of an open file is holes. Moves the file's position."""
    return size - sum(end - start for start, end in data_parts(fd, size))


def nonzero_parts(data: bytes) -> Iterator[tuple[int, int]]:
    """(start, end) of what has to be written of `data` if its blocks of zeros are to be holes."""
    start = None
    for at in range(0, len(data), _BLOCK):
        block = data[at : at + _BLOCK]
        if block != _ZEROS[: len(block)]:
            start = at if start is None else start
        elif start is not None:
            yield start, at
            start = None
    if start is not None:
        yield start, len(data)
