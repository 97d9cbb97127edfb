"""The quality of a decoded photo: PSNR and SSIM of its luma.

Both compare planes of the canvas, so they measure the loss of the codec and not that of shrinking.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fsmount.album.canvas import Bytes

_SQUARE_PIXELS = 8
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2
_MAX_PSNR_DB = 99.0


@dataclass(frozen=True, slots=True)
class Quality:
    """SSIM (1.0 means identical) and PSNR in dB (at most 99)."""

    ssim: float
    psnr: float


def measure(original: Bytes, decoded: Bytes) -> Quality:
    """Compare a decoded luma plane with the original; both (height, width), uint8."""
    error = float(np.mean(np.square(original.astype(np.float32) - decoded, dtype=np.float32)))
    psnr = _MAX_PSNR_DB if error == 0 else min(_MAX_PSNR_DB, 10 * math.log10(255**2 / error))
    return Quality(round(_ssim(original, decoded), 4), round(psnr, 2))


def _ssim(original: Bytes, decoded: Bytes) -> float:
    """Structural similarity (Wang et al. 2004): the mean over 8 x 8 squares that do not overlap."""
    first, second = _squares(original), _squares(decoded)
    mean1, mean2 = first.mean(1), second.mean(1)
    count = first.shape[1]
    var1 = np.einsum("ij,ij->i", first, first) / count - mean1**2
    var2 = np.einsum("ij,ij->i", second, second) / count - mean2**2
    both = np.einsum("ij,ij->i", first, second) / count - mean1 * mean2
    likeness = (2 * mean1 * mean2 + _C1) * (2 * both + _C2)
    return float(np.mean(likeness / ((mean1**2 + mean2**2 + _C1) * (var1 + var2 + _C2))))


def _squares(plane: Bytes) -> npt.NDArray[np.float64]:
    """Cut a plane into squares (count, samples); the rest at the right and bottom is dropped."""
    height, width = plane.shape
    square_height, square_width = min(_SQUARE_PIXELS, height), min(_SQUARE_PIXELS, width)
    rows, columns = height // square_height, width // square_width
    part = plane[: rows * square_height, : columns * square_width].reshape(
        rows, square_height, columns, square_width
    )
    return (
        part.swapaxes(1, 2).reshape(rows * columns, square_height * square_width).astype(np.float64)
    )
