"""The exact deflate stream of a recipe, and the search for the parameters that made one.

The bytes of a deflate stream depend on the encoder, not on the format: only the zlib that wrote a
stream, or one that behaves the same to the bit, writes it again. Nearly every screenshot tool uses
classic zlib, so four numbers (level, strategy, memory level, window) stand for the whole stream;
those of other encoders are guessed from a model, with a record of where the guess is wrong.
Format: RFC 1951. `engine` makes the streams. Level 0 (stored) is not
searched for: its block lengths depend on the buffer sizes of the program around zlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fsmount.codec.deflate import engine
from fsmount.codec.memory import WorkerMemory

# How much of the input tells candidates apart first. All of it does where too many are left.
_FIRST_LOOK = 1 << 20


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


def deflate(
    raw: bytes | bytearray | memoryview,
    params: DeflateParams | Corrections,
    *,
    row_bytes: int = 0,
    threads: int = 1,
    memory: WorkerMemory | None = None,
) -> bytes:
    """Compress `raw` into a raw deflate body (no zlib header, no Adler-32).

    ValueError when `params` are out of range, or a record that shows to be damaged. `row_bytes`,
    `threads`, `memory`: as in `engine.deflate`.
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
    row_bytes: int = 0,
    threads: int = 1,
    memory: WorkerMemory | None = None,
) -> DeflateParams | Corrections | None:
    """Find out how `deflate(raw, ...)` gives exactly `body`; None if there is no way.

    `hints` come first. Then the kernel reads from the stream what can have made it. `row_bytes`,
    `threads`: as in `engine.deflate`, for the trials of `hints`; `memory`: as there.
    """
    body = bytes(body)
    hints = tuple(dict.fromkeys(hints))
    for params in hints:
        if not params.valid():
            continue
        made = deflate(raw, params, row_bytes=row_bytes, threads=threads, memory=memory)
        if made == body:
            return params
    return _identify(raw, body, hints, memory) or _correct(raw, body, memory)


def _identify(
    raw: bytes | bytearray | memoryview,
    body: bytes,
    failed: Sequence[DeflateParams],
    memory: WorkerMemory | None,
) -> DeflateParams | None:
    """Parameters that give `body`, other than those that `failed`."""
    tried = set(failed)
    for limit in (_FIRST_LOOK, len(raw)):
        found = [DeflateParams(*one) for one in engine.identify(body, raw, limit)]
        for params in found:
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
    """A record that is proved to give `body` and is worth keeping."""
    record = engine.correct(body, raw, memory)
    if record is None or len(record) >= len(body) or engine.apply(record, raw) != body:
        return None
    return Corrections(record)
