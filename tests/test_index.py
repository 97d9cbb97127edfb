"""The index: names, links, attributes, bodies, transactions, durability, damage."""

from __future__ import annotations

import os
import random
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.errors import Damaged, FsmountError, NoSuchInode
from fsmount.store.disk import Disk
from fsmount.store.index import ROOT, Index, Inode, Object
from fsmount.store.index.schema import pack_ids, unpack_ids
from fsmount.store.reserve import Reserve
from tests.frames import FlakyDisk

FILE, FOLDER, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777


@pytest.fixture
def disk() -> FlakyDisk:
    return FlakyDisk()


@pytest.fixture
def index(tmp_path: Path, disk: FlakyDisk) -> Iterator[Index]:
    Index.make(tmp_path / "index.sqlite", identity="x", uid=5, gid=6, now_ns=100)
    opened = Index(tmp_path / "index.sqlite", disk)
    yield opened
    assert opened.integrity() == []
    opened.close()


def file(
    index: Index, name: bytes, folder: int = ROOT, *, staged: int | None = None, size: int = 0
) -> Inode:
    return index.create(folder, name, mode=FILE, uid=1, gid=2, now_ns=200, staged=staged, size=size)


def folder(index: Index, name: bytes, inside: int = ROOT) -> Inode:
    return index.create(inside, name, mode=FOLDER, uid=1, gid=2, now_ns=200)


def an_object(number: int, **change: object) -> Object:
    fields: dict[str, object] = {
        "kind": "key",
        "pack": 1,
        "offset": 0,
        "length": 10,
        "size": 100,
        "sha256": number.to_bytes(32, "big"),
        "depth": 0,
    }
    return Object(number, **{**fields, **change})  # type: ignore[arg-type]


# -- inodes and names


def test_a_new_index_has_a_root(index: Index) -> None:
    root = index.inode(ROOT)
    assert (root.mode, root.uid, root.gid, root.nlink) == (FOLDER, 5, 6, 2)
    assert root.atime_ns == root.mtime_ns == root.ctime_ns == 100
    assert index.is_empty(ROOT)
    assert index.children(ROOT) == []
    assert index.path(ROOT) == b""
    assert list(index.walk()) == []
    assert index.identity() == "x"
    assert index.opened() == 0
    index.set_opened(3)
    assert index.opened() == 3


def test_create_and_look_up(index: Index) -> None:
    made = index.create(
        ROOT, b"a\xff", mode=FILE, uid=1, gid=2, now_ns=-7, rdev=9, staged=4, size=11
    )
    assert made == Inode(made.ino, FILE, 1, 2, 1, 11, 9, -7, -7, -7, None, 4, None)
    assert index.lookup(ROOT, b"a\xff") == index.inode(made.ino) == made
    assert index.lookup(ROOT, b"b") is None
    assert index.lookup(made.ino, b"a\xff") is None
    assert not index.is_empty(ROOT)
    assert (index.inode(ROOT).mtime_ns, index.inode(ROOT).nlink) == (-7, 2)
    link = index.create(ROOT, b"l", mode=LINK, uid=1, gid=2, now_ns=1, target=b"a/\xfe")
    assert link.target == b"a/\xfe"
    with pytest.raises(NoSuchInode):
        index.inode(999)


def test_a_name_is_taken_once(index: Index) -> None:
    file(index, b"a")
    with pytest.raises(apsw.ConstraintError):
        file(index, b"a")
    assert len(index.children(ROOT)) == 1


def test_folders_count_links(index: Index) -> None:
    a = folder(index, b"a")
    b = folder(index, b"b", a.ino)
    assert (index.inode(ROOT).nlink, index.inode(a.ino).nlink, b.nlink) == (3, 3, 2)
    assert index.path(b.ino) == b"a/b"
    assert index.unlink(a.ino, b"b", 300).nlink == 0
    assert (index.inode(a.ino).nlink, index.inode(a.ino).ctime_ns) == (2, 300)
    assert index.path(b.ino) == b""


def test_hard_links(index: Index) -> None:
    a = file(index, b"a")
    sub = folder(index, b"sub")
    linked = index.link(sub.ino, b"b", a.ino, 300)
    assert (linked.ino, linked.nlink, linked.ctime_ns, linked.mtime_ns) == (a.ino, 2, 300, 200)
    assert index.inode(sub.ino).mtime_ns == 300
    assert index.unlink(ROOT, b"a", 400).nlink == 1
    assert index.path(a.ino) == b"sub/b"
    assert index.unlink(sub.ino, b"b", 500).nlink == 0
    assert [orphan.ino for orphan in index.orphans()] == [a.ino]
    with pytest.raises(NoSuchInode):
        index.unlink(sub.ino, b"b", 600)


def test_children_come_in_pages_that_stay_valid(index: Index) -> None:
    names = [b"%03d" % number for number in range(30)]
    for name in names:
        file(index, name)
    first = index.children(ROOT, limit=10)
    assert [name for _, name, _ in first] == names[:10]
    for name in names[5:15]:
        index.unlink(ROOT, name, 1)
    file(index, b"late")
    rest = index.children(ROOT, after=first[-1][0])
    assert [name for _, name, _ in rest] == [*names[15:], b"late"]
    assert all(index.inode(inode.ino) == inode for _, _, inode in rest)
    cookies = [cookie for cookie, _, _ in rest]
    assert cookies == sorted(set(cookies))
    index.unlink(ROOT, b"late", 1)
    file(index, b"later")
    assert index.children(ROOT)[-1][0] > cookies[-1], "a cookie was used again"


def test_next_names_and_walk_go_by_name(index: Index) -> None:
    b = folder(index, b"b")
    for name in (b"d", b"a", b"c"):
        file(index, name)
    inner = file(index, b"x", b.ino)
    assert [name for name, _ in index.next_names(ROOT, b"a", 2)] == [b"b", b"c"]
    assert index.next_names(ROOT, b"d") == []
    assert [name for name, _ in index.previous_names(ROOT, b"d", 2)] == [b"c", b"b"]
    assert index.previous_names(ROOT, b"a") == []
    walked = list(index.walk())
    assert [path for path, _ in walked] == [b"a", b"b", b"b/x", b"c", b"d"]
    assert dict(walked)[b"b/x"] == inner
    assert [path for path, _ in index.walk(b.ino, b"b")] == [b"b/x"]


def test_rename_moves(index: Index) -> None:
    a, sub = file(index, b"a"), folder(index, b"sub")
    moved = folder(index, b"moved")
    assert index.rename(ROOT, b"a", sub.ino, b"b", 300) is None
    assert index.lookup(ROOT, b"a") is None
    found = index.lookup(sub.ino, b"b")
    assert found is not None
    assert (found.ino, found.nlink, found.ctime_ns, found.mtime_ns) == (a.ino, 1, 300, 200)
    assert index.rename(ROOT, b"moved", sub.ino, b"m", 300) is None
    assert (index.inode(ROOT).nlink, index.inode(sub.ino).nlink) == (3, 3)
    assert index.inode(moved.ino).nlink == 2
    assert index.path(moved.ino) == b"sub/m"
    with pytest.raises(NoSuchInode):
        index.rename(ROOT, b"a", ROOT, b"x", 1)


def test_rename_replaces(index: Index) -> None:
    a, b = file(index, b"a"), file(index, b"b")
    replaced = index.rename(ROOT, b"a", ROOT, b"b", 300)
    assert replaced is not None
    assert (replaced.ino, replaced.nlink) == (b.ino, 0)
    assert [inode.ino for _, _, inode in index.children(ROOT)] == [a.ino]
    assert index.inode(a.ino).nlink == 1
    c, sub = folder(index, b"c"), folder(index, b"sub")
    d = folder(index, b"d", sub.ino)
    replaced = index.rename(ROOT, b"c", sub.ino, b"d", 300)
    assert replaced is not None
    assert (replaced.ino, replaced.nlink) == (d.ino, 0)
    assert (index.inode(ROOT).nlink, index.inode(sub.ino).nlink) == (3, 3)
    assert index.path(c.ino) == b"sub/d"


def test_rename_exchanges(index: Index) -> None:
    a, sub = file(index, b"a"), folder(index, b"sub")
    inner = folder(index, b"b", sub.ino)
    assert index.rename(ROOT, b"a", sub.ino, b"b", 300, exchange=True) is None
    assert (index.path(a.ino), index.path(inner.ino)) == (b"sub/b", b"a")
    assert (index.inode(ROOT).nlink, index.inode(sub.ino).nlink) == (4, 2)
    assert (index.inode(a.ino).nlink, index.inode(inner.ino).nlink) == (1, 2)
    assert index.inode(a.ino).ctime_ns == index.inode(inner.ino).ctime_ns == 300
    index.rename(ROOT, b"a", ROOT, b"sub", 300, exchange=True)
    assert index.inode(ROOT).nlink == 4


def test_update(index: Index) -> None:
    a = file(index, b"a")
    index.update(a.ino)
    assert index.inode(a.ino) == a
    index.update(
        a.ino, mode=FILE | 1, uid=8, gid=9, size=10, atime_ns=-1, mtime_ns=2**62, ctime_ns=3
    )
    changed = index.inode(a.ino)
    assert (changed.mode, changed.uid, changed.gid, changed.size) == (FILE | 1, 8, 9, 10)
    assert (changed.atime_ns, changed.mtime_ns, changed.ctime_ns) == (-1, 2**62, 3)
    with pytest.raises(KeyError):
        index.update(a.ino, nlink=7)


def test_extended_attributes(index: Index) -> None:
    a, b = file(index, b"a"), file(index, b"b")
    index.set_xattr(a.ino, b"user.x", b"1")
    index.set_xattr(a.ino, b"user.x", b"\0\xff")
    index.set_xattr(a.ino, b"user.y", b"")
    index.set_xattr(b.ino, b"user.x", b"other")
    assert index.xattrs(a.ino) == {b"user.x": b"\0\xff", b"user.y": b""}
    assert index.get_xattr(a.ino, b"user.y") == b""
    assert index.get_xattr(a.ino, b"user.z") is None
    assert index.remove_xattr(a.ino, b"user.x")
    assert not index.remove_xattr(a.ino, b"user.x")
    index.unlink(ROOT, b"a", 1)
    index.purge(a.ino)
    assert index.xattrs(a.ino) == {}
    assert index.xattrs(b.ino) == {b"user.x": b"other"}


# -- bodies


def test_a_body_goes_from_staged_to_object_and_back(index: Index) -> None:
    a, b = file(index, b"a", staged=3, size=50), file(index, b"b", staged=4)
    assert {inode.ino for inode in index.staged_inodes()} == {a.ino, b.ino}
    index.add_object(an_object(1))
    assert index.object(1).uses == 0
    assert not index.encode(a.ino, 99, 1, 100), "another token's body"
    assert index.inode(a.ino) == a
    assert index.object(1).uses == 0
    assert index.encode(a.ino, 3, 1, 100)
    assert index.encode(b.ino, 4, 1, 100)
    encoded = index.inode(a.ino)
    assert (encoded.staged, encoded.object_id, encoded.size) == (None, 1, 100)
    assert index.object(1).uses == 2
    assert index.staged_inodes() == []
    assert sorted(index.names_of(1)) == [b"a", b"b"]
    index.stage(a.ino, 7, 20)
    again = index.inode(a.ino)
    assert (again.staged, again.object_id, again.size) == (7, None, 20)
    assert index.object(1).uses == 1
    index.stage(a.ino, 8, 21)
    assert index.object(1).uses == 1
    index.unlink(ROOT, b"b", 1)
    assert index.names_of(1) == []
    assert index.purge(b.ino) is None
    assert index.object(1).uses == 0
    index.unlink(ROOT, b"a", 1)
    assert index.purge(a.ino) == 8
    with pytest.raises(NoSuchInode):
        index.inode(a.ino)


def test_objects_come_back_as_they_were(index: Index) -> None:
    assert index.next_object_id() == 1
    needs = (1, 255, 256, 70_000, 2**32 - 1)
    new = an_object(5, kind="delta", needs=needs, layer=needs[1:3], reason="x", depth=3)
    index.add_object(new)
    index.add_object(an_object(3))
    found = index.object(5)
    assert (found.needs, found.layer, found.reason) == (needs, needs[1:3], "x")
    assert (found.kind, found.depth, found.sha256) == ("delta", 3, new.sha256)
    assert index.object(3).needs == index.object(3).layer == ()
    assert [one.id for one in index.objects([5, 3])] == [5, 3]
    assert [one.id for one in index.all_objects()] == [3, 5]
    assert index.next_object_id() == 6
    with pytest.raises(Damaged):
        index.object(4)


def test_equal_bodies_are_found_by_hash_and_size(index: Index) -> None:
    alike = bytes(8) + b"x" * 24
    index.add_object(an_object(1, sha256=bytes(8) + b"y" * 24))
    index.add_object(an_object(2, sha256=alike, size=7))
    assert index.find_object(alike, 7) == 2
    assert index.find_object(alike, 8) is None
    assert index.find_object(bytes(8) + b"z" * 24, 7) is None


def test_packs(index: Index) -> None:
    assert index.packs() == {}
    index.set_pack(2, 10, False)
    index.set_pack(1, 5, True)
    index.set_pack(2, 20, False)
    assert index.packs() == {1: (5, True), 2: (20, False)}


def test_signatures_of_the_newest_objects_are_kept(index: Index) -> None:
    for number in range(1, 8):
        index.add_signatures(number, "a", b"%d" % number, keep=3)
    index.add_signatures(9, "b", b"b", keep=3)
    assert index.signatures("a") == [(5, b"5"), (6, b"6"), (7, b"7")]
    assert index.signatures("b") == [(9, b"b")]
    assert index.signatures("c") == []


def test_totals(index: Index) -> None:
    index.add_object(an_object(1))
    index.add_object(an_object(2, kind="raw", reason="not a PNG", depth=2))
    for number, name in enumerate((b"a", b"b", b"c", b"d")):
        made = file(index, name, staged=number + 1)
        if name != b"d":
            index.encode(made.ino, number + 1, 1 if name == b"a" else 2, 100)
    folder(index, b"f")
    index.unlink(ROOT, b"c", 1)
    assert index.totals() == {
        "files": 3,
        "logical_bytes": 200,
        "staged": 1,
        "kinds": {"key": 1, "raw": 1},
        "reasons": {"not a PNG": 1},
        "max_depth": 2,
    }
    assert index.bytes() > 0


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
    index.rewrite()
    assert not index.suspect
    index.force()
    assert not index.dirty
    database = tmp_path / "copy"
    shutil.copy(tmp_path / "index.sqlite", database)
    alone = Index(database, Disk())
    assert alone.lookup(ROOT, b"a") is not None, "the rewrite left it in the log"
    alone.close()


def test_a_rewrite_that_a_reader_blocks_heals_nothing(
    index: Index, disk: FlakyDisk, tmp_path: Path
) -> None:
    file(index, b"a")
    disk.fail_once("fsync")
    with pytest.raises(OSError):
        index.force()
    reader = apsw.Connection(str(tmp_path / "index.sqlite"), vfs="cksmvfs")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM meta").fetchall()
    file(index, b"b")
    index._db.set_busy_timeout(1)
    with pytest.raises(OSError):
        index.rewrite()
    assert index.suspect
    reader.close()
    index.rewrite()
    assert not index.suspect


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
    # Not closed: another process after a crash sees the log.
    second = Index(path, Disk())
    assert second.lookup(ROOT, b"a") == made
    second.close()
    first.close()
    third = Index(path, Disk(), read_only=True)
    assert third.lookup(ROOT, b"a") == made
    third.close()


# -- damage


def test_what_is_no_index_is_damage(tmp_path: Path) -> None:
    with pytest.raises(Damaged):
        Index(tmp_path / "none", Disk())
    (tmp_path / "text").write_bytes(b"no database" * 1000)
    with pytest.raises(Damaged):
        Index(tmp_path / "text", Disk())
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(Damaged):
        Index(tmp_path / "empty", Disk())


def everything(index: Index) -> object:
    return (
        list(index.walk()),
        index.children(ROOT),
        list(index.all_objects()),
        index.packs(),
        index.totals(),
        index.signatures("a"),
        [index.xattrs(inode.ino) for _, inode in index.walk()],
        [index.names_of(number) for number in range(1, 40)],
        index.next_object_id(),
    )


def test_flipped_bits_never_give_wrong_rows(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    Index.make(path, identity="x", uid=0, gid=0, now_ns=0)
    index = Index(path, Disk())
    with index.transaction():
        for number in range(1, 40):
            made = file(index, b"name %d" % number, staged=number)
            index.set_xattr(made.ino, b"user.x", bytes(50))
            index.add_object(an_object(number, needs=tuple(range(number))))
            index.encode(made.ino, number, number, 100)
            index.add_signatures(number, "a", bytes([number]) * 300, keep=99)
            index.set_pack(number, 10, True)
    wanted = everything(index)
    index.close()
    whole = path.read_bytes()
    source = random.Random(1)
    reported = 0
    for bit in source.sample(range(8 * len(whole)), 200):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            index = Index(path, Disk())
            try:
                found, report = everything(index), index.integrity()
            finally:
                index.close()
        except (FsmountError, apsw.Error, OSError):
            reported += 1
            continue
        assert found == wanted, f"bit {bit} gave wrong rows"
        reported += bool(report)
    assert reported > 150


@given(st.sets(st.integers(1, 1 << 40)))
def test_ids_survive_packing(ids: set[int]) -> None:
    packed = pack_ids(list(ids))
    assert unpack_ids(packed) == tuple(sorted(ids))
    assert len(packed) <= 6 * len(ids)


@given(st.sets(st.integers(1, (1 << 24) - 1)))
def test_ids_of_early_stores_are_read(ids: set[int]) -> None:
    packed = b"".join(number.to_bytes(4, "little") for number in sorted(ids))
    assert unpack_ids(packed) == tuple(sorted(ids))


def test_ids_of_near_objects_take_little() -> None:
    assert len(pack_ids(range(1_000_000, 1_002_200, 100))) <= 24


def test_rows_of_another_table_are_damage(index: Index) -> None:
    """What SQLite would give for a page in the place of another: the values of other columns."""
    file(index, b"a")
    file(index, b"b")
    with index.transaction():
        index._run("UPDATE inodes SET mode = x'00' WHERE ino != 1")
        index._run("UPDATE dirents SET ino = x'00' WHERE name = ?", (b"b",))
    reads: list[Callable[[], object]] = [
        lambda: index.inode(2),
        lambda: index.lookup(ROOT, b"a"),
        lambda: index.children(ROOT),
        lambda: list(index.by_name(ROOT)),
        lambda: list(index.inodes()),
        lambda: list(index.names()),
    ]
    for read in reads:
        with pytest.raises(Damaged, match="rows of another table"):
            read()


def test_rows_out_of_order_are_damage(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing that began anew with each page would never end."""
    first = [(1, b"a", *index.inode(ROOT)), (2, b"b", *index.inode(ROOT))]
    monkeypatch.setattr(Index, "_all", lambda *args, **kwargs: first)
    assert [name for _, name, _ in index.children(ROOT)] == [b"a", b"b"]
    for after in (1, 2):
        with pytest.raises(Damaged, match="out of order"):
            index.children(ROOT, after)
    with pytest.raises(Damaged, match="out of order"):
        list(index.names())


def test_an_index_of_orphans_that_names_others_is_damage(index: Index) -> None:
    """An orphan is removed for good."""
    made = file(index, b"a")
    with pytest.raises(Damaged, match="inode 2"):
        index._as_its_row(made._replace(nlink=0))
    assert index._as_its_row(made) == made


def test_folders_in_a_circle_are_damage(index: Index) -> None:
    upper = folder(index, b"upper")
    lower = folder(index, b"lower", upper.ino)
    move = "UPDATE dirents SET folder = ? WHERE ino = ?"
    with index.transaction():
        index._run(move, (lower.ino, upper.ino))
    with pytest.raises(Damaged, match="circle"):
        list(index.walk(upper.ino))
    with pytest.raises(Damaged, match="circle"):
        index.path(upper.ino)
