"""Makes deflate streams with the native kernel, from earlier streams where that is faster.

The kernel (`kernel/`, C) gives the bytes of classic zlib (`docs/deflate.md`). This module keeps the
newest input of each size, with the tokens of its stream. From these, the kernel makes the stream of
a similar input: of consecutive screenshots, it searches only the changed parts again. The kernel
makes streams that classic zlib does not write from a correction record instead. The calls of the
kernel for scanlines and tiles pass through this module unchanged.
"""

from __future__ import annotations

from typing import NamedTuple

from fsmount.codec.memory import WorkerMemory
from fsmount.errors import NoKernel

try:
    from fsmount.codec import _kernel
except ImportError as error:
    raise NoKernel(error) from None

from fsmount.codec._kernel import (
    adler32,
    apply,
    apply_filters,
    cut_tiles,
    differing_rows,
    drop_alpha,
    find_windows,
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
    "drop_alpha",
    "find_windows",
    "flat_tiles",
    "hash_tiles",
    "hash_windows",
    "identify",
    "inflate",
    "paint_tiles",
    "undo_filters",
]

Bytes = bytes | bytearray | memoryview

# Number of models kept. A model describes an encoder other than zlib, and comes from a corrected
# stream.
_MOST_MODELS = 4

# Largest number of candidates that `identify` returns.
MOST_CANDIDATES = 32


class MadeStream(NamedTuple):
    """A stream that was made: its input, the tokens of the kernel, and the stream."""

    raw: bytes
    tokens: bytes
    body: bytes


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
    """Return the raw deflate stream (RFC 1951) that classic zlib writes for all of `raw`.

    `row_bytes` is the number of bytes of a scanline with its filter type: several threads may cut
    the input there. `memory` provides earlier streams, and keeps this one. Raises ValueError if a
    parameter is out of range.
    """
    params = level, strategy, mem_level, window_bits
    if memory is None or not memory.streams.budget:
        return _kernel.deflate(raw, *params, threads, row_bytes)[0]
    data = bytes(raw)
    key = (*params, len(data))
    known = memory.streams.get_as(key, MadeStream)
    if known is None:
        body, tokens = _kernel.deflate(data, *params, threads, row_bytes)
    else:
        body, tokens = _kernel.deflate_delta(
            known.raw, known.tokens, data, *params, threads, row_bytes, known.body
        )
    memory.streams.put(key, MadeStream(data, tokens, body), len(data) + len(tokens) + len(body))
    return body


def correct(body: bytes, raw: Bytes, memory: WorkerMemory | None = None) -> bytes | None:
    """Return a correction record that reproduces `body`, a deflate stream of `raw`, or None.

    The caller must check with `apply` that the record does so. `memory` provides models of
    encoders, and keeps the new one.
    """
    models = [] if memory is None else memory.models
    made = _kernel.correct(body, raw, b"".join(models))
    if made is None:
        return None
    record, model = made
    models[:] = [model, *(one for one in models if one != model)][:_MOST_MODELS]
    return record
