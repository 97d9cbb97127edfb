"""The form of an encrypted object: any bytes come back, no other bytes are taken."""

from __future__ import annotations

import io
import os
import subprocess
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.remote.encryption import sealing
from fsmount.remote.encryption.sealing import (
    CHUNK,
    Broken,
    opened,
    opened_range,
    place_of,
    plain_size,
    sealed,
)

KEY = bytes(range(32))
SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 77)


def key_of(number: int) -> bytes:
    assert number == 1
    return KEY


@pytest.mark.parametrize("size", SIZES)
def test_there_and_back(size: int, tmp_path: Path) -> None:
    plain = os.urandom(size)
    data = sealed(plain, 1, KEY)
    assert plain_size(len(data)) == size
    assert opened(data, key_of) == plain
    assert sealed(plain, 1, KEY) != data
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        assert file.testzip() is None
        assert file.namelist() == sorted(file.namelist())
    (tmp_path / "a.zip").write_bytes(data)
    subprocess.run(["unzip", "-tq", tmp_path / "a.zip"], check=True, stdout=subprocess.DEVNULL)


def test_sizes_of_no_object() -> None:
    sizes = {plain_size(size) for size in range(160)}
    assert sizes == {None, 0, 1}
    whole = len(sealed(bytes(CHUNK), 1, KEY))
    # Two chunks need more bytes than one: some sizes mean nothing.
    assert [plain_size(whole + more) for more in (0, 1, 136, 137)] == [CHUNK, None, None, CHUNK + 1]


@given(st.sampled_from(SIZES[1:]), st.integers(0, 2**20), st.integers(0, 4 * CHUNK))
def test_any_range(size: int, start: int, length: int) -> None:
    plain = bytes(range(251)) * (size // 251 + 1)
    plain = plain[:size]
    start %= size
    data = sealed(plain, 1, KEY)
    at, count = place_of(start, length)
    found = opened_range(data[at : at + count], start, length, key_of)
    assert found == plain[start : start + length]


def test_each_flipped_bit_is_refused() -> None:
    data = sealed(b"some bytes", 1, KEY)
    at, count = place_of(0, 10)
    used = 30 + 16 + 12 + 10 + 16
    for bit in range(len(data) * 8):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises((Broken, AssertionError)):
            opened(bytes(broken), key_of)
        if bit < used * 8:
            with pytest.raises((Broken, AssertionError)):
                opened_range(bytes(broken)[at : at + count], 0, 10, key_of)


@pytest.mark.parametrize("cut", [1, 22, 23, 100, 65_000, 66_000, 131_400])
def test_what_is_cut_off_is_refused(cut: int) -> None:
    plain = os.urandom(2 * CHUNK + 5)
    data = sealed(plain, 1, KEY)
    with pytest.raises(Broken):
        opened(data[:-cut], key_of)
    with pytest.raises(Broken):
        opened(data + bytes(cut), key_of)
    at, count = place_of(CHUNK, 2 * CHUNK)
    part = data[at : at + count]
    end = len(part) - cut
    # The directory is no part of a range.
    if end < CHUNK + 28 + 46 + 5 + 28 + 46:
        with pytest.raises(Broken):
            opened_range(part[: max(end, 0)], CHUNK, 2 * CHUNK, key_of)


def test_a_range_that_ends_between_chunks_is_refused() -> None:
    data = sealed(bytes(3 * CHUNK), 1, KEY)
    at, count = place_of(0, CHUNK)
    with pytest.raises(Broken):
        opened_range(data[at : at + count], 0, CHUNK + 1, key_of)


def rebuilt(contents: list[bytes]) -> bytes:
    """A ZIP of these contents, with right headers and directory, as an attacker can make it."""
    rows = [(zlib.crc32(content), len(content)) for content in contents]
    pieces = []
    for i, (row, content) in enumerate(zip(rows, contents, strict=True)):
        pieces += [sealing._head(1, i, len(contents), *row), content]
    return b"".join(pieces) + sealing._directory(1, rows)


def contents_of(data: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return [file.read(name) for name in file.namelist()]


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (0, 0, 2), (0, 1), (0, 2), (0, 1, 2, 2)])
def test_chunks_at_other_places_are_refused(order: tuple[int, ...]) -> None:
    plain = os.urandom(3 * CHUNK)
    contents = contents_of(sealed(plain, 1, KEY))
    assert opened(rebuilt(contents), key_of) == plain
    broken = rebuilt([contents[i] for i in order])
    with pytest.raises(Broken):
        opened(broken, key_of)
    at, count = place_of(0, len(order) * CHUNK)
    with pytest.raises(Broken):
        opened_range(broken[at : at + count], 0, len(order) * CHUNK, key_of)


def test_a_chunk_of_another_object_is_refused() -> None:
    contents = contents_of(sealed(os.urandom(2 * CHUNK), 1, KEY))
    others = contents_of(sealed(os.urandom(2 * CHUNK), 1, sealing.derived(KEY, "store", "other")))
    broken = rebuilt([contents[0], others[1]])
    with pytest.raises(Broken):
        opened(broken, key_of)
    at, count = place_of(CHUNK, CHUNK)
    with pytest.raises(Broken):
        opened_range(broken[at : at + count], CHUNK, CHUNK, key_of)


def test_keys_of_objects_differ() -> None:
    keys = {
        sealing.derived(KEY, store, f"object {name}")
        for store in ("one", "two")
        for name in ("packs/a", "packs/b", "state/000000000001")
    }
    assert len(keys) == 6
