"""The JPEG a photo is served as: made from the decoded planes, exactly as long as recorded.

The bytes depend on the library that makes them. The size was recorded when the album was built and
is what `stat` says, so it must hold with any library: shorter ones get zeros after the end mark,
which readers ignore; longer ones are made again a little coarser.
"""

from __future__ import annotations

import io

from PIL import Image

from fsmount.album.canvas import Planes
from fsmount.errors import NotExact

_SOI = b"\xff\xd8"
_APP0 = 0xE0


def body(planes: Planes, quality: int, *, halve_height: bool) -> bytes:
    """A JPEG file without its start mark and JFIF segment, to stand behind a head of ours."""
    image = Image.merge("YCbCr", [Image.fromarray(plane) for plane in planes])
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, subsampling=2 if halve_height else 1)
    data = stream.getvalue()
    at = len(_SOI)
    if data[at + 1] == _APP0:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data[at:]


def fitted(planes: Planes, quality: int, size: int, *, halve_height: bool) -> bytes:
    """A :func:`body` of exactly `size` bytes. :class:`NotExact` if even the coarsest is longer."""
    for lower in range(quality, 0, -1):
        data = body(planes, lower, halve_height=halve_height)
        if len(data) <= size:
            return data.ljust(size, b"\0")
    raise NotExact(f"a picture of {planes[0].shape} does not fit {size} bytes")
