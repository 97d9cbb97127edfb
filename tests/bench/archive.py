"""An archive of many screenshots, made while it is taken in: rates, memory, and how it opens then.

    python -m tests.bench.archive [--files 25000] [--portion 1000] [--json]

The screenshots are generated (:mod:`tests.bench.screenshots`): 16 days and the last portion, about
one picture a minute in the full run and fewer in shorter ones. Nights are idle, with a clock and a
graph. By day somebody is at work, with pauses. Every two days the machine starts anew, with a
screen of another size. So the first and the last portion show the same hours on screens of equal
size.

Each portion is made first, then copied into a mount at the speed of the encoder, and its sources
are deleted. A rate counts from the first copy until all files of the portion are encoded. After
each portion it prints the CPU seconds a file, and the memory of the daemon and of its workers. The
last lines are those of the whole archive: bytes of the index and of all that is kept twice in
`packs/`, a mount, `ls -l`, opens at random with nothing of the store in the page cache (compared by
their SHA-256), and `check`.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from PIL import Image

from fsmount.store.layout import Layout
from tests.bench.latency import staged
from tests.bench.measure import Watch, drop_pages, machine, memory, quantiles, tell, timed
from tests.bench.methods import Wrong
from tests.bench.mounted import cpu
from tests.bench.ours import Fsmount, fsmount
from tests.bench.scale import mounted, run
from tests.bench.screenshots import PngWriter, Screen
from tests.bench.synthetic import names
from tests.bench.wallpapers import photographs
from tests.e2e.mounts import Mount

_DAYS = 16
_DAYS_UP = 2  # between two starts of the machine
_WORK = 0.35, 0.75  # part of a day
_PAUSES = 0.2  # part of the work
_SIZES = ((1366, 768), (1920, 1080), (1366, 768), (2560, 1440))
_OPENS = 100
# Files that wait in `staging/`: the copying program does not run ahead of the encoder.
_AHEAD = 48


def shots(
    files: int,
    a_day: int,
    pictures: Sequence[Image.Image],
    sizes: Sequence[tuple[int, int]] = _SIZES,
) -> Iterator[bytes]:
    """The PNGs of an archive, in order. `sizes` are those of the screens, in turn."""
    chance = random.Random(1)
    for number in range(files):
        day, minute = divmod(number, a_day)
        if day % _DAYS_UP == minute == 0:
            start = day // _DAYS_UP
            at = start % len(sizes)
            screen = Screen(*sizes[at], [pictures[at % len(pictures)]], seed=start)
            writer = PngWriter()
        yield writer.png(screen.image)
        works = _WORK[0] <= minute / a_day < _WORK[1] and chance.random() > _PAUSES
        (screen.act if works else screen.tick)()


@dataclass
class Growth:
    """What was measured after each portion."""

    files: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    daemon: list[int] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)


def grow(
    mount: Mount, source: Iterator[tuple[str, bytes]], portion: int, scratch: Path
) -> tuple[Growth, dict[str, bytes], int]:
    """Copy all files into a mount. Returns the figures, the files' SHA-256, and their bytes."""
    growth, sums, total = Growth(), dict[str, bytes](), 0
    while some := list(islice(_written(source, scratch), portion)):
        for path in some:
            sums[path.name] = hashlib.sha256(path.read_bytes()).digest()
            total += path.stat().st_size
        before = cpu(mount.pid)
        with Watch(mount.pid) as watch:
            seconds = timed(lambda some=some: _copy(mount, some))  # type: ignore[misc]
        growth.files.append(len(sums))
        growth.rates.append(len(some) / seconds)
        growth.cpu_s.append((cpu(mount.pid) - before) / len(some))
        growth.daemon.append(memory(mount.pid)[0])
        growth.workers.append(watch.peak[1])
        shown = f"{len(sums):8} files{growth.rates[-1]:9.1f} files/s{growth.cpu_s[-1]:9.3f} CPU s"
        peaks = f"daemon {watch.peak[0] >> 20}, workers {watch.peak[1] >> 20}"
        print(f"{shown}   MiB: daemon {growth.daemon[-1] >> 20} (most: {peaks})", flush=True)
        for path in some:
            path.unlink()
    return growth, sums, total


def _written(source: Iterator[tuple[str, bytes]], folder: Path) -> Iterator[Path]:
    """Write each file to a folder; gives its path."""
    for name, data in source:
        (folder / name).write_bytes(data)
        yield folder / name


def _copy(mount: Mount, files: Sequence[Path]) -> None:
    """Copy files into a mount, and wait until they are encoded."""
    for path in files:
        shutil.copy2(path, mount.path)
        while staged(mount) > _AHEAD:
            time.sleep(0.02)
    while staged(mount):
        time.sleep(0.02)


def opening(store: Path, folder: Path, sums: dict[str, bytes]) -> dict[str, object]:
    """Mount the store, list it, and open some files. Raises :class:`Wrong`."""
    drop_pages(store)
    start = time.perf_counter()
    with mounted(store, folder) as pid:
        took = time.perf_counter() - start
        listed = run("ls", "-l", folder)
        times = []
        for name in random.Random(1).sample(sorted(sums), min(_OPENS, len(sums))):
            drop_pages(store)
            start = time.perf_counter()
            data = (folder / name).read_bytes()
            times.append(time.perf_counter() - start)
            if hashlib.sha256(data).digest() != sums[name]:
                raise Wrong(f"{name} is not what was given")
        used = memory(pid)
    opens = dict(zip(("p50", "p90", "p99", "max"), quantiles(times), strict=True))
    return {
        "mount_s": took,
        "ls_s": listed,
        **{f"open_{name}_ms": 1000 * seconds for name, seconds in opens.items()},
        "daemon_after_opens_bytes": used[0],
        "workers_after_opens_bytes": used[1],
    }


def measure(
    files: int,
    portion: int,
    pictures: Sequence[Image.Image],
    sizes: Sequence[tuple[int, int]] = _SIZES,
) -> dict[str, object]:
    """Make the archive and measure all figures."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "in").mkdir()
        mount = Mount(scratch)
        mount.start()
        try:
            made = (path.decode() for path in names(files))
            a_day = max(8, (files - portion) // _DAYS)
            source = zip(made, shots(files, a_day, pictures, sizes), strict=True)
            growth, sums, total = grow(mount, source, portion, scratch / "in")
            mount.stop(drain=True)
        finally:
            mount.clean()
        layout = Layout(mount.store)
        copies = [path for path in layout.packs.iterdir() if path.suffix != ".zip"]
        return {
            **machine(),
            "files": files,
            "png_bytes": total,
            "store_bytes": Fsmount().size(scratch),
            "index_bytes_per_file": layout.index.stat().st_size / files,
            "copies_bytes_per_file": sum(path.stat().st_size for path in copies) / files,
            "first_rate": growth.rates[0],
            "last_rate": growth.rates[-1],
            "last_to_first": growth.rates[-1] / growth.rates[0],
            "first_cpu_s": growth.cpu_s[0],
            "last_cpu_s": growth.cpu_s[-1],
            "daemon_first_bytes": growth.daemon[0],
            "daemon_last_bytes": growth.daemon[-1],
            "workers_peak_bytes": max(growth.workers),
            **opening(mount.store, mount.path, sums),
            "check_s": timed(lambda: fsmount("check", mount.store)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=25_000)
    parser.add_argument("--portion", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    pictures, origin = photographs()
    print(f"wallpapers: {origin}")
    found = measure(chosen.files, chosen.portion, pictures)
    tell(found, as_json=chosen.json)


if __name__ == "__main__":
    main()
