"""The canvas: the position of a photo on it, and its samples there. Pure numpy, no codec.

A canvas is a square of ``box`` x ``box`` pixels, black around the photo. Its samples are YCbCr by
BT.601, full range, as in a JPEG file (JFIF 1.02). They are uint16 in quarter steps, 0 to 1020.
Chroma has half the width, and half the height too with 4:2:0. A chroma sample lies in the middle of
its pixels, as in JFIF.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Samples: TypeAlias = npt.NDArray[np.uint16]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Planes: TypeAlias = tuple[Bytes, Bytes, Bytes]
"""Luma and two chroma planes, each (height, width), uint8, 0 to 255."""

_NEUTRAL = 512


@dataclass(frozen=True, slots=True)
class Rect:
    """A photo's rectangle on the canvas, in pixels; ``x`` and ``y`` are even."""

    x: int
    y: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.x} {self.y} {self.width} {self.height}"


def centred_rect(width: int, height: int, box: int) -> Rect:
    """Return the rectangle of a picture in the middle of a canvas.

    Parameters
    ----------
    width, height : int
        The upright picture, in pixels.
    box : int
        Side of the canvas, in pixels.

    Returns
    -------
    Rect
        The picture shrunk to fit, never enlarged, with its aspect ratio kept.
    """
    scale = min(1.0, box / width, box / height)
    shown = max(1, round(width * scale)), max(1, round(height * scale))
    x, y = ((box - length) // 2 & ~1 for length in shown)
    return Rect(x, y, *shown)


def paint(planes: Planes, rect: Rect, box: int, *, halve_height: bool) -> list[Samples]:
    """Paint a picture on a new canvas.

    An odd last column or row is repeated once into the black, because the chroma samples there
    stand for both. Measured: their error then equals that of any other row.

    Parameters
    ----------
    planes : Planes
        Luma and chroma of the picture, all of the size of ``rect``.
    rect : Rect
        Where the picture goes.
    box : int
        Side of the canvas, in pixels.
    halve_height : bool
        Whether chroma has half the height too (4:2:0).

    Returns
    -------
    list of arrays
        Luma (box, box), then two of chroma; uint16, 0 to 1020.
    """
    down = 2 if halve_height else 1
    canvas = [np.zeros((box, box), np.uint16)]
    canvas += [np.full((box // down, box // 2), _NEUTRAL, np.uint16) for _ in planes[1:]]
    even = [np.pad(plane, ((0, rect.height & 1), (0, rect.width & 1)), "edge") for plane in planes]
    height, width = even[0].shape
    canvas[0][rect.y : rect.y + height, rect.x : rect.x + width] = even[0].astype(np.uint16) * 4
    for target, plane in zip(canvas[1:], even[1:], strict=True):
        pairs = plane.reshape(height // down, down, width // 2, 2)
        mean = pairs.sum(axis=(1, 3), dtype=np.uint16) * np.uint16(2 // down)
        top, left = rect.y // down, rect.x // 2
        target[top : top + height // down, left : left + width // 2] = mean
    return canvas


def crop(canvas: list[Bytes], rect: Rect) -> Planes:
    """Cut a photo out of a decoded canvas, with chroma repeated to the size of luma.

    ``canvas`` holds luma (box, box) and two smaller chroma planes, uint8. The result is contiguous.
    """
    luma = canvas[0][rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]
    down = canvas[0].shape[0] // canvas[1].shape[0]
    chroma = []
    for plane in canvas[1:]:
        part = plane[
            rect.y // down : (rect.y + rect.height + down - 1) // down,
            rect.x // 2 : (rect.x + rect.width + 1) // 2,
        ]
        whole = part.repeat(down, axis=0).repeat(2, axis=1)
        chroma.append(np.ascontiguousarray(whole[: rect.height, : rect.width]))
    return np.ascontiguousarray(luma), chroma[0], chroma[1]
