"""The C kernel is required: messages if it cannot be built, and if it is not built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools

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


@pytest.fixture(name="bare")
def _bare(tmp_path: Path) -> Bare:
    return Bare(tmp_path)


class Bare:
    """A copy of the checkout, and an environment that has setuptools and pip, but no pyfuse3."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "source"
        ignored = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
        shutil.copytree(ROOT / "fsmount", self.source / "fsmount", ignore=ignored)
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, self.source)
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=60
        )
        self._python = folder / "venv" / "bin" / "python"
        compiler = shutil.which("cc")
        if compiler is None or shutil.which("pkg-config") is None:
            pytest.skip("needs a compiler and pkg-config")
        self.machine = os.environ | {
            "PYTHONPATH": str(Path(setuptools.__file__).parents[1]),
            "CC": compiler,
            "PIP_NO_INDEX": "1",
        }

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._python, *words],
            cwd=self.source,
            env=self.machine | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )


def named(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The packages that the last line of a failed setup.py names."""
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: fsmount and pyfuse3 are compiled here, which takes a C compiler")
    return last.split("apt-get install ")[1].split(";")[0].split()


def test_what_a_build_needs_is_named_before_it_begins(bare: Bare, tmp_path: Path) -> None:
    done = bare.run("setup.py", "dist_info")
    has_fuse = subprocess.run(["pkg-config", "--exists", "fuse3"], check=False).returncode == 0
    assert (done.returncode == 0) is has_fuse, done.stderr
    no_fuse = {"PKG_CONFIG_LIBDIR": "/nowhere", "PKG_CONFIG_PATH": ""}
    assert named(bare.run("setup.py", "dist_info", **no_fuse)) == ["libfuse3-dev"]
    done = bare.run("setup.py", "dist_info", PATH=str(tmp_path))
    assert named(done) == ["pkg-config", "libfuse3-dev"]
    done = bare.run("setup.py", "dist_info", CC="/nonexistent/cc", **no_fuse)
    assert named(done) == ["gcc", "libc6-dev", "python3-dev", "libfuse3-dev"]
    # A compiler that does not find Python's headers.
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\nshift\nexec {bare.machine["CC"]} "$@"\n')
    compiler.chmod(0o755)
    done = bare.run("setup.py", "dist_info", CC=str(compiler), **no_fuse)
    assert named(done) == ["python3-dev", "libfuse3-dev"]


def test_the_check_hinders_nobody_else(bare: Bare, tmp_path: Path) -> None:
    lacks_all = {"CC": "/nonexistent/cc", "PATH": str(tmp_path)}
    # Nothing is compiled for a source distribution.
    assert bare.run("setup.py", "sdist", **lacks_all).returncode == 0
    assert bare.run("setup.py", "dist_info", FSMOUNT_BUILD_ANYWAY="1", **lacks_all).returncode == 0
    # Who has pyfuse3 needs no libfuse3-dev.
    platlib = bare.run("-c", "import sysconfig; print(sysconfig.get_path('platlib'))").stdout
    (Path(platlib.strip()) / "pyfuse3").mkdir()
    assert bare.run("setup.py", "dist_info", PATH=str(tmp_path)).returncode == 0


def test_pip_shows_the_sentence_and_no_traceback(bare: Bare) -> None:
    done = bare.run(
        *("-m", "pip", "install", "--no-build-isolation", "."),
        PKG_CONFIG_LIBDIR="/nowhere",
        PKG_CONFIG_PATH="",
    )
    assert done.returncode == 1
    assert "apt-get install libfuse3-dev;" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


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
