"""A real desktop under Xvfb: maim writes shots into the mount, feh shows them from it."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.conftest import SIZE
from tests.e2e.mounts import Mount, missing

_NEEDED = ("Xvfb", "maim", "feh")
_ABSENT = [name for name in _NEEDED if shutil.which(name) is None]

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
    pytest.mark.skipif(bool(_ABSENT), reason=f"not installed: {_ABSENT}"),
]

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def shot(environment: dict[str, str], target: Path | None = None) -> bytes:
    """A screenshot of the virtual screen, written by maim."""
    command = ["maim", "--hidecursor", *([str(target)] if target else [])]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    return target.read_bytes() if target else done.stdout


@contextmanager
def shown(environment: dict[str, str], path: Path, wanted: Pixels) -> Iterator[None]:
    """Run feh with one picture on the whole screen. Enters when the screen shows exactly `wanted`.

    A viewer that starts together with its screen sometimes never appears. Then another is started.
    """
    command = ["feh", "--borderless", f"--geometry={SIZE[0]}x{SIZE[1]}+0+0", "--hide-pointer"]
    for _ in range(4):
        viewer = subprocess.Popen([*command, path], env=environment, stderr=subprocess.DEVNULL)
        try:
            if on_screen(environment, wanted):
                yield
                return
        finally:
            viewer.kill()
            viewer.wait()
    raise AssertionError("the viewer does not show the picture")


def pixels(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def picture(number: int) -> Image.Image:
    """A picture that differs for each number."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    plane = np.stack([x // 3, y // 2, (x // 40 * 37 + y // 40 * 11 + 60 * number)], axis=-1)
    return Image.fromarray(plane.astype(np.uint8))


def test_maim_writes_and_feh_shows(mount: Mount, display: dict[str, str], tmp_path: Path) -> None:
    taken: dict[str, bytes] = {}
    for number in range(3):
        picture(number).save(tmp_path / "shown.png")
        with shown(display, tmp_path / "shown.png", np.asarray(picture(number))):
            target = mount.path / f"2024-01-01T00:0{number}:00+00:00.png"
            taken[target.name] = shot(display, target)
    mount.stop(drain=True)
    mount.start()
    for name, data in taken.items():
        path = mount.path / name
        assert os.getxattr(path, "user.fsmount.kind") in (b"key", b"delta")
        with shown(display, path, pixels(data)):
            pass
        assert path.read_bytes() == data
    mount.stop()


def on_screen(environment: dict[str, str], wanted: Pixels) -> bool:
    """Whether the screen shows exactly `wanted` within 15 seconds."""
    end = time.monotonic() + 15
    while time.monotonic() < end:
        if np.array_equal(pixels(shot(environment)), wanted):
            return True
        time.sleep(0.1)
    return False
