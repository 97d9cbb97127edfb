"""Trees: folders outside a store, paths inside it."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from fsmount.errors import Damaged
from fsmount.store.index import ROOT
from fsmount.store.read_store import ReadStore
from fsmount.store.store import OpenedStore, open_store
from fsmount.store.transfer.tree import (
    Summary,
    find,
    measure,
    same,
    slices,
    source_of,
    target_of,
    walk,
)
from tests.support.encoding import put
from tests.support.trees import make_store, make_tree


@pytest.fixture(name="opened")
def opened_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenedStore]:
    with open_store(make_store(tmp_path / "store", monkeypatch)) as opened:
        yield opened


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("shots", b"shots"),
        ("/home/me/shots", b"shots"),
        ("shots/", b""),
        ("/home/me/shots//", b""),
        (".", b""),
        ("..", b""),
        ("a/..", b""),
        ("/", b""),
        (os.fsdecode(b"caf\xe9"), b"caf\xe9"),
    ],
)
def test_the_slash_rule(source: str, target: bytes) -> None:
    assert target_of(source) == target


def test_a_link_is_followed_with_a_slash_only(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert source_of(f"{tmp_path}/link") == tmp_path / "link"
    assert source_of(f"{tmp_path}/link/") == (tmp_path / "real").resolve()
    (tmp_path / "dangling").symlink_to("nowhere")
    assert source_of(f"{tmp_path}/dangling").is_symlink()
    (tmp_path / "loop").symlink_to("loop")
    assert source_of(f"{tmp_path}/loop").is_symlink()
    for missing in ("nothing", "dangling/", "nothing/", "loop/"):
        with pytest.raises(OSError, match=r"No such file|Too many levels"):
            source_of(f"{tmp_path}/{missing}")


def test_walk_is_in_order_and_folders_come_first(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "in")
    summary = Summary()
    items = list(walk(root, b"top", summary))
    targets = [item.target for item in items]
    assert summary.problems == []
    assert targets[0] == b"top"
    assert len(targets) == len(set(targets)) == 1 + len(list(root.rglob("*")))
    assert b"top/caf\xe9.txt" in targets
    assert targets.index(b"top/desk") + 1 == targets.index(b"top/desk/2024 June")
    for item in items[1:]:
        assert item.target.rpartition(b"/")[0] in targets[: targets.index(item.target)]
    assert [item.target for item in walk(root, b"", summary)][:2] == [b"", b"again.png"]
    files = [item for item in items if not stat.S_ISDIR(item.info.st_mode)]
    assert measure([(root, b"")]) == (len(files), sum(item.info.st_size for item in files))


def test_folders_deeper_than_the_stack(opened: OpenedStore, tmp_path: Path) -> None:
    """Folders of any depth work. Python allows only 1000 nested calls."""
    deep = 1200
    folder, parent = os.open(tmp_path, os.O_RDONLY), ROOT
    with opened.index.transaction():
        for _ in range(deep):
            os.mkdir("d", dir_fd=folder)
            inner = os.open("d", os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = inner
            made = opened.index.create(
                parent, b"d", mode=stat.S_IFDIR | 0o755, uid=0, gid=0, now_ns=0
            )
            parent = made.ino
    os.close(folder)
    assert sum(1 for _ in walk(tmp_path / "d", b"d", Summary())) == deep
    assert sum(1 for _ in opened.index.walk()) == deep
    # The cleanup of pytest cannot remove folders of this depth.
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)


def test_what_vanishes_is_noted(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    summary = Summary()
    seen = []
    for item in walk(tmp_path, b"", summary):
        seen.append(item.target)
        if item.target == b"a":
            (tmp_path / "b").rmdir()
    assert seen == [b"", b"a", b"c"]
    assert summary.problems == [(str(tmp_path / "b"), "No such file or directory")]


def test_find(opened: OpenedStore) -> None:
    put(opened, b"file", b"")
    folder = opened.index.create(ROOT, b"a", mode=0o40755, uid=0, gid=0, now_ns=1).ino
    put(opened, b"\xff", b"x", folder)
    for path, name in ((b"", ROOT), (b"/", ROOT), (b"a", folder), (b"//a/", folder)):
        inode = find(opened, path)
        assert inode is not None and inode.ino == name
    assert find(opened, b"a/\xff") is not None
    for path in (b"b", b"a/b", b"file/b", b"file/..", b"a/."):
        assert find(opened, path) is None


def test_same(opened: OpenedStore, tmp_path: Path) -> None:
    def is_same(name: str, path: Path) -> bool:
        inode = find(opened, name.encode())
        assert inode is not None
        return same(inode, path, path.lstat())

    file = tmp_path / "file"
    file.write_bytes(b"four")
    ino = put(opened, b"file", b"four")
    opened.index.update(ino, mtime_ns=file.stat().st_mtime_ns)
    assert is_same("file", file)
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert not is_same("file", file)
    opened.index.update(ino, mtime_ns=file.stat().st_mtime_ns, size=5)
    assert not is_same("file", file)

    link = tmp_path / "link"
    link.symlink_to("here")

    def create(name: bytes, mode: int, target: bytes | None = None, rdev: int = 0) -> None:
        opened.index.create(ROOT, name, mode=mode, uid=0, gid=0, now_ns=1, target=target, rdev=rdev)

    create(b"link", stat.S_IFLNK | 0o777, target=b"here")
    assert is_same("link", link)
    assert not is_same("file", link)
    assert not is_same("link", file)
    link.unlink()
    link.symlink_to("there")
    assert not is_same("link", link)

    os.mkfifo(tmp_path / "pipe")
    create(b"pipe", stat.S_IFIFO | 0o600)
    assert is_same("pipe", tmp_path / "pipe")
    create(b"null", stat.S_IFCHR | 0o600, rdev=os.makedev(1, 3))
    assert is_same("null", Path("/dev/null"))
    assert not is_same("null", Path("/dev/zero"))
    create(b"folder", stat.S_IFDIR | 0o700)
    assert not is_same("folder", tmp_path)


async def read(store: ReadStore, ino: int) -> bytes:
    return b"".join([data async for data in slices(store, ino)])


async def test_slices(opened: OpenedStore) -> None:
    data = os.urandom((1 << 20) + 5)
    async with opened.started(count=1) as store, trio.open_nursery() as nursery:
        ino = put(store, b"a", data)
        empty = put(store, b"b", b"")
        assert await read(store, ino) == data
        assert await read(store, empty) == b""
        nursery.start_soon(store.run)
        await store.drain()
        assert store.index.inode(ino).staged is None
        assert await read(store, ino) == data
        assert await read(store, empty) == b""
        nursery.cancel_scope.cancel()


async def test_slices_of_a_file_that_is_encoded_meanwhile(
    opened: OpenedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the row was read, another mount encoded the file and removed the staged one."""
    async with opened.running(count=1) as store:
        ino = put(store, b"a", b"data")
        before = store.index.inode(ino)
        inode_of = store.index.inode
        await store.drain()
        rows = [before]
        monkeypatch.setattr(
            store.index, "inode", lambda number: rows.pop() if rows else inode_of(number)
        )
        assert await read(store, ino) == b"data"
        assert rows == []


async def test_slices_of_what_is_lost(opened: OpenedStore) -> None:
    async with opened.started(count=1) as store:
        ino = put(store, b"a", b"data")
        token = store.index.inode(ino).staged
        assert token is not None
        store.staging.remove(token)
        with pytest.raises(Damaged, match="a is damaged: its staged file is missing"):
            await read(store, ino)
