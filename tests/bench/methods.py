"""The methods of the comparison: their interface, how to run one, and the row of its figures."""

from __future__ import annotations

import io
import random
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.bench.measure import drop_pages, quantiles, size_of, spend

Pixels = NDArray[np.uint8]
Opener = Callable[[int], "bytes | Pixels"]


class Method(Protocol):
    """A way to keep pictures. It is picklable, because :func:`spend` runs it in another process."""

    name: str
    gives: str
    """The form of the output: "files" (the same bytes), "pixels", or "lossy" (other pixels)."""

    def missing(self) -> str | None:
        """Why the method cannot run here; None if it can."""

    def store(self, files: Sequence[Path], folder: Path) -> None:
        """Store the pictures in the empty `folder`. `files` are all files of one other folder."""

    def size(self, folder: Path) -> int:
        """Bytes of the stored pictures."""

    def read_all(self, folder: Path, out: Path) -> None:
        """Make every picture again. Files go to `out`; pixels are discarded."""

    def opener(self, folder: Path) -> AbstractContextManager[Opener]:
        """A context with a function that opens one picture by its place in the run."""


@dataclass(frozen=True)
class Row:
    """Figures of one method. Rates are pictures a second; `open_ms` is p50, p90, p99, maximum."""

    name: str
    gives: str
    bytes: int
    share: float
    in_rate: float
    in_cpu_s: float
    in_peak_bytes: int
    written: float
    out_rate: float
    out_cpu_s: float
    out_peak_bytes: int
    open_ms: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        """The figures as plain values."""
        return asdict(self)


class Wrong(Exception):
    """A method gave back other bytes or pixels than it was given."""


def pixels(path: Path) -> Pixels:
    """The samples of a picture file: 8 bits, shape (height, width, 3 or 4)."""
    return decoded(path.read_bytes())


def decoded(data: bytes) -> Pixels:
    """The samples of the bytes of a picture file, as :func:`pixels`."""
    image: Image.Image = Image.open(io.BytesIO(data))
    if image.mode not in ("RGB", "RGBA"):
        image = image.convert(
            "RGBA" if "A" in image.mode or "transparency" in image.info else "RGB"
        )
    return np.asarray(image)


def run(method: Method, files: Sequence[Path], scratch: Path, opens: int) -> Row:
    """Store the pictures, read all back, open some at random. Raises :class:`Wrong`."""
    source, folder, out = scratch / "given", scratch / "kept", scratch / "out"
    for each in (source, folder, out):
        each.mkdir(parents=True)
    files = [Path(shutil.copy2(path, source)) for path in files]
    given = sum(path.stat().st_size for path in files)
    try:
        came = spend(partial(method.store, files, folder))
        kept = method.size(folder)
        went = spend(partial(method.read_all, folder, out))
        if method.gives == "files" and size_of(out) != given:
            raise Wrong(f"{method.name}: {size_of(out)} bytes came out, {given} went in")
        times = open_some(method, files, folder, opens)
    finally:
        shutil.rmtree(scratch)
    return Row(
        name=method.name,
        gives=method.gives,
        bytes=kept,
        share=kept / given,
        in_rate=len(files) / came.wall_s,
        in_cpu_s=came.cpu_s,
        in_peak_bytes=came.peak_bytes,
        written=came.written_bytes / kept,
        out_rate=len(files) / went.wall_s,
        out_cpu_s=went.cpu_s,
        out_peak_bytes=went.peak_bytes,
        open_ms=tuple(1000 * second for second in quantiles(times)) if times else (),
    )


def open_some(method: Method, files: Sequence[Path], folder: Path, opens: int) -> list[float]:
    """Seconds of each cold open of a random picture. Raises :class:`Wrong`.

    Before each open the stored files are dropped from the page cache. After it the picture is
    compared with the original.
    """
    times = []
    numbers = random.Random(1).sample(range(len(files)), min(opens, len(files)))
    with method.opener(folder) as opened:
        for number in numbers:
            drop_pages(folder)
            start = time.perf_counter()
            found = opened(number)
            times.append(time.perf_counter() - start)
            if method.gives == "lossy":
                same = True
            elif isinstance(found, bytes):
                same = found == files[number].read_bytes()
            else:
                wanted = pixels(files[number])[..., : found.shape[2]]
                same = np.array_equal(wanted, found)
            if not same:
                raise Wrong(f"{method.name}: picture {number} is not what was given")
    return times
