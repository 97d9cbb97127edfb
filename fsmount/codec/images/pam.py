"""Tiles <-> a PAM picture in a zstd frame.

The picture (netpbm's ``pam(5)``) is one tile wide: the tiles stand one below the other. So equal
rows of neighbouring tiles, and equal tiles, are runs of bytes that zstd (RFC 8878) finds. `zstd -d`
and any program of netpbm open the file; with a dictionary, `zstd -d -D FILE` does.
"""

from __future__ import annotations

import numpy as np
import zstandard

from fsmount.codec.png.samples import Frame
from fsmount.errors import Damaged

_TYPES = {1: b"GRAYSCALE", 2: b"GRAYSCALE_ALPHA", 3: b"RGB", 4: b"RGB_ALPHA"}
_WHAT = "PAM picture"
# A picture that is coded with a dictionary has at most so many bytes.
_SOURCE_BYTES = 256 << 10
# The tables of a dictionary have 2^18 places, and take 2 MB. At level 16 zstd would choose tables
# of 18 MB, and make pictures 5 % smaller.
_TABLE_LOG = 18


class Dictionary:
    """Bytes that zstd refers to as if they stood before what it codes.

    `content` is all content, without tables of its own. Only one thread at a time may encode.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.known = zstandard.ZstdCompressionDict(
            content, dict_type=zstandard.DICT_TYPE_RAWCONTENT
        )
        self._coders: dict[int, zstandard.ZstdCompressor] = {}

    def coder(self, level: int) -> zstandard.ZstdCompressor:
        """Return a compressor. To prepare one of level 16 takes 20 ms for 512 KiB."""
        found = self._coders.get(level)
        if found is None:
            params = zstandard.ZstdCompressionParameters.from_level(
                level,
                source_size=_SOURCE_BYTES,
                dict_size=len(self.content),
                hash_log=_TABLE_LOG,
                chain_log=_TABLE_LOG,
                write_checksum=False,
            )
            found = zstandard.ZstdCompressor(dict_data=self.known, compression_params=params)
            self._coders[level] = found
        return found


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
        coder = zstandard.ZstdCompressor(level=level, write_checksum=False)
    else:
        coder = dictionary.coder(level)
    return coder.compress(picture(tiles))


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
    try:
        if zstandard.frame_content_size(data) != length:
            raise Damaged(_WHAT, reason=f"it does not have {length} bytes")
        known = None if dictionary is None else dictionary.known
        plain = zstandard.ZstdDecompressor(dict_data=known).decompress(
            data, max_output_size=length, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise Damaged(_WHAT, reason=error) from error
    if len(plain) != length:
        raise Damaged(_WHAT, reason=f"it does not have {length} bytes")
    return plain
