"""Builds the C kernel. `pyproject.toml` holds all other settings.

If the build lacks a package, the last line of its output names it.
"""

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, CompileError, ExecError, PlatformError


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


setup(cmdclass={"build_ext": BuildKernel})
