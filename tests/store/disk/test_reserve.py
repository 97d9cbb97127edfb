"""The space that is reserved for deletions."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fsmount.store.disk.disk import Disk
from fsmount.store.disk.reserve import RESERVE_BYTES, Reserve


class FullDisk(Disk):
    def allocate(self, fd: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def with_free(monkeypatch: pytest.MonkeyPatch, path: Path, free: int) -> None:
    fields = list(os.statvfs(path))
    fields[1], fields[4] = 1, free
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))


def test_it_holds_allocated_bytes(tmp_path: Path) -> None:
    Reserve(tmp_path / "reserve", Disk()).fill()
    found = (tmp_path / "reserve").stat()
    assert found.st_size == RESERVE_BYTES
    assert found.st_blocks * 512 >= RESERVE_BYTES


@pytest.mark.parametrize(("free", "left"), [(RESERVE_BYTES - 1, False), (RESERVE_BYTES, True)])
def test_it_goes_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, left: bool
) -> None:
    reserve = Reserve(tmp_path / "reserve", Disk())
    reserve.fill()
    with_free(monkeypatch, tmp_path, free)
    assert reserve.spend_if_full() is not left
    assert (tmp_path / "reserve").exists() is left
    assert reserve.is_spent is not left
    assert reserve.spend_if_full() is not left


def test_a_full_disk_gets_none_and_is_asked_again(tmp_path: Path) -> None:
    assert not Reserve(tmp_path / "reserve", FullDisk()).fill()
    assert not (tmp_path / "reserve").exists()
    assert Reserve(tmp_path / "reserve", Disk()).fill()
    assert (tmp_path / "reserve").exists()


def test_it_grows_to_the_largest_entry_where_there_is_plenty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "reserve"
    reserve = Reserve(path, Disk())
    reserve.want(RESERVE_BYTES // 2)
    assert reserve.fill()
    assert path.stat().st_size == RESERVE_BYTES
    reserve.want(5 * RESERVE_BYTES)
    reserve.want(3 * RESERVE_BYTES)
    with_free(monkeypatch, tmp_path, 24 * RESERVE_BYTES - 1)
    assert reserve.fill()
    assert path.stat().st_size == RESERVE_BYTES
    with_free(monkeypatch, tmp_path, 24 * RESERVE_BYTES)
    assert reserve.fill()
    assert path.stat().st_blocks * 512 >= 6 * RESERVE_BYTES
    # The reserve fills also after it was given up, and for the next process.
    path.unlink()
    with_free(monkeypatch, tmp_path, 2 * RESERVE_BYTES)
    assert reserve.fill()
    assert path.stat().st_size == RESERVE_BYTES
    with_free(monkeypatch, tmp_path, 30 * RESERVE_BYTES)
    assert reserve.fill()
    path.unlink()
    assert reserve.fill()
    assert path.stat().st_size == 6 * RESERVE_BYTES
    assert Reserve(path, Disk()).fill()
    assert path.stat().st_size == 6 * RESERVE_BYTES


def test_where_it_cannot_grow_it_stays(tmp_path: Path) -> None:
    assert Reserve(tmp_path / "reserve", Disk()).fill()
    reserve = Reserve(tmp_path / "reserve", FullDisk())
    reserve.want(3 * RESERVE_BYTES)
    assert reserve.fill()
    assert (tmp_path / "reserve").stat().st_size == RESERVE_BYTES


def test_one_that_a_death_left_empty_is_filled(tmp_path: Path) -> None:
    (tmp_path / "reserve").touch()
    assert Reserve(tmp_path / "reserve", Disk()).fill()
    assert (tmp_path / "reserve").stat().st_size == RESERVE_BYTES
