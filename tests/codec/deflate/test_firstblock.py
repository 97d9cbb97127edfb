from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.codec.deflate import firstblock
from fsmount.codec.deflate.deflate import DeflateParams, deflate
from fsmount.codec.deflate.firstblock import DYNAMIC, FIXED, STORED, FirstBlock


def texture(seed: int, size: int, values: int) -> bytes:
    """Bytes with some repetition in them, near and far."""
    source = random.Random(seed)
    out = bytearray()
    while len(out) < size:
        if out and source.random() < 0.5:
            start = source.randrange(len(out))
            out += out[start : start + source.randrange(1, 300)]
        else:
            out += bytes(source.randrange(values) for _ in range(source.randrange(1, 50)))
    return bytes(out[:size])


PARAMS = st.builds(
    DeflateParams, st.integers(1, 9), st.integers(0, 4), st.integers(1, 9), st.integers(9, 15)
)


@given(PARAMS, st.integers(0, 99), st.sampled_from([0, 1, 9, 600, 9000]), st.sampled_from([2, 256]))
def test_never_refuses_the_truth(params: DeflateParams, seed: int, size: int, values: int) -> None:
    block = firstblock.read(deflate(texture(seed, size, values), params))
    assert block is not None
    assert block.allows(params)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    firstblock.read(data)


def test_counts() -> None:
    # Seven literals, then "abcd" again from six bytes back: a match.
    block = firstblock.read(deflate(b".abcdXYabcd", DeflateParams(6, zlib.Z_FIXED, 8, 15)))
    assert block == FirstBlock(FIXED, True, 8, 4, 6)
    assert firstblock.read(deflate(b"", DeflateParams(6, 0, 8, 15))) == FirstBlock(
        FIXED, True, 0, 0, 0
    )
    noise = random.Random(1).randbytes(300)
    assert firstblock.read(deflate(noise, DeflateParams(6, 0, 8, 15))) == FirstBlock(
        STORED, True, 0, 0, 0
    )


@pytest.mark.parametrize("mem_level", range(1, 10))
def test_memory_level_from_the_number_of_symbols(mem_level: int) -> None:
    raw = texture(1, 400_000, 16)
    block = firstblock.read(deflate(raw, DeflateParams(6, 0, mem_level, 15)))
    assert block is not None
    assert not block.last
    fitting = [n for n in range(1, 10) if block.allows(DeflateParams(6, 0, n, 15))]
    assert fitting == [mem_level]


def test_rules_out() -> None:
    def allowed(block: FirstBlock, level: int, strategy: int, window_bits: int = 15) -> bool:
        return block.allows(DeflateParams(level, strategy, 8, window_bits))

    short = FirstBlock(DYNAMIC, True, 100, 5, 40)
    assert allowed(short, 6, zlib.Z_DEFAULT_STRATEGY)
    assert not allowed(short, 6, zlib.Z_FILTERED)
    assert allowed(short, 3, zlib.Z_FILTERED)
    assert not allowed(short, 6, zlib.Z_RLE)
    assert not allowed(short, 6, zlib.Z_HUFFMAN_ONLY)
    assert not allowed(short, 6, zlib.Z_FIXED)
    assert allowed(FirstBlock(FIXED, True, 100, 5, 40), 6, zlib.Z_FIXED)
    assert allowed(FirstBlock(DYNAMIC, True, 100, 6, 1), 6, zlib.Z_FILTERED)
    assert allowed(FirstBlock(DYNAMIC, True, 100, 6, 1), 6, zlib.Z_RLE)
    far = FirstBlock(DYNAMIC, True, 100, 6, 251)
    assert not allowed(far, 6, 0, 9)
    assert allowed(far, 6, 0, 10)
    assert not allowed(FirstBlock(DYNAMIC, False, 100, 6, 1), 6, 0)


def test_foreign_blocks() -> None:
    raw = texture(1, 400_000, 16)
    huge = zlib.compressobj(6, zlib.DEFLATED, -15, 9)
    body = bytearray(huge.compress(raw) + huge.flush())
    block = firstblock.read(bytes(body))
    assert block is not None
    assert block.symbols == 32767
    assert firstblock.read(bytes(body[:2000])) is None
    assert firstblock.read(b"\x07") is None
