"""The copy of an index that is in use, and the rows that make it the index of a backup."""

from __future__ import annotations

import os
from pathlib import Path

from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index, Object, leave_log_mode


def test_a_copy_has_all_rows_and_checksums(index: Index, tmp_path: Path) -> None:
    """Also if it is larger than the cache of SQLite, and if its rows lie in the log."""
    values = {number: os.urandom(3000) for number in range(2000)}
    for first in range(0, 2000, 100):
        with index.transaction():
            for number in range(first, first + 100):
                index.set_xattr(number, b"name", values[number])
    with index.transaction():
        for number in range(0, 2000, 3):
            index.set_xattr(number, b"name", b"short")
    index.copy_to(tmp_path / "copy")
    copy = Index(tmp_path / "copy", Disk())
    assert copy.integrity() == []
    assert copy.all_xattrs() == index.all_xattrs()
    copy.set_backup(1, 2, {})
    copy.close()
    leave_log_mode(tmp_path / "copy")
    again = Index(tmp_path / "copy", Disk(), read_only=True)
    assert again.integrity() == []
    assert sorted(os.listdir(tmp_path)) == ["copy", "index.sqlite", "index.sqlite-shm",
                                            "index.sqlite-wal"]  # fmt: skip
    again.close()


def _object(number: int, pack: int) -> Object:
    return Object(number, "key", pack, 0, 10, 20, bytes(32), 0)


def test_packs_that_exchange_their_numbers(index: Index, tmp_path: Path) -> None:
    for number, pack in enumerate((3, 4, 5), start=1):
        index.add_object(_object(number, pack))
        index.set_pack(pack, 10 * pack, sealed=pack < 5)
    index.set_repacked(3, 7)
    index.set_repacked(5, 9)
    assert index.backup_of() is None
    index.copy_to(tmp_path / "copy")
    copy = Index(tmp_path / "copy", Disk())
    copy.set_backup(6, 77, {3: 4, 4: 3})
    assert (copy.backup_of(), copy.writer(), copy.backup_packs()) == (6, 77, {3: 4, 4: 3})
    assert copy.packs() == {4: (30, True), 3: (40, True), 5: (50, False)}
    assert [row[:2] for row in copy.entries()] == [(1, 4), (2, 3), (3, 5)]
    assert copy.repacked() == {4: 7, 5: 9}
    # A backup of the backup knows its own numbers alone.
    copy.set_backup(7, 77, {5: 8})
    assert copy.backup_packs() == {5: 8}
    assert copy.integrity() == []
    copy.close()
