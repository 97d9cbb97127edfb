"""How small and how fast: fsmount against the method it grew from, in one run on the same cores.

    python -m tests.bench.size [FOLDER_OF_PNGS]

The rival ("Losslessly Compressing 25000 Images"): each picture whose shape is that of the one
before, and of whose samples fewer than 100,000 differ from it, is stored as JPEG XL (lossless,
effort 1) of the difference modulo 256; the others stay PNG. It keeps pixels, not the files' bytes.
"""

from __future__ import annotations

import io
import itertools
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import trio
from numpy.typing import NDArray
from PIL import Image

from fsmount.codec import jxl
from fsmount.store import config
from fsmount.store.disk import Disk
from fsmount.store.exporting import Exporter
from fsmount.store.importing import Importer
from fsmount.store.store import Store
from tests.corpus import root

_FEW_SAMPLES = 100_000


def pixels(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)))


def difference(pair: tuple[Path, Path]) -> tuple[bool, bytes]:
    """The stored form of the second picture: (is a JPEG XL difference, bytes)."""
    first, second = (path.read_bytes() for path in pair)
    a, b = pixels(first), pixels(second)
    if a.shape != b.shape or np.count_nonzero(a != b) >= _FEW_SAMPLES:
        return False, second
    return True, jxl.encode(b - a, 1)


def undo(run: list[tuple[bool, bytes]]) -> int:
    """Decode a run (a PNG and the differences behind it) to PNGs as the rival's script does."""
    frame = pixels(run[0][1])
    total = 0
    for _, data in run[1:]:
        frame = frame + jxl.decode(data, frame.shape[2])
        written = io.BytesIO()
        Image.fromarray(frame).save(written, "png")
        total += written.tell()
    return total


def rival(files: list[Path]) -> tuple[int, float, float]:
    """Bytes stored, seconds to store, seconds to read all back."""
    with ProcessPoolExecutor() as pool:
        start = time.perf_counter()
        stored = [(False, files[0].read_bytes())]
        stored += pool.map(difference, itertools.pairwise(files), chunksize=4)
        took = time.perf_counter() - start
        runs: list[list[tuple[bool, bytes]]] = []
        for one in stored:
            if one[0]:
                runs[-1].append(one)
            else:
                runs.append([one])
        start = time.perf_counter()
        list(pool.map(undo, runs))
        back = time.perf_counter() - start
    return sum(len(data) for _, data in stored), took, back


async def ours(folder: Path, scratch: Path) -> tuple[int, float, float]:
    """The same three figures of a store, exactness check and hashes included."""
    config.make(scratch / "store", Disk())
    store = Store.open(scratch / "store")
    async with store.running():
        start = time.perf_counter()
        await Importer(store, lambda files, count: None).add(folder, b"")
        took = time.perf_counter() - start
    size = store.stats()["stored_bytes"]
    store.close()
    store = Store.open(scratch / "store")
    async with store.running():
        start = time.perf_counter()
        await Exporter(store, scratch / "out", lambda files, count: None, force=False).export(b"")
        back = time.perf_counter() - start
    store.close()
    return size, took, back


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else root() / "desk"
    files = sorted(folder.glob("*.png"))
    total = sum(path.stat().st_size for path in files)
    with tempfile.TemporaryDirectory() as scratch:
        figures = {
            "rival": rival(files),
            "fsmount": trio.run(ours, folder, Path(scratch)),
        }
    print(f"{len(files)} files, {total:,} bytes, {len(os.sched_getaffinity(0))} cores")
    print(f"{'':10}{'bytes':>14}{'ratio':>8}{'in, files/s':>13}{'out, files/s':>14}")
    for name, (size, took, back) in figures.items():
        rates = f"{len(files) / took:13.1f}{len(files) / back:14.1f}"
        print(f"{name:10}{size:14,}{total / size:8.1f}{rates}")
    a, b = figures["fsmount"], figures["rival"]
    print(f"{'ratio':10}{a[0] / b[0]:14.3f}{'':8}{b[1] / a[1]:13.2f}{b[2] / a[2]:14.2f}")


if __name__ == "__main__":
    main()
