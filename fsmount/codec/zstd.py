"""zstd frames (RFC 8878), with and without a dictionary of plain bytes."""

from __future__ import annotations

import threading

import zstandard

from fsmount.errors import Damaged

MAGIC: bytes = zstandard.FRAME_HEADER
"""The magic number at the start of each frame."""
# What is coded by Dictionary.compress() has at most so many bytes.
_SOURCE_BYTES = 256 << 10
# The tables of a dictionary have 2^18 places, and take 2 MB. At level 16 zstd would choose tables
# of 18 MB, and make pictures 5 % smaller.
_TABLE_LOG = 18


class _OfThread(threading.local):
    """A decoder for one thread. To make one takes 10 us, as long as to decode some KB."""

    def __init__(self) -> None:
        self.decoder = zstandard.ZstdDecompressor()


_of_thread = _OfThread()


class Dictionary:
    """Bytes that zstd refers to as if they stood before what it codes.

    `content` is all content, without tables of its own. Only one thread at a time may compress.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.known = zstandard.ZstdCompressionDict(
            content, dict_type=zstandard.DICT_TYPE_RAWCONTENT
        )
        self._coders: dict[int, zstandard.ZstdCompressor] = {}

    def compress(self, data: bytes, level: int) -> bytes:
        """As :func:`compress`, for many calls. To prepare level 16 takes 20 ms for 512 KiB."""
        coder = self._coders.get(level)
        if coder is None:
            params = zstandard.ZstdCompressionParameters.from_level(
                level,
                source_size=_SOURCE_BYTES,
                dict_size=len(self.content),
                hash_log=_TABLE_LOG,
                chain_log=_TABLE_LOG,
                write_checksum=False,
            )
            coder = zstandard.ZstdCompressor(dict_data=self.known, compression_params=params)
            self._coders[level] = coder
        return coder.compress(data)


def compress(data: bytes, level: int, dictionary: Dictionary | None = None) -> bytes:
    """Return a frame of `data`. It says the size of `data`, and has no checksum.

    `level` is an effort of zstd, 1 to 19.
    """
    params = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(data),
        dict_size=0 if dictionary is None else len(dictionary.content),
        write_checksum=False,
    )
    known = None if dictionary is None else dictionary.known
    return zstandard.ZstdCompressor(dict_data=known, compression_params=params).compress(data)


def decompress(data: bytes, most: int, dictionary: Dictionary | None = None) -> bytes:
    """Return the content of a frame, at most `most` bytes.

    Raises :class:`Damaged` for anything but one frame that says its size, before it allocates
    memory for a size that the frame only claims.
    """
    try:
        length = zstandard.frame_content_size(data)
        if not 0 <= length <= most:
            raise Damaged("zstd frame", reason=f"its content has {length} bytes")
        if dictionary is None:
            decoder = _of_thread.decoder
        else:
            decoder = zstandard.ZstdDecompressor(dict_data=dictionary.known)
        plain = decoder.decompress(data, max_output_size=length, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Damaged("zstd frame", reason=error) from error
    if len(plain) != length:
        raise Damaged("zstd frame", reason="its content has another size")
    return plain
