"""The folder of an open store is renamed, and another store takes its old name."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from fsmount.errors import Damaged, StoreLocked
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.index import ROOT, Index
from fsmount.store.index import database as database_module
from fsmount.store.recovery.check import check_contents, check_relations
from fsmount.store.store import open_read_store, open_store
from tests.support.encoding import encode, forget_caches, get, open_either, put, samples, settled
from tests.support.frames import png, screens

pytestmark = pytest.mark.usefixtures("inline", "small_limits")


def files_of(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def replace(root: Path, to: str = "moved") -> tuple[Path, dict[str, bytes]]:
    """Rename the store, and make another one under its name.

    Returns the new path of the store, and the files of the other one.
    """
    moved = root.with_name(to)
    root.rename(moved)
    config.make(root, Disk())
    return moved, files_of(root)


@contextmanager
def mounted_disk(path: Path) -> Iterator[None]:
    """Mount an empty disk over the folder."""
    subprocess.run(["mount", "-t", "tmpfs", "none", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


async def whole(root: Path, files: dict[bytes, bytes]) -> None:
    """Open the store as a new process does. It has exactly these files, and no damage."""
    forget_caches()
    opened = open_store(root)
    try:
        async with opened.running(count=1) as store:
            found = {path: await get(store, node.ino) for path, node in store.index.walk()}
            report = check_relations(store)
            await check_contents(store, report, lambda count: None)
    finally:
        opened.close()
    assert (report.findings, report.notices) == ([], [])
    assert found == files


async def test_what_is_written_before_and_after_is_in_the_store_that_was_moved(root: Path) -> None:
    files = samples()
    names = sorted(files)
    before, after = names[: len(names) // 2], names[len(names) // 2 :]
    opened = open_store(root)
    async with opened.running(count=1) as store:
        for name in before:
            put(store, name, files[name])
        await settled(store, {name: files[name] for name in before})
        moved, new = replace(root)
        for name in after:
            put(store, name, files[name])
        await store.durable()
        await settled(store, files)
    opened.close()
    assert files_of(root) == new
    assert (moved / "index.sqlite-wal").stat().st_size == 0
    await whole(moved, files)
    await whole(root, {})


async def test_while_encoding_goes_on_again_and_again(root: Path) -> None:
    files = {b"%02d.png" % number: png(frame) for number, frame in enumerate(screens(12))}
    files |= {b"%02d.bin" % number: os.urandom(9000) for number in range(6)}
    opened = open_store(root)
    others = []
    where = root
    async with opened.running(count=1) as store:
        for number, (name, data) in enumerate(sorted(files.items())):
            put(store, name, data)
            if number % 3 == 0:
                where, new = replace(where, f"moved{number}")
                others.append((where.with_name(f"moved{number - 3}") if number else root, new))
            for _ in range(number):
                await trio.lowlevel.checkpoint()
        await settled(store, files)
    opened.close()
    assert len(others) == 6
    for path, new in others:
        assert files_of(path) == new
    await whole(where, files)


async def test_repack_room_and_the_copies_stay_with_it(root: Path) -> None:
    files = {b"%02d.png" % number: png(frame) for number, frame in enumerate(screens(6))}
    files[b"large"] = os.urandom(20_000)
    opened = open_store(root)
    async with opened.running(count=1) as store:
        for name, data in files.items():
            put(store, name, data)
        await settled(store, files)
        for name in (b"01.png", b"large"):
            store.index.unlink(ROOT, name, 1)
            del files[name]
        for orphan in store.index.orphans():
            store.index.purge(orphan.ino)
        moved, new = replace(root)
        await store.reclaim(1 << 60)
        await store.repack(lambda count: None)
        store.renew_copies()
        with trio.fail_after(20):
            while not (moved / "packs" / "names.gz").exists():
                await trio.sleep(0.01)
    opened.close()
    assert files_of(root) == new
    assert list((moved / "raw").iterdir()) == []
    await whole(moved, files)


async def test_the_log_of_a_store_that_is_in_use_stays(root: Path) -> None:
    """SQLite removes its log by name when it closes."""
    store = open_store(root)
    put(store, b"ours", b"ours")
    moved = root.with_name("moved")
    root.rename(moved)
    config.make(root, Disk())
    other = open_store(root)
    put(other, b"theirs", b"theirs")
    log = root / "index.sqlite-wal"
    before = log.stat().st_ino, log.read_bytes()
    store.close()
    assert (log.stat().st_ino, log.read_bytes()) == before
    put(other, b"more", b"more")
    other.close()
    await whole(root, {b"theirs": b"theirs", b"more": b"more"})
    await whole(moved, {b"ours": b"ours"})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts disks")
async def test_another_disk_in_its_place_has_the_same_inodes(tmp_path: Path) -> None:
    """SQLite compares only the inode number before it removes its log."""
    root = tmp_path / "store"
    root.mkdir()
    with mounted_disk(root):
        config.make(root, Disk())
        store = open_store(root)
        put(store, b"ours", b"ours")
        inode = (root / "index.sqlite").stat().st_ino
        with mounted_disk(root):
            config.make(root, Disk())
            assert (root / "index.sqlite").stat().st_ino == inode
            other = open_store(root)
            put(other, b"theirs", b"theirs")
            before = (root / "index.sqlite-wal").read_bytes()
            store.close()
            assert (root / "index.sqlite-wal").read_bytes() == before
            other.close()
            await whole(root, {b"theirs": b"theirs"})
        await whole(root, {b"ours": b"ours"})


async def test_moved_and_gone_from_its_name(root: Path) -> None:
    store = open_store(root)
    put(store, b"a", b"x")
    moved = root.rename(root.with_name("moved"))
    put(store, b"b", b"y")
    store.close()
    assert not root.exists()
    await whole(moved, {b"a": b"x", b"b": b"y"})


async def test_moved_and_back_it_ends_as_always(root: Path) -> None:
    store = open_store(root)
    put(store, b"a", b"x")
    moved, new = replace(root)
    put(store, b"b", b"y")
    root.rename(root.with_name("new"))
    moved.rename(root)
    store.close()
    assert not (root / "index.sqlite-wal").exists()
    assert files_of(root.with_name("new")) == new
    await whole(root, {b"a": b"x", b"b": b"y"})


async def test_readers_go_on(root: Path) -> None:
    files = samples()
    await encode(root, files)
    opened_reader = open_read_store(root)
    _, new = replace(root)
    async with opened_reader.running(count=1) as reader:
        for name, data in files.items():
            inode = reader.index.lookup(ROOT, name)
            assert inode is not None
            assert await get(reader, inode.ino) == data
    assert opened_reader.stats()["files"] == len(files)
    opened_reader.close()
    assert files_of(root) == new


async def test_a_copy_in_its_place_is_another_store_too(root: Path) -> None:
    """The copy has the same uuid and the same rows."""
    store = open_store(root)
    put(store, b"a", b"x")
    store.close()
    store = open_store(root)
    moved = root.rename(root.with_name("moved"))
    shutil.copytree(moved, root, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    before = files_of(root)
    put(store, b"b", b"y")
    store.close()
    assert files_of(root) == before
    await whole(moved, {b"a": b"x", b"b": b"y"})


@pytest.mark.parametrize("read_only", [False, True])
def test_moved_while_the_index_is_opened(
    root: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    """SQLite opens by name. The store does not use the file that SQLite opened after the move."""
    real = database_module.address
    new: dict[str, bytes] = {}

    def late(path: Path, read_only: bool) -> str:
        uri = real(path, read_only)
        new.update(replace(root)[1])
        return uri

    monkeypatch.setattr(database_module, "address", late)
    with pytest.raises(OSError, check=lambda error: error.errno == errno.ESTALE):
        open_either(root, read_only=read_only)
    left = {name: data for name, data in files_of(root).items() if "sqlite-" not in name}
    assert left == new
    monkeypatch.undo()
    for path in (root, root.with_name("moved")):
        open_store(path).close()


def test_the_lock_goes_with_the_store(root: Path) -> None:
    store = open_store(root)
    moved, _ = replace(root)
    with pytest.raises(StoreLocked, match=str(moved)):
        open_store(moved)
    open_store(root).close()
    store.close()
    open_store(moved).close()


def test_errors_name_the_store_and_not_a_descriptor(root: Path) -> None:
    (root / "index.sqlite").write_bytes(b"no index")
    with pytest.raises(Damaged, match=f"^{root}/index.sqlite is damaged"):
        open_store(root)


def test_an_index_by_a_plain_path_is_folded_at_the_end(tmp_path: Path) -> None:
    Index.make(tmp_path / "index.sqlite", identity="x", uid=0, gid=0, now_ns=1)
    index = Index(tmp_path / "index.sqlite", Disk())
    index.set_opened(3)
    assert (tmp_path / "index.sqlite-wal").exists()
    index.close()
    assert os.listdir(tmp_path) == ["index.sqlite"]


def test_a_store_below_a_link(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    store = open_store(link)
    put(store, b"a", b"x")
    link.unlink()
    config.make(link, Disk())
    new = files_of(link)
    put(store, b"b", b"y")
    store.close()
    assert files_of(link) == new
    assert not (root / "index.sqlite-wal").exists()
