"""A store from outside: worker processes, readers, durability points, and a second process."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
import trio

from fsmount.errors import Damaged, NoStore, ReadOnly, StoreLocked
from fsmount.store import config
from fsmount.store.frames import jobs
from fsmount.store.index import ROOT
from fsmount.store.ingest import committer, durability, large
from fsmount.store.packs.bodies import Kept, Rendered
from fsmount.store.store import Store
from tests.support.encoding import Inline, forget_caches, get, open_files, put
from tests.support.frames import FlakyDisk, png, screens

NOTE = b"not a picture"


@pytest.fixture(name="root")
def root_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    forget_caches()
    monkeypatch.setattr(committer, "_BATCH_SECONDS", 0.01)
    config.make(tmp_path / "store", FlakyDisk())
    return tmp_path / "store"


async def test_with_worker_processes(root: Path) -> None:
    files = {b"%d.png" % number: png(frame) for number, frame in enumerate(screens(6))}
    files[b"note"] = NOTE
    store = Store.open(root)
    inodes = {name: put(store, name, data) for name, data in files.items()}
    async with store.running(count=2):
        with trio.fail_after(60):
            await store.drain()
        for name, data in files.items():
            assert await get(store, inodes[name]) == data
    assert store.stats()["objects"] == {"key": 1, "delta": 5, "jpeg": 0, "raw": 1, "staged": 0}
    store.close()
    again = Store.open(root, read_only=True)
    async with again.running(count=1):
        for name, data in files.items():
            assert await get(again, inodes[name]) == data
    again.close()
    assert open_files(root) == []


def test_what_cannot_be_opened(root: Path, tmp_path: Path) -> None:
    with pytest.raises(NoStore):
        Store.open(tmp_path)
    store = Store.open(root)
    with pytest.raises(StoreLocked):
        Store.open(root)
    store.close()
    (root / "index.sqlite").write_bytes(b"nonsense" * 999)
    for _ in range(2):
        with pytest.raises(Damaged):
            Store.open(root)


@pytest.mark.usefixtures("inline")
async def test_read_only_beside_a_writer(root: Path) -> None:
    writer = Store.open(root)
    reader = Store.open(root, read_only=True)
    data = png(screens(1)[0])
    async with writer.running(count=1), reader.running(count=1):
        ino = put(writer, b"a", data)
        assert await get(reader, ino) == data
        await writer.drain()
        assert reader.index.inode(ino).object_id is not None
        assert await get(reader, ino) == data
        assert reader.pending() == 0
        await reader.drain()
        await reader.durable()
    for call in (reader.hold, reader.unhold, reader.queue):
        with pytest.raises(ReadOnly):
            call(ino)
    reader.close()
    # The folder has only the files of the writer, besides SQLite's own files.
    names = {name for name in os.listdir(root) if not name.startswith("index.sqlite-")}
    assert names == {
        "fsmount.json",
        "index.sqlite",
        "lock",
        "opened",
        "packs",
        "raw",
        "reserve",
        "staging",
    }
    writer.close()


@pytest.mark.usefixtures("inline")
async def test_a_body_is_rendered_once_for_many_readers(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renders = 0

    async def before(function: object) -> None:
        nonlocal renders
        renders += function is jobs.render

    monkeypatch.setattr(Inline, "before", staticmethod(before))
    data = png(screens(1)[0])
    store = Store.open(root)
    async with store.running(count=1):
        ino = put(store, b"a", data)
        await store.prefetch(ino)
        await store.drain()
        bodies: list[object] = []

        async def read() -> None:
            bodies.append(await store.body(1))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(read)
        await store.prefetch(ino)
        await store.prefetch(9999)
        assert bodies == [Rendered(data)] * 5
        assert renders == 1
    store.close()


@pytest.mark.usefixtures("inline")
async def test_damage_is_an_error_for_its_file_alone(root: Path) -> None:
    files = {b"a": png(screens(1)[0]), b"b": NOTE}
    store = Store.open(root)
    async with store.running(count=1):
        inodes = {name: put(store, name, data) for name, data in files.items()}
        await store.drain()
        found = store.index.object(1)
        path = store.layout.pack(1)
        data = bytearray(path.read_bytes())
        data[found.offset + found.length - 5] ^= 1
        path.write_bytes(data)
        forget_caches()
        with pytest.raises(Damaged):
            await get(store, inodes[b"a"])
        await store.prefetch(inodes[b"a"])
        assert await get(store, inodes[b"b"]) == NOTE
        with pytest.raises(Damaged):
            await store.body(77)
    store.close()


@pytest.mark.usefixtures("inline")
async def test_a_size_that_is_wrong_in_the_index_is_damage(root: Path) -> None:
    store = Store.open(root)
    async with store.running(count=1):
        put(store, b"a", NOTE)
        await store.drain()
        store.index._db.execute("UPDATE objects SET size = size + 1")
        with pytest.raises(Damaged):
            await store.body(1)
    store.close()


@pytest.mark.usefixtures("inline")
async def test_a_large_file_is_read_where_it_lies(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "KEEP_BYTES", 1000)
    data = os.urandom(3000)
    store = Store.open(root)
    async with store.running(count=1):
        ino = put(store, b"a", data)
        await store.drain()
        body = await store.body(1)
        assert isinstance(body, Kept)
        assert await get(store, ino) == data
        store.layout.kept(1).write_bytes(data[:-1] + b"?")
        with pytest.raises(Damaged):
            await get(store, ino)
        store.layout.kept(1).unlink()
        with pytest.raises(Damaged):
            await get(store, ino)
    store.close()


# -- durability points


def synced(disk: FlakyDisk, fail: list[str]) -> list[str]:
    """Returns a list that gets the names of files and folders fsynced from now on.

    The fsync of a name in `fail` fails.
    """
    names: list[str] = []

    def hook(call: str, what: object) -> int:
        if call != "fsync":
            return 0
        name = Path(os.readlink(f"/proc/self/fd/{what}")).name
        names.append(name)
        return errno.EIO if name in fail else 0

    disk.hook = hook
    return names


@pytest.mark.usefixtures("inline")
async def test_staged_files_are_forced_before_the_index(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durability, "DURABLE_SECONDS", 0.01)
    disk = FlakyDisk()
    store = Store.open(root, disk=disk)
    closed, writing = put(store, b"closed", NOTE), put(store, b"writing", NOTE)
    token = {ino: str(store.index.inode(ino).staged) for ino in (closed, writing)}
    for ino in (closed, writing):
        store.hold(ino)
    names = synced(disk, [])
    async with store.running(count=1):
        with trio.fail_after(10):
            while "index.sqlite-wal" not in names:
                await trio.sleep(0.001)
    before = names[: names.index("index.sqlite-wal")]
    assert set(before) == {*token.values(), "staging"}
    store.close()


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("failing", ["file", "names"])
async def test_a_durability_point_asks_no_file_again_that_has_failed(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failing: str
) -> None:
    monkeypatch.setattr(durability, "DURABLE_SECONDS", 0.01)
    disk = FlakyDisk()
    store = Store.open(root, disk=disk)
    bad, good = put(store, b"bad", NOTE), put(store, b"good", NOTE)
    tokens = {ino: store.index.inode(ino).staged or 0 for ino in (bad, good)}
    fail = [str(tokens[bad]) if failing == "file" else "staging"]
    names = synced(disk, fail)
    # The encoder encodes nothing meanwhile.
    encoding = store._encoder
    assert encoding is not None
    monkeypatch.setattr(encoding, "run", lambda *_: trio.sleep_forever())
    with caplog.at_level(logging.ERROR):
        async with store.running(count=1):
            with trio.fail_after(10):
                while names.count("index.sqlite-wal") < 3:
                    # This gives the next durability point some work.
                    store.queue(bad)
                    store.queue(good)
                    store.index.update(good, mtime_ns=names.count("index.sqlite-wal"))
                    await trio.sleep(0.01)
    assert names.count(str(tokens[bad])) == 1
    assert names.count("staging") == 1
    assert store.staging.has_failed(tokens[bad])
    assert store.staging.has_failed(tokens[good]) == (failing == "names")
    assert "b'bad' may have lost bytes" in caplog.text
    fail.clear()
    with pytest.raises(OSError):
        store.staging.force_by_name(tokens[bad])
    assert names.count(str(tokens[bad])) == 1
    store.close()


@pytest.mark.usefixtures("inline")
async def test_a_durability_point_that_cannot_open_a_file_is_tried_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(durability, "DURABLE_SECONDS", 0.01)
    disk = FlakyDisk()
    store = Store.open(root, disk=disk)
    token = store.index.inode(put(store, b"a", NOTE)).staged
    names = synced(disk, [])
    encoding = store._encoder
    assert encoding is not None
    monkeypatch.setattr(encoding, "run", lambda *_: trio.sleep_forever())
    tries = [0]

    def refuse(path: Path, flags: int) -> int:
        tries[0] += 1
        if tries[0] < 3:
            raise OSError(errno.EMFILE, "told to")
        return os.open(path, flags)

    with caplog.at_level(logging.ERROR):
        async with store.running(count=1):
            with trio.fail_after(10):
                monkeypatch.setattr(disk, "open", refuse)
                while "index.sqlite-wal" not in names:
                    await trio.sleep(0.001)
    assert names[:2] == [str(token), "staging"], "rows forced before the bytes they show"
    assert "durability" in caplog.text
    store.close()


@pytest.mark.usefixtures("inline")
async def test_an_idle_store_forces_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "DURABLE_SECONDS", 0.001)
    disk = FlakyDisk()
    store = Store.open(root, disk=disk)
    names = synced(disk, [])
    async with store.running(count=1):
        for _ in range(20):
            await trio.sleep(0.001)
    assert names == []
    store.close()


def test_stats_of_an_empty_store(root: Path) -> None:
    store = Store.open(root)
    stats = store.stats()
    assert stats["files"] == stats["frames"] == stats["logical_bytes"] == 0
    assert stats["objects"] == {"key": 0, "delta": 0, "jpeg": 0, "raw": 0, "staged": 0}
    assert stats["ratio"] == 0
    store.close()


@pytest.mark.usefixtures("inline")
async def test_stats(root: Path) -> None:
    store = Store.open(root)
    data = png(screens(1)[0])
    async with store.running(count=1):
        put(store, b"a", data)
        put(store, b"b", data)
        await store.drain()
        held = put(store, b"c", NOTE)
        store.hold(held)
        stats = store.stats()
    assert (stats["files"], stats["frames"], stats["packs"]) == (3, 2, 1)
    assert stats["logical_bytes"] == 2 * len(data) + len(NOTE)
    assert stats["objects"]["staged"] == 1
    assert stats["max_depth"] == 0
    assert stats["ratio"] == round(stats["logical_bytes"] / stats["stored_bytes"], 2)
    assert store.index.lookup(ROOT, b"c") is not None
    store.close()


async def test_a_deleted_staged_file_goes_though_somebody_else_forced_the_index(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durability, "DURABLE_SECONDS", 0.01)
    store = Store.open(root)
    encoding = store._encoder
    assert encoding is not None
    monkeypatch.setattr(encoding, "run", lambda *_: trio.sleep_forever())
    ino = put(store, b"a", NOTE)
    store._durability._closed.clear()
    store.index.unlink(ROOT, b"a", 1)
    token = store.index.purge(ino)
    assert token is not None
    store.discard(token)
    await store.durable()
    assert not store.index.dirty
    assert store.staging.tokens() == [token]
    async with store.running(count=1):
        with trio.fail_after(10):
            while store.staging.tokens():
                await trio.sleep(0.001)
    store.close()
