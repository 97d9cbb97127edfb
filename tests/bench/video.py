"""Lossless video by ffmpeg, one picture a second. An open seeks to the second of the picture.

The time of an open includes the start of ffmpeg (see :func:`start_seconds`). Alpha is lost.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from tests.bench.measure import size_of, timed
from tests.bench.methods import Opener, Pixels, pixels

_GOP = "250"
X264 = ("-c:v", "libx264rgb", "-preset", "medium", "-qp", "0", "-g", _GOP)
FFV1 = ("-c:v", "ffv1", "-level", "3", "-slices", "4", "-pix_fmt", "bgr0")
AV1 = (
    *("-c:v", "libaom-av1", "-cpu-used", "4", "-row-mt", "1", "-g", _GOP, "-pix_fmt", "gbrp"),
    *("-aom-params", "lossless=1:tune-content=screen"),
)


def ffmpeg(*arguments: str | Path) -> bytes:
    """Run ffmpeg; returns its standard output. Raises CalledProcessError if it fails."""
    command = ["ffmpeg", "-v", "error", "-nostdin", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def start_seconds() -> float:
    """Median seconds that ffmpeg takes to make one picture of 16 x 16 pixels from nothing."""
    tiny = ("-f", "lavfi", "-i", "color=size=16x16", "-frames:v", "1", "-f", "rawvideo", "-")
    return sorted(timed(lambda: ffmpeg(*tiny)) for _ in range(9))[4]


class Video:
    """Stores the pictures in one Matroska file."""

    gives = "pixels"

    def __init__(self, name: str, codec: tuple[str, ...], shape: tuple[int, ...]) -> None:
        """`shape` is (height, width, channels) of the pictures; empty if their sizes differ."""
        self.name = name
        self._codec = codec
        self._shape = shape

    def missing(self) -> str | None:
        if shutil.which("ffmpeg") is None:
            return "ffmpeg is not installed"
        if self._codec[1].encode() not in ffmpeg("-encoders"):
            return f"this ffmpeg has no {self._codec[1]}"
        return None if self._shape else "the pictures are not all of one size"

    def store(self, files: Sequence[Path], folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            for number, path in enumerate(files):
                (Path(scratch) / f"{number:06}.png").symlink_to(path.resolve())
            run = ("-framerate", "1", "-i", f"{scratch}/%06d.png")
            ffmpeg(*run, *self._codec, folder / "video.mkv")

    def size(self, folder: Path) -> int:
        return size_of(folder)

    def read_all(self, folder: Path, out: Path) -> None:
        ffmpeg("-i", folder / "video.mkv", "-f", "rawvideo", "-pix_fmt", "rgb24", "-y", "/dev/null")

    @contextmanager
    def opener(self, folder: Path) -> Iterator[Opener]:
        def opened(number: int) -> Pixels:
            place = ("-ss", str(number), "-i", folder / "video.mkv", "-frames:v", "1")
            data = ffmpeg(*place, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
            return np.frombuffer(data, np.uint8).reshape(*self._shape[:2], 3)

        yield opened


def common_shape(files: Sequence[Path]) -> tuple[int, ...]:
    """The shape (height, width, channels) of the pictures; () if their sizes differ."""
    sizes = {Image.open(path).size for path in files}
    return pixels(files[0]).shape if len(sizes) == 1 else ()
