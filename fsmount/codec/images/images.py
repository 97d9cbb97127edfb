"""Chooses the image codec of a coded region, and decodes by suffix.

Measured on the regions that are new in 120 real desktop frames of 1600 x 900 pixels, and on
photographs, with WebP at method 3, quality 50. Today, small regions use method 1, quality 75, which
is 2 % smaller in less time; docs/architecture.md section 7 has the settings for large ones.

- WebP at method 3, quality 50 is the smallest on nearly all of 64 regions from 2,048 pixels up
  (723 KB in all; JPEG XL effort 1: 1,339 KB, effort 5: 834 KB for three times the time). It also
  decodes faster (1.4 million pixels: 11 ms; JPEG XL effort 1 23 ms, effort 3 190 ms).
- Up to about 1,000 pixels, the fixed part of the file counts. Means of crops: 1 x 1 pixel is 38
  bytes as WebP, 23 as JPEG XL effort 5, 176 as effort 1; 8 x 8 is 70, 51, 203; 16 x 16 is 144, 141,
  350; 32 x 32 is 219, 281, 470, but WebP wins on only two thirds of these. Each takes about a
  millisecond, so the encoder tries both.
- Photographs (two, at three sizes, 4.5 to 10.8 bits a pixel as WebP): JPEG XL effort 1 is 15 to
  40 % larger, though 40 times faster to make. So it is never the smaller one. Effort 3 is up to
  12 % smaller for about half of WebP's time (1600 x 1068: 6.8 -> 6.0 bits a pixel; but in another
  case 4.5 -> 4.6), and decodes in 170 ms instead of 29.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from fsmount.codec.images import jxl, webp
from fsmount.codec.png.samples import Frame
from fsmount.errors import Damaged

WEBP = ".webp"
JXL = ".jxl"

Content = Literal["photograph", "drawn", "mixed"]
"""What an image shows: photographs, what programs draw, or both of them (mixed)."""

_TINY = 1024  # pixels up to which JPEG XL may win by its smaller fixed part
_BIG = 1 << 16  # pixels from which WebP uses little effort
_TINY_EFFORT = 5
_REPACK_WEBP = webp.Effort(4, 100)
_REPACK_MAX = 1 << 22  # pixels up to which high efforts take only seconds
_REPACK_EFFORT = 7
_SLOWEST_WEBP, _SLOWEST_JXL = webp.Effort(6, 100), 9
_PRICE = 0.05  # bytes a pixel that JPEG XL must save to be worth its time of decoding
_LARGE_EFFORT = 1  # for images too large for WebP: speed comes first
# libjxl 0.10.1 at effort 1 writes beyond its buffer for some noisy 16-bit images (grey, 180 x 93
# pixels), which ends the process. With this effort, screenshots become half as large, and take
# 0.3 s instead of 0.04.
_DEEP_EFFORT = 2


def encode(image: Frame, *, fast: bool = True) -> tuple[str, bytes]:
    """Encode an image in the smaller format.

    `image` is uint8 or uint16 (height, width, 1 to 4 channels). Returns the suffix (".webp" or
    ".jxl") and the file. `fast` selects the settings that ingest tries first. Without it, WebP
    takes up to twice as long (3840 x 2160 pixels, 2 % of them not black: 0.4 -> 0.8 s, 372 ->
    286 KB), and JPEG XL ten times as long or more (40,000 x 100 such pixels: 0.07 -> 0.7 s, 408 ->
    167 KB). Raises ValueError if the image is empty, or larger than any codec here accepts.
    """
    pixels = image.shape[0] * image.shape[1]
    if not webp.fits(image):
        return JXL, jxl.encode(image, _plain_effort(image, pixels, fast))
    quick = webp.LIGHT if pixels < _BIG else webp.QUICK
    data = webp.encode(image, quick if fast else webp.NORMAL)
    if pixels > _TINY:
        return WEBP, data
    other = jxl.encode(image, _TINY_EFFORT)
    return (JXL, other) if len(other) < len(data) else (WEBP, data)


def _plain_effort(image: Frame, pixels: int, fast: bool) -> int:
    """Effort of JPEG XL for an image that WebP cannot hold."""
    if pixels <= _TINY or (not fast and pixels <= _REPACK_MAX):
        return _TINY_EFFORT
    return _DEEP_EFFORT if image.dtype == np.uint16 else _LARGE_EFFORT


def encode_again(image: Frame, content: Content = "photograph") -> tuple[str, bytes]:
    """Encode as :func:`encode`, with settings that may take seconds: for `repack`.

    `image` is uint8 or uint16, shape (height, width, channels); `content` says what it shows. The
    result is the suffix of the format, and the file.

    A pixel takes 15 ns to decode as WebP, and 150 to 300 as JPEG XL. So JPEG XL must save `_PRICE`
    bytes for each pixel. It is tried for photographs and tiny images alone. Each of 16 large images
    had larger drawn tiles as JPEG XL than as WebP of method 6, and as a whole was larger as JPEG XL
    than its two parts.

    Of the same 16, method 6 of WebP makes drawn images up to 13 % smaller than method 4, in two to
    six times its time, but photographs no smaller. Effort 9 of JPEG XL makes photographs 3 to 4 %
    smaller than effort 7, in three to eleven times its time. They take no longer to decode.
    """
    pixels = image.shape[0] * image.shape[1]
    if pixels > _REPACK_MAX:
        return encode(image, fast=False)
    if not webp.fits(image):
        return JXL, jxl.encode(image, _REPACK_EFFORT)
    is_slow = content == "drawn" and pixels >= _BIG
    data = webp.encode(image, _SLOWEST_WEBP if is_slow else _REPACK_WEBP)
    if len(data) < _PRICE * pixels or (content != "photograph" and pixels > _TINY):
        return WEBP, data
    other = jxl.encode(image, _REPACK_EFFORT)
    if len(other) + _PRICE * pixels >= len(data):
        return WEBP, data
    return JXL, min(other, jxl.encode(image, _SLOWEST_JXL), key=len)


def decode(suffix: str, data: bytes, channels: int) -> Frame:
    """Decode a file that :func:`encode` made: shape (height, width, channels).

    The dtype is uint8 or uint16. Raises Damaged for any other file.
    """
    if suffix == WEBP:
        return webp.decode(data, channels)
    if suffix == JXL:
        return jxl.decode(data, channels)
    raise Damaged("image", reason=f"no codec has the suffix {suffix!r}")
