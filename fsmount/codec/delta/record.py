"""The record beside a payload: a small JSON header and named byte arrays, packed tightly.

Plain form: the arrays one after the other, then the header as ASCII JSON, then the length of the
header in 4 bytes, little endian. ``header["arrays"]`` lists [name, length] in that order.

Stored form: 4 bytes, little endian, with the id of the **anchor** (0 for none), then a zlib stream
(RFC 1950) of the plain form. The anchor is another object. Every array that has the same name and
length in the anchor's record is first XORed with the anchor's array, and the preset dictionary of
the stream is the anchor's header text. Without an anchor, the dictionary is :data:`DICTIONARY`. An
anchor has no anchor itself, so at most two entries give any record.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Record:
    """A header (values fit for JSON) and named arrays."""

    header: dict[str, Any]
    arrays: dict[str, bytes]


def anchor_of(stored: bytes) -> int:
    """Return the id of the object whose record is needed to read this one, or 0.

    Raises :class:`Damaged` if `stored` is too short.
    """
    if len(stored) < 4:
        raise Damaged("record", reason="too short")
    return int.from_bytes(stored[:4], "little")


def _header_text(record: Record) -> bytes:
    """Return the header as JSON, with the table of arrays."""
    header = dict(record.header)
    header["arrays"] = [[name, len(data)] for name, data in record.arrays.items()]
    return json.dumps(header, separators=(",", ":")).encode()


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


def _dictionary(anchor: Record | None) -> bytes:
    """Return the preset dictionary of the zlib stream."""
    return DICTIONARY if anchor is None else _header_text(anchor)


def pack(record: Record, anchor_id: int = 0, anchor: Record | None = None) -> bytes:
    """Return the stored form of a record.

    `anchor` is the record of the object `anchor_id`, or None with `anchor_id` 0.
    """
    text = _header_text(record)
    arrays = _against(record.arrays, anchor)
    plain = b"".join(arrays.values()) + text + len(text).to_bytes(4, "little")
    coder = zlib.compressobj(9, wbits=15, memLevel=9, zdict=_dictionary(anchor))
    return anchor_id.to_bytes(4, "little") + coder.compress(plain) + coder.flush()


def unpack(stored: bytes, anchor: Record | None = None) -> Record:
    """Read a stored form; the inverse of :func:`pack`.

    `anchor` is the record of the object that :func:`anchor_of` names. Raises :class:`Damaged` for
    anything that :func:`pack` did not write.
    """
    try:
        decoder = zlib.decompressobj(wbits=15, zdict=_dictionary(anchor))
        plain = decoder.decompress(stored[4:], MAX_PLAIN)
        if not decoder.eof or decoder.unused_data:
            raise Damaged("record", reason="incomplete")
        length = int.from_bytes(plain[-4:], "little")
        start = len(plain) - 4 - length
        header = json.loads(plain[start:-4].decode()) if start >= 0 else None
        if not isinstance(header, dict):
            raise Damaged("record", reason="no header")
        arrays = _cut(plain[:start], header.pop("arrays"))
    except (zlib.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged("record", reason=error) from error
    return Record(header, _against(arrays, anchor))


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
