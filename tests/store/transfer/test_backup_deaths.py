"""Backups that end in the middle: a full disk, death at any call, and what a power cut leaves."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from fsmount.errors import DiskFull
from fsmount.store.disk.disk import Disk
from fsmount.store.layout import Layout
from tests.support.backups import MORE, WANTED, faults, fill_store, other_past, saved, shown
from tests.support.frames import FlakyDisk
from tests.support.repacking import fill


@pytest.fixture(name="filled")
def filled_store(root: Path, small_limits: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with sealed packs, an open one, a large file and a staged one."""
    fill_store(root, monkeypatch)
    return root


def test_a_full_disk(filled: Path, tmp_path: Path) -> None:
    dest = tmp_path / "b"
    saved(filled, dest)
    trio.run(fill, filled, MORE)
    states = []
    for skip in range(3):
        disk = FlakyDisk()
        disk.fail_once("pwrite", errno.ENOSPC, skip=skip)
        with pytest.raises(DiskFull, match="No space left"):
            saved(filled, dest, disk=disk)
        states.append(shown(dest))
        assert faults(dest) == []
    # What fails last may be parity, when the new backup is complete.
    assert states[0] == states[1] == WANTED
    assert states[2] in (WANTED, WANTED | MORE)
    saved(filled, dest)
    assert shown(dest) == WANTED | MORE


class _Noting(Disk):
    """Copies a folder before each call that changes it, and in the middle of each write."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self._root = root
        self._scratch = scratch
        self.copies: list[Path] = []

    def _note(self) -> None:
        place = self._scratch / str(len(self.copies))
        shutil.copytree(self._root, place, ignore=shutil.ignore_patterns("lock"))
        self.copies.append(place)

    def create(self, path: Path) -> int:
        self._note()
        return super().create(path)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        super().pwrite(fd, memoryview(data)[: len(data) // 2], offset)
        self._note()
        return super().pwrite(fd, data, offset)

    def ftruncate(self, fd: int, size: int) -> None:
        self._note()
        super().ftruncate(fd, size)

    def rename(self, old: Path, new: Path) -> None:
        self._note()
        super().rename(old, new)
        self._note()

    def unlink(self, path: Path) -> None:
        self._note()
        super().unlink(path)

    def mkdir(self, path: Path, *, parents: bool = False) -> None:
        super().mkdir(path, parents=parents)
        self._note()

    def set_mtime(self, fd: int, mtime_ns: int) -> None:
        self._note()
        super().set_mtime(fd, mtime_ns)


def _first(filled: Path, tmp_path: Path) -> Iterator[dict[bytes, bytes]]:
    """No backup, then the first one."""
    return iter(())


def _next(filled: Path, tmp_path: Path) -> Iterator[dict[bytes, bytes]]:
    """A backup, and a store with more files."""
    saved(filled, tmp_path / "b")
    trio.run(fill, filled, MORE)
    yield WANTED


def _put_back(filled: Path, tmp_path: Path) -> Iterator[dict[bytes, bytes]]:
    """A backup, and a store with another past."""
    other_past(filled, tmp_path)
    yield WANTED | MORE


@pytest.mark.parametrize("scene", [_first, _next, _put_back])
def test_death_at_any_call(
    filled: Path,
    tmp_path: Path,
    scene: Callable[[Path, Path], Iterator[dict[bytes, bytes]]],
) -> None:
    """What is there restores to the last complete backup, and the next one is right."""
    dest = tmp_path / "b"
    allowed = list(scene(filled, tmp_path))
    dest.mkdir(exist_ok=True)
    disk = _Noting(dest, tmp_path / "dead")
    saved(filled, dest, disk=disk)
    complete = shown(dest)
    allowed.append(complete)
    assert len(disk.copies) > 20
    for number, copy in enumerate(disk.copies):
        if not Layout(copy).config.exists():
            assert len(allowed) == 1
        elif number % 3 == 0 or number > len(disk.copies) - 30:
            assert shown(copy) in allowed
            assert faults(copy) == []
        if number % 7 == 0:
            saved(filled, copy)
            assert shown(copy) == complete
            assert faults(copy) == []
            assert set(os.listdir(copy)) <= {*os.listdir(dest), "opened.new", "fsmount.json.new"}


class _Forced(Disk):
    """Notes which files and names of a folder are not forced, and checks them at the switch."""

    def __init__(self) -> None:
        self._written: set[str] = set()
        self._folders: set[str] = set()
        self.switches = 0

    def _path(self, fd: int) -> str:
        return os.readlink(f"/proc/self/fd/{fd}")

    def _names(self, path: Path) -> None:
        self._folders.add(os.path.realpath(path.parent))

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self._written.add(self._path(fd))
        self._names(path)
        return fd

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        self._written.add(self._path(fd))
        return super().pwrite(fd, data, offset)

    def ftruncate(self, fd: int, size: int) -> None:
        self._written.add(self._path(fd))
        super().ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        self._written.discard(self._path(fd))

    def fsync_folder(self, path: Path) -> None:
        super().fsync_folder(path)
        self._folders.discard(os.path.realpath(path))

    def unlink(self, path: Path) -> None:
        self._written.discard(os.path.realpath(path))
        super().unlink(path)

    def rename(self, old: Path, new: Path) -> None:
        if new.name == "index.sqlite":
            self.switches += 1
            # Of the root folder only the names of SQLite's own files may not be forced yet.
            assert {os.path.basename(path) for path in self._folders} <= {new.parent.resolve().name}
            assert self._written == set()
        real = os.path.realpath(old)
        if real in self._written:
            self._written.add(os.path.realpath(new))
        self._written.discard(real)
        super().rename(old, new)
        self._names(new)


@pytest.mark.parametrize("scene", [_first, _next, _put_back])
def test_everything_is_on_the_disk_before_the_switch(
    filled: Path,
    tmp_path: Path,
    scene: Callable[[Path, Path], Iterator[dict[bytes, bytes]]],
) -> None:
    """So a power cut leaves the last backup or the new one."""
    list(scene(filled, tmp_path))
    disk = _Forced()
    saved(filled, tmp_path / "b", disk=disk)
    assert disk.switches == 1
    assert disk._written == set()
