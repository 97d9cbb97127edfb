"""Records: round trips and sizes, of both forms. No damaged bytes pass for a record."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmount.codec.delta import record
from fsmount.codec.delta.record import Record
from fsmount.errors import Damaged

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
HEADERS = st.dictionaries(st.text().filter(lambda name: name != "arrays"), VALUES, max_size=5)
ARRAYS = st.dictionaries(st.text(max_size=8), st.binary(max_size=60), max_size=5)
HASHES = st.just(b"") | st.binary(min_size=32, max_size=32)


def fits(header: dict[str, Any], arrays: dict[str, bytes], mtime: int, sha256: bytes) -> Record:
    """A record with what each record has."""
    return Record({**header, "mtime": mtime}, arrays | {"sha256": sha256})


RECORDS = st.builds(fits, HEADERS, ARRAYS, st.integers(-(2**63), 2**63 - 1), HASHES)


def old_form(made: Record, number: int = 0, anchor: Record | None = None) -> bytes:
    """The stored form 1 of a record, as earlier builds wrote it."""

    def text(record: Record) -> bytes:
        table = [[name, len(data)] for name, data in record.arrays.items()]
        return json.dumps({**record.header, "arrays": table}, separators=(",", ":")).encode()

    arrays = b""
    for name, data in made.arrays.items():
        other = b"" if anchor is None else anchor.arrays.get(name, b"")
        same = len(other) == len(data)
        arrays += bytes(a ^ b for a, b in zip(data, other, strict=True)) if same else data
    known = record.DICTIONARY if anchor is None else text(anchor)
    coder = zlib.compressobj(9, wbits=15, zdict=known)
    plain = plain_form(text(made), arrays)
    return number.to_bytes(4, "little") + coder.compress(plain) + coder.flush()


@settings(deadline=None)
@given(RECORDS)
def test_round_trip(made: Record) -> None:
    stored = record.pack(made)
    assert record.anchor_of(stored) == 0
    assert record.unpack(stored) == made


@settings(deadline=None)
@given(RECORDS, RECORDS, st.integers(1, 2**32 - 1))
def test_round_trip_with_an_anchor(made: Record, anchor: Record, number: int) -> None:
    stored = record.pack(made, number, anchor)
    assert record.anchor_of(stored) == number
    assert record.unpack(stored, anchor) == made


@settings(deadline=None)
@given(RECORDS, RECORDS, st.integers(1, 2**32 - 1))
def test_records_of_form_1_are_read(made: Record, anchor: Record, number: int) -> None:
    """A record of form 2 may be written against one of form 1, too."""
    assert record.unpack(old_form(made)) == made
    stored = old_form(made, number, anchor)
    assert record.anchor_of(stored) == number
    assert record.unpack(stored, anchor) == made
    assert record.unpack(record.pack(made, number, anchor), record.unpack(old_form(anchor))) == made


def a_record(seed: int, path: str = "desk/2024-05-01T12:00:00.png") -> Record:
    """The record of a frame of 1920 x 1080 pixels: 8,160 tiles, 1,080 filter types."""
    source = random.Random(7)
    header: dict[str, Any] = {
        "kind": "delta",
        "frame": [1080, 1920, 3, 8],
        "png": {"c": 6, "d": 8, "o": 1, "z": 30876, "p": [6, 1, 8, 15], "i": 8192},
        "sources": [*range(100, 120), {"fill": [1, 2, 3]}],
        "size": 604123 + seed,
        "mtime": 1714564800000000000 + seed,
        "path": path,
    }
    arrays = {
        "sha256": random.Random(seed).randbytes(32),
        "tiles": bytes(source.choices(range(22), k=8160)),
        "filters": bytes(source.choices(range(5), k=1080)),
    }
    return Record(header, arrays)


def test_an_equal_map_costs_next_to_nothing() -> None:
    anchor = a_record(1)
    same = a_record(2, "desk/2024-05-01T12:01:00.png")
    stored = record.pack(same, 5, anchor)
    assert len(stored) < 100
    assert len(record.pack(same)) > 3000
    assert record.unpack(stored, anchor) == same


def test_arrays_of_another_length_stand_alone() -> None:
    anchor = fits({"a": 1}, {"x": b"1234", "y": b"", "gone": b"9"}, 1, b"")
    made = fits({"a": 2}, {"x": b"12345", "y": b"", "z": b"7"}, 2, b"")
    assert record.unpack(record.pack(made, 1, anchor), anchor) == made


@pytest.mark.parametrize("anchored", [False, True])
def test_every_flipped_bit_is_noticed(anchored: bool) -> None:
    anchor = a_record(1) if anchored else None
    made = Record(a_record(2).header, {"sha256": bytes(range(32)), "filters": bytes(40)})
    stored = record.pack(made, 9 if anchored else 0, anchor)
    unnoticed = 0
    for bit in range(32, 8 * len(stored)):
        data = bytearray(stored)
        data[bit // 8] ^= 1 << bit % 8
        try:
            assert record.unpack(bytes(data), anchor) == made
            unnoticed += 1
        except Damaged:
            pass
    # Some bits of a zstd frame have no meaning here: the one that RFC 8878 calls unused, those of
    # repeated offsets that no later sequence uses, and the like.
    assert unnoticed < 20


def test_the_wrong_anchor_is_noticed() -> None:
    right = a_record(1)
    stored = record.pack(a_record(2), 9, right)
    tiles = bytes([right.arrays["tiles"][0] ^ 1]) + right.arrays["tiles"][1:]
    other_tile = Record(right.header, {**right.arrays, "tiles": tiles})
    other_header = Record({"mtime": 1, "size": 2}, right.arrays)
    for wrong in (None, other_tile, other_header):
        with pytest.raises(Damaged):
            record.unpack(stored, wrong)
    with pytest.raises(Damaged):
        record.unpack(record.pack(a_record(2)), a_record(1))


def test_every_truncation_is_noticed() -> None:
    stored = record.pack(fits({"a": 1}, {"x": b"12345"}, 1, bytes(32)))
    for end in range(len(stored)):
        with pytest.raises(Damaged):
            record.unpack(stored[:end])
    with pytest.raises(Damaged):
        record.unpack(stored + b"\0")
    for end in range(4):
        with pytest.raises(Damaged):
            record.anchor_of(stored[:end])


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=80))
def test_random_bytes_are_damaged(data: bytes) -> None:
    with pytest.raises(Damaged):
        record.unpack(data)


def stored_forms(plain: bytes) -> Iterator[bytes]:
    """Both stored forms of a plain form; the second without a hash."""
    coder = zlib.compressobj(9, wbits=15, zdict=record.DICTIONARY)
    yield bytes(4) + coder.compress(plain) + coder.flush()
    checksum = zlib.crc32(bytes(8) + plain[:-4])
    frame = zstandard.ZstdCompressor().compress(plain)
    yield bytes(4) + b"\3" + checksum.to_bytes(4, "little") + bytes(8) + frame[4:]


def test_a_written_plain_form_is_read() -> None:
    for stored in stored_forms(plain_form(b'{"arrays":[["x",2]]}', b"12")):
        assert record.unpack(stored).arrays["x"] == b"12"


def plain_form(text: bytes, arrays: bytes = b"") -> bytes:
    return arrays + text + len(text).to_bytes(4, "little")


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"\0",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        plain_form(b"[]"),
        plain_form(b"null"),
        plain_form(b"{}"),
        plain_form(b'{"arrays":0}'),
        plain_form(b'{"arrays":{"ab":1}}'),
        plain_form(b'{"arrays":[1]}'),
        plain_form(b'{"arrays":[["x"]]}'),
        plain_form(b'{"arrays":[["x",1,2]]}', b"1"),
        plain_form(b'{"arrays":[["x","1"]]}', b"1"),
        plain_form(b'{"arrays":[[1,1]]}', b"1"),
        plain_form(b'{"arrays":[["x",2]]}', b"1"),
        plain_form(b'{"arrays":[["x",1]]}', b"12"),
        plain_form(b'{"arrays":[["x",5],["y",-4]]}', b"1"),
        plain_form(b'{"arrays":[["x",1.0]]}', b"1"),
        plain_form(b'{"arrays":' + b"[" * 100_000),
        plain_form(b'{"arrays":[],"n":' + b"9" * 5000 + b"}"),
        plain_form(b"\xff"),
    ],
    ids=repr,
)
def test_well_compressed_nonsense_is_damaged(plain: bytes) -> None:
    for stored in stored_forms(plain):
        with pytest.raises(Damaged):
            record.unpack(stored)


def test_a_bomb_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "MAX_PLAIN", 1000)
    bomb = fits({}, {"x": bytes(2000)}, 1, b"")
    for stored in (record.pack(bomb), old_form(bomb)):
        with pytest.raises(Damaged):
            record.unpack(stored)


@settings(deadline=None, max_examples=200)
@given(RECORDS, st.data())
def test_damage_anywhere_never_gives_another_record(made: Record, data: st.DataObject) -> None:
    stored = bytearray(record.pack(made))
    for _ in range(data.draw(st.integers(1, 4))):
        stored[data.draw(st.integers(4, len(stored) - 1))] = data.draw(st.integers(0, 255))
    with suppress(Damaged):
        assert record.unpack(bytes(stored)) == made
