"""Makes the exact deflate stream (RFC 1951) of a recipe, and searches the parameters of a stream.

The bytes of a deflate stream depend on the encoder, not on the format: only the zlib that wrote a
stream, or a library that behaves the same to the bit, writes it again. Nearly every screenshot tool
uses classic zlib, so four numbers (level, strategy, memory level, window) stand for the whole
stream. For streams of other encoders, a model guesses the stream, and a record lists where the
guess is wrong. `engine` makes the streams. The search does not cover level 0 (stored): its block
lengths depend on the buffer sizes of the program around zlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fsmount.codec.deflate import engine
from fsmount.codec.memory import WorkerMemory

# Bytes of the input that first tell candidates apart. If too many are left, the search uses all
# bytes.
_FIRST_LOOK = 1 << 20
_HEADER = 0x789C  # zlib's default: a window of 32 KiB, level 6
_WIDEST = 15  # log2 of the largest window
# Levels by the FLEVEL bits of a zlib header (RFC 1950, 2.2), as zlib writes them.
_LEVELS = ((1,), (2, 3, 4, 5), (6,), (7, 8, 9))


@dataclass(frozen=True, slots=True)
class DeflateParams:
    """Arguments of zlib's deflateInit2. `window_bits` is positive, although the stream is raw."""

    level: int
    strategy: int
    mem_level: int
    window_bits: int

    def valid(self) -> bool:
        """Whether `deflate` accepts them.

        A window of 8 bits exists only in headers: zlib silently compresses with 9, and refuses 8
        for raw streams.
        """
        return (
            1 <= self.level <= 9
            and 0 <= self.strategy <= 4
            and 1 <= self.mem_level <= 9
            and 9 <= self.window_bits <= 15
        )


@dataclass(frozen=True, slots=True)
class Corrections:
    """Record of a stream that classic zlib does not write (docs/deflate.md, "Other encoders")."""

    record: bytes


def deflate(
    raw: bytes | bytearray | memoryview,
    params: DeflateParams | Corrections,
    *,
    row_bytes: int = 0,
    threads: int = 1,
    memory: WorkerMemory | None = None,
) -> bytes:
    """Compress `raw` into a raw deflate body, without zlib header and Adler-32.

    `row_bytes`, `threads` and `memory`: as in `engine.deflate`. Raises ValueError if `params` are
    out of range, or if a record proves to be damaged.
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
        memory=memory,
    )


def search(
    raw: bytes | bytearray | memoryview,
    body: bytes | bytearray | memoryview,
    hints: Sequence[DeflateParams] = (),
    *,
    header: int = _HEADER,
    row_bytes: int = 0,
    threads: int = 1,
    memory: WorkerMemory | None = None,
) -> DeflateParams | Corrections | None:
    """Find the parameters or record with which `deflate(raw, ...)` returns exactly `body`.

    Returns None if there is no way. Tries `hints` first. Then the kernel reads from the stream
    which parameters can have made it. `header` is the zlib header: what it says of the window and
    the level decides where the stream leaves several open. `row_bytes` and `threads`: as in
    `engine.deflate`, for the trials of `hints`. `memory`: as there.
    """
    body = bytes(body)
    hints = tuple(dict.fromkeys(hints))
    for params in hints:
        if not params.valid():
            continue
        made = deflate(raw, params, row_bytes=row_bytes, threads=threads, memory=memory)
        # This compares bytes, not tokens. Tokens, ends of blocks and code lengths that are equal to
        # zlib's would imply equal bytes too, and would save writing the bits. But a fault in such a
        # comparison would lose the file: nothing deflates again before the staged file is removed.
        # Here the code that writes the bits is the one that renders.
        if made == body:
            return params
    found = _identify(raw, body, hints, header, memory)
    return found or _correct(raw, body, memory)


def _identify(
    raw: bytes | bytearray | memoryview,
    body: bytes,
    failed: Sequence[DeflateParams],
    header: int,
    memory: WorkerMemory | None,
) -> DeflateParams | None:
    """Return parameters that give `body`, apart from those that `failed`, or None."""
    tried = set(failed)
    window_bits, levels = (header >> 12) + 8, _LEVELS[header >> 6 & 3]
    for limit in (_FIRST_LOOK, len(raw)):
        found = [DeflateParams(*one) for one in engine.identify(body, raw, limit)]
        # The kernel names few candidates, those with the widest window first. libpng may write a
        # narrower window into the header than the stream was made with, so both count.
        narrow = [replace(one, window_bits=window_bits) for one in found]
        if len(found) == engine.MOST_CANDIDATES:
            narrow += [replace(one, level=level) for one in narrow for level in levels]
        for params in (*narrow, *found) if window_bits < _WIDEST else found:
            if params.valid() and params not in tried:
                tried.add(params)
                if deflate(raw, params, memory=memory) == body:
                    return params
        if len(found) < engine.MOST_CANDIDATES or limit >= len(raw):
            break
    return None


def _correct(
    raw: bytes | bytearray | memoryview, body: bytes, memory: WorkerMemory | None
) -> Corrections | None:
    """Return a record that is proved to give `body` and shorter than `body`, or None."""
    record = engine.correct(body, raw, memory)
    if record is None or len(record) >= len(body) or engine.apply(record, raw) != body:
        return None
    return Corrections(record)
