"""An encrypted object: a ZIP whose members are chunks of 64 KiB under AES-256-GCM.

The members are stored, and their names have one length. So each chunk lies at a place that its
number gives, and a range is read without the directory. All other bytes of the ZIP follow from the
members. A reader of the whole object makes them again and compares.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from os import urandom

from fsmount.errors import RemoteNeedsExtra

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ImportError as missing:
    raise RemoteNeedsExtra("an encrypted URL", package="cryptography", extra="encrypt") from missing

CHUNK = 64 << 10
KEY_BYTES = 32
_NONCE, _TAG = 12, 16
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
# Number of the master key from 1, of the chunk from 0, and of all chunks.
_NAME = re.compile(rb"([0-9]{4})-([0-9]{5})-([0-9]{5})")
_NAME_BYTES = 16
_HEAD = _LOCAL.size + _NAME_BYTES
_CONTENT = _NONCE + CHUNK + _TAG
_STRIDE = _HEAD + _CONTENT
_DIRECTORY_ROW = _CENTRAL.size + _NAME_BYTES
_OVERHEAD = _HEAD + _NONCE + _TAG + _DIRECTORY_ROW
# ZIP counts its members in 16 bits.
MOST = 0xFFFE * CHUNK
# Midnight of 1980-01-01, the first day that ZIP knows.
_DATE = 0x21

KeyOf = Callable[[int], bytes]


class Broken(Exception):
    """The bytes of an object are not those that were sealed."""


def derived(master: bytes, store: str, purpose: str) -> bytes:
    """Derive a key of 32 bytes by HKDF-SHA256: salt is the identity of the store."""
    return HKDF(SHA256(), KEY_BYTES, store.encode(), f"fsmount {purpose}".encode()).derive(master)


def sealed(plain: bytes, number: int, key: bytes) -> bytes:
    """Return the object that holds `plain` under `key`, which belongs to master key `number`.

    Raises ValueError if `plain` has more than MOST bytes.
    """
    if len(plain) > MOST:
        raise ValueError(f"an encrypted object has at most {MOST} bytes")
    cipher = AESGCM(key)
    count = max(1, -(-len(plain) // CHUNK))
    view = memoryview(plain)
    pieces: list[bytes] = []
    rows: list[tuple[int, int]] = []
    for chunk in range(count):
        nonce = urandom(_NONCE)
        piece = bytes(view[chunk * CHUNK : (chunk + 1) * CHUNK])
        content = nonce + cipher.encrypt(nonce, piece, _name(number, chunk, count))
        crc = zlib.crc32(content)
        rows.append((crc, len(content)))
        pieces += (_head(number, chunk, count, crc, len(content)), content)
    return b"".join(pieces) + _directory(number, rows)


def plain_size(size: int) -> int | None:
    """Return how many bytes an object of `size` bytes holds; None if no object has this size."""
    count = -(-(size - _END.size) // (CHUNK + _OVERHEAD))
    plain = size - _END.size - count * _OVERHEAD
    fewest = 0 if count == 1 else (count - 1) * CHUNK + 1
    return plain if count >= 1 and fewest <= plain <= count * CHUNK else None


def opened(data: bytes, key_of: KeyOf) -> bytes:
    """Return what an object holds, after comparing all of its bytes.

    `key_of` returns the key of the object for the number of a master key, or raises
    :class:`Broken`. Raises :class:`Broken` if a bit is not as it was sealed.
    """
    size = plain_size(len(data))
    if size is None:
        raise Broken
    number, _, count = _parsed(data[_LOCAL.size : _HEAD])
    if count != max(1, -(-size // CHUNK)):
        raise Broken
    pieces: list[bytes] = []
    rows: list[tuple[int, int]] = []
    for content, plain in _chunks(data, 0, key_of):
        rows.append((zlib.crc32(content), len(content)))
        pieces.append(plain)
    end = _HEAD * count + sum(length for _, length in rows)
    if len(rows) != count or data[end:] != _directory(number, rows):
        raise Broken
    return b"".join(pieces)


def place_of(start: int, length: int) -> tuple[int, int]:
    """Return (offset, length) of the bytes of an object that a range of its content needs."""
    first, end = start // CHUNK, -(-(start + length) // CHUNK)
    return first * _STRIDE, (end - first) * _STRIDE


def opened_range(data: bytes, start: int, length: int, key_of: KeyOf) -> bytes:
    """Return `length` bytes from `start` of what an object holds, fewer at its end.

    `data` are the bytes at :func:`place_of`. The chunks are compared as a whole. Raises
    :class:`Broken`, also if `start` is behind the end.
    """
    if not length:
        return b""
    first = start // CHUNK
    pieces = [piece for _, piece in _chunks(data, first, key_of)]
    _, _, count = _parsed(data[_LOCAL.size : _HEAD])
    if first + len(pieces) < min(count, -(-(start + length) // CHUNK)):
        raise Broken
    return b"".join(pieces)[start - first * CHUNK :][:length]


def _chunks(data: bytes, first: int, key_of: KeyOf) -> Iterator[tuple[bytes, bytes]]:
    """Yield (content, plain bytes) of successive chunks, from chunk `first` on.

    Ends with the last chunk of the object, or with `data`. Raises :class:`Broken`.
    """
    number, at, chunk, count = 0, 0, first, 0
    cipher: AESGCM | None = None
    view = memoryview(data)
    while not count or (chunk < count and at < len(data)):
        found = _parsed(data[at + _LOCAL.size : at + _HEAD])
        if cipher is None:
            number, _, count = found
            cipher = AESGCM(key_of(number))
        length = min(_CONTENT, len(data) - at - _HEAD)
        if chunk == count - 1:
            # Only the last chunk may be shorter, and other bytes may follow it.
            length = min(length, _LOCAL.unpack_from(data, at)[7])
        content = bytes(view[at + _HEAD : at + _HEAD + length])
        is_whole = length == _CONTENT or chunk == count - 1
        head = _head(number, chunk, count, zlib.crc32(content), length)
        if found != (number, chunk, count) or not is_whole or data[at : at + _HEAD] != head:
            raise Broken
        name = _name(number, chunk, count)
        try:
            yield content, cipher.decrypt(content[:_NONCE], content[_NONCE:], name)
        except (InvalidTag, ValueError) as error:
            raise Broken from error
        at += _HEAD + length
        chunk += 1


def _parsed(name: bytes) -> tuple[int, int, int]:
    """Return the numbers in the name of a member. Raises :class:`Broken`."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise Broken
    return int(found[1]), int(found[2]), int(found[3])


def _name(number: int, chunk: int, count: int) -> bytes:
    return b"%04d-%05d-%05d" % (number, chunk, count)


def _head(number: int, chunk: int, count: int, crc: int, length: int) -> bytes:
    """The local header of a member of `length` bytes."""
    fixed = _LOCAL.pack(b"PK\3\4", 20, 0, 0, 0, _DATE, crc, length, length, _NAME_BYTES, 0)
    return fixed + _name(number, chunk, count)


def _directory(number: int, rows: list[tuple[int, int]]) -> bytes:
    """The directory of a ZIP from the (CRC-32, length) of its members."""
    pieces = []
    at = 0
    for chunk, (crc, length) in enumerate(rows):
        pieces.append(
            _CENTRAL.pack(b"PK\1\2", 20, 20, 0, 0, 0, _DATE, crc, length, length,
                          _NAME_BYTES, 0, 0, 0, 0, 0, at)
        )  # fmt: skip
        pieces.append(_name(number, chunk, len(rows)))
        at += _HEAD + length
    size = len(rows) * _DIRECTORY_ROW
    return b"".join(pieces) + _END.pack(b"PK\5\6", 0, 0, len(rows), len(rows), size, at, 0)
