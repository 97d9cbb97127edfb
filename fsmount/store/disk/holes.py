"""Holes of sparse files: find them in a file, and leave them where zeros would be written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

_BLOCK = 4096
_ZEROS = bytes(_BLOCK)
# Errors of lseek(2) on a filesystem that does not report holes.
_UNTOLD = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


def data_parts(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the byte ranges (start, end) that are no hole in the first `size` bytes of a file.

    The ranges come in ascending order. If the filesystem does not report holes, one range covers
    all `size` bytes. The call moves the position of the open file `fd`. Raises OSError.
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
            # ENXIO: only a hole is left up to the end of the file.
            return
        if start >= size:
            return
        yield start, min(end, size)
        at = end


def hole_bytes(fd: int, size: int) -> int:
    """Number of bytes in holes among the first `size` bytes of an open file.

    The call moves the position of the open file `fd`. Raises OSError.
    """
    return size - sum(end - start for start, end in data_parts(fd, size))


def nonzero_parts(data: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Yield the ranges (start, end) of `data` that must be written if zero blocks become holes.

    A block has 4096 bytes, counted from the start of `data`. The last one may be shorter.
    """
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
