"""The method that fsmount comes from ("Losslessly Compressing 25000 Images"), written anew.

The method compares each picture with the one before. If both have the same shape and fewer than
100,000 samples differ, it stores the difference modulo 256 as JPEG XL (lossless, effort 1). The
other pictures stay PNG. The method keeps pixels, not the files' bytes. Its decompressor writes
PNGs, so the timed part includes this.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from fsmount.codec.images import jxl
from tests.bench.measure import size_of
from tests.bench.methods import Opener, Pixels, decoded, pixels

_FEW_SAMPLES = 100_000


class Blog:
    """Files named by place: ``000007.png`` is an unchanged file, ``000007.jxl`` a difference."""

    name = "blog's method"
    gives = "pixels"

    def missing(self) -> str | None:
        return None

    def store(self, files: Sequence[Path], folder: Path) -> None:
        (folder / "000000.png").write_bytes(files[0].read_bytes())
        with ProcessPoolExecutor() as pool:
            stored = pool.map(difference, itertools.pairwise(files), chunksize=4)
            for number, (suffix, data) in enumerate(stored, start=1):
                (folder / f"{number:06}.{suffix}").write_bytes(data)

    def size(self, folder: Path) -> int:
        return size_of(folder)

    def read_all(self, folder: Path, out: Path) -> None:
        runs: list[list[Path]] = []
        for path in sorted(folder.iterdir()):
            if path.suffix == ".png":
                runs.append([])
            runs[-1].append(path)
        with ProcessPoolExecutor() as pool:
            list(pool.map(_undo, runs))

    @contextmanager
    def opener(self, folder: Path) -> Iterator[Opener]:
        kept = sorted(folder.iterdir())
        yield lambda number: _frame(kept[: number + 1])


def difference(pair: tuple[Path, Path]) -> tuple[str, bytes]:
    """Encode the second picture; returns (suffix, bytes) of its stored form."""
    first, second = (path.read_bytes() for path in pair)
    a, b = decoded(first), decoded(second)
    if a.shape != b.shape or np.count_nonzero(a != b) >= _FEW_SAMPLES:
        return "png", second
    return "jxl", jxl.encode(b - a, 1)


def _add(frame: Pixels, path: Path) -> Pixels:
    added: Pixels = frame + jxl.decode(path.read_bytes(), frame.shape[2])
    return added


def _undo(run: list[Path]) -> None:
    """Decode a run (a PNG and the differences after it) to PNGs."""
    frame = pixels(run[0])
    for path in run[1:]:
        frame = _add(frame, path)
        Image.fromarray(frame).save(io.BytesIO(), "png")


def _frame(kept: list[Path]) -> Pixels:
    """Decode the last picture, from the last PNG through all differences after it."""
    start = max(number for number, path in enumerate(kept) if path.suffix == ".png")
    frame = pixels(kept[start])
    for path in kept[start + 1 :]:
        frame = _add(frame, path)
    return frame
