"""What a file's bytes are read from, once it is encoded."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trio

from fsmount import threads
from fsmount.errors import Damaged
from fsmount.store.disk.disk import pread
from fsmount.store.disk.holes import data_parts
from fsmount.threads import Kind

SEGMENT_BYTES = 1 << 20
# Holes beyond this many bytes are not hashed as zeros for the hash of the whole file.
_MAX_HOLE_BYTES = 16 << 30
_SUM = struct.Struct("<Q32s")
_ZEROS = bytes(SEGMENT_BYTES)


@dataclass(frozen=True)
class Rendered:
    """A whole file in memory, hash checked when it was rendered."""

    data: bytes

    @property
    def size(self) -> int:
        """Bytes in it."""
        return len(self.data)

    async def pread(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; fewer only at the end."""
        return self.data[offset : offset + length]


class Kept:
    """A large file kept verbatim in ``raw/``, checked by segments of 1 MiB as they are read.

    `sums` has the SHA-256 of every segment that is not all zeros.
    """

    def __init__(self, path: Path, size: int, sums: dict[int, bytes]) -> None:
        self.size = size
        self._path = path
        self._sums = sums
        self._last: tuple[int, bytes] = (-1, b"")
        # A kernel that reads ahead asks for parts of one segment at a time.
        self._reading = trio.Lock()

    async def pread(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; raises :class:`Damaged`. Reads in a thread."""
        end = min(offset + length, self.size)
        parts = []
        while offset < end:
            number, start = divmod(offset, SEGMENT_BYTES)
            part = (await self._segment_at(number))[start : start + end - offset]
            if not part:
                raise Damaged(self._path, reason="cut off")
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    async def _segment_at(self, number: int) -> bytes:
        """A segment; read once for all who ask for it at a time."""
        last = self._last
        if last[0] == number:
            return last[1]
        async with self._reading:
            return await threads.call(Kind.READ, self._segment, number)

    def verify(self) -> None:
        """Read all of it that is no hole, and its end; raises :class:`Damaged`."""
        try:
            with self._path.open("rb", buffering=0) as file:
                numbers = {*self._sums, *_data_segments(file.fileno(), self.size)}
        except OSError as error:
            raise Damaged(self._path, reason=error) from error
        if self.size:
            numbers.add((self.size - 1) // SEGMENT_BYTES)
        for number in sorted(numbers):
            self._segment(number)

    def _segment(self, number: int) -> bytes:
        last = self._last
        if last[0] == number:
            return last[1]
        try:
            with self._path.open("rb", buffering=0) as file:
                data = pread(file.fileno(), SEGMENT_BYTES, number * SEGMENT_BYTES)
        except OSError as error:
            raise Damaged(self._path, reason=error) from error
        wanted = self._sums.get(number)
        whole = min(SEGMENT_BYTES, self.size - number * SEGMENT_BYTES)
        intact = data == _ZEROS[:whole] if wanted is None else _digest(data) == wanted
        if len(data) != whole or not intact:
            raise Damaged(self._path, reason=f"segment {number} has another hash")
        self._last = (number, data)
        return data


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _data_segments(fd: int, size: int) -> Iterator[int]:
    """Numbers of the segments that are not wholly a hole, in order."""
    last = -1
    for start, end in data_parts(fd, size):
        for number in range(max(last + 1, start // SEGMENT_BYTES), -(-end // SEGMENT_BYTES)):
            yield number
            last = number


def sum_up(path: Path) -> tuple[dict[int, bytes], bytes, int]:
    """Segment sums, SHA-256 of the whole (b"" for vast sparse files) and size of a file."""
    sums: dict[int, bytes] = {}
    whole = hashlib.sha256()
    hashed = 0
    with path.open("rb", buffering=0) as file:
        fd = file.fileno()
        size = os.fstat(fd).st_size
        holes = size - os.fstat(fd).st_blocks * 512
        exact = holes <= _MAX_HOLE_BYTES
        for number in _data_segments(fd, size):
            data = pread(fd, SEGMENT_BYTES, number * SEGMENT_BYTES)
            if exact:
                _hash_zeros(whole, number * SEGMENT_BYTES - hashed)
                whole.update(data)
                hashed = number * SEGMENT_BYTES + len(data)
            if data != _ZEROS[: len(data)]:
                sums[number] = _digest(data)
        if exact:
            _hash_zeros(whole, size - hashed)
    return sums, whole.digest() if exact else b"", size


def _hash_zeros(whole: hashlib._Hash, count: int) -> None:
    while count > 0:
        whole.update(_ZEROS[: min(count, SEGMENT_BYTES)])
        count -= SEGMENT_BYTES


def dump_sums(sums: dict[int, bytes]) -> bytes:
    """Segment number (8 bytes, little endian) and hash (32 bytes) of each segment."""
    return b"".join(_SUM.pack(number, digest) for number, digest in sums.items())


def load_sums(data: bytes) -> dict[int, bytes]:
    """The inverse of :func:`dump_sums`; raises :class:`Damaged`."""
    if len(data) % _SUM.size:
        raise Damaged("segment sums", reason="cut off")
    return {int(number): digest for number, digest in _SUM.iter_unpack(data)}
