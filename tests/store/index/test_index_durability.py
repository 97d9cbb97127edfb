"""The index: transactions, and its rows after a crash or an error of the disk."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from fsmount.store.disk.disk import Disk
from fsmount.store.disk.reserve import Reserve
from fsmount.store.index import ROOT, Index
from tests.support.frames import FlakyDisk
from tests.support.rows import an_object, file

# -- transactions


def test_a_transaction_that_fails_leaves_nothing(index: Index) -> None:
    index.add_object(an_object(1))
    before = list(index.walk()), index.totals(), index.next_object_id()
    with pytest.raises(ZeroDivisionError), index.transaction():
        file(index, b"a")
        with index.transaction():
            index.set_pack(1, 1, True)
            index.add_object(an_object(2))
        _ = 1 / 0
    assert (list(index.walk()), index.totals(), index.next_object_id()) == before
    assert index.packs() == {}
    with index.transaction():
        with index.transaction():
            file(index, b"a")
        file(index, b"b")
    assert len(index.children(ROOT)) == 2


def test_an_inner_transaction_is_not_committed_before_the_outer(
    index: Index, tmp_path: Path
) -> None:
    beside = Index(tmp_path / "index.sqlite", Disk(), read_only=True)
    with index.transaction():
        with index.transaction():
            file(index, b"a")
        assert beside.lookup(ROOT, b"a") is None
    assert beside.lookup(ROOT, b"a") is not None
    beside.close()


def test_a_read_only_index_cannot_be_changed(index: Index, tmp_path: Path) -> None:
    beside = Index(tmp_path / "index.sqlite", Disk(), read_only=True)
    with pytest.raises(OSError, match="Read-only"):
        file(beside, b"a")
    beside.close()


# -- durability


def test_force_syncs_the_log_and_clears_dirty(
    index: Index, disk: FlakyDisk, tmp_path: Path
) -> None:
    synced = []

    def hook(call: str, what: object) -> int:
        if call == "fsync":
            assert isinstance(what, int)
            synced.append(Path(os.readlink(f"/proc/self/fd/{what}")).name)
        return 0

    disk.hook = hook
    assert not index.dirty
    file(index, b"a")
    assert index.dirty
    index.force()
    assert not index.dirty
    index.force()
    assert synced == ["index.sqlite-wal"] * 2


def test_after_a_failed_fsync_nothing_is_believed_until_a_rewrite(
    index: Index, disk: FlakyDisk, tmp_path: Path
) -> None:
    file(index, b"a")
    disk.fail_once("fsync")
    with pytest.raises(OSError):
        index.force()
    assert index.dirty
    assert index.suspect
    calls = len(disk.calls)
    with pytest.raises(OSError):
        index.force()
    assert len(disk.calls) == calls, "a failed fsync was asked again"
    disk.calls.clear()
    index.rewrite()
    assert not index.suspect
    forced = [call for call, _ in disk.calls if call in ("pwrite", "fsync")]
    assert forced == ["pwrite", "fsync"], "the log is not written again before it is forced"
    index.force()
    assert not index.dirty
    database = tmp_path / "copy" / "index.sqlite"
    shutil.copytree(tmp_path, database.parent, ignore=shutil.ignore_patterns("copy", "*-shm"))
    alone = Index(database, Disk())
    assert alone.lookup(ROOT, b"a") is not None
    alone.close()


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_rewrite_that_fails_heals_nothing(index: Index, disk: FlakyDisk, call: str) -> None:
    file(index, b"a")
    disk.fail_once("fsync")
    with pytest.raises(OSError):
        index.force()
    disk.fail_once(call)
    with pytest.raises(OSError):
        index.rewrite()
    assert index.suspect
    index.rewrite()
    assert not index.suspect


def grow(index: Index, names: str) -> None:
    """Commit until the log is longer than the limit at which the index folds it."""
    with index.transaction():
        for number in range(16_000):
            file(index, b"%s-%d-%s" % (names.encode(), number, b"x" * 200))


def test_the_log_is_folded_only_when_the_disk_has_it(
    index: Index, disk: FlakyDisk, tmp_path: Path
) -> None:
    file(index, b"a")
    size = (tmp_path / "index.sqlite").stat().st_size
    disk.hook = lambda call, what: 5 if call == "fsync" else 0
    grow(index, "first")
    assert (tmp_path / "index.sqlite").stat().st_size == size, "folded a log that may be lost"
    assert index.suspect
    disk.hook = lambda call, what: 0
    disk.calls.clear()
    file(index, b"b")
    assert [call for call, _ in disk.calls if call in ("pwrite", "fsync")][-2:] == [
        "pwrite",
        "fsync",
    ]
    assert (tmp_path / "index.sqlite").stat().st_size > size
    assert not index.suspect


def test_a_log_of_another_process_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    Index.make(path, identity="x", uid=0, gid=0, now_ns=0)
    first = Index(path, Disk())
    file(first, b"a")
    disk = FlakyDisk()
    second = Index(path, disk)
    assert [call for call, _ in disk.calls] == ["pwrite", "fsync"]
    assert not second.suspect
    bad = FlakyDisk()
    bad.hook = lambda call, what: 5 if call == "fsync" else 0
    third = Index(path, bad)
    assert third.suspect
    with pytest.raises(OSError):
        third.force()
    for opened in (third, second, first):
        opened.close()


def test_an_end_on_a_bad_disk_leaves_the_log(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    Index.make(path, identity="x", uid=0, gid=0, now_ns=0)
    disk = FlakyDisk()
    first = Index(path, disk)
    made = file(first, b"a")
    size = path.stat().st_size
    disk.hook = lambda call, what: 5 if call == "fsync" else 0
    first.close()
    assert path.stat().st_size == size
    assert path.with_name("index.sqlite-wal").stat().st_size
    second = Index(path, Disk())
    assert second.lookup(ROOT, b"a") == made
    second.close()
    assert not path.with_name("index.sqlite-wal").exists()


def test_deleting_on_a_full_disk_does_not_make_the_log_longer(
    index: Index, disk: FlakyDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        file(index, b"%d" % number)
    log = tmp_path / "index.sqlite-wal"
    length = log.stat().st_size
    index.reserve = Reserve(tmp_path / "reserve", disk)
    monkeypatch.setattr(index.reserve, "spend_if_full", lambda: True)
    for number in range(60):
        index.purge(index.unlink(ROOT, b"%d" % number, 300).ino)
    assert log.stat().st_size == length
    assert not list(index.by_name(ROOT))


def test_a_log_that_cannot_be_opened_leaves_the_index_dirty(
    index: Index, disk: FlakyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError

    file(index, b"a")
    with monkeypatch.context() as patch:
        patch.setattr(disk, "open", refuse)
        with pytest.raises(OSError):
            index.force()
    assert index.dirty
    index.force()
    assert not index.dirty


def test_two_that_force_at_once_both_hear_of_a_failure(index: Index, disk: FlakyDisk) -> None:
    file(index, b"a")
    inside, go = threading.Event(), threading.Event()

    def hook(call: str, what: object) -> int:
        if call == "fsync" and not inside.is_set():
            inside.set()
            assert go.wait(10)
            return 5
        return 0

    disk.hook = hook
    heard: list[bool] = []

    def force() -> None:
        try:
            index.force()
            heard.append(False)
        except OSError:
            heard.append(True)

    first, second = threading.Thread(target=force), threading.Thread(target=force)
    first.start()
    assert inside.wait(10)
    second.start()
    second.join(0.05)
    go.set()
    first.join(10)
    second.join(10)
    assert heard == [True, True]


def test_what_was_committed_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    Index.make(path, identity="x", uid=0, gid=0, now_ns=0)
    first = Index(path, Disk())
    made = file(first, b"a", staged=9)
    # `first` stays open: a process that starts after a crash sees the log.
    second = Index(path, Disk())
    assert second.lookup(ROOT, b"a") == made
    second.close()
    first.close()
    third = Index(path, Disk(), read_only=True)
    assert third.lookup(ROOT, b"a") == made
    third.close()
