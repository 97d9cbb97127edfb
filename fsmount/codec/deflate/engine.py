"""What the native kernel does, where it was built, and the standard library's zlib in its place.

Both give the bytes of classic zlib (`docs/deflate.md`). The kernel also remembers the newest input
of each size with its tokens, within a budget, and makes a similar input's stream from them: of
consecutive screenshots only what changed is searched again. The kernel's calls for scanlines are
used by `filters`, which can do without them.

Streams that classic zlib does not write are made from a correction record instead.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from fsmount.codec.deflate import corrections
from fsmount.lru import Lru

__all__ = [
    "NATIVE",
    "apply_filters",
    "cut_tiles",
    "differing_rows",
    "flat_tiles",
    "hash_tiles",
    "hash_windows",
    "inflate",
    "paint_tiles",
    "undo_filters",
]

try:
    from fsmount.codec import _kernel
    from fsmount.codec._kernel import (
        apply_filters,
        cut_tiles,
        differing_rows,
        flat_tiles,
        hash_tiles,
        hash_windows,
        inflate,
        paint_tiles,
        undo_filters,
    )

    NATIVE = True
except ImportError:
    # No compiler at installation: slower, and as exact as the zlib at hand.
    NATIVE = False

Bytes = bytes | bytearray | memoryview

# Models of other encoders than zlib, newest first, that streams have been corrected with here.
_MOST_MODELS = 4
_models: list[bytes] = []

# The kernel names no more candidates than this.
MOST_CANDIDATES = 32

# How much of the input zlib is fed at once. Frozen with the format.
SLICE = 1 << 16


class _Remembered(NamedTuple):
    raw: bytes
    tokens: bytes
    body: bytes


_Key = tuple[int, int, int, int, int]
_remembered: Lru[_Key, _Remembered] = Lru(0)


def remember(budget: int) -> None:
    """Let this process keep `budget` bytes of inputs and tokens; 0 forgets all."""
    if budget != _remembered.budget:
        _remembered.clear()
        _remembered.budget = budget


def deflate(
    raw: Bytes,
    level: int,
    strategy: int,
    mem_level: int,
    window_bits: int,
    *,
    row_bytes: int = 0,
    threads: int = 1,
) -> bytes:
    """The raw deflate stream (RFC 1951) that classic zlib writes for the whole of `raw`.

    `row_bytes`: bytes of a scanline with its filter type, where several threads may cut.
    """
    if not NATIVE:
        return b"".join(zlib_pieces(raw, level, strategy, mem_level, window_bits))
    params = level, strategy, mem_level, window_bits
    if not _remembered.budget:
        return _kernel.deflate(raw, *params, threads, row_bytes)[0]
    data = bytes(raw)
    key = (*params, len(data))
    known = _remembered.get(key)
    if known is None:
        body, tokens = _kernel.deflate(data, *params, threads, row_bytes)
    else:
        body, tokens = _kernel.deflate_delta(
            known.raw, known.tokens, data, *params, threads, row_bytes, known.body
        )
    _remembered.put(key, _Remembered(data, tokens, body), len(data) + len(tokens) + len(body))
    return body


def adler32(data: Bytes) -> int:
    """The checksum of a zlib stream's input (RFC 1950 section 8.2)."""
    return _kernel.adler32(data) if NATIVE else zlib.adler32(data)


def zlib_pieces(
    raw: Bytes, level: int, strategy: int, mem_level: int, window_bits: int
) -> Iterator[bytes]:
    """zlib's stream in order, one piece for each SLICE of input; pieces may be empty."""
    maker = zlib.compressobj(level, zlib.DEFLATED, -window_bits, mem_level, strategy)
    view = memoryview(raw).cast("B")
    for at in range(0, len(view), SLICE):
        yield maker.compress(view[at : at + SLICE])
    yield maker.flush()


def identify(body: bytes, raw: Bytes) -> list[tuple[int, int, int, int]] | None:
    """Parameters that can have made `body` of `raw`, likeliest first; None: nobody can tell."""
    return _kernel.identify(body, raw) if NATIVE else None


def correct(body: bytes, raw: Bytes) -> bytes | None:
    """A correction record that gives `body`, a deflate stream of `raw`, back; None: there is none.

    That it does is for the caller to check, with `apply`.
    """
    made = _kernel.correct(body, raw, b"".join(_models)) if NATIVE else None
    if made is None:
        return None
    record, model = made
    if model in _models:
        _models.remove(model)
    _models[:] = [model, *_models[: _MOST_MODELS - 1]]
    return record


def apply(record: bytes, raw: Bytes) -> bytes:
    """The deflate stream of `raw` that `correct` made a record of. ValueError when it is damaged.

    Without the kernel this takes up to a minute for a large picture.
    """
    return _kernel.apply(record, raw) if NATIVE else corrections.apply(record, bytes(raw))
