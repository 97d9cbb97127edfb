"""Bodies of encoded files, for reading: rendered in memory, or kept verbatim in ``raw/``."""

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
from fsmount.store.packs.supply import Local, Range, Supply
from fsmount.threads import Kind

SEGMENT_BYTES = 1 << 20
# If a file has more hole bytes than this, it gets no hash of the whole file: the hash would have to
# read all holes as zeros.
_MAX_HOLE_BYTES = 16 << 30
_SUM = struct.Struct("<Q32s")
_ZEROS = bytes(SEGMENT_BYTES)


@dataclass(frozen=True)
class RenderedBody:
    """A whole file in memory. The renderer has checked its hash."""

    data: bytes

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return len(self.data)

    async def pread(self, offset: int, length: int) -> bytes:
        """Return `length` bytes at `offset`, fewer only at the end of the file. Does not await."""
        return self.data[offset : offset + length]


class KeptBody:
    """A large file kept verbatim in ``raw/``.

    Each segment of 1 MiB is checked when it is read. `size` is the size of the file in bytes.
    `sums` has the SHA-256 of each segment that is not all zeros, by segment number. `supply` brings
    segments to the disk, if the store lies elsewhere.
    """

    def __init__(
        self, path: Path, size: int, sums: dict[int, bytes], supply: Supply | None = None
    ) -> None:
        self._supply = supply or Local()
        self.size = size
        self._path = path
        self._sums = sums
        self._last: tuple[int, bytes] = (-1, b"")
        # A kernel that reads ahead asks for several parts of one segment at the same time. Held
        # while a thread reads a segment.
        self._reading = trio.Lock()

    async def pread(self, offset: int, length: int) -> bytes:
        """Return `length` bytes at `offset`, fewer only at the end of the file.

        Reads in a thread. Raises :class:`Damaged` if a segment is cut off, cannot be read or has
        another hash.
        """
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
        """Return a segment. Tasks that ask for the same segment at the same time read it once."""
        last = self._last
        if last[0] == number:
            return last[1]
        async with self._reading:
            start = number * SEGMENT_BYTES
            ranges = [Range(str(self._path), start, min(SEGMENT_BYTES, self.size - start))]
            async with self._supply.held(ranges):
                try:
                    return await threads.call(Kind.READ, self._segment, number)
                except Damaged as error:
                    if not await self._supply.renew(ranges):
                        raise
                    try:
                        return await threads.call(Kind.READ, self._segment, number)
                    except Damaged:
                        raise await self._supply.blame(ranges, error) from None

    def verify(self) -> None:
        """Read and check all segments that are no hole, those with a sum, and the last one.

        May wait for the disk. Raises :class:`Damaged`.
        """
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
        """Read and check a segment. May wait for the disk. Raises :class:`Damaged`."""
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
    """Yield the numbers of the segments that have bytes outside holes, in ascending order."""
    last = -1
    for start, end in data_parts(fd, size):
        for number in range(max(last + 1, start // SEGMENT_BYTES), -(-end // SEGMENT_BYTES)):
            yield number
            last = number


def sum_up(path: Path) -> tuple[dict[int, bytes], bytes, int]:
    """Read a file and return (segment sums, SHA-256 of the whole file, size in bytes).

    The segment sums have no item for a segment that is all zeros. The SHA-256 is b"" if holes
    take more than 16 GiB. May wait for the disk. Raises OSError.
    """
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
    """Add `count` zero bytes to a hash."""
    while count > 0:
        whole.update(_ZEROS[: min(count, SEGMENT_BYTES)])
        count -= SEGMENT_BYTES


def dump_sums(sums: dict[int, bytes]) -> bytes:
    """Encode segment sums.

    Each segment takes 40 bytes: its number (8 bytes, little endian) and its SHA-256 (32 bytes).
    """
    return b"".join(_SUM.pack(number, digest) for number, digest in sums.items())


def load_sums(data: bytes) -> dict[int, bytes]:
    """Decode the output of :func:`dump_sums`.

    Raises :class:`Damaged` if `data` is no whole number of segments.
    """
    if len(data) % _SUM.size:
        raise Damaged("segment sums", reason="cut off")
    return {int(number): digest for number, digest in _SUM.iter_unpack(data)}
