"""Reads of encoded files: rendered bytes, and large files that are kept as files."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.errors import Damaged
from fsmount.store.packs import bodies
from fsmount.store.packs.bodies import KeptBody, RenderedBody, dump_sums, load_sums, sum_up

SEGMENT = bodies.SEGMENT_BYTES


@pytest.fixture(name="vast")
def vast_folder(tmp_path: Path) -> Iterator[Path]:
    """A file of 10^15 bytes, on a file system that takes such files."""
    for folder in (tmp_path, Path("/dev/shm")):
        path = folder / f"fsmount-test-{os.getpid()}"
        try:
            with path.open("wb") as file:
                file.truncate(10**15)
        except OSError:
            path.unlink(missing_ok=True)
            continue
        yield path
        path.unlink()
        return
    pytest.skip("no file system here takes 10^15 bytes")


async def test_rendered_bytes() -> None:
    body = RenderedBody(b"0123456789")
    assert body.size == 10
    assert await body.pread(3, 4) == b"3456"
    assert await body.pread(8, 99) == b"89"
    assert await body.pread(10, 1) == b""


@given(st.dictionaries(st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32), max_size=9))
def test_sums_round_trip(sums: dict[int, bytes]) -> None:
    data = dump_sums(sums)
    assert load_sums(data) == sums
    if data:
        with pytest.raises(Damaged):
            load_sums(data[:-1])


def large(path: Path, extra: int = 12_345) -> bytes:
    """Write a file of data, written zeros, a hole, and data. Returns its bytes."""
    source = random.Random(1)
    first = source.randbytes(SEGMENT + 77)
    last = source.randbytes(extra)
    with path.open("wb") as file:
        file.write(first + bytes(SEGMENT * 2))
        file.seek(SEGMENT * 7)
        file.write(last)
    return path.read_bytes()


async def test_a_kept_file_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a"
    data = large(path)
    sums, sha256, size = sum_up(path)
    assert size == len(data)
    assert sha256 == hashlib.sha256(data).digest()
    assert sorted(sums) == [0, 1, 7], "segments of zeros need no sum"
    body = KeptBody(path, size, load_sums(dump_sums(sums)))
    assert await body.pread(0, size + 5) == data
    source = random.Random(2)
    for _ in range(30):
        start, length = source.randrange(size + 10), source.randrange(3 * SEGMENT)
        assert await body.pread(start, length) == data[start : start + length]
    assert await body.pread(size, 10) == b""


async def test_an_empty_file_and_whole_segments(tmp_path: Path) -> None:
    for size in (0, SEGMENT, 2 * SEGMENT):
        path = tmp_path / str(size)
        path.write_bytes(b"x" * size)
        sums, sha256, found = sum_up(path)
        assert (found, len(sums)) == (size, size // SEGMENT)
        assert sha256 == hashlib.sha256(b"x" * size).digest()
        assert await KeptBody(path, size, sums).pread(0, size + 1) == b"x" * size


async def test_damage_is_found_where_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    data = large(path)
    sums, _, size = sum_up(path)
    for at in (0, SEGMENT + 3, 3 * SEGMENT + 1, 5 * SEGMENT, size - 1):
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([data[at] ^ 1]))
        body = KeptBody(path, size, sums)
        with pytest.raises(Damaged):
            await body.pread(at, 1)
        with pytest.raises(Damaged):
            await body.pread(0, size)
        other = 0 if at >= SEGMENT else 7 * SEGMENT
        assert await body.pread(other, 10) == data[other : other + 10]
        with path.open("r+b") as file:
            file.seek(at)
            file.write(data[at : at + 1])


async def test_a_file_that_is_cut_off_or_gone_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a"
    large(path)
    sums, _, size = sum_up(path)
    for left in (size - 1, 7 * SEGMENT, 4 * SEGMENT, 0):
        os.truncate(path, left)
        with pytest.raises(Damaged):
            await KeptBody(path, size, sums).pread(0, size)
    with path.open("ab") as file:
        file.truncate(size)
    with pytest.raises(Damaged):
        await KeptBody(path, size, sums).pread(0, size)
    path.unlink()
    with pytest.raises(Damaged):
        await KeptBody(path, size, sums).pread(0, 1)


async def test_a_vast_sparse_file_is_cheap(vast: Path) -> None:
    with vast.open("r+b") as file:
        file.seek(5 * 10**14)
        file.write(b"in the middle")
    sums, sha256, size = sum_up(vast)
    assert (size, sha256, len(sums)) == (10**15, b"", 1)
    body = KeptBody(vast, size, sums)
    assert await body.pread(5 * 10**14 - 2, 15) == b"\0\0in the middle"
    assert await body.pread(10**15 - 3, 10) == b"\0\0\0"


def test_an_error_while_data_is_looked_for_is_no_hole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "told so")

    large(tmp_path / "a")
    monkeypatch.setattr(os, "lseek", fail)
    with pytest.raises(OSError):
        sum_up(tmp_path / "a")


def test_a_read_that_stops_at_a_bad_page_is_not_summed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(random.Random(1).randbytes(2 * SEGMENT))
    real = os.pread
    whole = sum_up(path)

    def short(fd: int, length: int, offset: int) -> bytes:
        return real(fd, min(length, 4096), offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", short)
        assert sum_up(path) == whole
