"""What this process may use of its machine: processor cores, and memory for caches.

A container or a service often may use less than the machine has. The kernel says so in the control
group of the process and in the groups above it (cgroups(7); version 2, or version 1 where its
controllers are mounted at their usual places).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fsmount.errors import UsageError

JOBS = "FSMOUNT_JOBS"
"""The variable of the environment that says how many jobs run at a time."""
MOST_CACHE_BYTES = 2 << 30
LEAST_CACHE_BYTES = 128 << 20
# A cache is worth less than what other programs do with the memory.
_SHARE = 8
_ROOT = Path("/")


def choose_jobs(count: int) -> None:
    """Let this process and those that it starts run `count` jobs at a time."""
    os.environ[JOBS] = str(count)


def chosen_jobs() -> int | None:
    """Return how many jobs the user wants to run at a time; None if nothing is chosen.

    Raises :class:`UsageError`.
    """
    text = os.environ.get(JOBS)
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise UsageError(f"{JOBS}={text!r} is not a number of processes; write for example 4")
    return int(text)


def cores(root: Path = _ROOT) -> int:
    """Return the number of cores that this process may keep busy, at least 1.

    It is the number of :func:`chosen_jobs`, if there is one. Otherwise it counts the cores of its
    affinity mask, up to the processor time that its control groups get. `root` is the folder that
    has ``proc`` and ``sys``. Raises :class:`UsageError`.
    """
    if (chosen := chosen_jobs()) is not None:
        return chosen
    most = float(len(os.sched_getaffinity(0)))
    for group in _groups(root, "cpu"):
        limit = _words(group / "cpu.max")
        if not limit:
            limit = _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
        with suppress(ValueError, ZeroDivisionError):
            quota, period = map(int, limit)
            if quota > 0:
                most = min(most, quota / period)
    return max(1, math.ceil(most))


def default_cache_bytes(root: Path = _ROOT) -> int:
    """Return the bytes of the caches of a store, if nobody has chosen a number.

    This is an eighth of the available memory, but at least LEAST_CACHE_BYTES and at most
    MOST_CACHE_BYTES. `root` is the folder that has ``proc`` and ``sys``.
    """
    share = _available(root) // _SHARE
    return min(max(share, LEAST_CACHE_BYTES), MOST_CACHE_BYTES)


def _available(root: Path) -> int:
    """Return the bytes of memory that this process may still use; 0 if the system does not say."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) << 10)
    for group in _groups(root, "memory"):
        limit = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
        used = _words(group / "memory.current") or _words(group / "memory.usage_in_bytes")
        with suppress(ValueError, IndexError):
            found.append(max(int(limit[0]) - int(used[0]) + _reclaimable(group), 0))
    return min(found, default=0)


def _reclaimable(group: Path) -> int:
    """Return the bytes of cached files that the kernel drops first if a group needs memory."""
    lines = _words(group / "memory.stat")
    names = dict(zip(lines[::2], lines[1::2], strict=False))
    return int(names.get("total_inactive_file") or names.get("inactive_file") or 0)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups of this process, the innermost first."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, names, place = line.split(":", 2)
            if number == "0":
                top = root / "sys/fs/cgroup"
            elif controller in names.split(","):
                top = root / "sys/fs/cgroup" / controller
            else:
                continue
            # In a container, the folder of a group may be the top one, whatever its path says.
            parts = Path(place.lstrip("/")).parts
            for count in range(len(parts), -1, -1):
                yield top.joinpath(*parts[:count])


def _words(path: Path) -> list[str]:
    """Return the words of a file; [] if it cannot be read."""
    with suppress(OSError):
        return path.read_text().split()
    return []
