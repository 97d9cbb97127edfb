"""Opening a store for writing finishes or undoes the work of the last writer."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.errors import Damaged
from fsmount.store import config
from fsmount.store.index import ROOT, Index, Object
from fsmount.store.layout import Layout
from fsmount.store.packs.pack import Entry, Pack, scan
from fsmount.store.packs.staging import Staging, writer_of
from fsmount.store.recovery.startup import recover, seal
from tests.support.frames import FlakyDisk
from tests.support.packs import unzipped


class Rooms:
    """An empty store, and its parts."""

    def __init__(self, root: Path) -> None:
        self.disk = FlakyDisk()
        config.make(root, self.disk)
        self.layout = Layout(root)
        self.index = Index(self.layout.index, self.disk)
        self.staging = Staging(self.layout.staging, self.disk)

    def recover(self) -> Pack:
        """Recover the store. Returns the pack for new objects."""
        return recover(self.layout, self.index, self.staging, self.disk).fresh

    def staged(self, name: bytes, data: bytes, *, size: int | None = None) -> int:
        token = self.staging.create()
        self.staging.path(token).write_bytes(data)
        shown = len(data) if size is None else size
        return self.index.create(
            ROOT, name, mode=0o100644, uid=0, gid=0, now_ns=1, staged=token, size=shown
        ).ino

    def pack(self, number: int, entries: int) -> Pack:
        pack = Pack(self.layout.pack(number), number, self.disk, 0)
        for at in range(entries):
            pack.append(Entry(f"{number * 100 + at:08x}.bin", b"record", b"payload"))
        return pack


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    made = Rooms(tmp_path / "store")
    yield made
    made.index.close()


def test_a_new_store_gets_its_first_pack(rooms: Rooms) -> None:
    pack = rooms.recover()
    assert (pack.number, pack.length, pack.path.exists()) == (1, 0, True)
    pack.close()
    rooms.recover().close()


def test_files_unlinked_while_open_go(rooms: Rooms) -> None:
    ino = rooms.staged(b"a", b"data")
    kept = rooms.staged(b"b", b"data")
    rooms.index.unlink(ROOT, b"a", 1)
    rooms.recover().close()
    assert rooms.index.orphans() == []
    assert rooms.staging.tokens() == [rooms.index.inode(kept).staged]
    assert ino not in [inode.ino for inode in rooms.index.staged_inodes()]


def test_sizes_of_staged_files_are_what_was_written(rooms: Rooms) -> None:
    ino = rooms.staged(b"a", b"longer than known", size=3)
    same = rooms.index.inode(rooms.staged(b"b", b"same"))
    rooms.recover().close()
    assert rooms.index.inode(ino).size == 17
    assert rooms.index.inode(ino).mtime_ns > 1
    assert rooms.index.inode(same.ino) == same


def test_staged_files_without_a_row_go_and_tokens_stay_unique(rooms: Rooms) -> None:
    rooms.staging.create()
    ino = rooms.staged(b"a", b"x")
    token = rooms.index.inode(ino).staged
    assert token is not None
    rooms.staging.remove(token)
    rooms.staging = Staging(rooms.layout.staging, rooms.disk)
    rooms.recover().close()
    assert rooms.staging.tokens() == []
    assert rooms.index.inode(ino).staged == token, "a missing staged file must not become a hole"
    assert rooms.staging.create() > token


def test_nothing_is_removed_before_the_index_is_durable(rooms: Rooms) -> None:
    """The row that released a staged file may be in a log that was never fsynced."""
    rooms.staging.create()
    rooms.disk.calls.clear()
    rooms.recover().close()
    calls = [call for call, _ in rooms.disk.calls]
    assert calls.index("fsync") < calls.index("unlink")
    rooms.staging.create()
    rooms.disk.fail_once("fsync")
    with pytest.raises(OSError):
        rooms.recover()
    assert len(rooms.staging.tokens()) == 1


def test_large_files_that_were_not_committed_go(rooms: Rooms) -> None:
    rooms.index.set_pack(1, 1, True)
    rooms.index.add_object(
        Object(7, "raw", 1, 0, 1, 2, bytes(32), 0),
    )
    for number in (7, 8):
        rooms.layout.kept(number).write_bytes(b"x")
    rooms.recover().close()
    assert os.listdir(rooms.layout.raw) == ["00000007"]


@pytest.mark.parametrize(
    "statement",
    [
        # Each statement acts like a page of other rows in the place of the page with these rows.
        "DELETE FROM packs",
        "UPDATE packs SET length = 1",
        "DELETE FROM objects",
        "DELETE FROM inodes WHERE ino != 1",
    ],
)
def test_nothing_goes_on_the_word_of_an_index_that_lacks_rows(rooms: Rooms, statement: str) -> None:
    pack = rooms.pack(1, 2)
    rooms.index.set_pack(1, pack.length, False)
    pack.append(Entry("000000ff.bin", b"never", b"committed"))
    pack.close()
    rooms.index.add_object(Object(7, "raw", 1, 0, pack.length // 3, 1 << 30, bytes(32), 0))
    rooms.layout.kept(7).write_bytes(b"x")
    shown = rooms.index.inode(rooms.staged(b"shown", b"x"))
    assert shown.staged is not None
    assert rooms.index.encode(shown.ino, shown.staged, 7, 1 << 30)
    rooms.staged(b"staged", b"y")
    rooms.index._run(statement)
    files = [path for path in rooms.layout.index.parent.rglob("*/*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    assert len(before) == 4
    with pytest.raises(Damaged, match=r"it does not know|packs it knows"):
        rooms.recover()
    assert {path: path.read_bytes() for path in files} == before


def test_an_unfinished_tail_is_dropped(rooms: Rooms) -> None:
    pack = rooms.pack(1, 2)
    rooms.index.set_pack(1, pack.length, False)
    pack.append(Entry("000000ff.bin", b"never", b"committed"))
    pack.write_directory()
    pack.close()
    again = rooms.recover()
    assert again.number == 1
    assert again.length == again.path.stat().st_size == rooms.index.packs()[1][0]
    assert len(list(scan(again.path))) == 2
    again.close()


def test_packs_that_no_row_knows_go(rooms: Rooms) -> None:
    first, second = rooms.pack(1, 1), rooms.pack(2, 1)
    rooms.index.set_pack(1, first.length, False)
    first.close()
    second.close()
    rooms.recover().close()
    assert os.listdir(rooms.layout.packs) == ["00000001.zip"]


def test_after_a_sealed_pack_comes_a_new_one(rooms: Rooms) -> None:
    pack = rooms.pack(1, 1)
    rooms.index.set_pack(1, pack.length, False)
    seal(pack, rooms.index)
    assert rooms.index.packs() == {1: (pack.length, True)}
    size = pack.path.stat().st_size
    again = rooms.recover()
    assert (again.number, again.length) == (2, 0)
    again.close()
    assert pack.path.stat().st_size == size, "a sealed pack is not touched"


def test_older_packs_are_finished(rooms: Rooms) -> None:
    for number in (1, 2, 3):
        pack = rooms.pack(number, 2)
        rooms.index.set_pack(number, pack.length, False)
        if number < 3:
            pack.append(Entry("000000ff.bin", b"never", b"committed"))
        pack.close()
    again = rooms.recover()
    assert again.number == 3
    assert [sealed for _, sealed in rooms.index.packs().values()] == [True, True, False]
    assert [len(unzipped(rooms.layout.pack(number))) for number in (1, 2)] == [2, 2]
    again.close()


def test_a_pack_that_lost_committed_bytes_is_left_and_a_new_one_begun(rooms: Rooms) -> None:
    pack = rooms.pack(1, 1)
    rooms.index.set_pack(1, pack.length + 1, False)
    pack.close()
    before = pack.path.read_bytes()
    opened = rooms.recover()
    assert (opened.number, opened.length) == (2, 0)
    opened.close()
    assert pack.path.read_bytes() == before
    assert rooms.index.packs()[1] == (len(before) + 1, False)


def test_recovery_may_be_repeated(rooms: Rooms) -> None:
    rooms.staged(b"a", b"x", size=0)
    rooms.staging.create()
    pack = rooms.pack(1, 1)
    rooms.index.set_pack(1, pack.length, False)
    pack.close()
    rooms.recover().close()
    before = list(rooms.index.walk()), rooms.index.packs(), rooms.staging.tokens()
    rooms.recover().close()
    assert (list(rooms.index.walk()), rooms.index.packs(), rooms.staging.tokens()) == before


def test_what_an_old_copy_of_the_index_does_not_know_is_kept(rooms: Rooms) -> None:
    rooms.recover().close()
    rooms.index.close()
    old = rooms.layout.index.read_bytes()
    rooms.index = Index(rooms.layout.index, rooms.disk)
    pack = rooms.recover()
    pack.append(Entry("00000001.bin", b"record", b"payload"))
    pack.close()
    rooms.index.set_pack(1, pack.length, False)
    second = rooms.pack(2, 1)
    rooms.index.set_pack(2, second.length, False)
    second.close()
    rooms.layout.kept(7).write_bytes(b"large")
    rooms.staged(b"a", b"staged")
    kept = {path.read_bytes() for path in (pack.path, second.path)} | {b"large", b"staged"}
    rooms.index.close()
    rooms.layout.index.write_bytes(old)
    rooms.index = Index(rooms.layout.index, rooms.disk)
    rooms.recover().close()
    assert {path.read_bytes() for path in rooms.layout.lost.iterdir()} == kept


def test_nothing_is_kept_aside_after_a_plain_crash(rooms: Rooms) -> None:
    rooms.recover().close()
    rooms.staging.create()
    rooms.recover().close()
    assert not rooms.layout.lost.exists()
    assert rooms.staging.tokens() == []


def test_staged_files_of_another_writer_are_kept(rooms: Rooms) -> None:
    """The index is current and does not know them. Their writer may have acknowledged them."""
    rooms.recover().close()
    mine = rooms.staging.create()
    last = rooms.index.writer()
    assert writer_of(mine) == last
    others = {writer: b"of %d" % writer for writer in (0, last + 1, max(1, last - 1))}
    for writer, data in others.items():
        rooms.staging.begin(writer)
        rooms.staging.path(rooms.staging.create()).write_bytes(data)
    ino = rooms.staged(b"known", b"of another, with a row")
    rooms.recover().close()
    assert rooms.staging.tokens() == [rooms.index.inode(ino).staged], "what has a row is served"
    lost = list(rooms.layout.lost.iterdir())
    assert sorted(path.read_bytes() for path in lost) == sorted(others.values())
    assert all(path.name.startswith("staging-") for path in lost)
    assert str(mine) not in "".join(path.name for path in lost), "this one a crash left"
    assert rooms.index.writer() != last
    rooms.recover().close()
    assert list(rooms.layout.lost.iterdir()) == lost


def test_a_store_of_an_earlier_build(rooms: Rooms) -> None:
    """The index of an earlier build names no writer, and neither do its tokens."""
    ino = rooms.staged(b"a", b"with a row")
    token = rooms.index.inode(ino).staged
    left = rooms.staging.create()
    assert (token, left, rooms.index.writer()) == (1, 2, 0)
    rooms.recover().close()
    assert rooms.staging.tokens() == [1]
    assert not rooms.layout.lost.exists()
    assert writer_of(rooms.staging.create()) == rooms.index.writer() > 0


def test_what_a_writer_did_last_may_not_have_come_here_yet(rooms: Rooms) -> None:
    """Without proof that the last writer ended, recovery deletes no file unknown to the index."""
    rooms.recover().close()
    rooms.staging.path(rooms.staging.create()).write_bytes(b"staged")
    rooms.layout.kept(7).write_bytes(b"large")
    pack = rooms.pack(1, 2)
    rooms.index.set_pack(1, pack.length, False)
    pack.append(Entry("000000ff.bin", b"later", b"commit"))
    pack.close()
    second = rooms.pack(2, 1)
    second.close()
    kept = {b"staged", b"large", pack.path.read_bytes(), second.path.read_bytes()}
    recover(rooms.layout, rooms.index, rooms.staging, rooms.disk, unproved=True).close()
    assert {path.read_bytes() for path in rooms.layout.lost.iterdir()} == kept


def test_on_a_full_disk_the_writer_before_is_named_still(rooms: Rooms) -> None:
    rooms.recover().close()
    before = rooms.index.writer()
    token = rooms.staging.create()
    genuine = rooms.index.set_opened

    def full(count: int, writer: int = 0) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    rooms.index.set_opened = full  # type: ignore[method-assign]
    ino = rooms.staged(b"a", b"x")
    known = rooms.index.inode(ino).staged
    assert known is not None
    rooms.staging.remove(known)
    rooms.recover().close()
    rooms.index.set_opened = genuine  # type: ignore[method-assign]
    assert rooms.index.writer() == before
    again = rooms.staging.create()
    assert writer_of(again) == before
    assert again > known > token
