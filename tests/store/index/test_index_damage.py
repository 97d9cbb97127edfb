"""The index notices damage, and gives no wrong rows."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from fsmount.errors import Damaged, FsmountError
from fsmount.store.disk.disk import Disk
from fsmount.store.index import ROOT, Index
from tests.support.rows import an_object, file, folder


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
        index.known_tiles("a"),
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
            index.set_pack(number, 10, True)
        index.save_tiles("a", bytes(range(256)) * 40)
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


def test_rows_of_another_table_are_damage(index: Index) -> None:
    """SQLite gives the values of other columns if a page stands in the place of another."""
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
    """A listing that starts again with each page would never end."""
    first = [(1, b"a", *index.inode(ROOT)), (2, b"b", *index.inode(ROOT))]
    monkeypatch.setattr(Index, "_all", lambda *args, **kwargs: first)
    assert [name for _, name, _ in index.children(ROOT)] == [b"a", b"b"]
    for after in (1, 2):
        with pytest.raises(Damaged, match="out of order"):
            index.children(ROOT, after)
    with pytest.raises(Damaged, match="out of order"):
        list(index.names())


def test_an_index_of_orphans_that_names_others_is_damage(index: Index) -> None:
    """Recovery permanently removes the inodes that the SQL index of orphans names."""
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
