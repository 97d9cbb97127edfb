"""The index: names, links, attributes, bodies."""

from __future__ import annotations

import shutil
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.errors import Damaged, NoSuchInode
from fsmount.store.index import ROOT, Index, Inode, glance
from fsmount.store.index.schema import pack_ids, unpack_ids
from tests.support.rows import FILE, FOLDER, LINK, an_object, file, folder

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
        "trashed": 0,
        "trashed_bytes": 0,
        "staged": 1,
        "kinds": {"key": 1, "raw": 1},
        "reasons": {"not a PNG": 1},
        "max_depth": 2,
    }
    assert index.bytes() > 0


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


# -- a glance, for the completion of names in a shell


def test_a_glance_beside_a_writer(index: Index) -> None:
    """It sees what is in the log, and makes no file."""
    a = folder(index, b"a")
    for name in (b"x1", b"x2", b"y", b"\xff"):
        file(index, name, a.ino)
    before = {path: path.stat().st_size for path in index.file.parent.iterdir()}
    assert before[index.file.with_name(index.file.name + "-wal")] > 0
    assert glance(index.file, b"", b"", 9) == [(b"a", True)]
    assert glance(index.file, b"a", b"x", 9) == [(b"x1", False), (b"x2", False)]
    assert glance(index.file, b"/a/", b"", 9)[-1] == (b"\xff", False)
    assert len(glance(index.file, b"a", b"", 3)) == 3
    assert glance(index.file, b"a/x1", b"", 9) == glance(index.file, b"b", b"", 9) == []
    assert {path: path.stat().st_size for path in index.file.parent.iterdir()} == before


def test_a_glance_without_shared_memory(index: Index, tmp_path: Path) -> None:
    """A copy of a store may have a log alone. Then there is no answer, and no new file."""
    file(index, b"a")
    for end in ("", "-wal"):
        shutil.copy(f"{index.file}{end}", tmp_path / f"copy{end}")
    with pytest.raises(apsw.Error):
        glance(tmp_path / "copy", b"", b"", 9)
    assert not (tmp_path / "copy-shm").exists()


def test_dropping_what_the_layer_of_an_anchor_needs(index: Index) -> None:
    """Object 3 needs only the record of object 2, so object 1 may go, which the layer needs."""
    index.add_object(an_object(1, length=10))
    index.add_object(an_object(2, needs=(1,), layer=(1,)))
    index.add_object(an_object(3, needs=(2,), layer=(2,)))
    index.add_object(an_object(4, needs=(1, 3), layer=(3,)))
    for number in (1, 2, 3, 4):
        index.add_signatures(number, "g", b"", keep=9)
    shown = file(index, b"shown", staged=1)
    index.encode(shown.ino, 1, 3, 100)
    assert [found.id for found in index.unneeded_objects()] == [1, 4]
    index.drop_objects([1, 4])
    found = index.object(2)
    assert (found.needs, found.layer, found.is_layer_only) == ((), (), True)
    assert index.object(3).needs == (2,)
    # No frame may take pixels from object 2 any more.
    assert [number for number, _ in index.signatures("g")] == [3]
