"""imagecodecs, where it is installed: image codecs that let other threads run while they work.

Below Python 3.13 it is an extra. Without it WebP goes through Pillow and JPEG XL through jxlpy,
which hold the GIL and copy more (a WebP image of a million pixels: 19 ms instead of 6), and JPEGs
are kept as they are.
"""

from __future__ import annotations

import functools
from types import ModuleType


@functools.cache
def imagecodecs(part: str) -> ModuleType | None:
    """The package, None if it is not installed or was built without `part`, "WEBP" or "JPEGXL"."""
    try:
        import imagecodecs
    except ImportError:
        return None
    return imagecodecs if getattr(imagecodecs, part).available else None
