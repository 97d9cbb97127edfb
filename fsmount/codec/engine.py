"""Deflate streams by the native kernel, and what is remembered to make them sooner.

The kernel (`kernel/`, C) gives the bytes of classic zlib (`docs/deflate.md`). From the newest input
of each size with its tokens it makes a similar input's stream: of consecutive screenshots only what
changed is searched again. Streams that classic zlib does not write are made from a correction
record instead. The kernel's calls for scanlines and tiles are handed on as they are.
"""

from __future__ import annotations

from typing import NamedTuple

from fsmount.codec.lru import Lru
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

# Models of other encoders than zlib, newest first, that streams have been corrected with here.
_MOST_MODELS = 4
_models: list[bytes] = []

# `identify` names no more candidates than this.
MOST_CANDIDATES = 32


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


def correct(body: bytes, raw: Bytes) -> bytes | None:
    """A correction record that gives `body`, a deflate stream of `raw`, back; None: there is none.

    That it does is for the caller to check, with `apply`.
    """
    made = _kernel.correct(body, raw, b"".join(_models))
    if made is None:
        return None
    record, model = made
    if model in _models:
        _models.remove(model)
    _models[:] = [model, *_models[: _MOST_MODELS - 1]]
    return record
