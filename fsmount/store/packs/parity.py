"""Parity of packs: blocks from which damaged bytes of a pack can be computed.

Beside a pack ``00000001.zip`` lies ``00000001.parity``. `docs/format.md` specifies it to the byte.

The first bytes of the pack are a table: rows of `columns` blocks, one row behind the other. Each
column of the table is a word of a Reed-Solomon code, and the file has `parity_rows` more rows. So
as many blocks of one column can be lost as there are parity rows. A stretch of damaged bytes
touches the columns in turn, and so it may be `parity_rows` times `columns` blocks long.

Checksums say which blocks are damaged. They cover blocks of the parity, too. One hash covers all
checksums. So damaged parity is never believed, and neither is parity of other bytes.

Functions that take a path or a descriptor may wait for the disk.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import zfec
from numpy.typing import NDArray

from fsmount.errors import Damaged
from fsmount.store.disk.disk import pread
from fsmount.store.packs.pack import SEAL_BYTES

BLOCK = 1024
STRETCH_BYTES = 64 << 10
"""A stretch of so many bytes can be rebuilt wherever it begins, whatever the share."""

# Blocks that a stretch of STRETCH_BYTES touches at most.
_LEAST = STRETCH_BYTES // BLOCK + 1
# Blocks of one column: a Reed-Solomon code over bytes has no longer words.
_WORD = 256
# Columns that are coded at a time. This bounds the memory to _WORD * _AT_ONCE blocks.
_AT_ONCE = 64
# Blocks that are read at a time.
_WINDOW = 1024
# Magic, version, bytes of a block, number of the pack, covered bytes, columns, rows, parity rows.
_HEADER = struct.Struct("<8sIIQQIHH")
_MAGIC, _VERSION = b"fmparity", 1
_DIGEST_BYTES = 32


class Shape(NamedTuple):
    """What a parity file covers and how.

    number : number of the pack.
    covered : number of bytes from the start of the pack.
    columns : blocks in a row.
    rows, parity_rows : rows of the pack, and rows of parity.
    """

    number: int
    covered: int
    columns: int
    rows: int
    parity_rows: int

    @property
    def blocks(self) -> int:
        """Number of blocks of the pack. The last one may be shorter."""
        return -(-self.covered // BLOCK)

    @property
    def parity_blocks(self) -> int:
        """Number of parity blocks."""
        return self.columns * self.parity_rows

    @property
    def stretch(self) -> int:
        """Bytes of the longest stretch that can be rebuilt, wherever in the pack it begins."""
        return (self.parity_blocks - 1) * BLOCK + 1

    def length_of(self, block: int) -> int:
        """Bytes of a block: fewer than :data:`BLOCK` only at the end."""
        return min(BLOCK, self.covered - block * BLOCK)

    def header(self) -> bytes:
        """The first bytes of the file."""
        return _HEADER.pack(_MAGIC, _VERSION, BLOCK, *self)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Do the inverse of :meth:`header`. Raises :class:`Damaged`."""
        if len(data) < _HEADER.size:
            raise Damaged("parity", reason="cut off")
        *fixed, number, covered, columns, rows, parity_rows = _HEADER.unpack_from(data)
        found = cls(number, covered, columns, rows, parity_rows)
        if (
            fixed != [_MAGIC, _VERSION, BLOCK]
            or min(found[1:]) < 1
            or found.rows + found.parity_rows > _WORD
            or found.rows != -(-found.blocks // found.columns)
        ):
            raise Damaged("parity", reason="not a parity file of this version")
        return found


def plan(number: int, length: int, percent: int) -> Shape:
    """Return the shape of the parity of the first `length` bytes of a pack; `length` is not 0.

    The parity has at least `percent` of the blocks, and enough for a stretch of
    :data:`STRETCH_BYTES`, but not more blocks than the pack.
    """
    blocks = -(-length // BLOCK)
    wanted = min(blocks, max(_LEAST, -(-blocks * percent // 100)))
    least = next(n for n in range(1, blocks + 1) if -(-blocks // n) + -(-wanted // n) <= _WORD)
    # Rows are whole: another number of columns may waste fewer blocks.
    columns = min(
        range(least, min(blocks, least + least // 8 + 1) + 1),
        key=lambda count: (count * -(-wanted // count), count),
    )
    return Shape(number, length, columns, -(-blocks // columns), -(-wanted // columns))


def file_of(pack: Path) -> Path:
    """Return the path of the parity of a pack."""
    return pack.with_suffix(".parity")


@contextmanager
def reading(pack: Path) -> Iterator[int | None]:
    """Open a pack for the block. Gives its descriptor, None if it is missing. Raises OSError."""
    try:
        file = pack.open("rb", buffering=0)
    except FileNotFoundError:
        yield None
        return
    with file:
        yield file.fileno()


def size_of(length: int, percent: int) -> int:
    """Return the bytes of the parity of packs that have `length` bytes together."""
    if not percent or not length:
        return 0
    full, rest = divmod(length, SEAL_BYTES)
    return full * _size(plan(0, SEAL_BYTES, percent)) + (
        _size(plan(0, rest, percent)) if rest else 0
    )


def _size(shape: Shape) -> int:
    """Return the bytes of a parity file."""
    sums = 4 * (shape.blocks + shape.parity_blocks)
    return _HEADER.size + sums + _DIGEST_BYTES + shape.parity_blocks * BLOCK


def shape_at(path: Path) -> Shape:
    """Read the shape from the header alone, without a check of the rest.

    Raises :class:`Damaged`, OSError.
    """
    with path.open("rb", buffering=0) as file:
        return Shape.parse(pread(file.fileno(), _HEADER.size, 0))


# -- writing


def build(pack: Path, shape: Shape) -> bytes:
    """Compute the parity file of a pack. Returns its bytes.

    The pack has all covered bytes. Raises OSError, and :class:`Damaged` if some are missing.
    """
    encoder = zfec.Encoder(shape.rows, shape.rows + shape.parity_rows)
    wanted = tuple(range(shape.rows, shape.rows + shape.parity_rows))
    sums = np.zeros(shape.rows * shape.columns, np.uint32)
    rows = [bytearray() for _ in wanted]
    with pack.open("rb", buffering=0) as file:
        fd = file.fileno()
        for first in range(0, shape.columns, _AT_ONCE):
            width = min(_AT_ONCE, shape.columns - first)
            table = []
            for row in range(shape.rows):
                at = row * shape.columns + first
                table.append(_blocks(fd, shape, at, width))
                sums[at : at + width] = _sums(table[-1])
            for at, more in enumerate(encoder.encode(tuple(table), wanted)):
                rows[at] += more
    body = b"".join(rows)
    checked = np.concatenate([sums[: shape.blocks], _sums(body)]).astype("<u4")
    head = shape.header() + checked.tobytes()
    return head + hashlib.sha256(head).digest() + body


def _blocks(fd: int, shape: Shape, block: int, count: int) -> bytes:
    """Read whole blocks, with zeros behind the covered bytes. Raises OSError, :class:`Damaged`."""
    length = max(0, min(count * BLOCK, shape.covered - block * BLOCK))
    data = pread(fd, length, block * BLOCK) if length else b""
    if len(data) < length:
        raise Damaged(f"pack {shape.number}", reason="cut off")
    return data.ljust(count * BLOCK, b"\0")


def _sums(data: bytes) -> list[int]:
    """CRC-32 of each block."""
    view = memoryview(data)
    return [zlib.crc32(view[at : at + BLOCK]) for at in range(0, len(data), BLOCK)]


# -- reading


@dataclass(frozen=True)
class Parity:
    """A parity file whose checksums are whole.

    path : its path.
    sums : CRC-32 of each block of the pack, with zeros behind the covered bytes.
    parity_sums : CRC-32 of each parity block.
    """

    path: Path
    shape: Shape
    sums: NDArray[np.uint32]
    parity_sums: NDArray[np.uint32]

    @property
    def _body(self) -> int:
        """Offset of the first parity block in the file."""
        return _HEADER.size + 4 * (len(self.sums) + len(self.parity_sums)) + _DIGEST_BYTES

    def damaged(self, fd: int | None) -> list[int]:
        """Return the blocks of the pack that are not as the parity knows them, ascending.

        `fd` is open on the pack, or None if the pack is missing. A block that cannot be read
        counts.
        """
        return [
            block
            for first in range(0, self.shape.blocks, _WINDOW)
            for block, data in self._read(fd, range(first, first + _WINDOW))
            if data is None
        ]

    def damaged_parity(self) -> int:
        """Return how many parity blocks are damaged. Raises OSError if the file is missing."""
        with self.path.open("rb", buffering=0) as file:
            every = range(self.shape.parity_blocks)
            return sum(self._parity(file.fileno(), block) is None for block in every)

    def rebuild(self, fd: int | None, blocks: Iterable[int]) -> dict[int, bytes]:
        """Compute the damaged blocks of all columns that have one of `blocks`, by block number.

        Leaves out blocks of a column that has lost too many. The blocks have their right checksums.
        `fd` is as for :meth:`damaged`.
        """
        found: dict[int, bytes] = {}
        columns = self.shape.columns
        with suppress(FileNotFoundError), self.path.open("rb", buffering=0) as file:
            for column in sorted({block % columns for block in blocks}):
                found |= self._rebuild_column(fd, file.fileno(), column)
        return found

    def read(self, fd: int | None, offset: int, length: int) -> tuple[bytes, list[int]]:
        """Read covered bytes of the pack. Return them, and the damaged blocks that were rebuilt.

        `fd` is as for :meth:`damaged`. Raises :class:`Damaged` if the bytes are not covered, or if
        some cannot be rebuilt.
        """
        if offset + length > self.shape.covered:
            raise Damaged(self.path, reason="it does not cover these bytes")
        first = offset // BLOCK
        blocks = dict(self._read(fd, range(first, -(-(offset + length) // BLOCK))))
        bad = [block for block, data in blocks.items() if data is None]
        rebuilt = self.rebuild(fd, bad) if bad else {}
        if not rebuilt.keys() >= set(bad):
            raise Damaged(self.path, reason="too many damaged bytes to rebuild them")
        data = b"".join(rebuilt.get(block) or known or b"" for block, known in blocks.items())
        start = offset - first * BLOCK
        return data[start : start + length], bad

    def patched(self, fd: int, offset: int, length: int, rebuilt: Mapping[int, bytes]) -> bytes:
        """Read bytes of the pack, with these blocks in place of its own. Raises OSError."""
        data = bytearray(pread(fd, length, offset))
        for block in range(offset // BLOCK, -(-(offset + length) // BLOCK)):
            if block in rebuilt:
                at = block * BLOCK - offset
                skip = max(0, -at)
                piece = rebuilt[block][skip : skip + length - max(at, 0)]
                data[max(at, 0) : max(at, 0) + len(piece)] = piece
        return bytes(data)

    def _read(self, fd: int | None, blocks: range) -> Iterator[tuple[int, bytes | None]]:
        """Yield each of some blocks in a row: (number, bytes, or None if it is damaged)."""
        blocks = range(blocks.start, min(blocks.stop, self.shape.blocks))
        length = min(len(blocks) * BLOCK, self.shape.covered - blocks.start * BLOCK)
        try:
            whole = b"" if fd is None else pread(fd, length, blocks.start * BLOCK)
        except OSError:
            # One block cannot be read. The others can.
            for block in blocks:
                yield block, self._block(fd, block)
            return
        for block in blocks:
            at = (block - blocks.start) * BLOCK
            yield block, self._checked(block, whole[at : at + BLOCK])

    def _block(self, fd: int | None, block: int) -> bytes | None:
        """Return a block of the pack without the zeros behind, None if it is damaged."""
        if fd is None:
            return None
        try:
            return self._checked(block, pread(fd, self.shape.length_of(block), block * BLOCK))
        except OSError:
            return None

    def _checked(self, block: int, data: bytes) -> bytes | None:
        """Return the bytes of a block, or None if they are not the right ones."""
        is_whole = len(data) == self.shape.length_of(block)
        is_right = is_whole and zlib.crc32(data.ljust(BLOCK, b"\0")) == self.sums[block]
        return data if is_right else None

    def _parity(self, fd: int, block: int) -> bytes | None:
        """Return a parity block, None if it is damaged. `fd` is open on the parity file."""
        try:
            data = pread(fd, BLOCK, self._body + block * BLOCK)
        except OSError:
            return None
        return data if zlib.crc32(data) == self.parity_sums[block] else None

    def _rebuild_column(self, fd: int | None, parity_fd: int, column: int) -> dict[int, bytes]:
        """Compute all damaged blocks of a column; {} if it has lost too many."""
        shape = self.shape
        table: dict[int, bytes] = {}
        lost = []
        for row in range(shape.rows):
            block = row * shape.columns + column
            if block >= shape.blocks:
                table[row] = bytes(BLOCK)
            elif (data := self._block(fd, block)) is None:
                lost.append(row)
            else:
                table[row] = data.ljust(BLOCK, b"\0")
        for row in range(shape.parity_rows):
            if len(table) < shape.rows:
                found = self._parity(parity_fd, row * shape.columns + column)
                if found is not None:
                    table[shape.rows + row] = found
        if len(table) < shape.rows or not lost:
            return {}
        decoder = zfec.Decoder(shape.rows, shape.rows + shape.parity_rows)
        column_blocks = decoder.decode(tuple(table.values()), tuple(table))
        rebuilt = {
            row * shape.columns + column: column_blocks[row][: self._length(row, column)]
            for row in lost
        }
        return {n: data for n, data in rebuilt.items() if self._checked(n, data) is not None}

    def _length(self, row: int, column: int) -> int:
        return self.shape.length_of(row * self.shape.columns + column)


def load(path: Path) -> Parity:
    """Read the checksums of a parity file. Raises OSError.

    Raises :class:`Damaged` if they are not whole. Does not look at the parity blocks.
    """
    with path.open("rb", buffering=0) as file:
        fd = file.fileno()
        shape = Shape.parse(pread(fd, _HEADER.size, 0))
        count = shape.blocks + shape.parity_blocks
        length = _HEADER.size + 4 * count
        if os.fstat(fd).st_size != _size(shape):
            raise Damaged(path, reason="a parity file of another length")
        data = pread(fd, length + _DIGEST_BYTES, 0)
    if hashlib.sha256(data[:length]).digest() != data[length:]:
        raise Damaged(path, reason="its checksums are damaged")
    sums = np.frombuffer(data, "<u4", count, _HEADER.size)
    return Parity(path, shape, sums[: shape.blocks], sums[shape.blocks :])


def load_of(pack: Path) -> Parity:
    """Read the parity of a pack. As :func:`load`; also Damaged if it is that of another pack."""
    found = load(file_of(pack))
    if found.path.stem != f"{found.shape.number:08d}":
        raise Damaged(found.path, reason="it belongs to another pack")
    return found


def stretches(blocks: Collection[int]) -> list[tuple[int, int]]:
    """Join neighbouring blocks. Return (first, number of blocks) of each run, ascending."""
    runs: dict[int, int] = defaultdict(int)
    start = last = -2
    for block in sorted(blocks):
        if block != last + 1:
            start = block
        runs[start] += 1
        last = block
    return list(runs.items())
