"""Parity: what any stretch of damage leaves, and what is never believed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmount.errors import Damaged
from fsmount.store.packs import parity
from fsmount.store.packs.parity import BLOCK, STRETCH_BYTES, Parity

LENGTHS = (1, 1000, 1024, 1025, 5000, 66_560, 66_561, 190_000, 200_000, 500_000, 1_300_001)


def bytes_of(length: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(length)


def made(path: Path, data: bytes, percent: int = 5) -> Parity:
    """Write a pack of these bytes and its parity."""
    path.write_bytes(data)
    shape = parity.plan(1, len(data), percent)
    parity.file_of(path).write_bytes(parity.build(path, shape))
    return parity.load_of(path)


def read(path: Path, known: Parity, offset: int, length: int) -> bytes:
    with parity.reading(path) as fd:
        return known.read(fd, offset, length)[0]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("percent", [1, 5, 25])
def test_a_stretch_of_the_stated_length_wherever_it_begins(
    tmp_path: Path, length: int, percent: int
) -> None:
    data = bytes_of(length)
    path = tmp_path / "00000001.zip"
    known = made(path, data, percent)
    shape = known.shape
    assert shape.stretch >= min(STRETCH_BYTES, length, shape.stretch)
    everything = shape.parity_blocks >= shape.blocks
    most = length if everything else shape.stretch
    assert most >= min(length, STRETCH_BYTES)
    rng = np.random.default_rng(length)
    places = {0, length - most, *rng.integers(0, length - most + 1, 6).tolist()}
    for at in places:
        path.write_bytes(data[:at] + bytes_of(most, 7) + data[at + most :])
        assert read(path, known, 0, length) == data
        part = max(0, at - 50)
        assert read(path, known, part, min(length - part, 3000)) == data[part:][:3000]
    if everything:
        path.unlink()
        assert read(path, known, 0, length) == data


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 300_000),
    percent=st.integers(1, 25),
    holes=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 200)), max_size=8),
    cut=st.floats(0, 1),
)
def test_whatever_is_damaged_the_bytes_are_right_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    length: int,
    percent: int,
    holes: list[tuple[float, int]],
    cut: float,
) -> None:
    data = bytes_of(length)
    path = tmp_path_factory.mktemp("packs") / "00000001.zip"
    known = made(path, data, percent)
    damaged = bytearray(data[: round(length * (1 - cut / 3))])
    for place, size in holes:
        at = round(place * length)
        damaged[at : at + size] = bytes_of(len(damaged[at : at + size]), size)
    path.write_bytes(damaged)
    for at in range(0, length, 40_000):
        try:
            got = read(path, known, at, min(40_000, length - at))
        except Damaged:
            continue
        assert got == data[at : at + 40_000]


def test_the_share_is_the_stated_one() -> None:
    for length in (2 << 20, 15_000_000, 64 << 20, 96 << 20):
        for percent in (5, 10, 25):
            size = parity.size_of(length, percent)
            assert percent / 100 < size / length < percent / 100 + 0.009
    # The parity of a small pack is never larger than the pack, but for checksums.
    for length in LENGTHS:
        assert parity.size_of(length, 5) <= -(-length // BLOCK) * (BLOCK + 8) + 72
        assert parity.size_of(length, 0) == 0


def test_every_bit_of_the_checksums_counts(tmp_path: Path) -> None:
    path = tmp_path / "00000001.zip"
    known = made(path, bytes_of(9000))
    good = known.path.read_bytes()
    head = len(good) - known.shape.parity_blocks * BLOCK
    for at in range(head):
        for bit in range(8):
            bad = bytearray(good)
            bad[at] ^= 1 << bit
            known.path.write_bytes(bad)
            with pytest.raises(Damaged):
                parity.load_of(path)
    for end in range(0, len(good), 97):
        known.path.write_bytes(good[:end])
        with pytest.raises(Damaged):
            parity.load_of(path)
    known.path.write_bytes(good + b"\0")
    with pytest.raises(Damaged):
        parity.load_of(path)


def test_that_of_another_pack_is_not_taken(tmp_path: Path) -> None:
    known = made(tmp_path / "00000001.zip", bytes_of(9000))
    known.path.rename(tmp_path / "00000002.parity")
    with pytest.raises(Damaged, match="another pack"):
        parity.load_of(tmp_path / "00000002.zip")


def test_damaged_parity_blocks_are_not_used(tmp_path: Path) -> None:
    data = bytes_of(5000)
    path = tmp_path / "00000001.zip"
    known = made(path, data)
    whole = bytearray(known.path.read_bytes())
    whole[-1] ^= 1
    known.path.write_bytes(whole)
    assert known.damaged_parity() == 1
    # Five blocks and four parity blocks are left, in a code that needs five of ten.
    path.write_bytes(bytes(4000) + data[4000:])
    assert read(path, known, 0, 5000) == data
    path.write_bytes(bytes(5000))
    with pytest.raises(Damaged, match="too many"):
        read(path, known, 0, 5000)


def test_a_pack_that_grew_keeps_its_parity(tmp_path: Path) -> None:
    data = bytes_of(5000)
    path = tmp_path / "00000001.zip"
    known = made(path, data)
    path.write_bytes(data + bytes_of(3000, 1))
    with parity.reading(path) as fd:
        assert known.damaged(fd) == []
    path.write_bytes(bytes(300) + data[300:] + bytes_of(3000, 1))
    assert read(path, known, 0, 5000) == data
    with pytest.raises(Damaged, match="does not cover"):
        read(path, known, 4999, 2)


def test_a_sector_that_cannot_be_read_is_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes_of(100_000)
    path = tmp_path / "00000001.zip"
    known = made(path, data)
    real = os.pread

    def pread(fd: int, length: int, offset: int) -> bytes:
        is_pack = os.readlink(f"/proc/self/fd/{fd}").endswith(".zip")
        if is_pack and offset < 12_288 and offset + length > 8192:
            raise OSError(5, "told to fail")
        return real(fd, length, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert read(path, known, 0, 100_000) == data
    with parity.reading(path) as fd:
        assert known.damaged(fd) == [8, 9, 10, 11]


def times(a: int, b: int) -> int:
    """Multiply two elements of GF(256)."""
    product = 0
    while b:
        product ^= a * (b & 1)
        a = a << 1 ^ 0x11D * (a >> 7)
        b >>= 1
    return product


def power(exponent: int) -> int:
    value = 1
    for _ in range(exponent % 255):
        value = times(value, 2)
    return value


def test_the_code_is_the_documented_one(tmp_path: Path) -> None:
    """docs/format.md says what the parity bytes are. Each parity row solves its equation."""
    length = 7 * BLOCK - 5
    path = tmp_path / "00000001.zip"
    known = made(path, bytes_of(length))
    shape = known.shape
    rows, extra = shape.rows, shape.parity_rows
    body = known.path.read_bytes()[-shape.parity_blocks * BLOCK :]
    data = path.read_bytes().ljust(rows * BLOCK, b"\0")
    assert shape.columns == 1
    matrix = [[int(column == 0) for column in range(rows)]]
    matrix += [[power(row * column) for column in range(rows)] for row in range(rows + extra - 1)]
    for at in range(0, BLOCK, 101):
        message = [data[row * BLOCK + at] for row in range(rows)]
        solved = solve([list(row) for row in matrix[:rows]], message)
        for row in range(extra):
            value = 0
            for factor, unknown in zip(matrix[rows + row], solved, strict=True):
                value ^= times(factor, unknown)
            assert body[row * BLOCK + at] == value


def solve(matrix: list[list[int]], values: list[int]) -> list[int]:
    """Solve linear equations over GF(256)."""
    size = len(values)
    rows = [[*row, value] for row, value in zip(matrix, values, strict=True)]
    for at in range(size):
        pivot = next(row for row in range(at, size) if rows[row][at])
        rows[at], rows[pivot] = rows[pivot], rows[at]
        inverse = next(each for each in range(1, 256) if times(each, rows[at][at]) == 1)
        rows[at] = [times(inverse, each) for each in rows[at]]
        for row in range(size):
            factor = rows[row][at]
            if row != at and factor:
                rows[row] = [
                    each ^ times(factor, other)
                    for each, other in zip(rows[row], rows[at], strict=True)
                ]
    return [row[-1] for row in rows]
