"""Pictures as differences again, the way the blog's script leaves them. For worker processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fsmount.codec import jxl
from fsmount.errors import NotExact
from fsmount.legacy.names import instant
from fsmount.legacy.pictures import MOST_DIFFERING, read_png


def in_order(paths: Sequence[Path]) -> list[Path]:
    """The PNGs whose names tell a time, in the order in which they hang on each other."""
    timed = [(instant(path.stem), os.fsencode(path.name), path) for path in paths]
    return [path for when, _, path in sorted(timed, key=_key) if when is not None]


def _key(item: tuple[int | None, bytes, Path]) -> tuple[int, bytes]:
    return item[0] or 0, item[1]


def difference(before: str, path: str) -> bytes | None:
    """The `.jxl` that stands for the picture at `path`, decoded and compared; None: it stays a PNG.

    Pictures that are the same file twice, or of another shape, or with 100,000 samples or more that
    differ, stay; so do those with a palette, and of 16 bits, some of which libjxl 0.10.1 cannot
    encode at effort 1 without harm to the process.
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
    if own.dtype != np.uint8 or np.count_nonzero(own) >= MOST_DIFFERING or not jxl.fits(own):
        return None
    data = jxl.encode(own, 1)
    return data if np.array_equal(first.frame + jxl.read(data), second.frame) else None
