"""The record beside a payload: a small JSON header and named byte arrays, packed tightly.

The header of each record has ``mtime``, and ``sha256`` is one of its arrays. All others come
together in the **plain form**: the arrays one after the other, then the rest of the header as ASCII
JSON, then the length of this JSON in 4 bytes, little endian. ``header["arrays"]`` in it lists
[name, length] in that order.

Stored form 2, little endian: id of the **anchor** (u32, 0 for none); 2, or 3 if the hash is empty
(u8); CRC-32 of all that follows, as it is before it is coded (u32); ``mtime`` (i64); ``sha256``;
then a zstd frame (RFC 8878) of the plain form, without the magic number. The anchor is another
object. Every array that has the same name and length in the anchor's record is first XORed with the
anchor's array, and the dictionary of the frame is the anchor's header as JSON. Without an anchor,
the dictionary is :data:`DICTIONARY`. An anchor has no anchor itself, so at most two entries give
any record.

Stored form 1, which :func:`unpack` reads, too: the anchor, then a zlib stream (RFC 1950) of a plain
form that has all arrays and the whole header.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fsmount.codec import zstd
from fsmount.codec.zstd import Dictionary
from fsmount.errors import Damaged

DICTIONARY = (
    b'{"id":1,"kind":"raw","reason":"unknown deflate encoder","size":100000,"mtime":17000000000000'
    b'00000,"path":"notes.txt","arrays":[["sha256",32]]}"reason":"not a PNG"'
    b'{"id":10,"kind":"key","kind":"delta","frame":[1080,1920,3,8],"png":{"c":6,"d":8,"o":1,'
    b'"z":30876,"p":[6,1,8,15],"i":8192},"sources":[],"size":500000,"mtime":1700000000000000000,'
    b'"path":"2024-01-01T00:00:00+00:00.png","arrays":[["sha256",32],["tiles",8160],'
    b'["prediction",8160],["filters",1080],["tail",12]]}'
)
MAX_PLAIN = 64 << 20
_ANCHOR = struct.Struct("<I")
# Anchor, form, CRC-32, mtime.
_HEAD = struct.Struct("<IBIq")
_HASHED, _NOT_HASHED = 2, 3
_HASH_BYTES = 32
# The first byte of a zlib stream with a window of 32 KiB, in records of form 1.
_ZLIB = 0x78
_LEVEL = 19


@dataclass(frozen=True)
class Record:
    """A header (values fit for JSON) and named arrays."""

    header: dict[str, Any]
    arrays: dict[str, bytes]


def anchor_of(stored: bytes) -> int:
    """Return the id of the object whose record is needed to read this one, or 0.

    Raises :class:`Damaged` if `stored` is too short.
    """
    if len(stored) < _ANCHOR.size:
        raise Damaged("record", reason="too short")
    return int(_ANCHOR.unpack_from(stored)[0])


def _json(header: Mapping[str, Any], arrays: Mapping[str, bytes]) -> bytes:
    """Return a header as JSON, with the table of its arrays."""
    table = [[name, len(data)] for name, data in arrays.items()]
    return json.dumps({**header, "arrays": table}, separators=(",", ":")).encode()


def _common(record: Record) -> bytes:
    """Return the header of form 2 as JSON: without what is stored apart."""
    header = {key: value for key, value in record.header.items() if key != "mtime"}
    arrays = {name: data for name, data in record.arrays.items() if name != "sha256"}
    return _json(header, arrays)


def _xor(data: bytes, other: bytes) -> bytes:
    """XOR two byte strings of equal length."""
    length = len(data)
    mixed = int.from_bytes(data, "little") ^ int.from_bytes(other, "little")
    return mixed.to_bytes(length, "little")


def _against(arrays: Mapping[str, bytes], anchor: Record | None) -> dict[str, bytes]:
    """XOR arrays with the anchor's arrays of equal name and length.

    The function is its own inverse.
    """
    if anchor is None:
        return dict(arrays)
    out = {}
    for name, data in arrays.items():
        other = anchor.arrays.get(name)
        out[name] = _xor(data, other) if other and len(other) == len(data) else data
    return out


def pack(record: Record, anchor_id: int = 0, anchor: Record | None = None) -> bytes:
    """Return the stored form 2 of a record.

    Its header has ``mtime`` in ns, and its ``sha256`` has 32 bytes or none. `anchor` is the record
    of the object `anchor_id`, or None with `anchor_id` 0.
    """
    sha256, mtime = record.arrays["sha256"], record.header["mtime"]
    text = _common(record)
    length = len(text).to_bytes(4, "little")
    own = {name: data for name, data in record.arrays.items() if name != "sha256"}
    plain = b"".join((*_against(own, anchor).values(), text, length))
    frame = zstd.compress(plain, _LEVEL, _dictionary(anchor))
    form = _HASHED if sha256 else _NOT_HASHED
    head = _HEAD.pack(anchor_id, form, _sum(mtime, sha256, own, text), mtime)
    return head + sha256 + frame.removeprefix(zstd.MAGIC)


def _dictionary(anchor: Record | None) -> Dictionary:
    """Return the dictionary of the frame in form 2."""
    return Dictionary(DICTIONARY if anchor is None else _common(anchor))


def _sum(mtime: int, sha256: bytes, arrays: Mapping[str, bytes], text: bytes) -> int:
    """Return the CRC-32 of a record of form 2. It also tells if the anchor is another one."""
    return zlib.crc32(b"".join((struct.pack("<q", mtime), sha256, *arrays.values(), text)))


def unpack(stored: bytes, anchor: Record | None = None) -> Record:
    """Read a stored form; the inverse of :func:`pack`. Reads form 1, too.

    `anchor` is the record of the object that :func:`anchor_of` names. Raises :class:`Damaged` for
    anything that no :func:`pack` wrote.
    """
    try:
        if stored[_ANCHOR.size : _ANCHOR.size + 1] == bytes([_ZLIB]):
            return _unpack_1(stored, anchor)
        return _unpack_2(stored, anchor)
    except (struct.error, zlib.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged("record", reason=error) from error


def _unpack_2(stored: bytes, anchor: Record | None) -> Record:
    """As :func:`unpack`, for form 2. Also raises other exceptions for what is no record."""
    _, form, checksum, mtime = _HEAD.unpack_from(stored)
    if form not in (_HASHED, _NOT_HASHED):
        raise Damaged("record", reason=f"form {form} is not known")
    start = _HEAD.size + (_HASH_BYTES if form == _HASHED else 0)
    sha256 = stored[_HEAD.size : start]
    plain = zstd.decompress(zstd.MAGIC + stored[start:], MAX_PLAIN, _dictionary(anchor))
    header, arrays, text = _parts(plain)
    own = _against(arrays, anchor)
    if _sum(mtime, sha256, own, text) != checksum:
        raise Damaged("record", reason="it has another checksum")
    return Record({**header, "mtime": mtime}, {"sha256": sha256, **own})


def _unpack_1(stored: bytes, anchor: Record | None) -> Record:
    """As :func:`unpack`, for form 1. Also raises other exceptions for what is no record."""
    known = DICTIONARY if anchor is None else _json(anchor.header, anchor.arrays)
    decoder = zlib.decompressobj(wbits=15, zdict=known)
    plain = decoder.decompress(stored[_ANCHOR.size :], MAX_PLAIN)
    if not decoder.eof or decoder.unused_data:
        raise Damaged("record", reason="incomplete")
    header, arrays, _ = _parts(plain)
    return Record(header, _against(arrays, anchor))


def _parts(plain: bytes) -> tuple[dict[str, Any], dict[str, bytes], bytes]:
    """Cut a plain form apart: (header without the table of arrays, arrays, JSON of the header).

    Raises :class:`Damaged`, ValueError, KeyError, TypeError or RecursionError.
    """
    length = int.from_bytes(plain[-4:], "little")
    start = len(plain) - 4 - length
    text = plain[start:-4] if start >= 0 else b""
    header = json.loads(text.decode())
    if not isinstance(header, dict):
        raise Damaged("record", reason="no header")
    return header, _cut(plain[:start], header.pop("arrays")), text


def _cut(data: bytes, table: list[tuple[str, int]]) -> dict[str, bytes]:
    """Cut joined arrays apart by the table of the header. Raises :class:`Damaged`."""
    arrays: dict[str, bytes] = {}
    position = 0
    for name, length in table:
        if not isinstance(name, str) or not isinstance(length, int) or length < 0:
            raise Damaged("record", reason="a bad table of arrays")
        arrays[name] = data[position : position + length]
        position += length
    if position != len(data):
        raise Damaged("record", reason="arrays of the wrong length")
    return arrays
