"""A backup is one state of a store, and a store itself, also while the next one is made."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from fsmount.errors import BackupUnsettled, Damaged, InsideStore, NotABackup, StoreLocked
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index
from fsmount.store.packs import parity
from fsmount.store.store import open_read_store, open_store
from fsmount.store.transfer import backup as backup_module
from tests.support.backups import (
    MORE,
    WANTED,
    faults,
    fill_store,
    other_past,
    saved,
    shown,
)
from tests.support.packs import flip
from tests.support.paths import CHECKOUT
from tests.support.repacking import always_pays, delete, fill, run


@pytest.fixture(name="filled")
def filled_store(root: Path, small_limits: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with sealed packs, an open one, a large file and a staged one."""
    fill_store(root, monkeypatch)
    return root


def test_a_backup_is_a_store(filled: Path, tmp_path: Path) -> None:
    done = saved(filled, tmp_path / "b")
    assert (done.files, done.problems) == (len(WANTED), [])
    assert len(list((tmp_path / "b" / "packs").glob("*.zip"))) == done.packs > 1
    assert shown(tmp_path / "b") == WANTED
    assert faults(tmp_path / "b") == []
    # Readers make nothing beside the index, so a program that copies the folder copies all of it.
    assert not list((tmp_path / "b").glob("index.sqlite-*"))
    assert (tmp_path / "b" / "index.sqlite").stat().st_mode & 0o777 == 0o600
    # A restored store is written on.
    shutil.copytree(tmp_path / "b", tmp_path / "restored")
    trio.run(fill, tmp_path / "restored", MORE)
    assert shown(tmp_path / "restored") == WANTED | MORE
    assert faults(tmp_path / "restored") == []
    assert not (tmp_path / "restored" / "lost").exists()


def test_the_next_backup_copies_what_is_new(filled: Path, tmp_path: Path) -> None:
    dest = tmp_path / "b"
    saved(filled, dest)
    before = {path.name: path.stat() for path in (dest / "packs").glob("*.zip")}
    newest = max(before)
    trio.run(fill, filled, MORE)
    with open_read_store(filled) as store:
        wanted = sum(found.length for found in store.index.all_objects())
    done = saved(filled, dest)
    assert shown(dest) == WANTED | MORE
    assert faults(dest) == []
    for name, info in before.items():
        now = (dest / "packs" / name).stat()
        assert now.st_ino == info.st_ino
        assert name == newest or now.st_mtime_ns == info.st_mtime_ns
    assert 0 < done.copied_bytes < wanted - sum(before[n].st_size for n in before if n != newest)
    assert saved(filled, dest).copied_bytes == 0
    assert {entry.name for entry in (dest / "staging").iterdir()} == set()


def test_each_pack_has_parity_of_its_committed_bytes(filled: Path, tmp_path: Path) -> None:
    saved(filled, tmp_path / "b")
    with open_read_store(tmp_path / "b") as store:
        for number, (length, _) in store.index.packs().items():
            assert parity.load_of(store.layout.pack(number)).shape.covered == length


def test_what_was_removed_leaves_the_backup(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(filled, tmp_path / "b")
    before = set(os.listdir(tmp_path / "b" / "packs"))
    trio.run(delete, filled, b"large", b"05.png")
    always_pays(monkeypatch)
    trio.run(run, filled)
    saved(filled, tmp_path / "b")
    assert shown(tmp_path / "b") == {
        p: d for p, d in WANTED.items() if p not in (b"large", b"05.png")
    }
    assert faults(tmp_path / "b") == []
    assert not os.listdir(tmp_path / "b" / "raw")
    packs = set(os.listdir(tmp_path / "b" / "packs"))
    assert packs - {"names.gz"} and not before & packs - {"names.gz"}


# -- the store changes meanwhile


def when_copied(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object], times: int = 1) -> None:
    """Do something after each of the first copies of the index of a store."""
    left = [times]
    copy_to = Index.copy_to

    def copy(self: Index, path: Path) -> None:
        copy_to(self, path)
        if left[0]:
            left[0] -= 1
            do()

    monkeypatch.setattr(Index, "copy_to", copy)
    monkeypatch.setattr(backup_module, "_REST_S", 0.0)


def test_a_repack_removes_packs_meanwhile(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    always_pays(monkeypatch)
    when_copied(monkeypatch, lambda: trio.run(run, filled))
    assert saved(filled, tmp_path / "b").problems == []
    assert shown(tmp_path / "b") == WANTED
    assert faults(tmp_path / "b") == []


def test_the_encoder_takes_a_staged_file_meanwhile(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    when_copied(monkeypatch, lambda: trio.run(fill, filled, MORE))
    done = saved(filled, tmp_path / "b")
    # The first state, with the staged file: it was held open.
    assert (done.files, done.problems) == (len(WANTED), [])
    assert shown(tmp_path / "b") == WANTED
    with open_read_store(tmp_path / "b") as store:
        assert len(store.index.staged_inodes()) == 1


def test_a_store_that_never_rests(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    always_pays(monkeypatch)
    saved(filled, tmp_path / "b")
    names = iter(range(100))

    def change() -> None:
        trio.run(run, filled)
        # The next copy of the index names a pack that the next repack removes.
        trio.run(fill, filled, {b"new %d" % next(names): os.urandom(3000)})

    change()
    monkeypatch.setattr(backup_module, "_TRIES", 3)
    when_copied(monkeypatch, change, times=3)
    with pytest.raises(BackupUnsettled, match="Run the command again"):
        saved(filled, tmp_path / "b")
    assert shown(tmp_path / "b") == WANTED
    assert faults(tmp_path / "b") == []


# -- packs that differ


def test_a_store_that_was_put_back(filled: Path, tmp_path: Path) -> None:
    dest, others = tmp_path / "b", other_past(filled, tmp_path)
    saved(filled, dest)
    assert shown(dest) == WANTED | others
    assert faults(dest) == []
    with open_read_store(dest) as store:
        assert store.index.backup_packs()
    # The pack that got another number is known the next time.
    trio.run(fill, filled, {b"one more": b"x" * 100})
    done = saved(filled, dest)
    assert done.copied_bytes < 1000
    assert shown(dest) == WANTED | others | {b"one more": b"x" * 100}
    assert faults(dest) == []
    # A backup of the backup has the numbers of the backup.
    saved(dest, tmp_path / "second")
    assert shown(tmp_path / "second") == shown(dest)
    assert faults(tmp_path / "second") == []


@pytest.mark.parametrize("reread", [False, True])
def test_damage_of_the_backup(filled: Path, tmp_path: Path, reread: bool) -> None:
    """A cut pack is noticed by its size, and a changed byte by --reread."""
    dest = tmp_path / "b"
    saved(filled, dest)
    first, second, *_ = sorted((dest / "packs").glob("*.zip"))
    for path in (dest / "packs").glob("*.parity"):
        path.unlink()
    os.truncate(first, 1000)
    large = next((dest / "raw").iterdir())
    if reread:
        for path in (second, large):
            info = path.stat()
            flip(path, 500)
            os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert faults(dest)
    assert saved(filled, dest, reread=reread).problems == []
    assert shown(dest) == WANTED
    assert faults(dest) == []


def test_damage_beside_the_packs(filled: Path, tmp_path: Path) -> None:
    dest = tmp_path / "b"
    saved(filled, dest)
    path = next((dest / "packs").glob("*.parity"))
    flip(path, path.stat().st_size - 3)
    flip(dest / "packs" / "names.gz", 40)
    (dest / "fsmount.json").unlink()
    (dest / "opened").write_text("junk")
    saved(filled, dest, reread=True)
    assert faults(dest) == []
    assert shown(dest) == WANTED
    (dest / "index.sqlite").write_bytes(b"\0" * 40_000)
    with pytest.raises(Damaged, match="Remove this file"):
        saved(filled, dest)
    (dest / "index.sqlite").unlink()
    assert saved(filled, dest).copied_bytes < 100
    assert faults(dest) == []
    assert shown(dest) == WANTED


def test_a_disk_that_is_not_mounted(filled: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        saved(filled, tmp_path / "disk" / "b")
    assert not (tmp_path / "disk").exists()


def test_a_missing_pack_of_the_backup(filled: Path, tmp_path: Path) -> None:
    saved(filled, tmp_path / "b")
    for path in (tmp_path / "b" / "packs").iterdir():
        path.unlink()
    saved(filled, tmp_path / "b")
    assert faults(tmp_path / "b") == []


def test_damage_of_the_store_does_not_replace_what_the_backup_has(
    filled: Path, tmp_path: Path
) -> None:
    dest = tmp_path / "b"
    saved(filled, dest)
    pack_file = sorted((filled / "packs").glob("*.zip"))[0]
    flip(pack_file, 1500)
    done = saved(filled, dest, reread=True)
    ((path, why),) = done.problems
    assert path == str(pack_file)
    assert "the backup has it whole" in why.lower()
    assert faults(dest) == []
    assert shown(dest) == WANTED
    # A first backup has the damage as it is, and says so.
    done = saved(filled, tmp_path / "first")
    assert [path for path, _ in done.problems] == [str(pack_file)]
    assert "check --repair" in done.problems[0][1]


def test_damage_of_a_large_file_and_a_missing_staged_one(filled: Path, tmp_path: Path) -> None:
    flip(next((filled / "raw").iterdir()), 5)
    next((filled / "staging").iterdir()).unlink()
    done = saved(filled, tmp_path / "b")
    assert sorted(Path(path).parent.name for path, _ in done.problems) == ["raw", "staging"]


def test_a_large_file_of_another_past(filled: Path, tmp_path: Path) -> None:
    shutil.copytree(filled, tmp_path / "old")
    trio.run(fill, filled, {b"large 2": os.urandom(9000)})
    saved(filled, tmp_path / "b")
    trio.run(fill, tmp_path / "old", {b"large 3": os.urandom(9000)})
    with pytest.raises(NotABackup, match="another past"):
        saved(tmp_path / "old", tmp_path / "b")
    assert faults(tmp_path / "b") == []


# -- folders that cannot take a backup


def test_refused_folders(filled: Path, tmp_path: Path) -> None:
    with pytest.raises(NotABackup, match="store itself"):
        saved(filled, filled)
    with pytest.raises(InsideStore):
        saved(filled, filled / "albums" / "b")
    assert not (filled / "albums").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").touch()
    with pytest.raises(NotABackup, match="letter is there"):
        saved(filled, tmp_path / "full")
    assert os.listdir(tmp_path / "full") == ["letter"]
    with pytest.raises(NotABackup, match="no folder"):
        saved(filled, tmp_path / "full" / "letter")
    config.make(tmp_path / "other", Disk())
    with pytest.raises(NotABackup, match="another store"):
        saved(filled, tmp_path / "other")
    shutil.copytree(filled, tmp_path / "copy")
    with pytest.raises(NotABackup, match="no backup of one"):
        saved(filled, tmp_path / "copy")


def test_a_backup_that_was_written(filled: Path, tmp_path: Path) -> None:
    saved(filled, tmp_path / "b")
    trio.run(fill, tmp_path / "b", MORE)
    with pytest.raises(NotABackup, match="opened for writing"):
        saved(filled, tmp_path / "b")
    assert shown(tmp_path / "b") == WANTED | MORE


def test_one_backup_at_a_time(filled: Path, tmp_path: Path) -> None:
    saved(filled, tmp_path / "b")
    with open_store(tmp_path / "b"), pytest.raises(StoreLocked):
        saved(filled, tmp_path / "b")


def test_the_script_reads_a_backup(filled: Path, tmp_path: Path) -> None:
    saved(filled, tmp_path / "b")
    script = CHECKOUT / "contrib" / "unpack.py"
    command = [sys.executable, str(script), str(tmp_path / "b"), str(tmp_path / "out")]
    subprocess.run(command, check=True)
    found = {os.fsencode(p.name): p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert found == WANTED


class _Poor(Disk):
    """A filesystem that keeps neither times nor permissions."""

    def set_mtime(self, fd: int, mtime_ns: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    def chmod(self, path: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_filesystem_without_times(filled: Path, tmp_path: Path) -> None:
    """Bytes are compared instead, and packs are not copied again."""
    saved(filled, tmp_path / "b", disk=_Poor())
    assert shown(tmp_path / "b") == WANTED
    kept = sum(len(data) for name, data in WANTED.items() if name in (b"large", b"staged"))
    assert saved(filled, tmp_path / "b", disk=_Poor()).copied_bytes == kept
    assert faults(tmp_path / "b") == []
