"""Which image codec a coded region gets, and the way back from its suffix.

Measured on the regions that are new in 120 real 1600 x 900 desktop frames, and on photographs,
with WebP at method 3, quality 50 (what is used now for small ones, 1 and 75, is 2 % smaller in less
time; for large ones see docs/architecture.md section 7):

- WebP at method 3, quality 50 is the smallest on nearly all of 64 regions from 2,048 pixels up
  (723 KB in all; JPEG XL effort 1: 1,339 KB, effort 5: 834 KB for three times the time), and
  decodes faster (1.4 million pixels: 11 ms; JPEG XL effort 1 23 ms, effort 3 190 ms).
- Up to about 1,000 pixels the fixed part counts. Means of crops: 1 x 1 is 38 bytes as WebP, 23 as
  JPEG XL effort 5, 176 as effort 1; 8 x 8 is 70, 51, 203; 16 x 16 is 144, 141, 350; 32 x 32 is 219,
  281, 470, but WebP wins on two thirds of them only. All take about a millisecond, so both are
  tried.
- Photographs (two, at three sizes, 4.5 to 10.8 bits a pixel as WebP): JPEG XL effort 1 is 15 to
  40 % larger, though made 40 times faster: it is never the smaller one. Effort 3 is up to 12 %
  smaller for about half of WebP's time (1600 x 1068: 6.8 -> 6.0 bits a pixel; but 4.5 -> 4.6), and
  decodes in 170 ms instead of 29.
"""

from __future__ import annotations

import numpy as np

from fsmount.codec.images import jxl, webp
from fsmount.codec.png.samples import Frame
from fsmount.errors import Damaged

WEBP = ".webp"
JXL = ".jxl"

_TINY = 1024  # pixels up to which JPEG XL may win by its smaller fixed part
_BIG = 1 << 16  # pixels from which little effort comes first, and a photograph is tried again
_PHOTO_BITS = 2.0  # bits of WebP a sample; screens have 0.1 to 1.1, photographs 1.5 to 4
_WORTH = 0.95  # a photograph decodes six times slower as JPEG XL: only for 5 % less

_TINY_EFFORT = 5
_REPACK_WORTH = 0.9  # ... and for 10 % when repacked, where it is tried on everything
_REPACK_WEBP = webp.Effort(4, 100), webp.Effort(6, 100)
_REPACK_MAX = 1 << 22  # pixels up to which high efforts end within seconds
_REPACK_TRY, _REPACK_EFFORT = 7, 9
_REPACK_GAIN = 0.93  # what the second gains on the first at most
_PHOTO_EFFORT = 3
_LARGE_EFFORT = 1  # what is larger than WebP takes: speed comes first
# Effort 1 writes behind its buffer for some noisy 16-bit images (libjxl 0.10.1: grey, 180 x 93),
# which ends the process. Screenshots get half as large, and take 0.3 s instead of 0.04.
_DEEP_EFFORT = 2


def encode(image: Frame, *, fast: bool = True) -> tuple[str, bytes]:
    """Suffix (".webp" or ".jxl") and file of `image`, (height, width, 1..4), uint8 or uint16.

    `fast`: what ingest tries first. Else WebP takes up to twice as long (3840 x 2160 pixels, 2 % of
    them not black: 0.4 -> 0.8 s, 372 -> 286 KB), JPEG XL ten times and more (40,000 x 100 such:
    0.07 -> 0.7 s, 408 -> 167 KB). ValueError if the image is empty or larger than any codec here
    takes.
    """
    pixels = image.shape[0] * image.shape[1]
    if not webp.fits(image):
        return JXL, jxl.encode(image, _plain_effort(image, pixels, fast))
    quick = webp.LIGHT if pixels < _BIG else webp.QUICK
    data = webp.encode(image, quick if fast else webp.NORMAL)
    if pixels <= _TINY:
        limit, effort = float(len(data)), _TINY_EFFORT
    elif pixels >= _BIG and 8 * len(data) > _PHOTO_BITS * image.size:
        limit, effort = _WORTH * len(data), _PHOTO_EFFORT
    else:
        return WEBP, data
    other = jxl.encode(image, effort)
    return (JXL, other) if len(other) < limit else (WEBP, data)


def _plain_effort(image: Frame, pixels: int, fast: bool) -> int:
    """The effort of JPEG XL for what WebP does not hold."""
    if pixels <= _TINY or (not fast and pixels <= _REPACK_MAX):
        return _TINY_EFFORT
    return _DEEP_EFFORT if image.dtype == np.uint16 else _LARGE_EFFORT


def encode_again(image: Frame) -> tuple[str, bytes]:
    """As :func:`encode`, with seconds to spare: what `repack` tries.

    Measured on the 107 own images of 120 desktop frames (1,752 KB as :func:`encode` makes them in
    4 s): WebP at method 4, quality 100 gives 1,735 KB in 5 s, at method 6 1,737 KB in 37 s, JPEG XL
    at effort 7 1,792 KB in 9 s; the smaller of what is used and JPEG XL 1,651 KB. Effort 9 takes
    another 3 to 7 % off the large ones for four times the time. Either method of WebP is the
    smaller one for about half of the images: of those that stay WebP both make 875 KB, method 4
    alone 895, method 6 alone 877. A photograph of 1.3 million pixels decodes in 24 ms as WebP and
    in 150 to 170 ms as JPEG XL of effort 7 to 9, so a large image has to gain by it.
    """
    pixels = image.shape[0] * image.shape[1]
    if pixels > _REPACK_MAX:
        return encode(image, fast=False)
    if not webp.fits(image):
        return JXL, jxl.encode(image, _REPACK_TRY)
    best = WEBP, min((webp.encode(image, effort) for effort in _REPACK_WEBP), key=len)
    limit = len(best[1]) * (_REPACK_WORTH if pixels >= _BIG else 1.0)
    first = jxl.encode(image, _REPACK_TRY)
    if len(first) * _REPACK_GAIN < limit:
        other = min(first, jxl.encode(image, _REPACK_EFFORT), key=len)
        if len(other) < limit:
            return JXL, other
    return best


def decode(suffix: str, data: bytes, channels: int) -> Frame:
    """The frame (height, width, channels) of a file :func:`encode` made; Damaged for any other."""
    if suffix == WEBP:
        return webp.decode(data, channels)
    if suffix == JXL:
        return jxl.decode(data, channels)
    raise Damaged("image", reason=f"no codec has the suffix {suffix!r}")
