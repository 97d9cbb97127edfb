"""The unchanged files in an archive, for comparison: PNGs hardly get smaller."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.measure import size_of
from tests.bench.methods import Opener


def _run(*command: str | Path) -> bytes:
    return subprocess.run(command, check=True, capture_output=True).stdout


class _Archive:
    gives = "files"
    _tools: tuple[str, ...]

    def missing(self) -> str | None:
        absent = [tool for tool in self._tools if shutil.which(tool) is None]
        return f"{', '.join(absent)} not installed" if absent else None

    def size(self, folder: Path) -> int:
        return size_of(folder)

    def _read(self, folder: Path, name: str) -> bytes:
        raise NotImplementedError

    @contextmanager
    def opener(self, folder: Path) -> Iterator[Opener]:
        names = (folder / "names").read_text().split("\n")
        yield lambda number: self._read(folder, names[number])


class Squashfs(_Archive):
    """Stores the files in a squashfs image with zstd."""

    name = "squashfs, zstd"
    _tools = ("mksquashfs", "unsquashfs")

    def store(self, files: Sequence[Path], folder: Path) -> None:
        _run("mksquashfs", *files, folder / "image", "-comp", "zstd", "-no-progress", "-quiet")
        (folder / "names").write_text("\n".join(path.name for path in files))

    def read_all(self, folder: Path, out: Path) -> None:
        _run("unsquashfs", "-f", "-no-progress", "-d", out, folder / "image")

    def _read(self, folder: Path, name: str) -> bytes:
        return _run("unsquashfs", "-cat", folder / "image", name)


class TarZst(_Archive):
    """Stores the files by tar through zstd -19 with a window of 128 MiB.

    An open reads the archive up to the file.
    """

    name = "tar.zst -19 --long"
    _tools = ("tar", "zstd")

    def store(self, files: Sequence[Path], folder: Path) -> None:
        names = [path.name for path in files]
        cores = len(os.sched_getaffinity(0))
        packer = f"zstd -19 --long -T{cores}"
        where = files[0].parent
        _run("tar", "--force-local", "-I", packer, "-C", where, "-cf", folder / "tar.zst", *names)
        (folder / "names").write_text("\n".join(names))

    def read_all(self, folder: Path, out: Path) -> None:
        unpacker = "zstd -d --long"
        _run("tar", "--force-local", "-I", unpacker, "-C", out, "-xf", folder / "tar.zst")

    def _read(self, folder: Path, name: str) -> bytes:
        archive, unpacker = folder / "tar.zst", "zstd -d --long"
        return _run("tar", "--force-local", "-I", unpacker, "--occurrence", "-xOf", archive, name)
