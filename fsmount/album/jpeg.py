"""The served JPEG of a photo, made from the decoded planes, exactly as long as recorded.

The bytes depend on the JPEG library. ``stat`` reports the size that was recorded when the album was
built, so the size must hold with any library. A shorter file is padded with zeros after the end
mark, which readers ignore. A longer one is made again with a lower quality.
"""

from __future__ import annotations

import io

from PIL import Image

from fsmount.album.canvas import Planes
from fsmount.errors import NotExact

_SOI = b"\xff\xd8"
_APP0 = 0xE0


def body(planes: Planes, quality: int, *, halve_height: bool) -> bytes:
    """Encode planes as a JPEG without its start mark and JFIF segment, to follow one of our heads.

    Parameters
    ----------
    planes : Planes
        Luma and chroma of one size.
    quality : int
        Quality as Pillow counts it, 1 to 95.
    halve_height : bool
        Whether to encode 4:2:0; else 4:2:2.
    """
    image = Image.merge("YCbCr", [Image.fromarray(plane) for plane in planes])
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, subsampling=2 if halve_height else 1)
    data = stream.getvalue()
    at = len(_SOI)
    if data[at + 1] == _APP0:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data[at:]


def body_of_size(planes: Planes, quality: int, size: int, *, halve_height: bool) -> bytes:
    """Return a :func:`body` of exactly ``size`` bytes, at ``quality`` or the next lower that fits.

    Raises
    ------
    NotExact
        If even the lowest quality gives more bytes.
    """
    for lower in range(quality, 0, -1):
        data = body(planes, lower, halve_height=halve_height)
        if len(data) <= size:
            return data.ljust(size, b"\0")
    raise NotExact(f"a picture of {planes[0].shape} does not fit {size} bytes")
