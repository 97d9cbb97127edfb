"""Loads imagecodecs, if it is installed: its codecs let other threads run while they work.

Below Python 3.13 it is an extra. Without it, fsmount uses Pillow for WebP and jxlpy for JPEG XL.
These hold the GIL and copy more: a WebP image of a million pixels takes 19 ms instead of 6. Without
imagecodecs, fsmount stores JPEGs unchanged.
"""

from __future__ import annotations

import functools
from types import ModuleType


@functools.cache
def imagecodecs(part: str) -> ModuleType | None:
    """Return the package, or None if it is not installed or was built without `part`.

    `part` is "WEBP" or "JPEGXL".
    """
    try:
        import imagecodecs
    except ImportError:
        return None
    return imagecodecs if getattr(imagecodecs, part).available else None
