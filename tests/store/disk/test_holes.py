"""Sparse files: how their holes are found, copied and made."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fsmount.store.disk.disk import Disk
from fsmount.store.disk.holes import data_parts, hole_bytes, nonzero_parts

MIB = 1 << 20
BLOCK = 4096
# Positions of the data in the file, and the length of the file, in MiB.
SHAPES = {
    "dense": ([0, 1], 2),
    "empty": ([], 0),
    "a hole first": ([3], 4),
    "a hole between": ([0, 5], 6),
    "a hole last": ([0], 5),
    "a hole only": ([], 3),
    "many": ([1, 4, 9], 12),
}


def sparse(path: Path, at: list[int], size: int) -> Path:
    """Write a file with 8 KiB of data at each MiB of `at`, and holes between."""
    with path.open("wb") as file:
        for number in at:
            file.seek(number * MIB)
            file.write(bytes([number + 1]) * 8192)
        file.truncate(size * MIB)
    return path


def on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512


def tells_holes(folder: Path) -> bool:
    return on_disk(sparse(folder / "try", [], 1)) == 0


def copied(source: Path, target: Path, size: int) -> int:
    disk = Disk()
    reader, writer = os.open(source, os.O_RDONLY), disk.create(target)
    try:
        return disk.copy(reader, writer, size)
    finally:
        os.close(reader)
        disk.close(writer)


def refusing(code: int) -> Callable[..., int]:
    def seek(fd: int, offset: int, how: int) -> int:
        raise OSError(code, os.strerror(code))

    return seek


@pytest.mark.parametrize("shape", SHAPES)
def test_a_copy_has_the_same_bytes_and_holes(tmp_path: Path, shape: str) -> None:
    at, size = SHAPES[shape]
    source = sparse(tmp_path / "source", at, size)
    target = tmp_path / "target"
    assert copied(source, target, size * MIB) == size * MIB
    assert target.read_bytes() == source.read_bytes()
    if tells_holes(tmp_path):
        assert on_disk(target) <= on_disk(source)
        fd = os.open(target, os.O_RDONLY)
        assert hole_bytes(fd, size * MIB) == size * MIB - 8192 * len(at)
        os.close(fd)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_filesystem_that_does_not_tell_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str, code: int
) -> None:
    at, size = SHAPES[shape]
    source = sparse(tmp_path / "source", at, size)
    with monkeypatch.context() as patch:
        patch.setattr(os, "lseek", refusing(code))
        assert copied(source, tmp_path / "target", size * MIB) == size * MIB
    assert (tmp_path / "target").read_bytes() == source.read_bytes()


def test_an_error_of_the_disk_is_no_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sparse(tmp_path / "source", [0], 2)
    monkeypatch.setattr(os, "lseek", refusing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        copied(source, tmp_path / "target", 2 * MIB)


@pytest.mark.parametrize("size", [1, 4096, MIB + 5, 5 * MIB + 4096, 5 * MIB + 9000])
def test_only_so_many_bytes(tmp_path: Path, size: int) -> None:
    source = sparse(tmp_path / "source", [0, 5], 9)
    assert copied(source, tmp_path / "target", size) == size
    assert (tmp_path / "target").read_bytes() == source.read_bytes()[:size]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_source_that_is_shorter_than_it_said(tmp_path: Path, shape: str) -> None:
    at, size = SHAPES[shape]
    source = sparse(tmp_path / "source", at, size)
    assert copied(source, tmp_path / "target", size * MIB + 12345) == size * MIB
    assert (tmp_path / "target").read_bytes() == source.read_bytes()


def test_parts_are_in_order_and_apart(tmp_path: Path) -> None:
    source = sparse(tmp_path / "source", [1, 4, 9], 12)
    fd = os.open(source, os.O_RDONLY)
    parts = list(data_parts(fd, 12 * MIB))
    os.close(fd)
    assert parts == sorted(parts)
    assert all(start < end for start, end in parts)
    data = source.read_bytes()
    kept = b"".join(data[start:end] for start, end in parts)
    assert kept.replace(b"\0", b"") == data.replace(b"\0", b"")


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"", []),
        (b"\0", []),
        (b"\0\1", [(0, 2)]),
        (bytes(3 * BLOCK), []),
        (bytes(BLOCK) + b"x", [(BLOCK, BLOCK + 1)]),
        (b"x" + bytes(3 * BLOCK), [(0, BLOCK)]),
        (b"x" * (2 * BLOCK) + bytes(BLOCK) + b"y", [(0, 2 * BLOCK), (3 * BLOCK, 3 * BLOCK + 1)]),
        (bytes(BLOCK - 1) + b"x", [(0, BLOCK)]),
    ],
)
def test_what_has_to_be_written(data: bytes, wanted: list[tuple[int, int]]) -> None:
    assert list(nonzero_parts(data)) == wanted
