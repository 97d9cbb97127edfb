"""The segments before a JPEG's pixels: EXIF, XMP, IPTC, colour profile, comments.

A **head** is the start mark of a JPEG file and those segments, ready to stand before the pixels
that are served. Its bytes are those of the original, except that the orientation reads 1, because
frames are upright. Two kinds of segments are left out because they describe the original's own
pixels: the index of further pictures (MPF) and the colour transform (Adobe).

Segments are those of ITU-T T.81, annex B; EXIF is that of CIPA DC-008.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator

from PIL import Image

SOI = b"\xff\xd8"
_SOS, _EOI = 0xDA, 0xD9
_MARKERS_WITHOUT_CONTENT = (0xD8, 0x01)
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_APP0, _APP1, _APP2, _APP14, _APP15, _COM = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
# XMP that did not fit one segment: editing histories, depth maps, second pictures.
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
# FlashPix: screen-sized copies of the picture, sound.
_FLASHPIX = b"FPXR\0"
_BULKY = (_EXTENDED_XMP, _FLASHPIX)
_MAX_BULKY_BYTES = 64 << 10
_ICC = b"ICC_PROFILE\0"
_ICC_PART_BYTES = 65_519
_MAX_SEGMENT_BYTES = 65_533
_ORIENTATION = 0x0112
_THUMBNAIL_AT, _THUMBNAIL_BYTES = 0x0201, 0x0202
_IFD_ENTRY_BYTES = 12
# TIFF tags that describe where a file's own pixels are and how they are packed.
_PIXEL_TAGS = (
    *(0x0100, 0x0101, 0x0102, 0x0103, 0x0106, 0x0111, 0x0115, 0x0116, 0x0117, 0x011C, 0x013D),
    *(0x0142, 0x0143, 0x0144, 0x0145, 0x0152, 0x0153, 0x015B, 0x8773, 0x02BC, 0x83BB, 0x8649),
)


def segments_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (marker, content) of a JPEG's segments up to its pixels; stop at a malformed one."""
    at = len(SOI)
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == _SOS:
            return
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2:
            return
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def trailing_bytes(data: bytes) -> int:
    """Count the bytes after a JPEG's end mark, without zeros at the end.

    Motion photos store a video there, and some cameras further pictures.
    """
    at = len(SOI)
    while match := _MARKER.search(data, at):
        marker, at = match[0][1], match.end()
        if marker == _EOI:
            return len(data[at:].rstrip(b"\0"))
        if marker not in _MARKERS_WITHOUT_CONTENT:
            # The samples after a scan's header hold no marker except restarts.
            at += int.from_bytes(data[at : at + 2], "big")
    return 0


def _segment(marker: int, content: bytes) -> bytes:
    """Return a segment's bytes."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _is_kept(marker: int, content: bytes) -> bool:
    """Return whether a segment belongs into a head."""
    if marker == _COM:
        return True
    if not _APP0 <= marker <= _APP15 or marker == _APP14:
        return False
    return not (marker == _APP2 and content.startswith(b"MPF\0"))


def head_of_jpeg(data: bytes, *, rgb_profile: bool) -> tuple[bytes, int, int]:
    """Return the head of a JPEG.

    Extended XMP and FlashPix are left out if they are larger than 64 KiB: some reach megabytes and
    would outweigh the photo. Bytes after the end mark are always left out. The colour profile is
    left out unless it is one for RGB, because frames are RGB.

    Parameters
    ----------
    data : bytes
        The whole file.
    rgb_profile : bool
        Whether its colour profile is one for RGB.

    Returns
    -------
    tuple of bytes, int and int
        The head, the orientation (1 to 8), and the number of bytes left out.
    """
    parts, orientation = [SOI], 1
    segments = [found for found in segments_of(data) if _is_kept(*found)]
    left_out_bytes = trailing_bytes(data)
    for kind in _BULKY:
        bulk = sum(len(content) for _, content in segments if content.startswith(kind))
        if bulk > _MAX_BULKY_BYTES:
            segments = [found for found in segments if not found[1].startswith(kind)]
            left_out_bytes += bulk
    for marker, content in segments:
        kept = content
        if marker == _APP2 and content.startswith(_ICC) and not rgb_profile:
            continue
        if marker == _APP1 and content.startswith(_EXIF):
            tiff, found = reset_orientation(content[len(_EXIF) :])
            kept = _EXIF + tiff
            orientation = found if orientation == 1 else orientation
        parts.append(_segment(marker, kept))
    return b"".join(parts), orientation, left_out_bytes


def head_of_image(image: Image.Image, *, rgb_profile: bool) -> bytes:
    """Return the head of a picture of another format, from the metadata that Pillow read."""
    parts = [SOI]
    exif = _exif(image)
    if exif and len(exif) + len(_EXIF) <= _MAX_SEGMENT_BYTES:
        parts.append(_segment(_APP1, _EXIF + reset_orientation(exif)[0]))
    xmp = image.info.get("xmp")
    if isinstance(xmp, bytes) and len(xmp) + len(_XMP) <= _MAX_SEGMENT_BYTES:
        parts.append(_segment(_APP1, _XMP + xmp))
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and rgb_profile:
        pieces = [
            profile[at : at + _ICC_PART_BYTES] for at in range(0, len(profile), _ICC_PART_BYTES)
        ]
        for number, piece in enumerate(pieces, 1):
            parts.append(_segment(_APP2, _ICC + bytes((number, len(pieces))) + piece))
    return b"".join(parts)


def _exif(image: Image.Image) -> bytes:
    """Return the EXIF of a picture as a TIFF file."""
    stored = image.info.get("exif")
    if isinstance(stored, bytes) and image.format != "TIFF":
        return stored.removeprefix(_EXIF)
    exif = image.getexif()
    for tag in _PIXEL_TAGS:
        exif.pop(tag, None)
    return exif.tobytes().removeprefix(_EXIF) if exif else b""


def reset_orientation(tiff: bytes) -> tuple[bytes, int]:
    """Set the orientation of EXIF to 1 in place, and return the old one.

    No byte moves, so offsets inside maker notes stay right. The thumbnail is rotated like the photo
    if the result fits its place, because readers apply the same tag to it.

    Parameters
    ----------
    tiff : bytes
        EXIF as a TIFF file, without the marker ``Exif``.

    Returns
    -------
    tuple of bytes and int
        The patched EXIF and the old orientation, 1 to 8; malformed EXIF unchanged, and 1.
    """
    patched = bytearray(tiff)
    try:
        order = {b"II": "<", b"MM": ">"}[tiff[:2]]
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        at, next_ifd = _ifd_entries(tiff, order, first)
        orientation = 1
        for entry in at:
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == _ORIENTATION and kind == 3:
                (value,) = struct.unpack_from(order + "H", tiff, entry + 8)
                struct.pack_into(order + "H", patched, entry + 8, 1)
                orientation = value if 1 <= value <= 8 else 1
        if orientation != 1 and next_ifd:
            _rotate_thumbnail(patched, order, next_ifd, orientation)
    except (KeyError, struct.error):
        return tiff, 1
    return bytes(patched), orientation


def _ifd_entries(tiff: bytes, order: str, ifd: int) -> tuple[range, int]:
    """Return the offsets of a directory's entries, and that of the next directory (0: none)."""
    (count,) = struct.unpack_from(order + "H", tiff, ifd)
    end = ifd + 2 + count * _IFD_ENTRY_BYTES
    (next_ifd,) = struct.unpack_from(order + "I", tiff, end)
    return range(ifd + 2, end, _IFD_ENTRY_BYTES), next_ifd


def _rotate_thumbnail(tiff: bytearray, order: str, ifd: int, orientation: int) -> None:
    """Rotate the thumbnail of the second directory in place, if the result fits."""
    found = {}
    for entry in _ifd_entries(bytes(tiff), order, ifd)[0]:
        tag, kind = struct.unpack_from(order + "HH", tiff, entry)
        if tag in (_THUMBNAIL_AT, _THUMBNAIL_BYTES) and kind == 4:
            (found[tag],) = struct.unpack_from(order + "I", tiff, entry + 8)
    start, size = found.get(_THUMBNAIL_AT, 0), found.get(_THUMBNAIL_BYTES, 0)
    data = bytes(tiff[start : start + size])
    if not start or len(data) != size:
        return
    try:
        with Image.open(io.BytesIO(data)) as small:
            rotated = rotate_upright(small, orientation)
            for quality in range(90, 10, -10):
                stream = io.BytesIO()
                rotated.save(stream, "JPEG", quality=quality)
                if stream.tell() <= size:
                    tiff[start : start + size] = stream.getvalue().ljust(size, b"\0")
                    return
    except (OSError, ValueError, SyntaxError):
        return


_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def rotate_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Rotate a picture upright, given its EXIF orientation."""
    return (
        image.transpose(_TRANSPOSITIONS[orientation]) if orientation in _TRANSPOSITIONS else image
    )
