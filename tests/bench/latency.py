"""Times of `stat` and of reading a file, some during encoding; and the memory of the daemon.

    python -m tests.bench.latency [FOLDER_OF_PNGS]

Prints distributions in milliseconds and no verdicts, because machines differ and are shared.
`lookup` asks for names that do not exist; the kernel never answers these by itself. A file is read
*again* when the kernel has its pages. For comparison, the benchmark measures the same on the disk,
and on the smallest filesystem that pyfuse3 can serve (:mod:`tests.bench.nothing`).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.bench import nothing
from tests.bench.measure import Watch, quantiles, timed
from tests.e2e.mounts import Mount
from tests.support.corpus import root

_COUNT = 2000


def row(name: str, seconds: Sequence[float]) -> str:
    """A line of the table with one distribution."""
    shown = "".join(f"{1000 * value:9.2f}" for value in quantiles(seconds))
    return f"{name:<34}{shown}   n={len(seconds)}"


def lookups(folder: Path, until: Callable[[int], bool]) -> list[float]:
    """Seconds of each `stat` on names that do not exist, while `until` returns True."""
    times: list[float] = []
    while until(len(times)):
        times.append(timed(lambda: os.path.lexists(folder / f"none-{len(times)}")))
        time.sleep(0.002)
    return times


def staged(mount: Mount) -> int:
    """Number of files that are not encoded yet."""
    return int(os.getxattr(mount.path, "user.fsmount.staged"))


def main() -> None:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else root() / "desk"
    files = sorted(source.glob("*.png"))
    with tempfile.TemporaryDirectory() as scratch:
        mount = Mount(Path(scratch))
        mount.start()
        try:
            print(f"{'milliseconds':<34}{'p50':>9}{'p90':>9}{'p99':>9}{'max':>9}")
            print(row("lookup, idle", lookups(mount.path, lambda n: n < _COUNT)))
            for file in files:
                shutil.copy(file, mount.path)
            names = [mount.path / file.name for file in files]
            with Watch(mount.pid) as watch:
                busy = lookups(mount.path, lambda n: n < 50 or (staged(mount) > 0 and n < 50_000))
            print(row("lookup, while encoding", busy))
            mount.stop(drain=True)
            mount.start()
            with Watch(mount.pid) as reading:
                first = [timed(partial(_first_byte, name)) for name in names]
                for name in names:
                    name.read_bytes()
            print(row("first byte, cold, in order", first))
            warm(files[-1], names[-1], Path(scratch))
            for what, peak in (("encoding", watch.peak), ("reading all", reading.peak)):
                shown = f"daemon {peak[0] >> 20} MiB, workers {peak[1] >> 20} MiB"
                print(f"peak memory {what}: {shown}")
            mount.stop()
        finally:
            mount.clean()


def warm(on_disk: Path, in_mount: Path, scratch: Path) -> None:
    """Read one cached file whole, from three filesystems in turn, and print the times."""
    (scratch / "nothing").mkdir()
    with nothing.mounted(scratch / "nothing", 1, 1, on_disk.stat().st_size):
        (made_up,) = (scratch / "nothing").glob("*/*")
        files = {"the disk": on_disk, "nothing": made_up, "fsmount": in_mount}
        buffer = bytearray(on_disk.stat().st_size)
        times: dict[str, list[float]] = {where: [] for where in files}
        for _ in range(_COUNT):
            for where, file in files.items():
                times[where].append(timed(partial(_read, file, buffer)))
    for where, seconds in times.items():
        print(row(f"whole file again, from {where}", seconds))


def _read(path: Path, buffer: bytearray) -> None:
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _first_byte(path: Path) -> bytes:
    with path.open("rb", buffering=0) as file:
        return file.read(1)


if __name__ == "__main__":
    main()
