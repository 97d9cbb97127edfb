"""Compares the native kernel with zlib on real frames, in one run.

    python -m tests.bench.deflate [FOLDER_OF_PNGS]

The kernel deflates frames whole, and from the frame before. The figures are CPU times of the
thread. The benchmark compares every stream with the stream of zlib.
"""

from __future__ import annotations

import statistics
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from fsmount.codec import _kernel
from tests.support.corpus import root

MODES = ((6, 1, 8), (9, 1, 9), (9, 0, 8), (6, 0, 8), (4, 0, 8), (1, 0, 8), (6, 3, 8))
LIKE_LIBPNG = (6, 1, 8, 15)


def scanlines(path: Path) -> bytes:
    """The filtered scanlines of a PNG."""
    data = path.read_bytes()
    at, stream = 8, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            stream.append(data[at + 8 : at + 8 + size])
        at += 12 + size
    return zlib.decompress(b"".join(stream))


P = ParamSpec("P")
T = TypeVar("T")


def timed(action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[float, T]:
    """Run an action; returns (CPU milliseconds of the thread, result)."""
    start = time.thread_time()
    result = action(*args, **kwargs)
    return 1000 * (time.thread_time() - start), result


def with_zlib(raw: bytes, level: int, strategy: int, mem_level: int, window_bits: int) -> bytes:
    maker = zlib.compressobj(level, zlib.DEFLATED, -window_bits, mem_level, strategy)
    return maker.compress(raw) + maker.flush()


def show(name: str, theirs: list[float], ours: list[float], differing: int) -> None:
    ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
    means = f"{statistics.mean(theirs):9.1f}{statistics.mean(ours):9.1f}"
    print(f"{name:32}{means}{ratio:9.1f}{differing:11}")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else root() / "desk"
    files = sorted(folder.glob("*.png"))
    few = [scanlines(path) for path in files[:: max(1, len(files) // 8)]]
    head = "level strategy memLevel, ms"
    print(f"{head:32}{'zlib':>9}{'kernel':>9}{'median x':>9}{'differing':>11}")
    for mode in MODES:
        theirs, ours, differing = [], [], 0
        for raw in few:
            a, wanted = timed(with_zlib, raw, *mode, 15)
            b, (made, _) = timed(_kernel.deflate, raw, *mode, 15)
            theirs.append(a)
            ours.append(b)
            differing += made != wanted
        show(" ".join(map(str, mode)), theirs, ours, differing)
    theirs, ours, differing = [], [], 0
    before = scanlines(files[0])
    body, tokens = _kernel.deflate(before, *LIKE_LIBPNG)
    for path in files[1:]:
        raw = scanlines(path)
        a, wanted = timed(with_zlib, raw, *LIKE_LIBPNG)
        b, (body, tokens) = timed(
            _kernel.deflate_delta, before, tokens, raw, *LIKE_LIBPNG, 1, 0, body
        )
        theirs.append(a)
        ours.append(b)
        differing += body != wanted
        before = raw
    show("6 1 8, from the frame before", theirs, ours, differing)


if __name__ == "__main__":
    main()
