"""Many files, quickly made, for tests of the whole route from file to file.

There are PNGs of every kind, files that are nearly PNGs, and pictures that differ from one another
by small changes. One :class:`random.Random` decides everything; :mod:`tests.support.pngs` writes
the files.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support import animations, pngs
from tests.support.pngs import (
    CHANNELS,
    DAMAGES,
    IEND,
    KINDS,
    Plan,
    build_around,
    chunk,
    zlib_stream,
)

Bytes = NDArray[np.uint8]
_SHARES = {
    "any PNG": 20,
    "tiny PNG": 10,
    "animation": 5,
    "near PNG": 20,
    "sequence": 40,
    "sequence of another encoder": 8,
    "no PNG": 2,
}
KINDS_OF_FILES = list(_SHARES)
_LONGEST = 24
_NEAR_SIDE = 30
_MOST_PICTURES = 6
# One picture in so many is interlaced.
_INTERLACED = 8


def files(source: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """`count` files: (kind, bytes). The files of a sequence come one directly after another."""
    while count > 0:
        kind = source.choices(KINDS_OF_FILES, list(_SHARES.values()))[0]
        if kind.startswith("sequence"):
            # A sequence has several files, so it is begun less often; the shares count files.
            if source.random() * _LONGEST > 2:
                continue
            length = min(count, source.randint(2, _LONGEST))
            ours = kind == "sequence"
            made = sequence(source, length) if ours else foreign_sequence(source, length)
            yield from ((kind, data) for data in made)
            count -= length
            continue
        yield kind, _single(source, kind)
        count -= 1


def _single(source: random.Random, kind: str) -> bytes:
    if kind == "any PNG":
        return write(plan(source, *_size(source)))
    if kind == "tiny PNG":
        return write(plan(source, source.randint(1, 18), source.randint(1, 18)))
    if kind == "animation":
        canvas = plan(source, source.randint(1, 40), source.randint(1, 40))
        return animations.build(
            animations.animation(source, canvas, source.randint(0, _MOST_PICTURES))
        )
    if kind == "near PNG":
        return near(source)
    return source.randbytes(source.choice([0, 1, 8, 57, 3000]))


def _size(source: random.Random) -> tuple[int, int]:
    """Width and height: mostly small, some up to 200 x 150, few long and thin."""
    turn = source.random()
    if turn < 0.7:
        return source.randint(1, 60), source.randint(1, 60)
    if turn < 0.97:
        return source.randint(1, 200), source.randint(1, 150)
    long, thin = source.randint(200, 2000), source.randint(1, 3)
    return (long, thin) if source.random() < 0.5 else (thin, long)


def plan(source: random.Random, width: int, height: int) -> Plan:
    """The plan of a PNG of any kind that can be re-created exactly, like those of `pngs.plans`."""
    colour_type, bit_depth = source.choice(KINDS)
    rows = pngs.make_rows(source, width, height, colour_type, bit_depth, source.choice(pngs.STYLES))
    bare = Plan(width, height, rows, b"", colour_type, bit_depth, _interlace(source))
    return _around(source, bare)


def _interlace(source: random.Random) -> int:
    return int(source.randrange(_INTERLACED) == 0)


def _around(source: random.Random, bare: Plan) -> Plan:
    """A plan of the same rows with random filters, deflate parameters, split and chunks."""
    types = source.choice([*pngs.TYPES, source.randbytes(64).translate(_TO_TYPES)])
    head = b"".join(source.choices(pngs.EXTRA, k=source.choice([0, 0, 1, 3])))
    if bare.colour_type == 3:
        head = chunk(b"PLTE", source.randbytes(3 << bare.bit_depth)) + head
    window_bits = source.choice(pngs.WINDOWS)
    one = [source.randint(1, 999)] * source.randint(1, 9)
    uneven = [source.randint(0, 99) for _ in range(source.randint(0, 5))]
    tail = source.choice([b"", *pngs.EXTRA]) + source.choice([IEND, IEND, IEND, b""])
    return replace(
        pngs.with_types(bare, types),
        level=source.randint(1, 9),
        strategy=source.choice([0, 0, 0, 1, 1, 2, 3, 4]),
        mem_level=source.choice([8, 8, 9, source.randint(1, 9)]),
        window_bits=window_bits,
        shown_window_bits=source.choice([None, None, max(8, window_bits - 1), 8]),
        cuts=tuple(source.choice([[], [], one, uneven])),
        head=head,
        tail=tail + source.choice(pngs.TRAILING),
        idat_tail=source.choice(pngs.IDAT_TAILS),
    )


_TO_TYPES = bytes(number % 5 for number in range(256))


def write(made: Plan) -> bytes:
    """The same PNG file of a plan as `pngs.build`, but faster."""
    at, lines = 0, []
    for rows in pngs.passes(made):
        pixels = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)
        lines.append(filtered(pixels, made.types[at : at + len(rows)], made.bpp))
        at += len(rows)
    return build_around(made, zlib_stream(made, b"".join(lines)))


def filtered(rows: Bytes, types: bytes, bpp: int) -> bytes:
    """Filtered scanlines (PNG, section 9) of unfiltered rows."""
    x = rows.astype(np.int16)
    a, b, c = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    a[:, bpp:], b[1:], c[1:, bpp:] = x[:, :-bpp], x[:-1], x[:-1, :-bpp]
    pa, pb, pc = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    paeth = np.where((pa <= pb) & (pa <= pc), a, np.where(pb <= pc, b, c))
    guess = np.stack([np.zeros_like(x), a, b, (a + b) // 2, paeth])
    kinds = np.frombuffer(types, np.uint8)
    out = (x - guess[kinds, np.arange(len(rows))]).astype(np.uint8)
    return np.hstack([kinds[:, None], out]).tobytes()


def near(source: random.Random) -> bytes:
    """A file that looks like a PNG and has something wrong or unusual in it."""
    made = plan(source, source.randint(1, _NEAR_SIDE), source.randint(1, _NEAR_SIDE))
    turn = source.random()
    if turn < 0.55:
        return DAMAGES[source.choice(sorted(DAMAGES))](made, source)
    if turn < 0.7:
        return animations.near(source, made)
    data = write(made)
    if turn < 0.8:
        return data + source.randbytes(source.randint(1, 40))
    at = source.randrange(len(data))
    if turn < 0.9:
        return data[:at] + source.randbytes(source.randint(1, 9)) + data[at:]
    return data[:at] + data[at + source.randint(1, 9) :]


# -- sequences of pictures


def sequence(source: random.Random, length: int) -> Iterator[bytes]:
    """A picture that changes a little each time. Most of its files are written in the same way."""
    colour_type, bit_depth = source.choice(KINDS)
    pixel = CHANNELS[colour_type] * bit_depth
    width, height = source.randint(17, 200), source.randint(17, 150)
    wide = (width * pixel + 7) // 8
    rows = _background(source, height, wide)
    rows[:, -1] &= 255 << (wide * 8 - width * pixel) & 255
    bare = Plan(width, height, (), b"", colour_type, bit_depth, _interlace(source))
    way = _around(source, bare)
    for picture in _changes(source, rows, max(1, pixel // 8), length):
        picture[:, -1] &= 255 << (wide * 8 - width * pixel) & 255
        if source.random() < 0.05:
            way = _around(source, way)
        yield write(replace(way, rows=tuple(map(bytes, picture))))


def foreign_sequence(source: random.Random, length: int) -> Iterator[bytes]:
    """The same, written by Pillow with the zlib that Pillow has."""
    width, height = source.randint(17, 200), source.randint(17, 150)
    channels = source.choice([1, 3, 3, 4])
    rows = _background(source, height, width * channels)
    level = source.randint(1, 9)
    for picture in _changes(source, rows, channels, length):
        stream = io.BytesIO()
        shape = (height, width) if channels == 1 else (height, width, channels)
        Image.fromarray(picture.reshape(shape)).save(stream, "PNG", compress_level=level)
        yield stream.getvalue()


def _background(source: random.Random, height: int, wide: int) -> Bytes:
    rows = np.frombuffer(source.randbytes(height * wide), np.uint8).reshape(height, wide).copy()
    style = source.random()
    if style < 0.3:
        rows &= np.uint8(3)
    elif style < 0.6:
        rows[:] = source.randrange(256)
    return rows


def _changes(source: random.Random, rows: Bytes, pixel: int, length: int) -> Iterator[Bytes]:
    """Pictures, each a copy of the previous or an earlier one with a few changes."""
    earlier = [rows]
    for _ in range(length):
        base = source.choice(earlier) if source.random() < 0.1 else earlier[-1]
        picture = base.copy()
        if source.random() > 0.05:
            for _ in range(source.choice([1, 1, 2, 5])):
                _change(source, picture, pixel)
        earlier = [*earlier[-9:], picture]
        yield picture.copy()


def _change(source: random.Random, picture: Bytes, pixel: int) -> None:
    height, wide = picture.shape
    top, left = source.randrange(height), source.randrange(max(1, wide // pixel)) * pixel
    tall, broad = source.randint(1, height), source.randint(1, max(1, wide // pixel)) * pixel
    area = picture[top : top + tall, left : left + broad]
    kind = source.random()
    if kind < 0.3:
        # A clock ticks.
        small = area[:9, : 20 * pixel]
        small[:] = np.frombuffer(source.randbytes(small.size), np.uint8).reshape(small.shape)
    elif kind < 0.5:
        colour = np.frombuffer(source.randbytes(pixel), np.uint8)
        area[:] = np.resize(colour, area.shape[1])
    elif kind < 0.6:
        area[:] += np.uint8(source.randint(1, 9))
    elif kind < 0.8:
        picture[:] = np.roll(picture, source.randint(-40, 40), axis=0)
    elif kind < 0.9:
        picture[:] = np.roll(picture, source.randint(-40, 40) * pixel, axis=1)
    else:
        # A user drags a window.
        to_top, to_left = source.randrange(height), source.randrange(max(1, wide // pixel)) * pixel
        goal = picture[to_top : to_top + tall, to_left : to_left + broad]
        tall, broad = np.minimum(area.shape, goal.shape).tolist()
        goal[:tall, :broad] = area[:tall, :broad].copy()
