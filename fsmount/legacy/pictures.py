"""Pictures as samples: reading PNGs, and aligning a difference with the picture before it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsmount.codec.png import png
from fsmount.codec.png.samples import Frame, is_opaque
from fsmount.errors import NotExact
from fsmount.legacy.colours import MIN_KNOWN_COLOURS, share_of_known_colours


@dataclass(frozen=True)
class Picture:
    """The samples of a picture, and what its PNG needs besides.

    ``head`` holds the chunks PLTE and tRNS of a picture with a palette.
    """

    frame: Frame
    head: bytes = b""
    palette: bool = False

    @property
    def size(self) -> int:
        """The size of the samples, in bytes."""
        return self.frame.nbytes


def read_png(path: Path) -> Picture:
    """Read the samples of a PNG file; see :func:`read_picture`. Raises NotExact, OSError."""
    return read_picture(path.read_bytes())


def read_picture(data: bytes) -> Picture:
    """Read the samples of a PNG as image libraries return them.

    Samples of less than 8 bits are scaled to 8, except for the numbers of a palette.

    Raises
    ------
    NotExact
        If the PNG is malformed or of an unsupported kind.
    """
    frame, layout, head = png.read(data)
    if layout.colour_type == 3:
        return Picture(frame, _palette_chunks(head), palette=True)
    if layout.bit_depth < 8:
        frame = frame * np.uint8(255 // layout.maximum)
    return Picture(frame)


def _palette_chunks(head: bytes) -> bytes:
    """Return the chunks PLTE and tRNS of a file's head."""
    kept, at = b"", 0
    while at + 12 <= len(head):
        end = at + 12 + int.from_bytes(head[at : at + 4], "big")
        if head[at + 4 : at + 8] in (b"PLTE", b"tRNS"):
            kept += head[at:end]
        at = end
    return kept


def align(picture: Picture | None, difference: Frame) -> tuple[Picture | None, Frame]:
    """Return a picture and a difference in the same channels.

    A script may have read palette pictures as RGB, and dropped an alpha channel that is opaque.

    Parameters
    ----------
    picture : Picture or None
        The picture before.
    difference : Frame
        The samples of the difference, (height, width, channels), uint8 or uint16.

    Returns
    -------
    tuple of Picture or None, and Frame
        Both converted; None if the shapes do not fit.
    """
    if picture is None:
        return None, difference
    frame = picture.frame
    if frame.dtype == difference.dtype and frame.shape == difference.shape:
        return picture, difference
    if (
        frame.shape[:2] != difference.shape[:2]
        or frame.dtype != difference.dtype
        or difference.shape[2] != 3
    ):
        return None, difference
    if picture.palette:
        table = picture.head[8 : 8 + int.from_bytes(picture.head[:4], "big")]
        colours = np.zeros((256, 3), np.uint8)
        found = np.frombuffer(table, np.uint8)[: len(table) // 3 * 3].reshape(-1, 3)
        colours[: len(found)] = found
        return Picture(colours[frame[..., 0]]), difference
    if frame.shape[2] == 4 and is_opaque(frame):
        wide = np.dstack((difference, np.zeros(difference.shape[:2], difference.dtype)))
        # If the colours do not fit, the difference belongs to a picture that is missing.
        if share_of_known_colours(frame, wide, frame + wide) >= MIN_KNOWN_COLOURS:
            return picture, wide
    return None, difference


def same_picture(data: bytes, other: bytes) -> bool:
    """Return whether two PNG files have the same samples, channels and depth."""
    try:
        first, second = read_picture(data), read_picture(other)
    except NotExact:
        return False
    same = (first.palette, first.head) == (second.palette, second.head)
    same = same and first.frame.dtype == second.frame.dtype
    return same and np.array_equal(first.frame, second.frame)
