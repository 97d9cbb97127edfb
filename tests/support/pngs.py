"""PNG files for tests: every colour type, depth, filter, deflate parameter, split and extra chunk.

This module follows the specification in the simplest way and shares no code with the package.
`Plan` holds the contents of a file, and `build` writes it. The hypothesis strategies `plans` and
`pngs` make files that can be re-created; `near_pngs` makes files with something wrong or unusual in
them.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
KINDS = [
    *((0, depth) for depth in (1, 2, 4, 8, 16)),
    *((3, depth) for depth in (1, 2, 4, 8)),
    *((colour, depth) for colour in (2, 4, 6) for depth in (8, 16)),
]
"""All pairs (colour type, bit depth) of the specification."""
ADAM7 = (
    "16462646",
    "77777777",
    "56565656",
    "77777777",
    "36463646",
    "77777777",
    "56565656",
    "77777777",
)
"""The pass that each pixel of an interlaced picture belongs to (section 8.1); repeats."""


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk: length, type, content and CRC-32."""
    checksum = zlib.crc32(kind + content)
    return len(content).to_bytes(4, "big") + kind + content + checksum.to_bytes(4, "big")


IEND = chunk(b"IEND", b"")


@dataclass(frozen=True)
class Plan:
    """The contents of a PNG file."""

    width: int
    height: int
    rows: tuple[bytes, ...]
    """Unfiltered rows, without filter types."""
    types: bytes
    """The filter type of each row, or of each row of all passes if the picture is interlaced."""
    colour_type: int = 6
    bit_depth: int = 8
    interlace: int = 0
    level: int = 6
    strategy: int = 0
    mem_level: int = 8
    window_bits: int = 15
    shown_window_bits: int | None = None
    """The window bits in the zlib header, if they differ from the true ones."""
    cuts: tuple[int, ...] = ()
    """Sizes of all IDATs but the last. Sizes beyond the end of the stream give empty IDATs."""
    head: bytes = b""
    tail: bytes = IEND
    idat_tail: bytes = b""

    @property
    def pixel_bits(self) -> int:
        return CHANNELS[self.colour_type] * self.bit_depth

    @property
    def bpp(self) -> int:
        return max(1, self.pixel_bits // 8)


def build(plan: Plan) -> bytes:
    """The PNG file of a plan."""
    return build_around(plan, zlib_stream(plan, scanlines(plan)))


def build_around(plan: Plan, stream: bytes) -> bytes:
    """The PNG file of a plan, but with another zlib stream in it."""
    idats = [chunk(b"IDAT", piece) for piece in pieces(plan, stream)]
    return b"".join((SIGNATURE, ihdr(plan), plan.head, *idats, plan.tail))


def pieces(plan: Plan, stream: bytes) -> list[bytes]:
    """The contents of the chunks of a plan that a stream is in."""
    stream += plan.idat_tail
    found = []
    for size in plan.cuts:
        found.append(stream[:size])
        stream = stream[size:]
    return [*found, stream]


def scanlines(plan: Plan) -> bytes:
    """The filtered scanlines of a plan."""
    at, parts = 0, []
    for rows in passes(plan):
        parts.append(filter_rows(rows, plan.types[at : at + len(rows)], plan.bpp))
        at += len(rows)
    return b"".join(parts)


def passes(plan: Plan) -> list[Sequence[bytes]]:
    """The rows of each pass that has pixels. A picture that is not interlaced has one pass."""
    if plan.interlace != 1:
        return [plan.rows]
    found: dict[str, list[bytes]] = {}
    bits, row_bits = plan.pixel_bits, len(plan.rows[0]) * 8
    for y, whole in enumerate(plan.rows):
        line = f"{int.from_bytes(whole, 'big'):0{row_bits}b}"
        pixels: dict[str, str] = {}
        for x in range(plan.width):
            number = ADAM7[y % 8][x % 8]
            pixels[number] = pixels.get(number, "") + line[x * bits : x * bits + bits]
        for number, text in pixels.items():
            padded = text + "0" * (-len(text) % 8)
            row = int(padded, 2).to_bytes(len(padded) // 8, "big")
            found.setdefault(number, []).append(row)
    return [found[number] for number in sorted(found)]


def with_types(plan: Plan, types: bytes) -> Plan:
    """The plan with these filter types, in turn, for all its scanlines."""
    count = plan.height
    if plan.interlace == 1:
        across = min(plan.width, 8)
        count = sum(len(set(ADAM7[y % 8][:across])) for y in range(plan.height))
    return replace(plan, types=(types * (count // len(types) + 1))[:count])


def image_data(data: bytes) -> bytes:
    """The contents of all IDATs of a PNG file joined."""
    at, parts = len(SIGNATURE), []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            parts.append(data[at + 8 : at + 8 + size])
        at += 12 + size
    return b"".join(parts)


def ihdr(plan: Plan) -> bytes:
    """The IHDR chunk of a plan."""
    sizes = plan.width.to_bytes(4, "big") + plan.height.to_bytes(4, "big")
    return chunk(b"IHDR", sizes + bytes((plan.bit_depth, plan.colour_type, 0, 0, plan.interlace)))


def zlib_stream(plan: Plan, raw: bytes) -> bytes:
    """The zlib stream of filtered scanlines, deflated with the parameters of a plan."""
    engine = zlib.compressobj(
        plan.level, zlib.DEFLATED, -plan.window_bits, plan.mem_level, plan.strategy
    )
    body = engine.compress(raw) + engine.flush()
    return zlib_header(plan) + body + zlib.adler32(raw).to_bytes(4, "big")


def flushed(plan: Plan, raw: bytes, at: int) -> bytes:
    """A zlib stream of filtered scanlines that no single zlib call writes: flushed at a byte."""
    engine = zlib.compressobj(plan.level)
    body = engine.compress(raw[:at]) + engine.flush(zlib.Z_FULL_FLUSH)
    return body + engine.compress(raw[at:]) + engine.flush()


def zlib_header(plan: Plan) -> bytes:
    """The two bytes before a deflate stream (RFC 1950), as zlib writes them."""
    if plan.strategy >= 2 or plan.level < 2:
        flevel = 0
    else:
        flevel = 1 if plan.level < 6 else 2 if plan.level == 6 else 3
    window_bits = plan.shown_window_bits or plan.window_bits
    header = (window_bits - 8) << 12 | zlib.DEFLATED << 8 | flevel << 6
    return (header + 31 - header % 31).to_bytes(2, "big")


def filter_rows(rows: Sequence[bytes], types: bytes, bpp: int) -> bytes:
    """Filtered scanlines, computed byte by byte according to section 9 of the specification."""
    out = bytearray()
    above = bytes(len(rows[0])) if rows else b""
    for kind, row in zip(types, rows, strict=True):
        out.append(kind)
        for at, x in enumerate(row):
            out.append((x - _predict(kind, row, above, at, bpp)) & 255)
        above = row
    return bytes(out)


def undo_rows(filtered: bytes, row_bytes: int, bpp: int) -> list[bytes]:
    """The unfiltered rows of filtered scanlines."""
    rows: list[bytes] = []
    above = bytes(row_bytes)
    for start in range(0, len(filtered), row_bytes + 1):
        row = bytearray()
        for at in range(row_bytes):
            predicted = _predict(filtered[start], row, above, at, bpp)
            row.append((filtered[start + 1 + at] + predicted) & 255)
        above = bytes(row)
        rows.append(above)
    return rows


def _predict(kind: int, row: bytes | bytearray, above: bytes, at: int, bpp: int) -> int:
    a = row[at - bpp] if at >= bpp else 0
    b = above[at]
    c = above[at - bpp] if at >= bpp else 0
    if kind < 4:
        return (0, a, b, (a + b) // 2)[kind]
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    if pa <= pb and pa <= pc:
        return a
    return b if pb <= pc else c


def make_rows(
    source: random.Random, width: int, height: int, colour_type: int, bit_depth: int, style: str
) -> tuple[bytes, ...]:
    """Rows of a picture: "noise", "flat", "bars" (rows alike) or "opaque" (alpha at maximum)."""
    bits = width * CHANNELS[colour_type] * bit_depth
    row_bytes = (bits + 7) // 8
    padding = row_bytes * 8 - bits
    pattern = source.randbytes(1 if style == "flat" else row_bytes)
    pattern = (pattern * row_bytes)[:row_bytes]
    rows = []
    for _ in range(height):
        row = bytearray(pattern if style in ("flat", "bars") else source.randbytes(row_bytes))
        if style == "opaque" and colour_type in (4, 6):
            size = bit_depth // 8
            step = CHANNELS[colour_type] * size
            for at in range(step - size, row_bytes, step):
                row[at : at + size] = b"\xff" * size
        row[-1] &= 255 << padding & 255
        rows.append(bytes(row))
    return tuple(rows)


EXTRA = [
    chunk(b"gAMA", (45455).to_bytes(4, "big")),
    chunk(b"pHYs", bytes(9)),
    chunk(b"tEXt", b"Software\0a test"),
    chunk(b"tIME", bytes(7)),
    chunk(b"eXIf", b"II*\0"),
    chunk(b"zzZz", b"IDAT"),
    chunk(b"quUx", b""),
    chunk(b"tRNS", b"\0\1")[:-1] + b"?",  # a wrong checksum
]
"""Chunks that may stand before and after the image data."""
STYLES = ["noise", "flat", "bars", "opaque"]
TYPES = [b"\0", b"\4", b"\1\2\3\4\0", b"\4\3", b"\2"]
"""Filter types; the rows use them in turn."""
WINDOWS = [15, 15, 15, 14, 10, 9]
TRAILING = [b"", b"", b"\0", b"trailing", chunk(b"IDAT", b"late")[:9]]
IDAT_TAILS = [b"", b"", b"", b"\0", b"extra"]
_EXTRA = st.lists(st.sampled_from(EXTRA), max_size=3).map(b"".join)


@st.composite
def plans(draw: st.DrawFn, max_side: int = 40) -> Plan:
    """Plans of files that can be re-created exactly."""
    width, height = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    colour_type, bit_depth = draw(st.sampled_from(KINDS))
    style = draw(st.sampled_from(STYLES))
    source = random.Random(draw(st.integers(0, 1 << 32)))
    rows = make_rows(source, width, height, colour_type, bit_depth, style)
    types = draw(st.sampled_from(TYPES))
    head = draw(_EXTRA)
    if colour_type == 3:
        head = chunk(b"PLTE", source.randbytes(3 << bit_depth)) + head
    window_bits = draw(st.sampled_from(WINDOWS))
    cuts = draw(
        st.one_of(
            st.just([]),
            st.tuples(st.integers(1, 99), st.integers(1, 9)).map(lambda both: [both[0]] * both[1]),
            st.lists(st.integers(0, 99), max_size=5),
        )
    )
    plan = Plan(
        width,
        height,
        rows,
        b"",
        colour_type,
        bit_depth,
        interlace=draw(st.sampled_from([0, 0, 1])),
        level=draw(st.integers(1, 9)),
        strategy=draw(st.integers(0, 4)),
        mem_level=draw(st.integers(1, 9)),
        window_bits=window_bits,
        shown_window_bits=draw(st.sampled_from([None, None, max(8, window_bits - 1), 8])),
        cuts=tuple(cuts),
        head=head,
        tail=draw(_EXTRA)
        + draw(st.sampled_from([IEND, IEND, b""]))
        + draw(st.sampled_from(TRAILING)),
        idat_tail=draw(st.sampled_from(IDAT_TAILS)),
    )
    return with_types(plan, types)


def pngs(max_side: int = 40) -> st.SearchStrategy[bytes]:
    """PNG files that can be re-created exactly."""
    return plans(max_side).map(build)


def _truncated(plan: Plan, source: random.Random) -> bytes:
    data = build(plan)
    return data[: source.randrange(len(data))]


def _flipped(plan: Plan, source: random.Random) -> bytes:
    data = bytearray(build(plan))
    for _ in range(source.randint(1, 3)):
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    return bytes(data)


def _scrambled(plan: Plan, source: random.Random) -> bytes:
    """Damage in the zlib stream; the checksum of its chunk is right."""
    stream = bytearray(zlib_stream(plan, scanlines(plan)))
    stream[source.randrange(len(stream))] ^= 1 << source.randrange(8)
    return build_around(plan, bytes(stream))


def _wrong_checksum(plan: Plan, source: random.Random) -> bytes:
    data = bytearray(build(plan))
    at = data.index(b"IDAT", 33 + len(plan.head))
    end = at + 4 + int.from_bytes(data[at - 4 : at], "big")
    data[end + source.randrange(4)] ^= 255
    return bytes(data)


def _bomb(plan: Plan, source: random.Random) -> bytes:
    """Far more image data than pixels."""
    return build_around(plan, zlib_stream(plan, bytes(source.randint(1 << 16, 1 << 18))))


def _giant(plan: Plan, source: random.Random) -> bytes:
    """Far more pixels than image data."""
    giant = replace(plan, width=source.randint(1 << 12, 1 << 31), height=1 << 31)
    stream = zlib_stream(plan, scanlines(plan))
    return build_around(giant, stream)


def _other_interlace(plan: Plan, source: random.Random) -> bytes:
    """A header that names another way of interlacing than the image data has."""
    stream = zlib_stream(plan, scanlines(plan))
    return build_around(replace(plan, interlace=source.choice([1 - plan.interlace, 2])), stream)


def _animated(plan: Plan, source: random.Random) -> bytes:
    """A file that says it is an animation, and is none."""
    frames = chunk(b"acTL", source.randint(1, 9).to_bytes(4, "big") + bytes(4))
    return build(replace(plan, head=frames + plan.head))


def _bad_filter(plan: Plan, source: random.Random) -> bytes:
    filtered = bytearray(scanlines(plan))
    first = passes(plan)[0]
    filtered[source.randrange(len(first)) * (len(first[0]) + 1)] = source.randint(5, 255)
    return build_around(plan, zlib_stream(plan, bytes(filtered)))


def _bad_depth(plan: Plan, source: random.Random) -> bytes:
    stream = zlib_stream(plan, scanlines(plan))
    colour_type, bit_depth = source.choice([(1, 8), (2, 4), (3, 16), (0, 3), (7, 8), (6, 0)])
    return build_around(replace(plan, colour_type=colour_type, bit_depth=bit_depth), stream)


def _flushed(plan: Plan, source: random.Random) -> bytes:
    """A deflate stream that no single zlib call writes: it is flushed in the middle."""
    raw = scanlines(plan)
    return build_around(plan, flushed(plan, raw, source.randint(0, len(raw))))


def _no_idat(plan: Plan, source: random.Random) -> bytes:
    return SIGNATURE + ihdr(plan) + plan.head + source.choice([plan.tail, IEND, b""])


def _stored(plan: Plan, source: random.Random) -> bytes:
    return build(replace(plan, level=0, strategy=source.randint(0, 4)))


DAMAGES: dict[str, Callable[[Plan, random.Random], bytes]] = {
    "truncated": _truncated,
    "flipped": _flipped,
    "scrambled": _scrambled,
    "wrong checksum": _wrong_checksum,
    "bomb": _bomb,
    "giant": _giant,
    "other interlace": _other_interlace,
    "animated": _animated,
    "bad filter": _bad_filter,
    "bad depth": _bad_depth,
    "flushed": _flushed,
    "no IDAT": _no_idat,
    "stored": _stored,
}


@st.composite
def near_pngs(draw: st.DrawFn, max_side: int = 40) -> bytes:
    """Files that look like PNGs. Most cannot be re-created exactly, some can."""
    damage = DAMAGES[draw(st.sampled_from(sorted(DAMAGES)))]
    return damage(draw(plans(max_side)), random.Random(draw(st.integers(0, 1 << 32))))
