"""The C kernel is required: messages if it cannot be built, and if it is not built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fsmount
from tests.support.paths import CHECKOUT

ROOT = CHECKOUT
# Runs setup.py of the project with one small extension in place of the kernel.
_DRIVER = """
import runpy, setuptools
real = setuptools.setup
made = [setuptools.Extension("small", ["small.c"])]
setuptools.setup = lambda **given: real(name="small", version="1", ext_modules=made, **given)
runpy.run_path("setup.py")
"""


@pytest.mark.parametrize("compiler", ["/nonexistent/cc", "false"])
def test_a_missing_compiler_is_told_in_one_sentence(tmp_path: Path, compiler: str) -> None:
    """A compiler that fails gives the same message: it fails without the headers of Python."""
    shutil.copy(ROOT / "setup.py", tmp_path)
    (tmp_path / "small.c").write_text("#include <Python.h>\n")
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER, "build_ext"],
        cwd=tmp_path,
        env=os.environ | {"CC": compiler},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: fsmount's C kernel cannot be built (")
    assert "apt-get install build-essential python3-dev" in last
    assert "Traceback" not in done.stderr


def test_the_kernel_is_not_optional() -> None:
    assert "optional = " not in (ROOT / "pyproject.toml").read_text()


def test_a_checkout_without_a_kernel_says_what_to_do(tmp_path: Path) -> None:
    package = Path(fsmount.__file__).parent
    without = shutil.ignore_patterns("_kernel*.so", "__pycache__")
    shutil.copytree(package, tmp_path / "fsmount", ignore=without)
    done = subprocess.run(
        [sys.executable, "-m", "fsmount", "stats", "nowhere"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("fsmount: fsmount's C kernel is not built here (")
    assert "contrib/install" in line
