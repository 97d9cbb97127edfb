"""Photographs for the wallpapers of generated screenshots: from a Debian package, or made up.

The package is used as it is installed. Otherwise `apt-get download` fetches it, once, to the folder
`fsmount-bench` in the cache of the user. Without apt or a network the photographs are made up: a
few gradients, blurred shapes, and the noise of a sensor.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

_PACKAGE = "mate-backgrounds"
_FOLDER = "usr/share/backgrounds/mate/nature"
_MADE_UP = 4


def photographs() -> tuple[list[Image.Image], str]:
    """Some photographs, always in the same order, and where they come from."""
    for root in (Path("/"), _cache() / _PACKAGE):
        if found := sorted((root / _FOLDER).glob("*.jpg")):
            return _opened(found)
    if _fetch():
        return _opened(sorted((_cache() / _PACKAGE / _FOLDER).glob("*.jpg")))
    return made_up(), f"made up ({_PACKAGE} is not here)"


def made_up() -> list[Image.Image]:
    """Pictures with some properties of photographs. Each run makes the same ones."""
    return [_made_up(seed) for seed in range(_MADE_UP)]


def _opened(paths: list[Path]) -> tuple[list[Image.Image], str]:
    return [Image.open(path).convert("RGB") for path in paths], f"photographs of {_PACKAGE}"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fsmount-bench"


def _fetch() -> bool:
    """Fetch and unpack the package. Returns whether that succeeded."""
    _cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_cache()) as scratch:
        try:
            subprocess.run(
                ["apt-get", "download", _PACKAGE], cwd=scratch, check=True, capture_output=True
            )
            (package,) = Path(scratch).glob("*.deb")
            unpacked = Path(scratch) / "unpacked"
            subprocess.run(["dpkg-deb", "-x", package, unpacked], check=True, capture_output=True)
            unpacked.rename(_cache() / _PACKAGE)
        except (OSError, subprocess.CalledProcessError):
            return False
    return True


def _made_up(seed: int, width: int = 1920, height: int = 1200) -> Image.Image:
    source = np.random.default_rng(seed)
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    ends = source.integers(20, 220, (3, 3))
    slope = ends[0] + across[..., None] * (ends[1] - ends[0]) + down[..., None] * (ends[2] - 128)
    coarse = source.integers(0, 256, (height // 40, width // 40, 3), np.uint8)
    shapes = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    blurred = np.asarray(shapes.filter(ImageFilter.GaussianBlur(6)), np.float64)
    noise = source.normal(0, 2.5, slope.shape)
    return Image.fromarray(np.clip(0.6 * slope + 0.4 * blurred + noise, 0, 255).astype(np.uint8))
