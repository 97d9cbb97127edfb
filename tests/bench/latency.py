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
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.corpus import root
from tests.e2e.mounts import Mount

_COUNT = 2000


def memory(pid: int) -> tuple[int, int]:
    """Resident bytes now of a process, and of its children (the workers)."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return _resident(str(pid)), sum(_resident(child) for child in children)


def _resident(pid: str) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next(
        (int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS")), 0
    )


class Watch:
    """Samples a process's memory from a thread; `peak` holds (process, children) in bytes."""

    def __init__(self, pid: int) -> None:
        self.peak = (0, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(pid,))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self, pid: int) -> None:
        while not self._stop.wait(0.05):
            try:
                now = memory(pid)
            except OSError:
                return
            self.peak = max(self.peak[0], now[0]), max(self.peak[1], now[1])


def timed(action: Callable[[], object]) -> float:
    """Seconds an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def row(name: str, seconds: Sequence[float]) -> str:
    """One line of a distribution."""
    ordered = sorted(seconds)
    at = [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.9, 0.99)]
    shown = "".join(f"{1000 * value:9.2f}" for value in (*at, ordered[-1]))
    return f"{name:<34}{shown}   n={len(ordered)}"


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
