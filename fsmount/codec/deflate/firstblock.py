"""What the first deflate block tells about the encoder (RFC 1951 section 3.2).

Decoding one block in Python costs some 20 ms; a trial compression of a screenshot costs ten times
as much. zlib closes a block when its symbol buffer is full, so the number of symbols in a block
gives the memory level away and unmasks most encoders that are not zlib; the matches in it rule
out strategies and windows. Every rule here is a property of zlib's code, none is a guess: what
`FirstBlock.allows` refuses cannot have made the stream.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

STORED, FIXED, DYNAMIC = 0, 1, 2

# The largest symbol buffer of zlib (memory level 9); longer blocks are somebody else's.
_MOST_SYMBOLS = (64 << 9) - 1

_LENGTH_BASES = (
    *(3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31),
    *(35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258),
)
_LENGTH_EXTRA = (0,) * 8 + (1,) * 4 + (2,) * 4 + (3,) * 4 + (4,) * 4 + (5,) * 4 + (0,)
_DISTANCE_BASES = (
    *(1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769),
    *(1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577),
)
_DISTANCE_EXTRA = (0, 0, *(n // 2 for n in range(28)))
_CODE_LENGTH_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)


class Params(Protocol):
    """The deflate parameters this module judges; `deflate.DeflateParams` is one."""

    @property
    def level(self) -> int: ...
    @property
    def strategy(self) -> int: ...
    @property
    def mem_level(self) -> int: ...
    @property
    def window_bits(self) -> int: ...


@dataclass(frozen=True, slots=True)
class FirstBlock:
    """The first block of a deflate stream; a stored one counts no symbols."""

    kind: int
    last: bool
    symbols: int
    """Literals and matches, the end-of-block code not counted."""
    shortest: int
    """Length of the shortest match, 0 without matches."""
    farthest: int
    """Distance of the farthest match, 0 without matches."""

    def allows(self, params: Params) -> bool:
        """Whether zlib with these parameters can have written this block."""
        if self.kind == STORED:
            return True
        full = (64 << params.mem_level) - 1
        if self.symbols > full or (self.symbols < full and not self.last):
            return False
        if self.kind == DYNAMIC and params.strategy == zlib.Z_FIXED:
            return False
        if not self.farthest:
            return True
        # zlib looks no farther back than its window less MIN_LOOKAHEAD (262).
        if self.farthest > (1 << params.window_bits) - 262:
            return False
        if params.strategy == zlib.Z_FILTERED:
            # Only the lazy matcher (levels 4 to 9) drops short matches.
            return self.shortest > 5 or params.level < 4
        if params.strategy == zlib.Z_RLE:
            return self.farthest == 1
        return params.strategy != zlib.Z_HUFFMAN_ONLY


class _MalformedError(Exception):
    """The bits are no deflate block."""


class _Bits:
    """Reads bits, least significant first; past the end come zeros."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0
        self.hold = 0
        self.count = 0

    def fill(self) -> None:
        """Make at least 48 bits ready: what a match takes at most (15 + 5 + 15 + 13)."""
        if self.count < 48:
            self.hold |= int.from_bytes(self.body[self.at : self.at + 8], "little") << self.count
            self.at += 8
            self.count += 64

    def take(self, bits: int) -> int:
        self.fill()
        value = self.hold & ((1 << bits) - 1)
        self.hold >>= bits
        self.count -= bits
        return value

    def symbol(self, code: _Code) -> int:
        self.fill()
        entry = code.table[self.hold & code.mask]
        if not entry:
            raise _MalformedError
        self.take(entry & 15)
        return entry >> 4

    def overrun(self) -> bool:
        return self.at * 8 - self.count > len(self.body) * 8


class _Code:
    """A canonical Huffman code as one look-up table: next bits -> symbol << 4 | code length.

    Bits that begin no code give 0.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        bits = max(lengths)
        self.mask = (1 << bits) - 1
        self.table = [0] * (1 << bits)
        code = 0
        for length in range(1, bits + 1):
            for symbol, of_symbol in enumerate(lengths):
                if of_symbol != length:
                    continue
                if code >> length:
                    raise _MalformedError
                reverse = int(f"{code:0{length}b}"[::-1], 2)
                repeats = 1 << (bits - length)
                self.table[reverse :: 1 << length] = [symbol << 4 | length] * repeats
                code += 1
            code <<= 1


def read(body: bytes) -> FirstBlock | None:
    """Decode the first block of a raw deflate stream.

    None when no zlib can have written it: not decodable, or more symbols than zlib's buffers hold.
    """
    bits = _Bits(body)
    last, kind = bool(bits.take(1)), bits.take(2)
    if kind == STORED:
        return FirstBlock(kind, last, 0, 0, 0)
    try:
        if kind == DYNAMIC:
            literals, distances = _dynamic_codes(bits)
        elif kind == FIXED:
            literals = _Code([8] * 144 + [9] * 112 + [7] * 24 + [8] * 8)
            distances = _Code([5] * 30)
        else:
            return None
        symbols, shortest, farthest = _survey(bits, literals, distances)
    except (
        _MalformedError,
        IndexError,
    ):  # IndexError: a length or distance code that does not exist
        return None
    return None if bits.overrun() else FirstBlock(kind, last, symbols, shortest, farthest)


def _dynamic_codes(bits: _Bits) -> tuple[_Code, _Code]:
    """The two Huffman codes in front of a dynamic block (RFC 1951 section 3.2.7)."""
    literal_count, distance_count = bits.take(5) + 257, bits.take(5) + 1
    code_lengths = [0] * 19
    for place in _CODE_LENGTH_ORDER[: bits.take(4) + 4]:
        code_lengths[place] = bits.take(3)
    code = _Code(code_lengths)
    lengths: list[int] = []
    while len(lengths) < literal_count + distance_count:
        symbol = bits.symbol(code)
        if symbol < 16:
            lengths.append(symbol)
        elif symbol == 16:
            if not lengths:
                raise _MalformedError
            lengths += lengths[-1:] * (bits.take(2) + 3)
        else:
            lengths += [0] * (bits.take(3) + 3 if symbol == 17 else bits.take(7) + 11)
    if len(lengths) > literal_count + distance_count:
        raise _MalformedError
    return _Code(lengths[:literal_count]), _Code(lengths[literal_count:])


def _survey(bits: _Bits, literals: _Code, distances: _Code) -> tuple[int, int, int]:
    """Number of symbols, shortest match and farthest match of the block.

    The look-ups are written out because this is the loop that takes the time.
    """
    symbols, shortest, farthest = 0, 259, 0
    while symbols <= _MOST_SYMBOLS:
        bits.fill()
        hold = bits.hold
        entry = literals.table[hold & literals.mask]
        used = entry & 15
        if not entry:
            raise _MalformedError
        if entry >> 4 == 256:
            bits.take(used)
            return symbols, shortest if farthest else 0, farthest
        if entry >> 4 > 256:
            place = (entry >> 4) - 257
            extra = _LENGTH_EXTRA[place]
            shortest = min(shortest, _LENGTH_BASES[place] + (hold >> used & ((1 << extra) - 1)))
            used += extra
            entry = distances.table[hold >> used & distances.mask]
            if not entry:
                raise _MalformedError
            used += entry & 15
            extra = _DISTANCE_EXTRA[entry >> 4]
            distance = _DISTANCE_BASES[entry >> 4] + (hold >> used & ((1 << extra) - 1))
            farthest = max(farthest, distance)
            used += extra
        bits.hold = hold >> used
        bits.count -= used
        symbols += 1
    raise _MalformedError
