"""Where a photo stands on the canvas, and its samples there: pure numpy, no codec.

A canvas is a square of `box` x `box` pixels, black around the photo. Its samples are YCbCr by
BT.601, full range, as in a JPEG file (JFIF), in steps of a quarter: uint16, 0 to 1020. Chroma is
halved in width, and in height too with 4:2:0; its samples lie in the middle of the pixels they
stand for, again as in JFIF.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Samples: TypeAlias = npt.NDArray[np.uint16]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Planes: TypeAlias = tuple[Bytes, Bytes, Bytes]
"""Luma (height, width) and two of chroma, uint8, 0 to 255."""

_NEUTRAL = 512


@dataclass(frozen=True, slots=True)
class Rect:
    """A photo's place on the canvas, in pixels; x and y are even."""

    x: int
    y: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.x} {self.y} {self.width} {self.height}"


def place(width: int, height: int, box: int) -> Rect:
    """The middle of a canvas for a picture of this size: shrunk to fit, never enlarged."""
    scale = min(1.0, box / width, box / height)
    shown = max(1, round(width * scale)), max(1, round(height * scale))
    x, y = ((box - length) // 2 & ~1 for length in shown)
    return Rect(x, y, *shown)


def paint(planes: Planes, rect: Rect, box: int, *, halve_height: bool) -> list[Samples]:
    """The canvas of a picture: `planes` are its luma and whole (not halved) chroma.

    An odd last row or column is repeated once into the black, since chroma samples there stand
    for both (measured: its error becomes that of any other row).
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


def cut(canvas: list[Bytes], rect: Rect) -> Planes:
    """A photo out of its canvas, chroma repeated to the size of luma."""
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
