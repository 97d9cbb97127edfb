"""The system calls of the store."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fsmount.store.disk.disk import Disk
from tests.support.frames import FlakyDisk


def test_create_is_private_and_never_opens_what_is_there(tmp_path: Path) -> None:
    disk = Disk()
    fd = disk.create(tmp_path / "a")
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
    assert not os.get_inheritable(fd)
    disk.close(fd)
    with pytest.raises(OSError):
        os.fstat(fd)
    with pytest.raises(FileExistsError):
        disk.create(tmp_path / "a")


def test_open_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Disk().open(tmp_path / "none", os.O_RDWR)


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:3], at))
    disk = Disk()
    fd = disk.create(tmp_path / "a")
    assert disk.pwrite(fd, b"0123456789", 2) == 10
    disk.close(fd)
    assert (tmp_path / "a").read_bytes() == b"\0\0" + b"0123456789"


def test_truncate_rename_link_unlink(tmp_path: Path) -> None:
    disk = Disk()
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    fd = disk.create(a)
    disk.pwrite(fd, b"abcdef", 0)
    disk.ftruncate(fd, 3)
    disk.fsync(fd)
    disk.close(fd)
    disk.link(a, b)
    assert b.samefile(a)
    with pytest.raises(FileExistsError):
        disk.link(a, b)
    c.write_bytes(b"old")
    disk.rename(a, c)
    assert c.read_bytes() == b"abc"
    assert not a.exists()
    disk.unlink(b)
    disk.unlink(b)
    assert not b.exists()


def test_folders(tmp_path: Path) -> None:
    disk = Disk()
    disk.mkdir(tmp_path / "a")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    with pytest.raises(FileExistsError):
        disk.mkdir(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        disk.mkdir(tmp_path / "x" / "y")
    disk.mkdir(tmp_path / "x" / "y", parents=True)
    disk.mkdir(tmp_path / "x" / "y", parents=True)
    disk.fsync_folder(tmp_path / "x" / "y")
    disk.chmod(tmp_path / "x", 0o750)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o750


def test_write_file_replaces_whole_and_durably(tmp_path: Path) -> None:
    disk = FlakyDisk()
    path = tmp_path / "config"
    path.write_bytes(b"old")
    (tmp_path / "config.new").write_bytes(b"left over from a crash, and longer")
    disk.write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["config"]
    assert [call for call, _ in disk.calls].count("fsync") == 2


@pytest.mark.parametrize("call", ["create", "pwrite", "fsync", "close"])
def test_write_file_that_fails_leaves_the_old_file(tmp_path: Path, call: str) -> None:
    disk = FlakyDisk()
    path = tmp_path / "config"
    path.write_bytes(b"old")
    disk.fail_once(call)
    with pytest.raises(OSError):
        disk.write_file(path, b"new and longer")
    assert path.read_bytes() == b"old"
    disk.write_file(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("parts", "size"),
    [
        ([], 0),
        ([(0, b"0123456789")], 10),
        ([(0, b"0123456789")], 1 << 20),
        ([(1 << 20, b"behind a hole")], (1 << 20) + 13),
        ([(5, b"a"), (3 << 20, b"b" * 9000)], 9 << 20),
        ([], 5 << 20),
    ],
)
def test_a_copy_has_the_bytes_and_the_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: list[tuple[int, bytes]], size: int
) -> None:
    monkeypatch.setattr("fsmount.store.disk.disk._COPY_BYTES", 4096)
    disk = Disk()
    source, target = disk.create(tmp_path / "a"), disk.create(tmp_path / "b")
    for offset, data in parts:
        disk.pwrite(source, data, offset)
    disk.ftruncate(source, size)
    assert disk.copy(source, target, size) == size
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert os.fstat(target).st_blocks <= os.fstat(source).st_blocks
    disk.close(source)
    disk.close(target)
