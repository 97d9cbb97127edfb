"""The segments in front of a JPEG's pixels: EXIF, XMP, IPTC, colour profile, comments.

A **head** is a JPEG file's start mark and those segments, ready to stand in front of the pixels
that are served. They are the original's bytes; only the orientation reads 1, since frames are
upright. Left out are the segments that speak about the original's own pixels: the index of more
pictures behind it (MPF) and the colour transform (Adobe).
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator

from PIL import Image

SOI = b"\xff\xd8"
_SOS, _EOI = 0xDA, 0xD9
_ALONE = (0xD8, 0x01)  # markers without content
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_APP0, _APP1, _APP2, _APP14, _APP15, _COM = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
# What did not fit XMP's own segment: editing histories, depth maps, second pictures.
_MORE_XMP = b"http://ns.adobe.com/xmp/extension/\0"
# FlashPix: screen-sized copies of the picture, sound.
_FLASHPIX = b"FPXR\0"
_BULKY = (_MORE_XMP, _FLASHPIX)
_MOST_BULK = 64 << 10
_ICC = b"ICC_PROFILE\0"
_ICC_PART = 65_519
_LARGEST = 65_533
_ORIENTATION = 0x0112
_THUMBNAIL_AT, _THUMBNAIL_BYTES = 0x0201, 0x0202
_ENTRY = 12
# Tags of a TIFF file that say where its own pixels are and how they are packed.
_OF_PIXELS = (
    *(0x0100, 0x0101, 0x0102, 0x0103, 0x0106, 0x0111, 0x0115, 0x0116, 0x0117, 0x011C, 0x013D),
    *(0x0142, 0x0143, 0x0144, 0x0145, 0x0152, 0x0153, 0x015B, 0x8773, 0x02BC, 0x83BB, 0x8649),
)


def of_jpeg(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, content) of the segments from the start to the pixels; ends at what is broken."""
    at = len(SOI)
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker == _SOS:
            return
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2:
            return
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def behind(data: bytes) -> int:
    """Bytes behind a JPEG's end mark: second pictures, videos of motion photos. Zeros are none."""
    at = len(SOI)
    while found := _MARKER.search(data, at):
        marker, at = found[0][1], found.end()
        if marker == _EOI:
            return len(data[at:].rstrip(b"\0"))
        if marker not in _ALONE:
            # A scan's samples, behind its header, have no marker but restarts.
            at += int.from_bytes(data[at : at + 2], "big")
    return 0


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _kept(marker: int, content: bytes) -> bool:
    if marker == _COM:
        return True
    if not _APP0 <= marker <= _APP15 or marker == _APP14:
        return False
    return not (marker == _APP2 and content.startswith(b"MPF\0"))


def head_of_jpeg(data: bytes, *, rgb_profile: bool) -> tuple[bytes, int, int]:
    """The head for a JPEG, its orientation (1 to 8), and bytes of the file that are not in it
    (its pixels aside).

    Extended XMP and FlashPix are left out where they are so much (megabytes happen) that they
    would outweigh the photo; what stands behind the picture always is. The colour profile is left
    out unless it is one for RGB: frames are.
    """
    parts, orientation = [SOI], 1
    segments = [found for found in of_jpeg(data) if _kept(*found)]
    left_out = behind(data)
    for kind in _BULKY:
        bulk = sum(len(content) for _, content in segments if content.startswith(kind))
        if bulk > _MOST_BULK:
            segments = [found for found in segments if not found[1].startswith(kind)]
            left_out += bulk
    for marker, content in segments:
        kept = content
        if marker == _APP2 and content.startswith(_ICC) and not rgb_profile:
            continue
        if marker == _APP1 and content.startswith(_EXIF):
            tiff, found = upright(content[len(_EXIF) :])
            kept = _EXIF + tiff
            orientation = found if orientation == 1 else orientation
        parts.append(_segment(marker, kept))
    return b"".join(parts), orientation, left_out


def head_of_image(image: Image.Image, *, rgb_profile: bool) -> bytes:
    """The head for a picture of another format, from what Pillow read."""
    parts = [SOI]
    exif = _exif(image)
    if exif and len(exif) + len(_EXIF) <= _LARGEST:
        parts.append(_segment(_APP1, _EXIF + upright(exif)[0]))
    xmp = image.info.get("xmp")
    if isinstance(xmp, bytes) and len(xmp) + len(_XMP) <= _LARGEST:
        parts.append(_segment(_APP1, _XMP + xmp))
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and rgb_profile:
        pieces = [profile[at : at + _ICC_PART] for at in range(0, len(profile), _ICC_PART)]
        for number, piece in enumerate(pieces, 1):
            parts.append(_segment(_APP2, _ICC + bytes((number, len(pieces))) + piece))
    return b"".join(parts)


def _exif(image: Image.Image) -> bytes:
    """The EXIF of a picture as a TIFF file."""
    stored = image.info.get("exif")
    if isinstance(stored, bytes) and image.format != "TIFF":
        return stored.removeprefix(_EXIF)
    exif = image.getexif()
    for tag in _OF_PIXELS:
        exif.pop(tag, None)
    return exif.tobytes().removeprefix(_EXIF) if exif else b""


def upright(tiff: bytes) -> tuple[bytes, int]:
    """EXIF with the orientation patched to 1 where it stands, and what it was (1 to 8).

    Nothing else moves: offsets inside maker notes stay right. A thumbnail is turned like the photo
    if that fits its place, since readers would show it by the same tag.
    """
    patched = bytearray(tiff)
    try:
        order = {b"II": "<", b"MM": ">"}[tiff[:2]]
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        at, following = _entries(tiff, order, first)
        orientation = 1
        for entry in at:
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == _ORIENTATION and kind == 3:
                (value,) = struct.unpack_from(order + "H", tiff, entry + 8)
                struct.pack_into(order + "H", patched, entry + 8, 1)
                orientation = value if 1 <= value <= 8 else 1
        if orientation != 1 and following:
            _turn_thumbnail(patched, order, following, orientation)
    except (KeyError, struct.error):
        return tiff, 1
    return bytes(patched), orientation


def _entries(tiff: bytes, order: str, ifd: int) -> tuple[range, int]:
    """Where the entries of a directory stand, and the next directory (0: none)."""
    (count,) = struct.unpack_from(order + "H", tiff, ifd)
    end = ifd + 2 + count * _ENTRY
    (following,) = struct.unpack_from(order + "I", tiff, end)
    return range(ifd + 2, end, _ENTRY), following


def _turn_thumbnail(tiff: bytearray, order: str, ifd: int, orientation: int) -> None:
    """Turn the thumbnail of the second directory; one that cannot be turned stays as it is."""
    found = {}
    for entry in _entries(bytes(tiff), order, ifd)[0]:
        tag, kind = struct.unpack_from(order + "HH", tiff, entry)
        if tag in (_THUMBNAIL_AT, _THUMBNAIL_BYTES) and kind == 4:
            (found[tag],) = struct.unpack_from(order + "I", tiff, entry + 8)
    start, size = found.get(_THUMBNAIL_AT, 0), found.get(_THUMBNAIL_BYTES, 0)
    data = bytes(tiff[start : start + size])
    if not start or len(data) != size:
        return
    try:
        with Image.open(io.BytesIO(data)) as small:
            turned = turn(small, orientation)
            for quality in range(90, 10, -10):
                stream = io.BytesIO()
                turned.save(stream, "JPEG", quality=quality)
                if stream.tell() <= size:
                    tiff[start : start + size] = stream.getvalue().ljust(size, b"\0")
                    return
    except (OSError, ValueError, SyntaxError):
        return


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """A picture upright, from how EXIF says it lies."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image
