"""How close a decoded photo is to what was encoded: PSNR and SSIM of luma.

Both compare the photo as it stands on the canvas, so they say what the codec did to it, not what
shrinking did.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fsmount.album.canvas import Bytes

_SIDE = 8
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2
_BEST_DB = 99.0


@dataclass(frozen=True, slots=True)
class Quality:
    """SSIM (1.0: the same) and PSNR in dB (at most 99)."""

    ssim: float
    psnr: float


def measure(wanted: Bytes, got: Bytes) -> Quality:
    """Compare two planes of one shape, uint8."""
    error = float(np.mean(np.square(wanted.astype(np.float32) - got, dtype=np.float32)))
    psnr = _BEST_DB if error == 0 else min(_BEST_DB, 10 * math.log10(255**2 / error))
    return Quality(round(_ssim(wanted, got), 4), round(psnr, 2))


def _ssim(wanted: Bytes, got: Bytes) -> float:
    """Structural similarity (Wang et al. 2004), mean over squares of 8 x 8 that do not overlap."""
    first, second = _squares(wanted), _squares(got)
    mean1, mean2 = first.mean(1), second.mean(1)
    count = first.shape[1]
    var1 = np.einsum("ij,ij->i", first, first) / count - mean1**2
    var2 = np.einsum("ij,ij->i", second, second) / count - mean2**2
    both = np.einsum("ij,ij->i", first, second) / count - mean1 * mean2
    likeness = (2 * mean1 * mean2 + _C1) * (2 * both + _C2)
    return float(np.mean(likeness / ((mean1**2 + mean2**2 + _C1) * (var1 + var2 + _C2))))


def _squares(plane: Bytes) -> npt.NDArray[np.float64]:
    """(count, samples): the plane in squares; what is left at the right and bottom is dropped."""
    height, width = plane.shape
    tall, wide = min(_SIDE, height), min(_SIDE, width)
    rows, columns = height // tall, width // wide
    part = plane[: rows * tall, : columns * wide].reshape(rows, tall, columns, wide)
    return part.swapaxes(1, 2).reshape(rows * columns, tall * wide).astype(np.float64)
