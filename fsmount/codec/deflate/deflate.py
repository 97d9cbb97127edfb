"""The exact deflate stream of a recipe, and the search for the parameters that made one.

The bytes of a deflate stream depend on the encoder, not on the format: only the zlib that wrote a
stream, or one that behaves the same to the bit, writes it again. Nearly every screenshot tool uses
classic zlib, so four numbers (level, strategy, memory level, window) stand for the whole stream;
those of other encoders are guessed from a model, with a record of where the guess is wrong.
Formats: RFC 1950 (zlib), RFC 1951 (deflate). `engine` makes the streams. Level 0 (stored) is not
searched for: its block lengths depend on the buffer sizes of the program around zlib.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fsmount.codec.deflate import engine, firstblock

# The search compresses at most WORK_FACTOR times the input plus WORK_FREE bytes (and finishes the
# trial it is in). WORK_FREE lets small pictures try everything there is.
WORK_FACTOR = 12
WORK_FREE = 32 << 20

_DEFAULT = zlib.Z_DEFAULT_STRATEGY
_FILTERED = zlib.Z_FILTERED
_HUFFMAN = zlib.Z_HUFFMAN_ONLY
_RLE = zlib.Z_RLE
_FIXED = zlib.Z_FIXED


@dataclass(frozen=True, slots=True)
class DeflateParams:
    """Arguments of zlib's deflateInit2 (window_bits positive, although the stream is raw)."""

    level: int
    strategy: int
    mem_level: int
    window_bits: int

    def valid(self) -> bool:
        """Whether `deflate` accepts them. A window of 8 bits exists in headers only: zlib
        silently compresses with 9, and refuses 8 for raw streams."""
        return (
            1 <= self.level <= 9
            and 0 <= self.strategy <= 4
            and 1 <= self.mem_level <= 9
            and 9 <= self.window_bits <= 15
        )


@dataclass(frozen=True, slots=True)
class Corrections:
    """A stream that classic zlib does not write (`docs/deflate.md`, "Other encoders")."""

    record: bytes


# (FLEVEL, size of the first IDAT chunk) -> (level, strategy, memory level), likeliest first. A
# size of 0 stands for any other, mostly one IDAT for all. Only the order of the search depends on
# this. Strategy "default" stands for both where they are the same (levels 1 to 3).
_TOOLS: dict[tuple[int, int], tuple[tuple[int, int, int], ...]] = {
    (0, 8192): ((6, _RLE, 8), (1, _DEFAULT, 8)),  # OpenCV; libpng at level 1
    (0, 65536): ((1, _DEFAULT, 9),),  # Pillow at level 1
    (0, 0): ((1, _DEFAULT, 8), (1, _DEFAULT, 9)),
    (1, 8192): ((2, _DEFAULT, 8),),  # scrot, imlib2
    (2, 4096): ((6, _DEFAULT, 8),),  # ffmpeg
    (2, 8192): ((6, _FILTERED, 8), (6, _DEFAULT, 8)),  # libpng: maim, flameshot, GNOME, Xfce
    (2, 65536): ((6, _FILTERED, 9), (6, _DEFAULT, 9)),  # Pillow; with a palette
    (2, 0): ((6, _DEFAULT, 8), (6, _FILTERED, 8)),  # mss, Python's zlib
    (3, 8192): ((9, _FILTERED, 8), (9, _DEFAULT, 8)),  # libpng at level 9
    (3, 32768): ((7, _FILTERED, 9), (8, _FILTERED, 9), (9, _FILTERED, 9)),  # ImageMagick
    (3, 65536): ((9, _FILTERED, 9), (9, _DEFAULT, 9)),  # Pillow, optimize=True
    (3, 0): ((9, _DEFAULT, 9), (9, _DEFAULT, 8), (9, _FILTERED, 9)),  # optipng, pngcrush
}

# Every (level, strategy) that makes a difference, likeliest first. Run-length and Huffman coding
# do not look at the level; levels 1 to 3 do not look at Z_FILTERED.
_MODES = (
    (6, _FILTERED),
    (6, _DEFAULT),
    (9, _FILTERED),
    (9, _DEFAULT),
    (1, _DEFAULT),
    (6, _RLE),
    *((level, _DEFAULT) for level in (2, 3)),
    *((level, strategy) for level in (7, 8, 5, 4) for strategy in (_FILTERED, _DEFAULT)),
    (6, _HUFFMAN),
    *((level, _FIXED) for level in (6, 9, 1, 2, 3, 4, 5, 7, 8)),
)


def deflate(
    raw: bytes | bytearray | memoryview,
    params: DeflateParams | Corrections,
    *,
    row_bytes: int = 0,
    threads: int = 1,
) -> bytes:
    """Compress `raw` into a raw deflate body (no zlib header, no Adler-32).

    ValueError when `params` are out of range, or a record that shows to be damaged. `row_bytes`,
    `threads`: as in `engine.deflate`.
    """
    if isinstance(params, Corrections):
        return engine.apply(params.record, raw)
    if not params.valid():
        raise ValueError(f"no such deflate parameters: {params}")
    return engine.deflate(
        raw,
        params.level,
        params.strategy,
        params.mem_level,
        params.window_bits,
        row_bytes=row_bytes,
        threads=threads,
    )


def search(
    raw: bytes | bytearray | memoryview,
    body: bytes | bytearray | memoryview,
    header: int,
    idat_size: int,
    hints: Sequence[DeflateParams] = (),
    *,
    row_bytes: int = 0,
    threads: int = 1,
) -> DeflateParams | Corrections | None:
    """Find out how `deflate(raw, ...)` gives exactly `body`; None if there is no way.

    `hints` come first. Then the native kernel reads from the stream what can have made it. Without
    the kernel parameters are tried in an order that `header`, the zlib header as found (16 bits,
    big-endian), and `idat_size`, the length of the first IDAT chunk, make a good one.
    `row_bytes`, `threads`: as in `engine.deflate`, for the trials of `hints`.
    """
    body = bytes(body)
    hints = tuple(dict.fromkeys(hints))
    for params in hints:
        if params.valid() and _trial(raw, body, params, row_bytes, threads)[0]:
            return params
    return _search_params(raw, body, header, idat_size, hints) or _correct(raw, body)


def _correct(raw: bytes | bytearray | memoryview, body: bytes) -> Corrections | None:
    """A record that is proved to give `body` and is worth keeping."""
    record = engine.correct(body, raw)
    if record is None or len(record) >= len(body) or engine.apply(record, raw) != body:
        return None
    return Corrections(record)


def _search_params(
    raw: bytes | bytearray | memoryview,
    body: bytes,
    header: int,
    idat_size: int,
    hints: Sequence[DeflateParams],
) -> DeflateParams | None:
    found = engine.identify(body, raw)
    if found is None or any(level == 0 for level, *_ in found):
        # Stored blocks only: any level may have made them of what cannot be compressed.
        return _search_by_trial(raw, body, header, idat_size, hints)
    candidates = [DeflateParams(*one) for one in found]
    for params in candidates:
        if params not in hints and _trial(raw, body, params)[0]:
            return params
    if len(candidates) < engine.MOST_CANDIDATES:
        return None
    # A small picture: its few symbols tell little.
    return _search_by_trial(raw, body, header, idat_size, [*hints, *candidates])


def _search_by_trial(
    raw: bytes | bytearray | memoryview,
    body: bytes,
    header: int,
    idat_size: int,
    failed: Sequence[DeflateParams],
) -> DeflateParams | None:
    """Try everything plausible but what `failed` already.

    A trial ends at the first byte that differs. After the first one that fails, the first block
    of `body` is decoded and rules out what cannot have written it. Work is bounded by WORK_FACTOR
    and WORK_FREE.
    """
    left = WORK_FACTOR * len(raw) + WORK_FREE
    block: firstblock.FirstBlock | None = None
    for params in _candidates(header, idat_size, failed):
        if block is not None and not block.allows(params):
            continue
        equal, fed = _trial(raw, body, params)
        if equal:
            return params
        left -= fed
        if left <= 0:
            return None
        if block is None:
            block = firstblock.read(body)
            if block is None:
                return None
    return None


def known_answer() -> bool:
    """Whether the engine here writes the bytes of classic zlib (recorded from 1.2.13).

    The kernel does. A zlib in its place may be another (zlib-ng, zlib-rs, Cloudflare's,
    Chromium's, Intel's), which would re-create other files than were stored. Costs some 30 ms.
    """
    raw = _known_input()
    digest = hashlib.sha256()
    for level, strategy, mem_level in _KNOWN_PARAMS:
        digest.update(deflate(raw, DeflateParams(level, strategy, mem_level, 15)))
    return digest.hexdigest() == _KNOWN_SHA256


def _trial(
    raw: bytes | bytearray | memoryview,
    body: bytes,
    params: DeflateParams,
    row_bytes: int = 0,
    threads: int = 1,
) -> tuple[bool, int]:
    """Whether `params` give `body`, and how many bytes of `raw` it took to tell."""
    if engine.NATIVE:
        return deflate(raw, params, row_bytes=row_bytes, threads=threads) == body, len(raw)
    at = fed = 0
    numbers = params.level, params.strategy, params.mem_level, params.window_bits
    for piece in engine.zlib_pieces(raw, *numbers):
        fed += engine.SLICE
        if not body.startswith(piece, at):
            return False, min(fed, len(raw))
        at += len(piece)
    return at == len(body), len(raw)


def _candidates(
    header: int, idat_size: int, failed: Sequence[DeflateParams]
) -> Iterator[DeflateParams]:
    """All parameters worth a trial but `failed`, likeliest first, each once."""
    seen: set[DeflateParams] = set(failed)
    for params in _ordered(header, idat_size):
        if params not in seen and params.valid():
            seen.add(params)
            yield params


def _ordered(header: int, idat_size: int) -> Iterator[DeflateParams]:
    flevel = header >> 6 & 3
    windows = _windows(header)
    tools = _TOOLS.get((flevel, idat_size), ()) + _TOOLS.get((flevel, 0), ())
    for level, strategy, mem_level in tools:
        yield DeflateParams(level, strategy, mem_level, windows[0])
    modes = sorted(_MODES, key=lambda mode: _flevel(*mode) != flevel)
    for mem_levels in ((8, 9), (7, 6, 5, 4, 3, 2, 1)):
        for window_bits in windows:
            for level, strategy in modes:
                for mem_level in mem_levels:
                    yield DeflateParams(level, strategy, mem_level, window_bits)


def _windows(header: int) -> tuple[int, ...]:
    """Windows that fit the header, likeliest first.

    libpng writes a smaller CINFO into the header of a small picture than it compressed with: up
    to one bit less in libpng 1.6, any number of bits in older ones.
    """
    named = min(max((header >> 12) + 8, 9), 15)
    return tuple(dict.fromkeys((named, min(named + 1, 15), 15)))


def _flevel(level: int, strategy: int) -> int:
    """The FLEVEL bits zlib writes (RFC 1950 section 2.2; deflate.c)."""
    if strategy >= _HUFFMAN or level < 2:
        return 0
    if level < 6:
        return 1
    return 2 if level == 6 else 3


_KNOWN_PARAMS = (
    (6, _FILTERED, 8),
    (6, _DEFAULT, 8),
    (6, _FILTERED, 9),
    (9, _DEFAULT, 9),
    (7, _FILTERED, 9),
    (2, _DEFAULT, 8),
    (1, _DEFAULT, 8),
    (4, _DEFAULT, 1),
    (6, _RLE, 8),
    (6, _HUFFMAN, 8),
)
_KNOWN_SHA256 = "69c8315f3f3c47f1cf082895de3c15a58ebb66f6b860d19f97209e003b3b1dfe"


def _known_input() -> bytes:
    """200 KB that look like filtered scanlines: flat parts, texture that repeats, noise."""
    noise = hashlib.shake_128(b"fsmount known answer").digest(40_000)
    texture = bytes(value & 7 for value in noise[:20_000])
    parts = [noise[:10_000], bytes(30_000)]
    for turn in range(8):
        parts += [texture[turn * 900 :], bytes([turn]) * 3_000, noise[turn * 4_000 :][:2_000]]
    return b"".join(parts)
