"""The fuzz targets, and the kernel on other processors, if the tools for them are installed.

`tests/fuzz/Makefile` describes each program; these tests run each for some seconds.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.paths import CHECKOUT, TESTS

FUZZ = TESTS / "fuzz"
KERNEL = CHECKOUT / "fsmount" / "codec" / "kernel"


def run_make(scratch: Path, target: str, *settings: str) -> subprocess.CompletedProcess[str]:
    """Run `make`. Returns its exit status and its output."""
    command = ["make", "-C", str(FUZZ), f"PYTHON={sys.executable}", f"OUT={scratch}", target]
    command += settings
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)


def make(scratch: Path, target: str, *settings: str) -> str:
    """Run `make`. Asserts that it succeeds. Returns its output."""
    done = run_make(scratch, target, *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sanitizers(scratch: Path, *names: str) -> bool:
    """Whether the compiler here links programs with the sanitizers, and finds the headers."""
    program = scratch / "program.c"
    program.write_text("#include <Python.h>\n#include <zlib.h>\nint main(void) { return 0; }\n")
    command = ["cc", f"-I{sysconfig.get_paths()['include']}", f"-fsanitize={','.join(names)}"]
    try:
        done = subprocess.run(
            [*command, str(program), "-o", str(scratch / "program"), "-lz"],
            check=False, capture_output=True,
        )  # fmt: skip
    except FileNotFoundError:
        return False
    return done.returncode == 0


def test_at_random(tmp_path: Path) -> None:
    if not sanitizers(tmp_path, "address", "undefined"):
        pytest.skip("no C compiler with sanitizers, or no zlib1g-dev")
    printed = make(tmp_path, "run", "SECONDS=3", "SEED=1")
    assert printed.count("nothing found") == 4


def test_hostile_entries() -> None:
    command = [sys.executable, "-m", "tests.fuzz.hostile_entries", "3000", "7"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=CHECKOUT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing found" in done.stdout


def test_threads(tmp_path: Path) -> None:
    if not sanitizers(tmp_path, "thread"):
        pytest.skip("no C compiler with the thread sanitizer")
    printed = make(tmp_path, "threads", "SECONDS=10", "SEED=1")
    assert printed.count("nothing found") == 1


def test_the_thread_sanitizer_finds_a_race(tmp_path: Path) -> None:
    """The program of `test_threads`, without the lock around the queue of the kernel's threads."""
    if not sanitizers(tmp_path, "thread"):
        pytest.skip("no C compiler with the thread sanitizer")
    kernel = tmp_path / "kernel"
    shutil.copytree(KERNEL, kernel)
    (threads,) = kernel.rglob("threads.c")
    unlocked = re.sub(r"pthread_mutex_(un)?lock\(.*\);", "", threads.read_text())
    assert unlocked != threads.read_text()
    threads.write_text(unlocked)
    done = run_make(tmp_path, "threads", "SECONDS=20", "SEED=1", f"KERNEL={kernel}")
    assert done.returncode != 0
    assert "data race" in done.stderr


@pytest.mark.parametrize("machine", ["aarch64", "s390x"])
def test_another_machine(tmp_path: Path, machine: str) -> None:
    """The second machine, s390x, is big-endian."""
    if not shutil.which(f"{machine}-linux-gnu-gcc") or not shutil.which(f"qemu-{machine}"):
        pytest.skip(f"no {machine}-linux-gnu-gcc or no qemu-user")
    printed = make(tmp_path, machine, "CASES=60", "SEED=1", "SECONDS=2")
    assert "60 cases, seed 1" in printed
    assert printed.count("nothing found") == 1
