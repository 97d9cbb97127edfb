"""Inputs for the corner cases of deflate, and classic zlib as the reference."""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Iterator

# Level, strategy, memory level, window bits.
Params = tuple[int, int, int, int]
SIZES = (
    *range(6),
    *range(257, 265),
    *range(16382, 16386),
    *range(32766, 32769),
    *(65273, 65274, 65275, 65535, 65536, 65537),
)


def oracle(raw: bytes, level: int, strategy: int, mem_level: int, window_bits: int) -> bytes:
    """The raw deflate stream of the zlib that Python links; it gets all input at once.

    zlib accepts a window of 8 bits only for a stream with a zlib header.
    """
    if window_bits == 8:
        engine = zlib.compressobj(level, zlib.DEFLATED, 8, mem_level, strategy)
        return (engine.compress(raw) + engine.flush())[2:-4]
    engine = zlib.compressobj(level, zlib.DEFLATED, -window_bits, mem_level, strategy)
    return engine.compress(raw) + engine.flush()


def stored(raw: bytes) -> bytes:
    """Level 0 with unlimited output room: stored blocks of the largest size (RFC 1951 3.2.4)."""
    starts = range(0, max(len(raw), 1), 65535)
    parts = []
    for start in starts:
        part = raw[start : start + 65535]
        size = len(part)
        parts.append(bytes([start == starts[-1]]) + size.to_bytes(2, "little"))
        parts.append((size ^ 0xFFFF).to_bytes(2, "little") + part)
    return b"".join(parts)


def odd_length(raw: bytes) -> bytes:
    """A deflate stream that codes a match of 258 bytes as length 227 plus 31.

    RFC 1951 section 3.2.5 does not forbid it, and no encoder does it. `raw` has at least 259 bytes,
    all equal and below 144.
    """
    literal = f"{0x30 + raw[0]:08b}"
    bits = "110" + literal + "11000100" + "11111" + "00000" + literal * (len(raw) - 259) + "0" * 7
    return int(bits[::-1], 2).to_bytes(-(-len(bits) // 8), "little")


def from_frequencies(rng: random.Random, frequencies: list[int]) -> bytes:
    """Byte values in random order; value n occurs `frequencies[n]` times."""
    values = [value % 256 for value, times in enumerate(frequencies) for _ in range(times)]
    rng.shuffle(values)
    return bytes(values)


def fibonacci(rng: random.Random, most: int) -> bytes:
    """Bytes whose Huffman code is as deep as possible: more than 15 bits, so zlib must limit it."""
    frequencies = [1, 1]
    while sum(frequencies) + frequencies[-1] + frequencies[-2] <= most:
        frequencies.append(frequencies[-1] + frequencies[-2])
    return from_frequencies(rng, frequencies)


def texture(rng: random.Random, size: int) -> bytes:
    """Bytes like filtered rows: runs, noise, and near and far repeats with small changes."""
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


def mixture(seed: int, size: int, values: int) -> bytes:
    """Bytes below `values` with some near and far repetition."""
    source = random.Random(seed)
    out = bytearray()
    while len(out) < size:
        if out and source.random() < 0.5:
            start = source.randrange(len(out))
            out += out[start : start + source.randrange(1, 300)]
        else:
            out += bytes(source.randrange(values) for _ in range(source.randrange(1, 50)))
    return bytes(out[:size])


def boundaries(noise: bytes) -> bytes:
    """Repeats at exactly the longest distance of a match, at one byte less and at one more.

    Three bytes around TOO_FAR, six bytes at the reach of every window. The bytes between them
    compress, so zlib stores no block. `noise`: at least 40,000 random bytes.
    """
    between = bytes(value & 63 for value in noise)
    far = [(4096, 3), *(((1 << bits) - 262, 6) for bits in range(9, 16))]
    out = bytearray()
    for turn, (farthest, size) in enumerate(far):
        for distance in (farthest - 1, farthest, farthest + 1):
            start = 64 + 8 * turn + 64 * (distance - farthest + 1)
            repeat = bytes(range(start, start + size))
            middle = between[turn:][: distance - size - 1]
            # The bytes on both sides differ. Otherwise the match would be longer.
            out += b"\xfe" + repeat + middle + b"\xff" + repeat + between[100:140]
    return bytes(out)


def edge_inputs(seed: int) -> Iterator[tuple[str, bytes]]:
    """Inputs with names, from empty to about 300 KB."""
    rng = random.Random(seed)
    for size in SIZES:
        yield f"zeros {size}", bytes(size)
        yield f"random {size}", rng.randbytes(size)
        yield f"two letters {size}", bytes(rng.choices(b"ab", k=size))
        yield f"texture {size}", texture(rng, size)
    for bits in range(8, 15):  # where zlib's window moves, and stored blocks become impossible
        for _ in range(3):
            size = (rng.randint(2, 5) << bits) - rng.choice((0, 1, 258, 259, 260, 261, 262, 263))
            yield f"random {size}", rng.randbytes(max(size, 0))
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
    yield "boundaries", boundaries(rng.randbytes(40_000))
    yield "mix", texture(rng, 70_000) + rng.randbytes(70_000) + bytes(70_000) + texture(rng, 9_000)


def edited(rng: random.Random, raw: bytes) -> bytes:
    """`raw` with up to five changes, some of them at the very start or end."""
    out = bytearray(raw)
    for _ in range(rng.randint(0, 5)):
        count = min(rng.choice((1, 3, 70, 4000)), len(out))
        at = rng.choice((0, len(out) - count, rng.randint(0, len(out) - count)))
        out[at : at + count] = rng.choice((rng.randbytes(count), bytes(count), raw[:count]))
    return bytes(out)


def golden_inputs() -> Iterator[tuple[str, bytes]]:
    """The inputs of the golden vectors. They come from SHAKE-128 alone, so they never change."""
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
    edited = bytearray(rows)
    for at, count in ((0, 3), (30_000, 1), (100_000, 900), (100_961, 40), (len(rows) - 5, 5)):
        edited[at : at + count] = noise[at % 99_000 :][:count]
    yield "rows edited", bytes(edited)
    # Huffman codes deeper than 15 bits.
    frequencies = [1, 1]
    while sum(frequencies) < 30_000:
        frequencies.append(frequencies[-1] + frequencies[-2])
    deep = bytes(value for value, times in enumerate(frequencies) for _ in range(times))
    order = hashlib.shake_128(b"fsmount kernel order").digest(4 * len(deep))
    keys = sorted(range(len(deep)), key=lambda i: (order[4 * i : 4 * i + 4], i))
    yield "fibonacci", bytes(deep[i] for i in keys)
    # Matches of three bytes, near ones and ones that are too far.
    yield "triples", b"".join(noise[3 * (value & 63) :][:3] for value in noise[:40_000])
    yield "pixels", noise[:4] * 20_000 + noise[:3] * 20_000 + noise[7:13] * 9_000
    yield "boundaries", boundaries(noise)
    # The first input ends with the last symbol of a block, the second one symbol later.
    yield "full", noise[:16_383]
    yield "full and one", noise[:16_384]
    # The last block begins directly after the window.
    yield "slide", noise[:65_274]


def grid_input() -> bytes:
    """A small input with parts of every kind, for all levels, strategies, memLevels and windows."""
    rows = dict(golden_inputs())["rows"]
    noise = hashlib.shake_128(b"fsmount kernel grid").digest(9_000)
    return noise[:3_000] + rows[:9_000] + bytes(700) + noise + rows[2_000:6_000] + noise[:900]


GOLDEN_PARAMS = (
    *((level, strategy, 8, 15) for level in range(10) for strategy in (0, 1)),
    *((6, strategy, 8, 15) for strategy in (2, 3, 4)),
    *((level, 0, mem_level, 15) for level in (1, 6, 9) for mem_level in (1, 2, 5, 9)),
    *((level, 1, 8, window_bits) for level in (3, 6) for window_bits in (8, 9, 12, 14)),
    (9, 1, 9, 15),
    (1, 4, 8, 15),
    (6, 2, 1, 9),
    (6, 2, 3, 9),
    (6, 3, 1, 9),
    *((level, 4, 8, 15) for level in (3, 4, 9)),
    *((level, 0, 9, window_bits) for level in (1, 6) for window_bits in (9, 10, 11, 13)),
    *((6, strategy, 9, 15) for strategy in (1, 2, 3, 4)),
    *((4, 0, mem_level, 15) for mem_level in (3, 4, 6, 7)),
    *((level, 0, 9, 15) for level in (2, 5, 8)),
)


def grid(level: int, strategy: int) -> Iterator[Params]:
    """Parameters with every memLevel and every window."""
    for mem_level in range(1, 10):
        for window_bits in range(8, 16):
            yield level, strategy, mem_level, window_bits
