"""Frame <-> lossless WebP, through imagecodecs if it is installed, otherwise through Pillow.

The bytes are a "simple" lossless file (RFC 9649, section 2.6): a RIFF header and one ``VP8L``
chunk. Grey is stored as RGB with three equal channels. The subtract-green transform of the format
turns two of them into zeros, so they cost only a few bytes.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np

# Without this import, Pillow loads all its plugins at the first WebP: 25 ms of a first open.
import PIL.WebPImagePlugin  # noqa: F401
from PIL import Image

from fsmount.codec.images.extra import imagecodecs
from fsmount.codec.png.samples import Frame
from fsmount.errors import Damaged

MAX_SIDE = 16383  # 14 bits in the VP8L header (RFC 9649, section 3.4)

# Below the 89 million pixels at which Pillow warns of a "decompression bomb", so that fsmount need
# not change a global setting of Pillow. libwebp holds two RGBA canvases and Pillow two more copies:
# about 1 GiB at this limit.
MAX_PIXELS = 1 << 26

_HEADER = 25  # RIFF, size, WEBP, VP8L, size, signature, 14 + 14 bits of size and 4 of flags


class Effort(NamedTuple):
    """Settings of libwebp: method 0 to 6, and quality 0 to 100.

    For lossless files, the quality is an effort, too.
    """

    method: int
    quality: int


NORMAL = Effort(4, 75)
# For images of fewer than 65,536 pixels: a third of the time, 0.4 % more bytes.
LIGHT = Effort(1, 75)
# For larger images: an eighth of the time, a fifth more bytes.
QUICK = Effort(0, 50)


def fits(image: Frame) -> bool:
    """Whether the format can hold `image` (height, width, channels): uint8, and not too large."""
    height, width, _ = image.shape
    return (
        image.dtype == np.uint8
        and max(height, width) <= MAX_SIDE
        and min(height, width) >= 1
        and height * width <= MAX_PIXELS
    )


def encode(image: Frame, effort: Effort = NORMAL) -> bytes:
    """Return the WebP file of `image`, losslessly coded.

    `image` is uint8 (height, width, 1 to 4 channels). Raises ValueError if :func:`fits` returns
    False.
    """
    if not fits(image):
        raise ValueError(f"WebP cannot hold {image.dtype} of shape {image.shape}")
    channels = image.shape[2]
    if channels == 1:
        image = np.repeat(image, 3, axis=2)
    elif channels == 2:
        image = image[:, :, [0, 0, 0, 1]]
    library = imagecodecs("WEBP")
    if library is not None and image.shape[2] == 3 and max(image.shape) < MAX_SIDE:
        data: bytes = library.webp_encode(
            np.ascontiguousarray(image),
            level=effort.quality,
            lossless=True,
            method=effort.method,
            numthreads=1,
        )
        return data
    # Only Pillow has `exact`, which keeps the colours of transparent pixels, and accepts MAX_SIDE.
    out = io.BytesIO()
    Image.fromarray(image).save(
        out, "WEBP", lossless=True, exact=True, method=effort.method, quality=effort.quality
    )
    return out.getvalue()


def decode(data: bytes, channels: int) -> Frame:
    """Decode a file that :func:`encode` made: uint8 (height, width, channels).

    Raises Damaged for any other file, before it allocates memory for a size that the header only
    claims.
    """
    width, height = _size(data)
    # libwebp drops an alpha channel that is opaque everywhere.
    alpha = channels in (2, 4)
    library = imagecodecs("WEBP")
    try:
        if library is not None:
            pixels: Frame = library.webp_decode(data, hasalpha=alpha)
        else:
            pixels = _through_pillow(data, "RGBA" if alpha else "RGB")
    except MemoryError:
        raise
    except Exception as error:
        raise Damaged("WebP image", reason=str(error)) from error
    if pixels.shape[:2] != (height, width):
        raise Damaged("WebP image", reason="its size is not the one in its header")
    if channels == 1:
        return np.ascontiguousarray(pixels[:, :, :1])
    if channels == 2:
        return np.ascontiguousarray(pixels[:, :, [0, 3]])
    return np.ascontiguousarray(pixels)


def _through_pillow(data: bytes, mode: str) -> Frame:
    with Image.open(io.BytesIO(data), formats=["WEBP"]) as picture:
        return np.asarray(picture if picture.mode == mode else picture.convert(mode))


def _size(data: bytes) -> tuple[int, int]:
    """Read and check the header of a simple lossless file. Returns (width, height) in pixels.

    Raises Damaged. This module checks the size itself: on opening an extended file, libwebp
    allocates the canvas, and the header of such a file can claim 2^32 pixels in 30 bytes.
    """
    if len(data) < _HEADER or data[:4] != b"RIFF" or data[8:16] != b"WEBPVP8L" or data[20] != 0x2F:
        raise Damaged("WebP image", reason="it has no lossless WebP header")
    if int.from_bytes(data[4:8], "little") + 8 != len(data):
        raise Damaged("WebP image", reason="its length is not the one in its header")
    bits = int.from_bytes(data[21:25], "little")
    width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if width * height > MAX_PIXELS:
        raise Damaged("WebP image", reason=f"{width} x {height} pixels are too many")
    return width, height
