"""Screens of all sizes: import, opens and memory, against the blog's method in the same run.

    python -m tests.bench.screens [SIZE...] [--frames 60] [--opens 12]

SIZE is as in 1920x1080. The screenshots are generated (:mod:`tests.bench.screenshots`): several
desktops side by side, photographs as wallpapers. For each size it prints:

- *in*: pictures a second, and CPU seconds a picture, of all processes;
- *cold*: the median of opens at random. For fsmount each is in a mount just made, whose worker has
  opened a tiny picture before, with nothing of the store in the page cache;
- *in order*: a picture, when all are read one after the other. For fsmount through a mount; for the
  blog's method this is its decompressor, which uses all cores, divided by the pictures;
- *MiB*: most memory of all processes while importing, and of the mount while reading in order.

Opens are wall time. They are also given in units of one stock deflate (zlib, level 6, Z_FILTERED)
of the scanlines, which runs in between. fsmount runs with its defaults and compares all bytes; the
blog's method compares nothing.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from tests.bench.blog import Blog
from tests.bench.deflate import LIKE_LIBPNG, scanlines, with_zlib
from tests.bench.measure import Watch, drop_pages, machine, spend, timed
from tests.bench.methods import Method, Wrong, open_some
from tests.bench.ours import Fsmount, fsmount
from tests.bench.screenshots import fill
from tests.bench.wallpapers import photographs
from tests.e2e.mounts import Mount

_SIZES = ("1366x768", "1920x1080", "2560x1440", "3840x2160", "7680x2160")


@dataclass(frozen=True)
class Row:
    """Figures of one method. Seconds are those of one picture; peaks are bytes."""

    bytes: int
    in_rate: float
    in_cpu_s: float
    in_peak: int
    cold_s: float
    in_order_s: float
    out_peak: int

    def shown(self, unit: float) -> str:
        """A line of the table; `unit` is the seconds of a stock deflate."""
        opens = "".join(f"{1000 * s:10.0f}{s / unit:7.2f}" for s in (self.cold_s, self.in_order_s))
        peaks = f"{self.in_peak >> 20:9}{self.out_peak >> 20:9}"
        return f"{self.bytes:14,}{self.in_rate:9.1f}{self.in_cpu_s:9.3f}{opens}{peaks}"


def blog(files: Sequence[Path], scratch: Path, opens: int) -> Row:
    """Measure the blog's method."""
    method, folder, out = Blog(), scratch / "blog", scratch / "out"
    folder.mkdir()
    out.mkdir()
    came = spend(partial(method.store, files, folder))
    went = spend(partial(method.read_all, folder, out))
    times = open_some(method, files, folder, opens)
    return Row(
        bytes=method.size(folder),
        in_rate=len(files) / came.wall_s,
        in_cpu_s=came.cpu_s / len(files),
        in_peak=came.peak_bytes,
        cold_s=statistics.median(times),
        in_order_s=went.wall_s / len(files),
        out_peak=went.peak_bytes,
    )


def ours(files: Sequence[Path], scratch: Path, opens: int) -> tuple[Row, float]:
    """Measure fsmount. Also returns the median seconds of a stock deflate, on the same clock."""
    method: Method = Fsmount()
    came = spend(partial(method.store, files, scratch))
    size = method.size(scratch)
    tiny = scratch / "tiny.png"
    Image.new("RGB", (8, 8)).save(tiny)
    fsmount("import", tiny, scratch / "store")
    (scratch / "mnt").mkdir()
    mount = Mount(scratch)
    some = random.Random(1).sample(files, min(opens, len(files)))
    times, units = [], []
    for file in some:
        times.append(_cold(mount, tiny, file))
        raw = scanlines(file)
        units.append(timed(lambda raw=raw: with_zlib(raw, *LIKE_LIBPNG)))  # type: ignore[misc]
    in_order, peak = _in_order(mount, files)
    row = Row(
        bytes=size,
        in_rate=len(files) / came.wall_s,
        in_cpu_s=came.cpu_s / len(files),
        in_peak=came.peak_bytes,
        cold_s=statistics.median(times),
        in_order_s=in_order,
        out_peak=peak,
    )
    return row, statistics.median(units)


def _cold(mount: Mount, tiny: Path, file: Path) -> float:
    """Seconds to read one file in a mount just made. Raises :class:`Wrong`."""
    mount.start()
    try:
        _read(mount, tiny)
        drop_pages(mount.store)
        seconds = _read(mount, file)
        mount.stop()
    finally:
        mount.clean()
    return seconds


def _in_order(mount: Mount, files: Sequence[Path]) -> tuple[float, int]:
    """Seconds a file when all are read in order, and the most memory meanwhile."""
    drop_pages(mount.store)
    mount.start()
    try:
        with Watch(mount.pid) as watch:
            seconds = sum(_read(mount, file) for file in files)
        mount.stop()
    finally:
        mount.clean()
    return seconds / len(files), sum(watch.peak)


def _read(mount: Mount, file: Path) -> float:
    """Seconds to read a file through the mount. Raises :class:`Wrong`."""
    found: list[bytes] = []
    seconds = timed(lambda: found.append((mount.path / file.name).read_bytes()))
    if found[0] != file.read_bytes():
        raise Wrong(f"fsmount: {file.name} is not what was given")
    return seconds


def measure(size: str, frames: int, opens: int, pictures: Sequence[Image.Image]) -> None:
    """Measure screens of one size, and print the figures."""
    width, height = map(int, size.split("x"))
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        files = fill(scratch / "in", width, height, frames, pictures)
        total = sum(file.stat().st_size for file in files)
        rival = blog(files, scratch, opens)
        found, unit = ours(files, scratch, opens)
    print(f"{size}, {frames} pictures, {total:,} bytes; a stock deflate: {1000 * unit:.0f} ms")
    print(f"{'  blog':12}{rival.shown(unit)}")
    print(f"{'  fsmount':12}{found.shown(unit)}")
    ratios = (
        f"{found.bytes / rival.bytes:14.3f}{found.in_rate / rival.in_rate:9.2f}"
        f"{found.in_cpu_s / rival.in_cpu_s:9.2f}{found.cold_s / rival.cold_s:17.2f}"
        f"{found.in_order_s / rival.in_order_s:17.2f}"
    )
    print(f"{'  ratio':12}{ratios}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", default=_SIZES, metavar="SIZE")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--opens", type=int, default=12)
    chosen = parser.parse_args()
    pictures, origin = photographs()
    print(machine(), f"wallpapers: {origin}", sep="\n")
    head = f"{'bytes':>14}{'in/s':>9}{'CPU s':>9}{'cold ms':>10}{'defl.':>7}"
    head += f"{'order ms':>10}{'defl.':>7}{'MiB in':>9}{'MiB out':>9}"
    print(f"{'':12}{head}")
    for size in chosen.sizes:
        measure(size, chosen.frames, chosen.opens, pictures)


if __name__ == "__main__":
    main()
