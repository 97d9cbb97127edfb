"""Frames, and the rows of bytes that a PNG keeps (PNG specification, third edition, section 7.2).

A frame is a C-contiguous array (height, width, channels). Its dtype is uint8, or for 16 bits uint16
in native byte order. Channels: 1 is grey or palette index, 2 is grey and alpha, 3 is RGB, 4 is
RGBA. Samples of 1, 2 and 4 bits are unpacked, one to a byte.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.unsignedinteger[Any]]
Rows = npt.NDArray[np.uint8]

# Colour type -> samples of a pixel, and the allowed bit depths (section 11.2.1).
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# The passes of Adam7 (section 8.1): first row, step between rows, first column, step.
_ADAM7 = (
    (0, 8, 0, 8),
    (0, 8, 4, 8),
    (4, 8, 0, 4),
    (0, 4, 2, 4),
    (2, 4, 0, 2),
    (0, 2, 1, 2),
    (1, 2, 0, 1),
)

Area = tuple[slice, slice]
"""Rows and columns of a picture."""


@dataclass(frozen=True, slots=True)
class SampleLayout:
    """The picture that an IHDR describes.

    Valid: width and height are at least 1, and the colour type allows the bit depth.
    """

    width: int
    height: int
    colour_type: int
    bit_depth: int
    interlaced: bool = False

    @property
    def channels(self) -> int:
        """Samples of a pixel, alpha included."""
        return CHANNELS[self.colour_type]

    @property
    def has_alpha(self) -> bool:
        """Whether the pixels have an alpha sample."""
        return self.colour_type in (4, 6)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row without its filter type. Padding bits fill its last byte."""
        return (self.width * self.channels * self.bit_depth + 7) // 8

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel as filters count them: at least 1 (section 9.2)."""
        return max(1, self.channels * self.bit_depth // 8)

    @property
    def frame_bytes(self) -> int:
        """Bytes of the frame with all channels."""
        return self.width * self.height * self.channels * (2 if self.bit_depth == 16 else 1)

    @property
    def scanline_bytes(self) -> int:
        """Bytes of the input of deflate: all rows, each with its filter type."""
        if self.interlaced:
            return sum(part.scanline_bytes for part, _ in self.passes())
        return self.height * (1 + self.row_bytes)

    def passes(self) -> list[tuple[SampleLayout, Area]]:
        """Return the pictures whose rows the scanlines hold, one after the other.

        An interlaced picture has up to 7, and the pixels of each are in an area of the picture
        (section 8). A pass without pixels is left out. Any other picture is a single one.
        """
        if not self.interlaced:
            return [(self, np.s_[:, :])]
        found = []
        for top, down, left, right in _ADAM7:
            height, width = (
                (self.height - top - 1) // down + 1,
                (self.width - left - 1) // right + 1,
            )
            if height > 0 and width > 0:
                part = replace(self, width=width, height=height, interlaced=False)
                found.append((part, np.s_[top::down, left::right]))
        return found

    @property
    def rows(self) -> int:
        """Number of scanlines."""
        return sum(part.height for part, _ in self.passes())

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Sample type of the frame."""
        return np.uint16 if self.bit_depth == 16 else np.uint8

    @property
    def maximum(self) -> int:
        """Highest sample value."""
        return int((1 << self.bit_depth) - 1)


def from_rows(rows: Rows, layout: SampleLayout) -> Frame:
    """Return the frame, with all channels, of rows uint8 (height, row_bytes).

    Drops padding bits.
    """
    shape = layout.height, layout.width, layout.channels
    if layout.bit_depth == 16:
        return rows.view(">u2").astype(np.uint16).reshape(shape)
    if layout.bit_depth == 8:
        return rows.reshape(shape)
    if layout.bit_depth == 1:
        return np.unpackbits(rows, axis=1, count=layout.width).reshape(shape)
    shifts = np.arange(8 - layout.bit_depth, -1, -layout.bit_depth, dtype=np.uint8)
    samples = rows[:, :, np.newaxis] >> shifts & np.uint8(layout.maximum)
    return np.ascontiguousarray(samples.reshape(layout.height, -1)[:, : layout.width]).reshape(
        shape
    )


def to_rows(frame: Frame, layout: SampleLayout) -> Rows:
    """Return rows uint8 (height, bytes) of a frame; padding bits are zero.

    A frame without its alpha channel gives rows without alpha (8 and 16 bits only).
    """
    samples = np.ascontiguousarray(frame).reshape(layout.height, -1)
    if layout.bit_depth == 16:
        return samples.astype(">u2").view(np.uint8)
    if layout.bit_depth == 8:
        return samples.astype(np.uint8, copy=False)
    if layout.bit_depth == 1:
        return np.packbits(samples.astype(np.uint8, copy=False), axis=1)
    in_byte = 8 // layout.bit_depth
    padded = np.zeros((layout.height, layout.row_bytes * in_byte), np.uint8)
    padded[:, : layout.width] = samples
    rows = padded[:, 0::in_byte] << np.uint8(8 - layout.bit_depth)
    for place in range(1, in_byte):
        rows |= padded[:, place::in_byte] << np.uint8(8 - layout.bit_depth * (place + 1))
    return rows


def is_opaque(frame: Frame) -> bool:
    """Whether the last channel has the highest value of its dtype everywhere.

    `frame` is uint8 or uint16, shape (height, width, channels).
    """
    return bool(frame[..., -1].min() == np.iinfo(frame.dtype).max)


def drop_alpha(frame: Frame) -> Frame:
    """Return a copy of the frame without its last channel: shape (height, width, channels - 1).

    The dtype, uint8 or uint16, stays.
    """
    out = np.empty((*frame.shape[:2], frame.shape[2] - 1), frame.dtype)
    # numpy copies seven times as fast channel by channel as pixel by pixel.
    for channel in range(out.shape[2]):
        out[..., channel] = frame[..., channel]
    return out
