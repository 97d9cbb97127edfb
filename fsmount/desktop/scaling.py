"""Scale pictures down to thumbnails. For worker processes: a picture may be anything."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from fsmount.errors import FsmountError
from fsmount.store.frames.previews import UNREADABLE

# Name of a file in lower case ends so -> pillow's format. Pillow knows more formats, and runs other
# programs for some of them.
FORMATS = {
    b".png": "PNG",
    b".jpg": "JPEG",
    b".jpeg": "JPEG",
    b".webp": "WEBP",
    b".gif": "GIF",
    b".bmp": "BMP",
    b".tif": "TIFF",
    b".tiff": "TIFF",
}


class NotAPictureError(FsmountError):
    """A file is not a picture that can be read."""

    message = "it is no picture that can be read ({detail})"


def is_picture(name: bytes) -> bool:
    """Whether the name of a file is that of a picture."""
    return name.lower().endswith(tuple(FORMATS))


def scale(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Decode a picture once, and return a PNG (RGBA, 8 bits) of it for each size.

    `sizes` are the largest width and height in pixels, in descending order. A picture that is
    smaller stays as large as it is. Turns a picture as its EXIF data say. Raises
    :class:`NotAPictureError`.
    """
    scaled = []
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures, and refuses those that are twice as large.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data), formats=sorted(set(FORMATS.values())))
        image = _eight_bits(opened)
        for size in sizes:
            image.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)
            scaled.append(_png(ImageOps.exif_transpose(image).convert("RGBA")))
    except UNREADABLE as error:
        raise NotAPictureError(str(error)) from error
    return scaled


def empty() -> bytes:
    """Return a PNG of one transparent pixel, for a picture of which there is no thumbnail."""
    return _png(Image.new("RGBA", (1, 1)))


def _png(image: Image.Image) -> bytes:
    """Encode the pixels of a picture (RGBA), without its metadata."""
    pixels = Image.new("RGBA", image.size)
    pixels.paste(image)
    out = io.BytesIO()
    pixels.save(out, "PNG")
    return out.getvalue()


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return a picture whose samples can be averaged: L, RGB or RGBA of 8 bits."""
    if image.mode.startswith("I"):
        # Grey of 16 bits. Pillow itself would cut off everything above 255.
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("L", "RGB", "RGBA") and "transparency" not in image.info:
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")
