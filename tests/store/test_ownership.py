"""Another writer takes a store over: the first one stops, says so, and damages nothing."""

from __future__ import annotations

import errno
import fcntl
import inspect
import logging
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from fsmount.cli import main
from fsmount.errors import StoreLocked
from fsmount.mount.attributes import Changes
from fsmount.mount.store_fs import RENAME_EXCHANGE, StoreFilesystem
from fsmount.store import lock
from fsmount.store.disk.disk import Disk
from fsmount.store.index import ROOT, Index
from fsmount.store.ingest import durability
from fsmount.store.ingest.committer import Committer
from fsmount.store.ingest.outcome import Appended
from fsmount.store.lock import Lock
from fsmount.store.ownership import OwnedDisk, Ownership
from fsmount.store.packs.staging import writer_of
from fsmount.store.recovery import startup
from fsmount.store.store import OpenedStore, open_store
from fsmount.store.transfer import deleting, importing
from fsmount.store.transfer.tree import Item
from fsmount.store.writable_store import WritableStore
from tests.support.calls import ROOT_USER, get, put, raises
from tests.support.encoding import open_files, samples
from tests.support.frames import FlakyDisk
from tests.support.trees import make_pictures


@pytest.fixture(autouse=True)
def _unshared(monkeypatch: pytest.MonkeyPatch, inline: None) -> None:
    """Simulate paths that do not pass flock on."""
    monkeypatch.setattr(fcntl, "flock", lambda fd, how: None)


def second(root: Path) -> OpenedStore:
    """Open another writer that no lock stops. It found the lock free at the same moment."""
    (root / "lock").write_bytes(b"")
    return open_store(root)


@asynccontextmanager
async def filesystem(
    root: Path, disk: FlakyDisk | None = None
) -> AsyncIterator[tuple[WritableStore, StoreFilesystem]]:
    """A store without background tasks, and its filesystem."""
    with open_store(root, disk=disk) as opened:
        async with opened.started(count=1) as store:
            vfs = StoreFilesystem(store, store)
            yield store, vfs
            vfs.close()


def files_of(root: Path) -> dict[str, bytes]:
    """All files of a store except the index. SQLite writes the index also for readers."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith("index.sqlite")
    }


def test_it_is_refused_by_what_the_lock_says(root: Path) -> None:
    first = open_store(root)
    with pytest.raises(StoreLocked):
        open_store(root)
    first.close()
    open_store(root).close()


@dataclass
class Taken:
    """A store with files of all kinds that another writer took over. `fh` is open for writing."""

    root: Path
    store: WritableStore
    vfs: StoreFilesystem
    inodes: dict[bytes, int]
    fh: int
    other: OpenedStore


@pytest.fixture
async def taken(root: Path) -> AsyncIterator[Taken]:
    async with filesystem(root) as (store, vfs):
        inodes = {name: await put(vfs, name, data) for name, data in samples().items()}
        inodes[b"folder"] = (await vfs.mkdir(ROOT, b"folder", 0o755, ROOT_USER)).ino
        await vfs.setxattr(inodes[b"note"], b"user.a", b"b")
        fh = await vfs.open(inodes[b"note"], os.O_RDWR, ROOT_USER)
        other = second(root)
        yield Taken(root, store, vfs, inodes, fh, other)
    other.close()


async def _written(taken: Taken) -> None:
    """A write that is not kept ends with an error, acknowledged or not."""
    await taken.vfs.write(taken.fh, 0, b"new")


CHANGES: dict[str, Callable[[Taken], Awaitable[object]]] = {
    "create": lambda t: t.vfs.create(ROOT, b"new", 0o644, os.O_WRONLY, ROOT_USER),
    "mknod": lambda t: t.vfs.mknod(ROOT, b"new", 0o100644, 0, ROOT_USER),
    "mkdir": lambda t: t.vfs.mkdir(ROOT, b"new", 0o755, ROOT_USER),
    "symlink": lambda t: t.vfs.symlink(ROOT, b"new", b"target", ROOT_USER),
    "link": lambda t: t.vfs.link(t.inodes[b"note"], ROOT, b"new"),
    "write": _written,
    "truncate": lambda t: t.vfs.setattr(t.inodes[b"note"], Changes(size=1), ROOT_USER),
    "open and truncate": lambda t: t.vfs.open(
        t.inodes[b"0.png"], os.O_WRONLY | os.O_TRUNC, ROOT_USER
    ),
    "chmod": lambda t: t.vfs.setattr(t.inodes[b"note"], Changes(mode=0o600), ROOT_USER),
    "utime": lambda t: t.vfs.setattr(t.inodes[b"note"], Changes(mtime_ns=5), ROOT_USER),
    "setxattr": lambda t: t.vfs.setxattr(t.inodes[b"note"], b"user.x", b"y"),
    "removexattr": lambda t: t.vfs.removexattr(t.inodes[b"note"], b"user.a"),
    "rename": lambda t: t.vfs.rename(ROOT, b"note", ROOT, b"new"),
    "rename over": lambda t: t.vfs.rename(ROOT, b"note", ROOT, b"0.png"),
    "exchange": lambda t: t.vfs.rename(ROOT, b"note", ROOT, b"0.png", RENAME_EXCHANGE),
    "unlink": lambda t: t.vfs.unlink(ROOT, b"note"),
    "rmdir": lambda t: t.vfs.rmdir(ROOT, b"folder"),
    "fsync": lambda t: t.vfs.fsync(t.fh),
    "durable": lambda t: t.store.durable(),
    # The free space found a moment ago does not allow so many bytes.
    "space": lambda t: t.store.need_space(1 << 60),
    "drain": lambda t: t.store.drain(),
    "background repack": lambda t: t.store.repack_in_background(lambda: True),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_every_change_is_refused(
    taken: Taken, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = files_of(taken.root)
    for _ in range(2):
        with trio.fail_after(20), raises(errno.EIO) as caught:
            await CHANGES[change](taken)
    told = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert len(told) == 1
    for text in (told[0].getMessage(), str(caught.value)):
        assert f"another fsmount has taken this store over (process {os.getpid()})" in text
    assert files_of(taken.root) == before, "nothing was removed or cut"
    for name, data in samples().items():
        assert await get(taken.vfs, taken.inodes[name]) == data, "what it has can be read"


async def test_a_write_that_was_under_way_is_not_acknowledged(root: Path, disk: FlakyDisk) -> None:
    others: list[OpenedStore] = []

    def take(call: str, what: object) -> int:
        if call == "pwrite" and not others:
            others.append(second(root))
        return 0

    async with filesystem(root, disk) as (_, vfs):
        fh, _ = await vfs.create(ROOT, b"a", 0o644, os.O_WRONLY, ROOT_USER)
        disk.hook = take
        with raises(errno.EIO):
            await vfs.write(fh, 0, b"late")
    others[0].close()


@pytest.mark.parametrize("at", ["BEGIN IMMEDIATE", "COMMIT"])
async def test_a_commit_that_was_under_way_is_not_acknowledged(
    root: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that took the store over may have read the index before the commit."""
    async with filesystem(root) as (store, vfs):
        run = store.index._run

        def late(sql: str, values: tuple[object, ...] = ()) -> object:
            if sql == at:
                (root / "lock").write_bytes(b"")
                Lock(root / "lock")
            return run(sql, values)

        with monkeypatch.context() as patch:
            patch.setattr(store.index, "_run", late)
            with raises(errno.EIO):
                await vfs.create(ROOT, b"a", 0o644, os.O_WRONLY, ROOT_USER)
        assert len(store.staging.tokens()) == 1, "its row may be there"


@pytest.mark.parametrize("wait", [False, True], ids=["appended", "staged"])
async def test_encoding_stops_and_cuts_nothing(
    root: Path, wait: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Entries of both writers stand at the same place of the same pack."""
    commit = Committer._commit
    others: list[OpenedStore] = []
    written = trio.Event()

    async def late(self: Committer, batch: list[Appended]) -> None:
        await written.wait()
        if not others:
            others.append(second(root))
        await commit(self, batch)

    opened = open_store(root)
    async with opened.running(count=1) as store:
        vfs = StoreFilesystem(store, store)
        monkeypatch.setattr(Committer, "_commit", late)
        if wait:
            others.append(second(root))
        inodes: dict[bytes, int] = {}
        if not wait:
            inodes = {name: await put(vfs, name, data) for name, data in samples().items()}
        written.set()
        with trio.fail_after(20), raises(errno.EIO):
            await store.drain()
        assert store.pending() == 0, "nobody waits for it"
        before = files_of(root)
        assert len([name for name in before if name.startswith("staging/")]) == len(inodes)
        await trio.testing.wait_all_tasks_blocked()
    vfs.close()
    opened.close()
    assert files_of(root) == before
    others[0]._ownership.ask()
    assert sum(record.levelno == logging.CRITICAL for record in caplog.records) == 1
    # The other writer encodes them all.
    async with others[0].running(count=1) as other:
        tree = StoreFilesystem(other, other)
        for name in inodes:
            ino = (await tree.lookup(ROOT, name)).ino
            other.queue(ino)
        await other.drain()
        for name, ino in inodes.items():
            assert await get(tree, ino) == samples()[name]
        tree.close()
    others[0].close()
    assert open_files(root) == []


async def test_one_that_only_mounts_and_unmounts(root: Path) -> None:
    async with filesystem(root) as (_, vfs):
        inodes = {name: await put(vfs, name, data) for name, data in samples().items()}
        second(root).close()
        accepted = set(inodes)
        for number in range(3):
            with raises(errno.EIO):
                await put(vfs, b"late-%d" % number, b"x")
    assert (root / "lock").read_bytes() == b"", "what the other one left"
    async with filesystem(root) as (third, tree):
        assert {name for _, name, _ in third.index.children(ROOT)} == accepted
        for name, data in samples().items():
            assert await get(tree, (await tree.lookup(ROOT, name)).ino) == data


async def test_what_the_other_index_does_not_know_is_kept(root: Path) -> None:
    """A path shows an old state of the index, and the writer before cannot be asked there."""
    open_store(root).close()
    old = (root / "index.sqlite").read_bytes()
    async with filesystem(root) as (_, vfs):
        files = samples()
        for name, data in files.items():
            await put(vfs, name, data)
        view = shutil.copytree(root, root.parent / "view")
        (view / "index.sqlite-wal").unlink()
        (view / "index.sqlite").write_bytes(old)
        (view / "opened").write_bytes(b"1\n")
        (view / "lock").write_bytes(b"")
        other = open_store(view)
        assert list(other.index.walk()) == []
        other.close()
        kept = [path.read_bytes() for path in (view / "lost").iterdir()]
        assert sorted(kept) == sorted(files.values())


@pytest.mark.parametrize("unproved", [False, True])
async def test_a_writer_that_may_live_loses_nothing(
    root: Path, disk: FlakyDisk, unproved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--force-lock: recovery keeps even files that look like leftovers of a crash."""
    store = open_store(root)
    token = store.staging.create()
    store.staging.path(token).write_bytes(b"accepted")
    if unproved:
        there = lock._parse((root / "lock").read_bytes())
        assert there is not None
        (root / "lock").write_bytes(there.line().replace(b'"boot": "', b'"boot": "not '))
        monkeypatch.setattr(lock, "_sleep", lambda _: None)
    else:
        (root / "lock").write_bytes(b"")
    other = open_store(root, force_lock=True, disk=disk)
    # The first writer's mapping of this file must not overwrite the data the second one needs.
    assert (("unlink", other.layout.index_shared) in disk.calls) == unproved
    lost = [path.read_bytes() for path in (root / "lost").glob("staging-*")]
    assert lost == [b"accepted"] * unproved
    assert other.staging.tokens() == []
    store.close()
    other.close()


def test_of_two_that_open_at_once_one_gives_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[Lock] = []
    clean = startup._clean_raw

    def late(*rooms: object) -> None:
        if not others:
            (root / "lock").write_bytes(b"")
            others.append(Lock(root / "lock"))
        clean(*rooms)  # type: ignore[arg-type]

    monkeypatch.setattr(startup, "_clean_raw", late)
    with raises(errno.EIO):
        open_store(root)
    assert others[0].is_ours()
    assert open_files(root) == [str(root / "lock")], "that of the other one"
    assert (root / "index.sqlite-wal").exists(), "its log is not folded"
    others[0].release()
    open_store(root).close()


def _replace_index(root: Path) -> None:
    shutil.copy(root / "index.sqlite", root / "copy")
    (root / "copy").rename(root / "index.sqlite")


@pytest.mark.parametrize(
    "change",
    [
        _replace_index,
        lambda root: (root / "index.sqlite").unlink(),
        lambda root: (root / "lock").unlink(),
        lambda root: (root / "lock").write_bytes(b"process 1\n"),
    ],
    ids=["index replaced", "index gone", "lock gone", "an earlier build"],
)
async def test_other_ways_to_lose_a_store(root: Path, change: Callable[[Path], None]) -> None:
    async with filesystem(root) as (_, vfs):
        await put(vfs, b"a", b"x")
        change(root)
        with raises(errno.EIO):
            await put(vfs, b"b", b"x")
        assert await get(vfs, (await vfs.lookup(ROOT, b"a")).ino) == b"x"


async def test_a_disk_that_does_not_say_is_no_other_writer(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> bytes:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    async with filesystem(root) as (_, vfs):
        with monkeypatch.context() as patch:
            patch.setattr(lock, "_read", fail)
            with raises(errno.ETIMEDOUT):
                await put(vfs, b"a", b"x")
        await put(vfs, b"b", b"x")
    assert (root / "lock").read_bytes() == b""


def test_the_log_of_a_lost_index_is_not_folded(root: Path) -> None:
    open_store(root).close()
    index = Index(root / "index.sqlite", Disk())
    index.update(ROOT, mtime_ns=5)
    before = {path.name: path.read_bytes() for path in root.glob("index.sqlite*")}
    assert before["index.sqlite-wal"]

    def lost() -> None:
        raise OSError(errno.EIO, "lost")

    index.owned = lost
    index.close()
    after = {path.name: path.read_bytes() for path in root.glob("index.sqlite*")}
    assert after.keys() == before.keys()
    for name in ("index.sqlite", "index.sqlite-wal"):
        assert after[name] == before[name]
    again = Index(root / "index.sqlite", Disk())
    assert again.inode(ROOT).mtime_ns == 5
    again.close()


def test_an_idle_writer_notices(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.001)
    ownership = Ownership(Lock(root / "lock"))
    before = (root / "lock").read_bytes()
    while (root / "lock").read_bytes() == before:
        assert not ownership.is_lost
    (root / "lock").write_bytes(b"")
    other = Lock(root / "lock")
    ownership._heart.join()
    assert ownership.is_lost
    ownership.release()
    assert other.is_ours()
    other.release()
    assert "taken this store over" in caplog.text


async def test_an_idle_mount_stops_encoding(root: Path) -> None:
    opened = open_store(root)
    async with opened.running(count=1) as store:
        other = second(root)
        with raises(errno.EIO):
            await trio.to_thread.run_sync(store._owned._ownership.ask)
        with trio.fail_after(20):
            await store._owned._lost.wait()
    opened.close()
    other.close()


def test_each_opening_has_tokens_of_its_own(root: Path) -> None:
    writers = set()
    for _ in range(3):
        store = open_store(root)
        token = store.staging.create()
        writers.add(writer_of(token))
        assert writer_of(token) == store.index.writer()
        store.staging.remove(token)
        store.close()
    assert len(writers) == 3


def test_an_owned_disk_asks_before_each_call_that_changes_something() -> None:
    composed = {"write_file", "copy", "write_again"}
    for name, function in inspect.getmembers(Disk, inspect.isfunction):
        assert name.startswith("_") or name in composed or name in vars(OwnedDisk), (
            f"{function} would go past the disk behind"
        )


def test_an_import_that_loses_its_store_deletes_no_source(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_pictures(tmp_path / "in", 6)
    before = files_of(tmp_path / "in")
    monkeypatch.setattr(importing, "_AHEAD", 2)
    monkeypatch.setattr(deleting, "_AT_ONCE", 1)
    monkeypatch.setattr(durability, "DURABLE_SECONDS", 0.01)
    add = importing.Importer._add_source
    count = [0]

    def late(self: importing.Importer, item: Item) -> None:
        count[0] += 1
        if count[0] == 4:
            second(root).close()
        add(self, item)

    monkeypatch.setattr(importing.Importer, "_add_source", late)
    with pytest.raises(SystemExit) as ended:
        main(["import", "--delete-source", str(tmp_path / "in"), str(root)])
    assert ended.value.code == 1
    assert "another fsmount has taken this store over" in capsys.readouterr().err
    left = files_of(tmp_path / "in")
    store = open_store(root)
    names = {os.fsdecode(path) for path, _ in store.index.walk()}
    store.close()
    for name in before.keys() - left.keys():
        assert f"in/{name}" in names, "deleted, and not in the store"
    assert len(left) >= 3
