"""Which image codec a coded region gets, and the way back from its suffix.

Measured on the regions that are new in 120 real 1600 x 900 desktop frames, and on photographs,
with WebP at method 3, quality 50 (what is used now, 4 and 75, is 4 % smaller for the same time):

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

from fsmount.codec import jxl, webp
from fsmount.codec.samples import Frame
from fsmount.errors import Damaged

WEBP = ".webp"
JXL = ".jxl"

_TINY = 1024  # pixels up to which JPEG XL may win by its smaller fixed part
_BIG = 1 << 16  # pixels from which a photograph is worth a second try
_PHOTO_BITS = 2.0  # bits of WebP a sample; screens have 0.1 to 1.1, photographs 1.5 to 4
_WORTH = 0.95  # a photograph decodes six times slower as JPEG XL: only for 5 % less

_TINY_EFFORT = 5
_PHOTO_EFFORT = 3
_PLAIN_EFFORT = 1  # what WebP cannot hold: large or 16 bits, so speed comes first


def encode(image: Frame) -> tuple[str, bytes]:
    """Suffix (".webp" or ".jxl") and file of `image`, (height, width, 1..4), uint8 or uint16.

    ValueError if the image is empty or larger than any codec here takes.
    """
    pixels = image.shape[0] * image.shape[1]
    if not webp.fits(image):
        return JXL, jxl.encode(image, _TINY_EFFORT if pixels <= _TINY else _PLAIN_EFFORT)
    data = webp.encode(image)
    if pixels <= _TINY:
        limit, effort = float(len(data)), _TINY_EFFORT
    elif pixels >= _BIG and 8 * len(data) > _PHOTO_BITS * image.size:
        limit, effort = _WORTH * len(data), _PHOTO_EFFORT
    else:
        return WEBP, data
    other = jxl.encode(image, effort)
    return (JXL, other) if len(other) < limit else (WEBP, data)


def decode(suffix: str, data: bytes, channels: int) -> Frame:
    """The frame (height, width, channels) of a file :func:`encode` made; Damaged for any other."""
    if suffix == WEBP:
        return webp.decode(data, channels)
    if suffix == JXL:
        return jxl.decode(data, channels)
    raise Damaged("image", reason=f"no codec has the suffix {suffix!r}")
