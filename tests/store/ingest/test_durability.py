"""Durability points: what they force, in which order, and what they do after failures."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
import trio

from fsmount.store.index import ROOT
from fsmount.store.ingest import durability
from fsmount.store.ingest.encoder import Encoder
from fsmount.store.store import open_store
from tests.support.encoding import put
from tests.support.frames import FlakyDisk

NOTE = b"not a picture"


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
    opened = open_store(root, disk=disk)
    async with opened.running(count=1) as store:
        closed, writing = put(store, b"closed", NOTE), put(store, b"writing", NOTE)
        token = {ino: str(store.index.inode(ino).staged) for ino in (closed, writing)}
        for ino in (closed, writing):
            store.hold(ino)
        names = synced(disk, [])
        with trio.fail_after(10):
            while "index.sqlite-wal" not in names:
                await trio.sleep(0.001)
    before = names[: names.index("index.sqlite-wal")]
    assert set(before) == {*token.values(), "staging"}
    opened.close()


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("failing", ["file", "names"])
async def test_a_durability_point_asks_no_file_again_that_has_failed(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failing: str
) -> None:
    monkeypatch.setattr(durability, "DURABLE_SECONDS", 0.01)
    disk = FlakyDisk()
    opened = open_store(root, disk=disk)
    # The encoder encodes nothing meanwhile.
    monkeypatch.setattr(Encoder, "run", lambda *_: trio.sleep_forever())
    with caplog.at_level(logging.ERROR):
        async with opened.running(count=1) as store:
            bad, good = put(store, b"bad", NOTE), put(store, b"good", NOTE)
            tokens = {ino: store.index.inode(ino).staged or 0 for ino in (bad, good)}
            fail = [str(tokens[bad]) if failing == "file" else "staging"]
            names = synced(disk, fail)
            with trio.fail_after(10):
                while names.count("index.sqlite-wal") < 3:
                    # This gives the next durability point some work.
                    store.queue(bad)
                    store.queue(good)
                    store.index.update(good, mtime_ns=names.count("index.sqlite-wal"))
                    await trio.sleep(0.01)
    assert names.count(str(tokens[bad])) == 1
    assert names.count("staging") == 1
    assert opened.staging.has_failed(tokens[bad])
    assert opened.staging.has_failed(tokens[good]) == (failing == "names")
    assert "b'bad' may have lost bytes" in caplog.text
    fail.clear()
    with pytest.raises(OSError):
        opened.staging.force_by_name(tokens[bad])
    assert names.count(str(tokens[bad])) == 1
    opened.close()


@pytest.mark.usefixtures("inline")
async def test_a_durability_point_that_cannot_open_a_file_is_tried_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(durability, "DURABLE_SECONDS", 0.01)
    disk = FlakyDisk()
    opened = open_store(root, disk=disk)
    monkeypatch.setattr(Encoder, "run", lambda *_: trio.sleep_forever())
    tries = [0]

    def refuse(path: Path, flags: int) -> int:
        tries[0] += 1
        if tries[0] < 3:
            raise OSError(errno.EMFILE, "told to")
        return os.open(path, flags)

    with caplog.at_level(logging.ERROR):
        async with opened.running(count=1) as store:
            token = store.index.inode(put(store, b"a", NOTE)).staged
            names = synced(disk, [])
            with trio.fail_after(10):
                monkeypatch.setattr(disk, "open", refuse)
                while "index.sqlite-wal" not in names:
                    await trio.sleep(0.001)
    assert names[:2] == [str(token), "staging"], "rows forced before the bytes they show"
    assert "durability" in caplog.text
    opened.close()


@pytest.mark.usefixtures("inline")
async def test_an_idle_store_forces_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "DURABLE_SECONDS", 0.001)
    disk = FlakyDisk()
    opened = open_store(root, disk=disk)
    names = synced(disk, [])
    async with opened.running(count=1):
        for _ in range(20):
            await trio.sleep(0.001)
    assert names == []
    opened.close()


async def test_a_deleted_staged_file_goes_though_somebody_else_forced_the_index(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durability, "DURABLE_SECONDS", 0.01)
    opened = open_store(root)
    monkeypatch.setattr(Encoder, "run", lambda *_: trio.sleep_forever())
    async with opened.started(count=1) as store, trio.open_nursery() as nursery:
        ino = put(store, b"a", NOTE)
        store._durability._closed.clear()
        store.index.unlink(ROOT, b"a", 1)
        token = store.index.purge(ino)
        assert token is not None
        store.discard(token)
        await store.durable()
        assert not store.index.dirty
        assert store.staging.tokens() == [token]
        nursery.start_soon(store.run)
        with trio.fail_after(10):
            while store.staging.tokens():
                await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    opened.close()
