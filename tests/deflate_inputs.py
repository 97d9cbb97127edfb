"""Inputs that reach the corners of deflate, and classic zlib to compare with."""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Iterator

SIZES = (
    *range(6),
    *range(257, 265),
    *range(16382, 16386),
    *range(32766, 32769),
    *(65273, 65274, 65275, 65535, 65536, 65537),
)


def oracle(raw: bytes, level: int, strategy: int, mem_level: int, window_bits: int) -> bytes:
    """The raw deflate stream of the zlib linked to Python, all input given at once.

    A window of 8 bits exists only behind a zlib header.
    """
    if window_bits == 8:
        engine = zlib.compressobj(level, zlib.DEFLATED, 8, mem_level, strategy)
        return (engine.compress(raw) + engine.flush())[2:-4]
    engine = zlib.compressobj(level, zlib.DEFLATED, -window_bits, mem_level, strategy)
    return engine.compress(raw) + engine.flush()


def stored(raw: bytes) -> bytes:
    """Level 0 with all room for output: the largest stored blocks there can be (RFC 1951 3.2.4)."""
    starts = range(0, max(len(raw), 1), 65535)
    parts = []
    for start in starts:
        part = raw[start : start + 65535]
        size = len(part)
        parts.append(bytes([start == starts[-1]]) + size.to_bytes(2, "little"))
        parts.append((size ^ 0xFFFF).to_bytes(2, "little") + part)
    return b"".join(parts)


def from_frequencies(rng: random.Random, frequencies: list[int]) -> bytes:
    """Every byte value as often as said, shuffled."""
    values = [value % 256 for value, times in enumerate(frequencies) for _ in range(times)]
    rng.shuffle(values)
    return bytes(values)


def fibonacci(rng: random.Random, most: int) -> bytes:
    """Frequencies whose Huffman code is as deep as can be: beyond 15 bits, it must be cut."""
    frequencies = [1, 1]
    while sum(frequencies) + frequencies[-1] + frequencies[-2] <= most:
        frequencies.append(frequencies[-1] + frequencies[-2])
    return from_frequencies(rng, frequencies)


def texture(rng: random.Random, size: int) -> bytes:
    """Runs, repeats from near and far with small changes, noise: what filtered rows look like."""
    out = bytearray()
    while len(out) < size:
        kind = rng.randrange(8)
        count = rng.choice((3, 5, 8, 30, 258, 300, 2000, 9000))
        count = rng.randint(1, count)
        if kind < 2:
            out += bytes([rng.choice((0, 0, 0, 255, rng.randrange(256)))]) * count
        elif kind < 5 and out:
            distance = rng.randint(1, min(len(out), rng.choice((4, 300, 5000, 33000, 70000))))
            start = len(out) - distance
            for i in range(min(count, 3000)):
                out.append(out[start + i])
            if rng.randrange(2):
                out[-1] ^= 1 << rng.randrange(8)
        elif kind == 5:
            out += rng.randbytes(count)
        elif kind == 6:
            out += bytes(rng.choices(range(rng.randint(1, 6)), k=count))
        else:
            out += bytes(rng.choices((0, 1, 2, 3, 255, 254), (30, 9, 3, 1, 9, 3), k=count))
    return bytes(out[:size])


def edge_inputs(seed: int) -> Iterator[tuple[str, bytes]]:
    """Named inputs, from empty to some 300 KB."""
    rng = random.Random(seed)
    for size in SIZES:
        yield f"zeros {size}", bytes(size)
        yield f"random {size}", rng.randbytes(size)
        yield f"two letters {size}", bytes(rng.choices(b"ab", k=size))
        yield f"texture {size}", texture(rng, size)
    for most in (300, 4000, 16383, 30000, 60000, 120000):
        yield f"fibonacci {most}", fibonacci(rng, most)
    yield "geometric", from_frequencies(rng, [1 << i for i in range(15)])
    yield "all bytes", bytes(range(256)) * 300
    yield "period 4", rng.randbytes(4) * 20000
    yield "period 300", rng.randbytes(300) * 400
    yield "random then again", rng.randbytes(40000) * 3
    yield "triples", b"".join(bytes(rng.choices(range(40), k=3)) for _ in range(40000))
    for turn in range(6):
        yield f"texture {turn}", texture(rng, rng.randint(100_000, 300_000))
    yield "mix", texture(rng, 70_000) + rng.randbytes(70_000) + bytes(70_000) + texture(rng, 9_000)


def golden_inputs() -> Iterator[tuple[str, bytes]]:
    """The inputs of the golden vectors. Made of SHAKE-128 alone, so they never change."""
    noise = hashlib.shake_128(b"fsmount kernel golden").digest(120_000)
    letters = bytes(value & 3 for value in noise[:60_000])
    yield "empty", b""
    yield "one byte", b"a"
    yield "zeros", bytes(200_000)
    yield "noise", noise
    yield "letters", letters
    rows = bytearray()
    for row in range(400):
        start = noise[row] * 64 + row
        rows += bytes([noise[row] % 5]) + letters[start : start + 150] + bytes(100)
        rows += noise[row * 7 : row * 7 + row % 40] + bytes([255]) * (row % 90)
        rows += rows[-700:-300]
    yield "rows", bytes(rows)
    yield "far", noise[:33_000] * 3
    yield "skewed", b"".join(bytes([i]) * (1 << i) for i in range(17))


GOLDEN_PARAMS = (
    *((level, strategy, 8, 15) for level in range(10) for strategy in (0, 1)),
    *((6, strategy, 8, 15) for strategy in (2, 3, 4)),
    *((level, 0, mem_level, 15) for level in (1, 6, 9) for mem_level in (1, 2, 5, 9)),
    *((level, 1, 8, window_bits) for level in (3, 6) for window_bits in (8, 9, 12, 14)),
    (9, 1, 9, 15),
    (1, 4, 8, 15),
    (6, 2, 1, 9),
    (6, 3, 1, 9),
)
