from __future__ import annotations

import os
from pathlib import Path

import pytest

from fsmount.work.machine import (
    LEAST_CACHE_BYTES,
    MOST_CACHE_BYTES,
    cores,
    default_cache_bytes,
)

GIB = 1 << 30


def machine(root: Path, files: dict[str, str], memory: int = 0, group: str = "0::/a/b\n") -> Path:
    """The folder of a machine; `files` are those of control groups, by path."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group)
    total = f"MemTotal:  {99 << 20} kB\n"
    (root / "proc/meminfo").write_text(f"{total}MemAvailable:   {memory >> 10} kB\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(autouse=True)
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))


@pytest.mark.parametrize(
    ("limit", "wanted"),
    [("max 100000", 16), ("400000 100000", 4), ("250000 100000", 3), ("5000 100000", 1)],
)
def test_cores_of_a_group(tmp_path: Path, limit: str, wanted: int) -> None:
    assert cores(machine(tmp_path, {"a/b/cpu.max": limit})) == wanted


def test_the_narrowest_of_all_groups_counts(tmp_path: Path) -> None:
    files = {"a/b/cpu.max": "800000 100000", "a/cpu.max": "300000 100000"}
    assert cores(machine(tmp_path, files)) == 3


def test_in_a_container_the_top_folder_is_the_group(tmp_path: Path) -> None:
    assert cores(machine(tmp_path, {"cpu.max": "200000 100000"})) == 2


def test_cores_of_version_1(tmp_path: Path) -> None:
    group = "4:cpu,cpuacct:/x\n2:memory:/x\n"
    files = {"cpu/x/cpu.cfs_quota_us": "200000", "cpu/x/cpu.cfs_period_us": "100000"}
    assert cores(machine(tmp_path, files, group=group)) == 2


@pytest.mark.parametrize("text", ["", "x y", "-1 100000", "1 0", "1 2 3"])
def test_a_limit_that_says_nothing_is_none(tmp_path: Path, text: str) -> None:
    assert cores(machine(tmp_path, {"a/b/cpu.max": text})) == 16
    assert cores(tmp_path / "nothing") == 16


@pytest.mark.parametrize(
    ("memory", "wanted"),
    [(8 * GIB, GIB), (3 * GIB, 3 * GIB // 8), (GIB // 2, LEAST_CACHE_BYTES), (64 * GIB, 2 * GIB)],
)
def test_an_eighth_of_the_memory(tmp_path: Path, memory: int, wanted: int) -> None:
    assert default_cache_bytes(machine(tmp_path, {}, memory)) == wanted


def test_the_memory_of_a_group(tmp_path: Path) -> None:
    files = {
        "a/memory.max": f"{4 * GIB}",
        "a/memory.current": f"{3 * GIB}",
        "a/memory.stat": f"anon 5\nfile 7\ninactive_file {GIB}\n",
        "a/b/memory.max": "max",
    }
    assert default_cache_bytes(machine(tmp_path, files, 64 * GIB)) == GIB // 4


def test_the_memory_of_version_1(tmp_path: Path) -> None:
    group = "4:cpu:/x\n2:memory:/x\n"
    files = {
        "memory/x/memory.limit_in_bytes": f"{4 * GIB}",
        "memory/x/memory.usage_in_bytes": f"{2 * GIB}",
    }
    assert default_cache_bytes(machine(tmp_path, files, 64 * GIB, group)) == GIB // 4


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    assert default_cache_bytes(tmp_path) == LEAST_CACHE_BYTES


def test_this_machine() -> None:
    assert 1 <= cores() <= 16
    assert LEAST_CACHE_BYTES <= default_cache_bytes() <= MOST_CACHE_BYTES
