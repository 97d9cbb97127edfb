"""Builds the C kernel. `pyproject.toml` holds all other settings.

A build from source fails early, in one sentence, if the machine lacks a package for it.
"""

import os
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.dist_info import dist_info
from setuptools.errors import CCompilerError, CompileError, ExecError, PlatformError

ANYWAY = "FSMOUNT_BUILD_ANYWAY"


def compiles(source: str) -> bool:
    """Return whether the compiler takes C text with Python's headers."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    include = f"-I{sysconfig.get_path('include')}"
    try:
        done = subprocess.run(
            [*compiler, include, "-fsyntax-only", "-x", "c", "-"],
            input=source.encode(),
            capture_output=True,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0


def has_fuse() -> bool:
    """Return whether pkg-config finds libfuse 3."""
    done = subprocess.run(["pkg-config", "--exists", "fuse3"], capture_output=True, check=False)
    return done.returncode == 0


def missing() -> Iterator[str]:
    """The Debian packages that a build of fsmount, or of pyfuse3 (which has no wheels), lacks."""
    if not compiles("#include <stdio.h>"):
        yield "gcc"
        yield "libc6-dev"
    if not compiles("#include <Python.h>"):
        yield "python3-dev"
    if (Path(sysconfig.get_path("platlib")) / "pyfuse3").exists():
        return
    if shutil.which("pkg-config") is None:
        yield "pkg-config"
        yield "libfuse3-dev"
    elif not has_fuse():
        yield "libfuse3-dev"


class DescribeWheel(dist_info):
    """`dist_info` with a check of the machine.

    pip runs it first when it builds from source: before it looks at the dependencies, of which
    pyfuse3 fails with a traceback. It does not run it for wheels and source distributions.
    """

    def run(self) -> None:
        """Describe the wheel. Raises PlatformError with the names of missing packages."""
        packages = [] if os.environ.get(ANYWAY) else list(missing())
        if packages:
            raise PlatformError(
                "fsmount and pyfuse3 are compiled here, which takes a C compiler, pkg-config and "
                "the headers of Python and libfuse3 (Debian: apt-get install "
                f"{' '.join(packages)}; {ANYWAY}=1 leaves this check out)"
            )
        super().run()


class BuildKernel(build_ext):
    """`build_ext` with an error message for people."""

    def build_extension(self, ext: Extension) -> None:
        """Compile the kernel. Raises CompileError with the names of the needed Debian packages."""
        try:
            super().build_extension(ext)
        except (CCompilerError, ExecError, PlatformError) as error:
            raise CompileError(
                f"fsmount's C kernel cannot be built ({error}): it takes a C compiler and Python's "
                "headers (Debian: apt-get install build-essential python3-dev)"
            ) from None


setup(
    cmdclass={"build_ext": BuildKernel, "dist_info": DescribeWheel},
    # The kernel keeps to the limited API: one wheel serves Python 3.11 and all later ones.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
