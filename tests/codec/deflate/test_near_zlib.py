"""Streams that differ from zlib's in one thing are never taken for zlib's.

Each is a good stream of the same bytes. If the search took it for zlib's, the file would be lost:
nothing deflates again before the staged file is removed.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from fsmount.codec.deflate import deflate as module
from fsmount.codec.deflate.deflate import DeflateParams, deflate, search
from fsmount.codec.memory import WorkerMemory
from tests.support.deflate_inputs import mixture
from tests.support.deflate_streams import Block, Match, read, with_lengths, write

RAW = mixture(6, 30_000, 40)
EVERY = [
    DeflateParams(6, zlib.Z_FILTERED, 4, 15),
    DeflateParams(6, 0, 5, 15),
    DeflateParams(9, 0, 4, 14),
    DeflateParams(1, 0, 5, 15),
]

Plant = Callable[[list[Block]], Iterator[tuple[list[Block], int]]]
"""Yields changed blocks with the padding of the stream: the same change in several places."""


def _with_tokens(blocks: list[Block], number: int, tokens: list[int | Match]) -> list[Block]:
    return [replace(b, tokens=tokens) if i == number else b for i, b in enumerate(blocks)]


def _places(blocks: list[Block]) -> Iterator[tuple[int, int, int]]:
    """For each token: number of its block, number in the block, position in the input."""
    position = 0
    for number, block in enumerate(blocks):
        for i, token in enumerate(block.tokens):
            yield number, i, position
            position += 1 if isinstance(token, int) else token[0]


def another_distance(blocks: list[Block]) -> Iterator[tuple[list[Block], int]]:
    for number, i, position in _places(blocks):
        tokens = blocks[number].tokens
        token = tokens[i]
        if isinstance(token, int):
            continue
        length, distance = token
        end = position - distance + length - 1
        other = RAW.rfind(RAW[position : position + length], 0, end)
        if other >= 0:
            match = length, position - other
            yield _with_tokens(blocks, number, [*tokens[:i], match, *tokens[i + 1 :]]), 0


def a_shorter_match(blocks: list[Block]) -> Iterator[tuple[list[Block], int]]:
    for number, i, position in _places(blocks):
        tokens = blocks[number].tokens
        token = tokens[i]
        if number == len(blocks) - 1 and not isinstance(token, int) and token[0] > 3:
            length, distance = token[0] - 1, token[1]
            two = (length, distance), RAW[position + length]
            yield _with_tokens(blocks, number, [*tokens[:i], *two, *tokens[i + 1 :]]), 0


def literals_for_a_match(blocks: list[Block]) -> Iterator[tuple[list[Block], int]]:
    for number, i, position in _places(blocks):
        tokens = blocks[number].tokens
        token = tokens[i]
        if number == len(blocks) - 1 and not isinstance(token, int):
            literals = RAW[position : position + token[0]]
            yield _with_tokens(blocks, number, [*tokens[:i], *literals, *tokens[i + 1 :]]), 0


def a_block_that_ends_a_symbol_earlier(blocks: list[Block]) -> Iterator[tuple[list[Block], int]]:
    for number, (one, other) in enumerate(itertools.pairwise(blocks)):
        changed = _with_tokens(blocks, number, one.tokens[:-1])
        yield _with_tokens(changed, number + 1, [one.tokens[-1], *other.tokens]), 0


def a_block_that_ends_a_symbol_later(blocks: list[Block]) -> Iterator[tuple[list[Block], int]]:
    for number, (one, other) in enumerate(itertools.pairwise(blocks)):
        changed = _with_tokens(blocks, number, [*one.tokens, other.tokens[0]])
        yield _with_tokens(changed, number + 1, other.tokens[1:]), 0


def an_empty_block_at_the_end(blocks: list[Block]) -> Iterator[tuple[list[Block], int]]:
    yield [*blocks, replace(blocks[-1], tokens=[])], 0


def two_lengths_swapped(blocks: list[Block]) -> Iterator[tuple[list[Block], int]]:
    """The header stays as long, and so do its symbols: two literals exchange their codes."""
    for number, block in enumerate(blocks):
        symbol = 0
        for i, (op, extra) in enumerate(block.ops[:-2]):
            after = block.ops[i + 1][0]
            if symbol < 255 and 0 < op < 16 and 0 < after < 16 and op != after:
                ops, literals = list(block.ops), list(block.literals)
                ops[i], ops[i + 1] = ops[i + 1], ops[i]
                literals[symbol], literals[symbol + 1] = after, op
                if block.ops[i + 2][0] != 16:
                    changed = replace(block, ops=ops, literals=literals)
                    yield [changed if k == number else b for k, b in enumerate(blocks)], 0
            symbol += 1 if op < 16 else extra + (11 if op == 18 else 3)


def a_header_without_runs(blocks: list[Block]) -> Iterator[tuple[list[Block], int]]:
    """The same codes; only the header says them in another way."""
    for number, block in enumerate(blocks):
        changed = with_lengths(block, block.literals, block.distances)
        yield [changed if k == number else b for k, b in enumerate(blocks)], 0


def a_longer_list_of_run_lengths(blocks: list[Block]) -> Iterator[tuple[list[Block], int]]:
    for number, block in enumerate(blocks):
        if len(block.runs) < 19:
            changed = replace(block, runs=[*block.runs, 0])
            yield [changed if k == number else b for k, b in enumerate(blocks)], 0


def a_bit_behind_the_end(blocks: list[Block]) -> Iterator[tuple[list[Block], int]]:
    yield blocks, 1


PLANTS: list[Plant] = [
    another_distance,
    a_shorter_match,
    literals_for_a_match,
    a_block_that_ends_a_symbol_earlier,
    a_block_that_ends_a_symbol_later,
    an_empty_block_at_the_end,
    two_lengths_swapped,
    a_header_without_runs,
    a_longer_list_of_run_lengths,
    a_bit_behind_the_end,
]


def planted(plant: Plant, blocks: list[Block], most: int) -> list[bytes]:
    """At most `most` streams with a plant, from different places."""
    made = []
    for changed, padding in plant(blocks):
        try:
            made.append(write(changed, padding))
        except (KeyError, OverflowError):
            continue  # a block has no code for a token; the last byte has no room
        if len(made) > 40:
            break
    return made[:: max(1, len(made) // most)][: most - 1] + made[-1:]


@pytest.mark.parametrize("params", EVERY, ids=str)
@pytest.mark.parametrize("plant", PLANTS)
def test_one_difference_is_noticed(plant: Plant, params: DeflateParams) -> None:
    body = deflate(RAW, params)
    blocks = read(body)
    assert write(blocks) == body
    assert len(blocks) > 1
    streams = planted(plant, blocks, 3)
    if plant is a_bit_behind_the_end and not streams:
        pytest.skip("the stream ends with a whole byte")
    assert streams
    for stream in streams:
        assert stream != body
        assert zlib.decompress(stream, -15) == RAW
        memory = WorkerMemory()
        memory.streams.resize(1 << 24)
        assert search(RAW, body, [params], memory=memory) == params
        for how in (None, memory):
            found = search(RAW, stream, [params], memory=how)
            assert not isinstance(found, DeflateParams)
            assert found is None or deflate(RAW, found) == stream


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_kernel_that_makes_other_bytes_is_not_believed(
    place: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = deflate(RAW, EVERY[0])

    def wrong(raw: bytes, params: DeflateParams, **how: Any) -> bytes:
        made = bytearray(deflate(raw, params, **how))
        made[int(place * (len(made) - 1))] ^= 1
        return bytes(made)

    monkeypatch.setattr(module, "deflate", wrong)
    for hints in (EVERY[:1], []):
        assert not isinstance(search(RAW, body, hints), DeflateParams)
