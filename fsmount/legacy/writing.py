"""Encode pictures as differences, as the blog's scripts do. For worker processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fsmount.codec.images import jxl
from fsmount.errors import NotExact
from fsmount.legacy.decoding import is_whole_picture
from fsmount.legacy.pictures import read_png


def encode_difference(before: str, path: str) -> bytes | None:
    """Encode the difference of two PNGs, decode it again and compare.

    A picture stays a PNG if its shape differs, if 100,000 or more samples differ, or if its
    difference would be taken for a picture. Pictures with a palette stay too, and so do those of
    16 bits: libjxl 0.10.1 crashes on some of these at effort 1.

    Parameters
    ----------
    before : str
        Path of the PNG before it.
    path : str
        Path of the PNG.

    Returns
    -------
    bytes or None
        The ``.jxl``, or None if the picture stays a PNG.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    try:
        first, second = read_png(Path(before)), read_png(Path(path))
    except NotExact:
        return None
    if first.palette or second.palette:
        return None
    if first.frame.shape != second.frame.shape or first.frame.dtype != second.frame.dtype:
        return None
    difference = second.frame - first.frame
    if difference.dtype != np.uint8 or not jxl.fits(difference):
        return None
    if is_whole_picture(first.frame, difference):
        return None
    data = jxl.encode(difference, 1)
    same = np.array_equal(first.frame + jxl.read(data), second.frame)
    return data if same else None
