"""Deflate streams by the native kernel, from those made before where that is sooner.

The kernel (`kernel/`, C) gives the bytes of classic zlib (`docs/deflate.md`). From the newest input
of each size with its tokens it makes a similar input's stream: of consecutive screenshots only what
changed is searched again. Streams that classic zlib does not write are made from a correction
record instead. The kernel's calls for scanlines and tiles are handed on as they are.
"""

from __future__ import annotations

from typing import NamedTuple

from fsmount.codec.memory import WorkerMemory
from fsmount.errors import NoKernel

try:
    from fsmount.codec import _kernel
except ImportError as error:
    raise NoKernel(reason=error) from None

from fsmount.codec._kernel import (
    adler32,
    apply,
    apply_filters,
    cut_tiles,
    differing_rows,
    flat_tiles,
    hash_tiles,
    hash_windows,
    identify,
    inflate,
    paint_tiles,
    undo_filters,
)

__all__ = [
    "adler32",
    "apply",
    "apply_filters",
    "cut_tiles",
    "differing_rows",
    "flat_tiles",
    "hash_tiles",
    "hash_windows",
    "identify",
    "inflate",
    "paint_tiles",
    "undo_filters",
]

Bytes = bytes | bytearray | memoryview

# Models of other encoders than zlib, with which streams have been corrected, that are kept.
_MOST_MODELS = 4

# `identify` names no more candidates than this.
MOST_CANDIDATES = 32


class Made(NamedTuple):
    """A stream that was made: its input, the kernel's tokens, and the stream."""

    raw: bytes
    tokens: bytes
    body: bytes


StreamKey = tuple[int, int, int, int, int]
"""Level, strategy, memory level, window bits; bytes of input."""


def deflate(
    raw: Bytes,
    level: int,
    strategy: int,
    mem_level: int,
    window_bits: int,
    *,
    row_bytes: int = 0,
    threads: int = 1,
    memory: WorkerMemory | None = None,
) -> bytes:
    """The raw deflate stream (RFC 1951) that classic zlib writes for the whole of `raw`.

    `row_bytes`: bytes of a scanline with its filter type, where several threads may cut.
    `memory` has streams made before, and gets this one.
    """
    params = level, strategy, mem_level, window_bits
    if memory is None or not memory.streams.budget:
        return _kernel.deflate(raw, *params, threads, row_bytes)[0]
    data = bytes(raw)
    key = (*params, len(data))
    known = memory.streams.get(key)
    if known is None:
        body, tokens = _kernel.deflate(data, *params, threads, row_bytes)
    else:
        body, tokens = _kernel.deflate_delta(
            known.raw, known.tokens, data, *params, threads, row_bytes, known.body
        )
    memory.streams.put(key, Made(data, tokens, body), len(data) + len(tokens) + len(body))
    return body


def correct(body: bytes, raw: Bytes, memory: WorkerMemory | None = None) -> bytes | None:
    """A correction record that gives `body`, a deflate stream of `raw`, back; None: there is none.

    That it does is for the caller to check, with `apply`.
    """
    models = [] if memory is None else memory.models
    made = _kernel.correct(body, raw, b"".join(models))
    if made is None:
        return None
    record, model = made
    models[:] = [model, *(one for one in models if one != model)][:_MOST_MODELS]
    return record
