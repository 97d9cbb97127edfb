"""Tiles <-> a PAM picture in a zstd frame.

The picture (netpbm's ``pam(5)``) is one tile wide: the tiles stand one below the other. So equal
rows of neighbouring tiles, and equal tiles, are runs of bytes that zstd (RFC 8878) finds. `zstd -d`
and any program of netpbm open the file; with a dictionary, `zstd -d -D FILE` does.
"""

from __future__ import annotations

import numpy as np

from fsmount.codec import zstd
from fsmount.codec.png.samples import Frame
from fsmount.codec.zstd import Dictionary
from fsmount.errors import Damaged

_TYPES = {1: b"GRAYSCALE", 2: b"GRAYSCALE_ALPHA", 3: b"RGB", 4: b"RGB_ALPHA"}
_WHAT = "PAM picture"


def header(shape: tuple[int, ...]) -> bytes:
    """Return the header of the picture of tiles of `shape`: (n, height, width, channels)."""
    count, height, width, channels = shape
    size = b"WIDTH %d\nHEIGHT %d\nDEPTH %d\n" % (width, count * height, channels)
    return b"P7\n" + size + b"MAXVAL 255\nTUPLTYPE " + _TYPES[channels] + b"\nENDHDR\n"


def picture(tiles: Frame) -> bytes:
    """Return the picture of `tiles` (uint8, shape (n, height, width, channels)), not compressed."""
    return header(tiles.shape) + np.ascontiguousarray(tiles).tobytes()


def encode(tiles: Frame, level: int, dictionary: Dictionary | None = None) -> bytes:
    """Return the file of `tiles`: uint8, shape (n, height, width, channels), n at least 1.

    `level` is an effort of zstd, 1 to 19.
    """
    if dictionary is None:
        return zstd.compress(picture(tiles), level)
    return dictionary.compress(picture(tiles), level)


def decode(
    data: bytes, shape: tuple[int, int, int, int], dictionary: Dictionary | None = None
) -> Frame:
    """Decode a file that :func:`encode` made of tiles of `shape`: uint8, of this shape.

    Raises :class:`Damaged` for any other file, before it allocates memory for a size that the file
    only claims.
    """
    head = header(shape)
    plain = unpack(data, len(head) + int(np.prod(shape)), dictionary)
    if not plain.startswith(head):
        raise Damaged(_WHAT, reason="its header is not that of its tiles")
    return np.frombuffer(plain, np.uint8, offset=len(head)).reshape(shape)


def unpack(data: bytes, length: int, dictionary: Dictionary | None = None) -> bytes:
    """Return the picture in a file that :func:`encode` made: `length` bytes.

    Raises :class:`Damaged` as :func:`decode`.
    """
    plain = zstd.decompress(data, length, dictionary)
    if len(plain) != length:
        raise Damaged(_WHAT, reason=f"it does not have {length} bytes")
    return plain
