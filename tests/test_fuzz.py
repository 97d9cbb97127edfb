"""The fuzz targets and the kernel of another processor, as far as the tools for them are here.

What a program of `tests/fuzz/Makefile` does is said there; this runs each for some seconds.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.paths import TESTS

FUZZ = TESTS / "fuzz"


def make(scratch: Path, target: str, *settings: str) -> str:
    """What `make` prints; it must succeed."""
    command = ["make", "-C", str(FUZZ), f"PYTHON={sys.executable}", f"OUT={scratch}", target]
    command += settings
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sanitizers(scratch: Path) -> bool:
    """Whether the compiler here links programs with the sanitizers, and finds the headers."""
    program = scratch / "program.c"
    program.write_text("#include <Python.h>\n#include <zlib.h>\nint main(void) { return 0; }\n")
    command = ["cc", f"-I{sysconfig.get_paths()['include']}", "-fsanitize=address,undefined"]
    try:
        done = subprocess.run(
            [*command, str(program), "-o", str(scratch / "program"), "-lz"],
            check=False, capture_output=True,
        )  # fmt: skip
    except FileNotFoundError:
        return False
    return done.returncode == 0


def test_at_random(tmp_path: Path) -> None:
    if not sanitizers(tmp_path):
        pytest.skip("no C compiler with sanitizers, or no zlib1g-dev")
    printed = make(tmp_path, "run", "SECONDS=6", "SEED=1")
    assert printed.count("nothing found") == 4


def test_aarch64(tmp_path: Path) -> None:
    if not shutil.which("aarch64-linux-gnu-gcc") or not shutil.which("qemu-aarch64"):
        pytest.skip("no gcc-aarch64-linux-gnu or no qemu-user: the kernel is not tested on aarch64")
    assert "100 cases, seed 1" in make(tmp_path, "aarch64", "CASES=100", "SEED=1")
