"""Stores each picture by itself as lossless JPEG XL."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from fsmount.codec.images import jxl
from tests.bench.measure import size_of
from tests.bench.methods import Opener, Pixels, pixels


class JpegXl:
    """Files named by place and channels: ``000007.3``."""

    gives = "pixels"

    def __init__(self, effort: int) -> None:
        self.name = f"JPEG XL, effort {effort}"
        self._effort = effort

    def missing(self) -> str | None:
        return None

    def store(self, files: Sequence[Path], folder: Path) -> None:
        with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            keep = partial(_keep, folder, self._effort)
            list(pool.map(keep, range(len(files)), files, chunksize=4))

    def size(self, folder: Path) -> int:
        return size_of(folder)

    def read_all(self, folder: Path, out: Path) -> None:
        with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(_read, sorted(folder.iterdir()), chunksize=4))

    @contextmanager
    def opener(self, folder: Path) -> Iterator[Opener]:
        kept = sorted(folder.iterdir())
        yield lambda number: _decode(kept[number])


def _keep(folder: Path, effort: int, number: int, file: Path) -> None:
    frame = pixels(file)
    (folder / f"{number:06}.{frame.shape[2]}").write_bytes(jxl.encode(frame, effort))


def _decode(path: Path) -> Pixels:
    found: Pixels = jxl.decode(path.read_bytes(), int(path.suffix[1:]))
    return found


def _read(path: Path) -> None:
    _decode(path)
