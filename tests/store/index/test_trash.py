"""The trash of the index, and columns of all objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmount.store.disk.disk import Disk
from fsmount.store.index import ROOT, TRASH, Index
from fsmount.store.index.schema import pack_ids, unpack_ids, unpack_many
from fsmount.store.index.trash import Trashed, trashed
from tests.support.rows import an_object, file, folder


@pytest.fixture(name="index")
def new_index(tmp_path: Path) -> Iterator[Index]:
    path = tmp_path / "index.sqlite"
    Index.make(path, identity="x", uid=1, gid=2, now_ns=3)
    index = Index(path, Disk())
    yield index
    index.close()


def encoded(index: Index, name: bytes, inside: int, object_id: int, size: int = 100) -> int:
    """Make a file that shows an object. Returns its inode."""
    made = file(index, name, inside, staged=object_id)
    assert index.encode(made.ino, object_id, object_id, size)
    return made.ino


def test_into_the_trash_and_back(index: Index) -> None:
    index.add_object(an_object(1))
    desk = folder(index, b"desk").ino
    ino = encoded(index, b"a.png", desk, 1)
    index.set_xattr(ino, b"user.x", b"y")
    before = index.inode(ino)
    index.put_in_trash([(desk, b"a.png", b"desk/a.png")], 1000)
    assert index.lookup(desk, b"a.png") is None
    assert [path for path, _ in index.walk()] == [b"desk"]
    assert index.inode(desk).mtime_ns == 1000
    # The file is as it was, and knows its path.
    assert index.inode(ino) == before
    assert index.path(ino) == b"desk/a.png"
    assert list(index.in_trash()) == [(Trashed(1000, b"desk/a.png"), before)]
    assert index.trash_bytes() == [(b"00000000000000001000/desk/a.png", 10)]
    assert (index.trash_totals(), index.trash_uses()) == ((1, 100), {1: 1})
    assert index.totals()["files"] == 0
    assert index.unneeded_objects() == []
    assert not (index.dangling_names() or index.wrong_links() or index.wrong_uses())
    index.set_pack(1, 10, sealed=False)
    assert index.contradiction() == ""
    index.rename(TRASH, Trashed(1000, b"desk/a.png").name, desk, b"b.png", 2000)
    assert index.xattrs(ino) == {b"user.x": b"y"}
    assert list(index.in_trash()) == []
    assert index.totals()["kinds"] == {"key": 1}


def test_the_order_of_the_trash(index: Index) -> None:
    for number in range(4):
        file(index, b"%d" % number, staged=number + 1)
    index.put_in_trash([(ROOT, b"0", b"z"), (ROOT, b"1", b"b/c")], 900)
    # A clock that stands still, or goes back.
    index.put_in_trash([(ROOT, b"2", b"z")], 900)
    index.put_in_trash([(ROOT, b"3", b"a")], 10)
    names = [entry for entry, _ in index.in_trash()]
    assert names == [(900, b"b/c"), (900, b"z"), (901, b"z"), (902, b"a")]


def test_a_file_with_another_name_is_still_shown(index: Index) -> None:
    index.add_object(an_object(1))
    ino = encoded(index, b"a", ROOT, 1)
    index.link(ROOT, b"b", ino, 1)
    index.put_in_trash([(ROOT, b"a", b"a")], 5)
    assert index.trash_totals() == (0, 0)
    assert index.trash_uses() == {}
    assert index.totals()["files"] == 1
    index.put_in_trash([(ROOT, b"b", b"b")], 6)
    assert index.trash_totals() == (1, 100)
    # The bytes of one object count once.
    assert [nbytes for _, nbytes in index.trash_bytes()] == [10, 0]
    assert list(index.sizes_in_trash()) == index.trash_bytes()
    assert sorted(path for _, path in index.shown({1})) == [b"a", b"b"]
    assert index.wrong_links() == []


@given(st.integers(0, 10**20 - 1), st.binary(min_size=1, max_size=40))
def test_names_in_the_trash(deleted_ns: int, path: bytes) -> None:
    assert trashed(Trashed(deleted_ns, path).name) == (deleted_ns, path)


def test_columns_of_objects(index: Index) -> None:
    index.add_object(an_object(1, pack=3, offset=7))
    index.add_object(an_object(2, kind="raw", length=5, size=900))
    index.add_object(an_object(4, kind="raw", length=950, size=900))
    index.add_object(an_object(6, kind="delta", needs=(1, 4)))
    encoded(index, b"a", ROOT, 6)
    rows = [tuple(row) for page in index.object_rows() for row in page]
    assert rows == [
        (1, 3, 7, 10, 0, 0, 1),
        (2, 1, 0, 5, 900, 0, 0),
        (4, 1, 0, 950, 0, 0, 0),
        (6, 1, 0, 10, 0, 1, 1),
    ]
    assert list(index.needs_of_used()) == [([6], [pack_ids([1, 4])])]
    assert [ids for ids, _ in index.needs_of_frames()] == [[1, 6]]


@given(st.lists(st.sets(st.integers(1, 1 << 40), max_size=9), max_size=9), st.booleans())
def test_ids_of_many_objects(sets: list[set[int]], early: bool) -> None:
    packed = [pack_ids(list(ids)) for ids in sets]
    if early:  # the 4 bytes of an early store
        packed.append((77).to_bytes(4, "little"))
    counts, ids = unpack_many(packed)
    assert counts.tolist() == [len(unpack_ids(data)) for data in packed]
    assert ids.tolist() == [number for data in packed for number in unpack_ids(data)]


def test_trimmed_objects_are_found_no_more(index: Index) -> None:
    """Object 1 loses tiles. Object 2 copies from it, so it can be shown no more."""
    index.add_object(an_object(1))
    index.add_object(an_object(2, kind="delta", needs=(1,)))
    index.add_object(an_object(3, kind="delta", needs=(1, 2)))
    index.add_object(an_object(4, kind="delta", needs=(2,), layer=(2,)))
    for number in (1, 2, 3, 4):
        index.add_signatures(number, "g", b"", keep=9)
    encoded(index, b"shown", ROOT, 3)
    index.trim_objects([1])
    assert [index.object(number).is_layer_only for number in (1, 2, 3, 4)] == [
        True,
        True,
        False,
        False,
    ]
    assert index.object(3).needs == (1, 2)
    assert [number for number, _ in index.signatures("g")] == [3, 4]
    index.set_trimmed({1: 2, 5: 9})
    assert index.trimmed() == {1: 2, 5: 9}
    index.drop_objects([1])
    assert index.trimmed() == {5: 9}
