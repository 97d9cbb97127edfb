"""Shared by the tests of the store: frames, PNG files of frames, and a disk that fails."""

from __future__ import annotations

import errno
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fsmount.codec.png.samples import Frame
from fsmount.store.disk.disk import Disk, pread
from tests.support.pngs import IEND, SIGNATURE, chunk

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def png(frame: Frame, *, level: int = 6, head: bytes = b"") -> bytes:
    """A PNG file of a frame (uint8 or uint16). All rows are unfiltered, and there is one IDAT."""
    height, width, channels = frame.shape
    depth = 8 * frame.dtype.itemsize
    sizes = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    rows = frame.reshape(height, -1).astype(">u2" if depth == 16 else np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = chunk(b"IHDR", sizes + bytes((depth, _COLOUR_TYPES[channels], 0, 0, 0)))
    return SIGNATURE + header + head + chunk(b"IDAT", zlib.compress(raw, level)) + IEND


def screens(count: int, *, seed: int = 1, height: int = 100, width: int = 150) -> list[Frame]:
    """A small desktop: a noisy wallpaper, windows that appear and disappear, a clock that ticks."""
    source = np.random.default_rng(seed)
    wallpaper = source.integers(0, 256, (height, width, 3), np.uint8)
    windows = [source.integers(0, 4, (40, 60, 3), np.uint8) for _ in range(3)]
    out = []
    for turn in range(count):
        frame = wallpaper.copy()
        for number, window in enumerate(windows):
            if (turn >> number) & 1:
                top, left = 10 + 15 * number, 5 + 30 * number
                area = frame[top : top + 40, left : left + 60]
                area[:] = window[: area.shape[0], : area.shape[1]]
        frame[:20, :40] = 30
        frame[4:10, 4:30] = source.integers(0, 256, (6, 26, 1), np.uint8)
        out.append(frame)
    return out


def _page(seed: int, height: int, width: int) -> Frame:
    """Black letters on white: words of many shapes, lines of equal height."""
    source = np.random.default_rng(seed)
    page = np.full((height, width, 3), 255, np.uint8)
    for top in range(4, height - 12, 18):
        for left in range(4, width - 10, 9):
            if source.random() < 0.85:
                shape = source.random((12, 8)) < 0.3
                page[top : top + 12, left : left + 8][shape] = 0
    return page


def scrolled(count: int, height: int = 240, width: int = 320) -> list[Frame]:
    """A page that scrolls under a fixed bar. After each step the page rests for one frame."""
    page = _page(3, height + 37 * count, width)
    frames = []
    for number in range(count):
        frame = page[37 * number : 37 * number + height].copy()
        frame[:16] = 40
        frames += [frame, frame.copy()]
        frames[-1][4:12, 4:30] = 200
    return frames


def stacked(count: int) -> list[Frame]:
    """Noise. Each frame has one tile of its own, and copies all others from the ones before."""
    chance = np.random.default_rng(5)
    frame = chance.integers(0, 256, (64, 96, 3), np.uint8)
    frames = []
    for number in range(count):
        frames.append(frame.copy())
        frame[:16, 16 * number : 16 * number + 16] ^= 1
    return frames


class FlakyDisk(Disk):
    """A disk that notes its calls. A call fails if `hook(call, path or fd)` returns an errno."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []
        self.hook: Callable[[str, object], int] = lambda call, what: 0

    def _ask(self, call: str, what: object) -> None:
        self.calls.append((call, what))
        code = self.hook(call, what)
        if code:
            raise OSError(code, f"told to fail in {call}")

    def fail_once(self, call: str, code: int = errno.EIO, *, skip: int = 0) -> None:
        """Make one `call` raise OSError, after `skip` others of the same name."""
        left = [skip]

        def hook(name: str, what: object) -> int:
            if name != call:
                return 0
            left[0] -= 1
            return code if left[0] == -1 else 0

        self.hook = hook

    def create(self, path: Path) -> int:
        self._ask("create", path)
        return super().create(path)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        try:
            self._ask("pwrite", fd)
        except OSError:
            super().pwrite(fd, memoryview(data)[: len(data) // 2], offset)
            raise
        return super().pwrite(fd, data, offset)

    def fsync(self, fd: int) -> None:
        self._ask("fsync", fd)

    def read_cached(self, fd: int, length: int, offset: int) -> bytes:
        # Some filesystems that tests run on cannot tell whether data is in memory.
        self._ask("read_cached", fd)
        return pread(fd, length, offset)

    def close(self, fd: int) -> None:
        super().close(fd)
        self._ask("close", fd)

    def link(self, old: Path, new: Path) -> None:
        self._ask("link", new)
        super().link(old, new)

    def unlink(self, path: Path) -> None:
        self._ask("unlink", path)
        super().unlink(path)

    def ftruncate(self, fd: int, size: int) -> None:
        self._ask("ftruncate", fd)
        super().ftruncate(fd, size)
