"""Reads and writes deflate streams (RFC 1951) symbol by symbol, to change one thing in a stream.

Plain and slow: no code is shared with the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

END = 256
_LENGTHS = [*range(3, 11)] + [(4 + k) * (1 << n) + 3 for n in range(1, 6) for k in range(4)] + [258]
_LENGTH_EXTRA = [0] * 8 + [n for n in range(1, 6) for _ in range(4)] + [0]
_DISTANCES = [1, 2, 3, 4] + [(2 + k) * (1 << n) + 1 for n in range(1, 14) for k in range(2)]
_DISTANCE_EXTRA = [0] * 4 + [n for n in range(1, 14) for _ in range(2)]
_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
_RUN_EXTRA = {16: 2, 17: 3, 18: 7}

Match = tuple[int, int]
"""Length and distance."""


@dataclass
class Block:
    """A dynamic block.

    literals, distances : the code lengths in the header.
    runs : the code lengths of the run code, in the order of the header.
    ops : the symbols of the run code, with the value of their extra bits.
    tokens : literals (int) and matches, without the end of the block.
    """

    literals: list[int]
    distances: list[int]
    runs: list[int]
    ops: list[tuple[int, int]]
    tokens: list[int | Match]


class _Bits:
    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.size = data, 0, 8 * len(data)

    def take(self, count: int) -> int:
        near = int.from_bytes(self.data[self.at >> 3 : (self.at >> 3) + 3], "little")
        found = near >> (self.at & 7) & ((1 << count) - 1)
        self.at += count
        assert self.at <= self.size
        return found

    def symbol(self, code: Mapping[tuple[int, int], int]) -> int:
        value = 0
        for length in range(1, 16):
            value = value << 1 | self.take(1)
            if (length, value) in code:
                return code[length, value]
        raise AssertionError("no such code")


def _codes(lengths: Sequence[int]) -> dict[int, tuple[int, int]]:
    """The canonical code: (length, value) by symbol."""
    codes, value = {}, 0
    for length in range(1, 16):
        value <<= 1
        for symbol, one in enumerate(lengths):
            if one == length:
                codes[symbol] = length, value
                value += 1
    return codes


def _decoder(lengths: Sequence[int]) -> dict[tuple[int, int], int]:
    return {code: symbol for symbol, code in _codes(lengths).items()}


def read(body: bytes) -> list[Block]:
    """The blocks of a stream whose blocks are all dynamic."""
    bits, blocks, last = _Bits(body), [], 0
    while not last:
        last = bits.take(1)
        assert bits.take(2) == 2
        counts = bits.take(5) + 257, bits.take(5) + 1
        runs = [bits.take(3) for _ in range(bits.take(4) + 4)]
        by_symbol = [dict(zip(_ORDER, runs, strict=False)).get(symbol, 0) for symbol in range(19)]
        run_code, lengths, ops = _decoder(by_symbol), list[int](), list[tuple[int, int]]()
        while len(lengths) < sum(counts):
            op = bits.symbol(run_code)
            ops.append((op, bits.take(_RUN_EXTRA.get(op, 0))))
            lengths += _run(*ops[-1], lengths)
        block = Block(lengths[: counts[0]], lengths[counts[0] :], runs, ops, [])
        block.tokens.extend(_tokens(bits, _decoder(block.literals), _decoder(block.distances)))
        blocks.append(block)
    return blocks


def _run(op: int, extra: int, before: Sequence[int]) -> list[int]:
    """The code lengths that a symbol of the run code stands for."""
    if op < 16:
        return [op]
    return [before[-1] if op == 16 else 0] * (extra + (11 if op == 18 else 3))


def _tokens(
    bits: _Bits, literals: Mapping[tuple[int, int], int], distances: Mapping[tuple[int, int], int]
) -> Iterator[int | Match]:
    while (symbol := bits.symbol(literals)) != END:
        if symbol < END:
            yield symbol
            continue
        length = _LENGTHS[symbol - 257] + bits.take(_LENGTH_EXTRA[symbol - 257])
        code = bits.symbol(distances)
        yield length, _DISTANCES[code] + bits.take(_DISTANCE_EXTRA[code])


def write(blocks: Sequence[Block], padding: int = 0) -> bytes:
    """The stream of these blocks. `padding` fills the last byte.

    Raises KeyError if a block lacks the code of one of its tokens.
    """
    out, value, at = bytearray(), 0, 0

    def put(number: int, count: int) -> None:
        nonlocal value, at
        value |= number << at
        at += count
        out.extend((value & ((1 << (at & ~7)) - 1)).to_bytes(at >> 3, "little"))
        value >>= at & ~7
        at &= 7

    def put_code(length: int, code: int) -> None:
        put(int(f"{code:0{length}b}"[::-1], 2), length)

    for number, block in enumerate(blocks):
        put(int(number == len(blocks) - 1), 1)
        put(2, 2)
        put(len(block.literals) - 257, 5)
        put(len(block.distances) - 1, 5)
        put(len(block.runs) - 4, 4)
        for length in block.runs:
            put(length, 3)
        of_runs = dict(zip(_ORDER, block.runs, strict=False))
        run_code = _codes([of_runs.get(symbol, 0) for symbol in range(19)])
        for op, extra in block.ops:
            put_code(*run_code[op])
            put(extra, _RUN_EXTRA.get(op, 0))
        literals, distances = _codes(block.literals), _codes(block.distances)
        for token in block.tokens:
            if isinstance(token, int):
                put_code(*literals[token])
                continue
            length, distance = token
            code = max(i for i, first in enumerate(_LENGTHS) if first <= length)
            put_code(*literals[257 + code])
            put(length - _LENGTHS[code], _LENGTH_EXTRA[code])
            code = max(i for i, first in enumerate(_DISTANCES) if first <= distance)
            put_code(*distances[code])
            put(distance - _DISTANCES[code], _DISTANCE_EXTRA[code])
        put_code(*literals[END])
    return bytes(out) + (value | padding << at).to_bytes(at > 0, "little")


def with_lengths(block: Block, literals: list[int], distances: list[int]) -> Block:
    """The block with other code lengths, which its header lists one by one."""
    runs = [4] * 13 + [5] * 6
    ops = [(length, 0) for length in literals + distances]
    return Block(literals, distances, runs, ops, block.tokens)
