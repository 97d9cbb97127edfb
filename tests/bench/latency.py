"""How long `stat` and a file's first bytes take while the daemon is busy encoding, and its memory.

    python -m tests.bench.latency [FOLDER_OF_PNGS]

Prints distributions in milliseconds, not verdicts: machines differ and are shared. `lookup` asks
for names that do not exist, which the kernel never answers by itself.
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

from tests.bench.measure import Watch, quantiles, timed
from tests.corpus import root
from tests.e2e.mounts import Mount

_COUNT = 2000


def row(name: str, seconds: Sequence[float]) -> str:
    """One line of a distribution."""
    shown = "".join(f"{1000 * value:9.2f}" for value in quantiles(seconds))
    return f"{name:<34}{shown}   n={len(seconds)}"


def lookups(folder: Path, until: Callable[[int], bool]) -> list[float]:
    """Times of `stat` on names that are not there."""
    times: list[float] = []
    while until(len(times)):
        times.append(timed(lambda: os.path.lexists(folder / f"none-{len(times)}")))
        time.sleep(0.002)
    return times


def staged(mount: Mount) -> int:
    """Files not encoded yet."""
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
                again = [timed(name.read_bytes) for name in names]
            print(row("first byte, cold, in order", first))
            print(row("whole file, again", again))
            for what, peak in (("encoding", watch.peak), ("reading all", reading.peak)):
                shown = f"daemon {peak[0] >> 20} MiB, workers {peak[1] >> 20} MiB"
                print(f"peak memory {what}: {shown}")
            mount.stop()
        finally:
            mount.clean()


def _first_byte(path: Path) -> bytes:
    with path.open("rb", buffering=0) as file:
        return file.read(1)


if __name__ == "__main__":
    main()
