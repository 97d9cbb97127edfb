"""Animated PNGs for tests: every kind of PNG, pictures of any size, streams cut in any way.

Like :mod:`tests.support.pngs`, this module shares no code with the package. `Animation` holds the
contents of a file, and `build` writes it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from tests.support import pngs
from tests.support.pngs import Plan, chunk, ihdr, pieces, scanlines, zlib_stream


@dataclass(frozen=True)
class Part:
    """A further picture: its plan, its place on the canvas, and chunks before its fcTL."""

    plan: Plan
    x: int = 0
    y: int = 0
    before: bytes = b""


@dataclass(frozen=True)
class Animation:
    """The contents of an animated PNG."""

    canvas: Plan
    """The first picture, with the chunks before and after all image data."""
    parts: tuple[Part, ...]
    shown: bool = True
    """Whether the first picture is part of the animation."""
    sequence: int = 0
    """The first sequence number."""


def fctl(sequence: int, plan: Plan, x: int = 0, y: int = 0) -> bytes:
    """The chunk fcTL of a picture."""
    fields = (plan.width, plan.height, x, y)
    content = _number(sequence) + b"".join(field.to_bytes(4, "big") for field in fields)
    return chunk(b"fcTL", content + b"\0\1\0\x0a\1\0")


def _number(sequence: int) -> bytes:
    """A sequence number; 0 comes after the largest one."""
    return (sequence & 0xFFFFFFFF).to_bytes(4, "big")


def fdats(sequence: int, plan: Plan, *, flush: bool = False) -> list[bytes]:
    """The chunks fdAT of a picture. `flush`: see :func:`build`."""
    raw = scanlines(plan)
    stream = pngs.flushed(plan, raw, len(raw) // 2) if flush else zlib_stream(plan, raw)
    contents = pieces(plan, stream)
    return [
        chunk(b"fdAT", _number(sequence + number) + content)
        for number, content in enumerate(contents)
    ]


def build(made: Animation, *, flush: bool = False) -> bytes:
    """The file of an animation.

    `flush`: the streams of further pictures are such that no single call of zlib writes them.
    """
    return b"".join(chunks(made, flush=flush))


def chunks(made: Animation, *, flush: bool = False) -> list[bytes]:
    """The parts of the file: signature, chunks, and what is behind them."""
    canvas, number = made.canvas, made.sequence
    count = (len(made.parts) + made.shown).to_bytes(4, "big")
    out = [pngs.SIGNATURE, ihdr(canvas), canvas.head, chunk(b"acTL", count + bytes(4))]
    if made.shown:
        out.append(fctl(number, canvas))
        number += 1
    out += [chunk(b"IDAT", one) for one in pieces(canvas, zlib_stream(canvas, scanlines(canvas)))]
    for part in made.parts:
        data = fdats(number + 1, part.plan, flush=flush)
        out += [part.before, fctl(number, part.plan, part.x, part.y), *data]
        number += 1 + len(data)
    return [*out, canvas.tail]


def changed(source: random.Random, plan: Plan) -> Part:
    """A picture that shows an area of another one, with a few changes."""
    width, height = source.randint(1, plan.width), source.randint(1, plan.height)
    if source.random() < 0.3:
        width, height = plan.width, plan.height
    x, y = source.randint(0, plan.width - width), source.randint(0, plan.height - height)
    bits = plan.pixel_bits
    rows = []
    for row in plan.rows[y : y + height]:
        line = f"{int.from_bytes(row, 'big'):0{len(row) * 8}b}"[x * bits : (x + width) * bits]
        if source.random() < 0.1:
            at = source.randrange(len(line))
            line = line[:at] + source.choice("01") + line[at + 1 :]
        line += "0" * (-len(line) % 8)
        rows.append(int(line, 2).to_bytes(len(line) // 8, "big"))
    part = replace(plan, width=width, height=height, rows=tuple(rows))
    return Part(pngs.with_types(part, source.choice(pngs.TYPES)), x, y)


def animation(source: random.Random, canvas: Plan, count: int) -> Animation:
    """An animation of `count` further pictures. Each changes the canvas, or is another picture."""
    parts = []
    for _ in range(count):
        part = changed(source, canvas)
        if source.random() < 0.3:
            plan, style = part.plan, source.choice(pngs.STYLES)
            size, kind = (plan.width, plan.height), (plan.colour_type, plan.bit_depth)
            rows = pngs.make_rows(source, *size, *kind, style)
            part = replace(part, plan=replace(plan, rows=rows))
        way = replace(part.plan, level=source.randint(1, 9), strategy=source.randint(0, 4))
        cuts = source.choice([(), (9, 9, 9), (0, 5)])
        idat_tail = source.choice([b"", b"", b"extra"])
        before = source.choice([b"", b"", b"", source.choice(pngs.EXTRA)])
        parts.append(
            replace(part, plan=replace(way, cuts=cuts, idat_tail=idat_tail), before=before)
        )
    sequence = source.choice([0, 0, 0, 7, 0xFFFFFFFF])
    return Animation(canvas, tuple(parts), source.random() < 0.8, sequence)


@st.composite
def animations(draw: st.DrawFn, max_side: int = 40) -> Animation:
    """Animations that can be re-created exactly."""
    canvas = draw(pngs.plans(max_side))
    source = random.Random(draw(st.integers(0, 1 << 32)))
    return animation(source, canvas, draw(st.integers(0, 5)))


def _moved(made: Animation, source: random.Random) -> bytes:
    """A chunk stands in another place."""
    parts = chunks(made)
    one = parts.pop(source.randrange(2, len(parts)))
    parts.insert(source.randrange(2, len(parts) + 1), one)
    return b"".join(parts)


def _missing(made: Animation, source: random.Random) -> bytes:
    parts = chunks(made)
    del parts[source.randrange(1, len(parts))]
    return b"".join(parts)


def _twice(made: Animation, source: random.Random) -> bytes:
    parts = chunks(made)
    at = source.randrange(1, len(parts))
    return b"".join([*parts[:at], parts[at], *parts[at:]])


def _outside(made: Animation, source: random.Random) -> bytes:
    part = replace(made.parts[0], x=source.choice([1 << 31, made.canvas.width]))
    return build(replace(made, parts=(part, *made.parts[1:])))


def _giant(made: Animation, source: random.Random) -> bytes:
    """A picture of far more pixels than its stream has."""
    parts = chunks(made)
    at = next(at for at, one in enumerate(parts) if one[4:8] == b"fdAT") - 1
    size = replace(
        made.canvas, width=source.randint(0, 1 << 31), height=source.choice([0, 1 << 31])
    )
    parts[at] = fctl(1, size)
    return b"".join(parts)


def _flipped(made: Animation, source: random.Random) -> bytes:
    data = bytearray(build(made))
    data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    return bytes(data)


def _scrambled(made: Animation, source: random.Random) -> bytes:
    """Damage in the content of a chunk whose checksum is right."""
    parts = chunks(made)
    at = source.choice([at for at, one in enumerate(parts) if one[4:8] in (b"fdAT", b"IDAT")])
    content = bytearray(parts[at][8:-4])
    if content:
        content[source.randrange(len(content))] ^= 1 << source.randrange(8)
    parts[at] = chunk(parts[at][4:8], bytes(content))
    return b"".join(parts)


def _truncated(made: Animation, source: random.Random) -> bytes:
    data = build(made)
    return data[: source.randrange(len(data))]


DAMAGES: dict[str, Callable[[Animation, random.Random], bytes]] = {
    "moved": _moved,
    "missing": _missing,
    "twice": _twice,
    "outside": _outside,
    "giant": _giant,
    "flipped": _flipped,
    "scrambled": _scrambled,
    "truncated": _truncated,
}


def near(source: random.Random, canvas: Plan) -> bytes:
    """A file that looks like an animation and has something wrong in it."""
    made = animation(source, canvas, source.randint(1, 4))
    return DAMAGES[source.choice(sorted(DAMAGES))](made, source)
