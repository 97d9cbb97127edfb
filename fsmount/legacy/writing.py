"""Pictures as differences again, the way the blog's script leaves them. For worker processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fsmount.codec.images import jxl
from fsmount.errors import NotExact
from fsmount.legacy.pictures import read_png, stands_alone


def difference(before: str, path: str) -> bytes | None:
    """The `.jxl` that stands for the picture at `path`, decoded and compared; None: it stays a PNG.

    A picture stays if its shape is another one, or if 100,000 samples or more differ, or if its
    difference would be taken for a picture. Pictures with a palette stay, too, and those of 16
    bits, some of which libjxl 0.10.1 cannot encode at effort 1 without harm to the process.
    """
    try:
        first, second = read_png(Path(before)), read_png(Path(path))
    except NotExact:
        return None
    if first.palette or second.palette:
        return None
    if first.frame.shape != second.frame.shape or first.frame.dtype != second.frame.dtype:
        return None
    own = second.frame - first.frame
    if own.dtype != np.uint8 or stands_alone(first.frame, own) or not jxl.fits(own):
        return None
    data = jxl.encode(own, 1)
    return data if np.array_equal(first.frame + jxl.read(data), second.frame) else None
