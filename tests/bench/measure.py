"""Measures an action: time, CPU time, memory and writes of a process and its children."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_EVERY_S = 0.05


@dataclass(frozen=True)
class Cost:
    """Wall seconds, CPU seconds of all cores, peak bytes of memory, bytes written to disk."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    written_bytes: int


def tell(found: Mapping[str, object], *, as_json: bool) -> None:
    """Print figures by name: as one JSON object, or as a table."""
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:28}{value:16,.3f}" if isinstance(value, float) else f"{name:28}{value!s:>16}")


def spend(action: Callable[[], None]) -> Cost:
    """Measure an action in a fresh process, without the start of the process.

    `action` must be picklable. Memory is the sum of the proportional shares (PSS) of the process
    and its children.
    """
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawning) as pool:
        return pool.submit(_spent, action).result()


def _spent(action: Callable[[], None]) -> Cost:
    with Watch(os.getpid()) as watch:
        cpu, written, start = _cpu(), _written(), time.perf_counter()
        action()
        wall = time.perf_counter() - start
    return Cost(wall, _cpu() - cpu, sum(watch.peak), _written() - written)


def _cpu() -> float:
    """CPU seconds of this process, and of the children that it has waited for."""
    who = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    return sum(sum(resource.getrusage(one)[:2]) for one in who)


def _written() -> int:
    """Bytes of dirtied pages so far minus discarded ones, of the same processes as :func:`_cpu`."""
    lines = Path("/proc/self/io").read_text().splitlines()
    counts = {name: int(value) for name, value in (line.split(": ") for line in lines)}
    return counts["write_bytes"] - counts["cancelled_write_bytes"]


def memory(pid: int) -> tuple[int, int]:
    """Bytes of memory now: (of a process, of all its descendants). Shared pages in proportion."""
    return _share(pid), sum(sum(memory(child)) for child in children(pid))


def children(pid: int) -> list[int]:
    """The running child processes of a process; empty if it has ended."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        files = [Path(f"/proc/{pid}/task/{task}/children") for task in tasks]
        return [int(child) for file in files for child in file.read_text().split()]
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    """The running child processes of a process, and theirs."""
    found = children(pid)
    return found + [each for child in found for each in descendants(child)]


def _share(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


class Watch:
    """Samples a process's memory from a thread. `peak` has the bytes of (process, children)."""

    def __init__(self, pid: int) -> None:
        self.peak = (0, 0)
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._look()
        self._look()

    def _look(self) -> None:
        now = memory(self._pid)
        self.peak = max(self.peak[0], now[0]), max(self.peak[1], now[1])


def processor_ns(pid: int) -> int:
    """CPU nanoseconds of a running process so far."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def timed(action: Callable[[], object]) -> float:
    """Wall seconds of an action."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def quantiles(values: Sequence[float]) -> tuple[float, float, float, float]:
    """The p50, p90, p99 and maximum of values."""
    ordered = sorted(values)
    at = [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.9, 0.99)]
    return at[0], at[1], at[2], ordered[-1]


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def drop_pages(folder: Path) -> None:
    """Make the next read of each file below a folder come from the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def machine() -> dict[str, object]:
    """The date, the processor, the number of cores, and the present load of this machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "?")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
    }
