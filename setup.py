"""Builds the C kernel; `pyproject.toml` says everything else.

Where something for the build is missing, the last line says what to install.
"""

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, CompileError, ExecError, PlatformError


class BuildKernel(build_ext):
    """`build_ext` with a sentence for people."""

    def build_extension(self, ext: Extension) -> None:
        """Compile the kernel. CompileError names the Debian packages that it takes."""
        try:
            super().build_extension(ext)
        except (CCompilerError, ExecError, PlatformError) as error:
            raise CompileError(
                f"fsmount's C kernel cannot be built ({error}): it takes a C compiler and Python's "
                "headers (Debian: apt-get install build-essential python3-dev)"
            ) from None


setup(cmdclass={"build_ext": BuildKernel})
