"""A store from outside: worker processes, a reader beside a writer, and a second process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from fsmount.errors import Damaged, NoStore, StoreLocked
from fsmount.store import config
from fsmount.store.ingest import committer
from fsmount.store.store import open_read_store, open_store
from tests.support.encoding import forget_caches, get, open_files, put
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
    opened = open_store(root)
    async with opened.running(count=2) as store:
        inodes = {name: put(store, name, data) for name, data in files.items()}
        with trio.fail_after(60):
            await store.drain()
        for name, data in files.items():
            assert await get(store, inodes[name]) == data
    assert opened.stats()["objects"] == {"key": 1, "delta": 5, "jpeg": 0, "raw": 1, "staged": 0}
    opened.close()
    opened_again = open_read_store(root)
    async with opened_again.running(count=1) as again:
        for name, data in files.items():
            assert await get(again, inodes[name]) == data
    opened_again.close()
    assert open_files(root) == []


def test_what_cannot_be_opened(root: Path, tmp_path: Path) -> None:
    with pytest.raises(NoStore):
        open_store(tmp_path)
    store = open_store(root)
    with pytest.raises(StoreLocked):
        open_store(root)
    store.close()
    (root / "index.sqlite").write_bytes(b"nonsense" * 999)
    for _ in range(2):
        with pytest.raises(Damaged):
            open_store(root)


@pytest.mark.usefixtures("inline")
async def test_read_only_beside_a_writer(root: Path) -> None:
    opened_writer = open_store(root)
    opened_reader = open_read_store(root)
    data = png(screens(1)[0])
    async with opened_writer.running(count=1) as writer, opened_reader.running(count=1) as reader:
        ino = put(writer, b"a", data)
        assert await get(reader, ino) == data
        await writer.drain()
        assert reader.index.inode(ino).object_id is not None
        assert await get(reader, ino) == data
        assert reader.pending() == 0
        await reader.durable()
        changing = ("hold", "queue", "discard", "need_space", "reclaim", "repack", "run")
        assert [name for name in changing if hasattr(reader, name)] == []
        assert [name for name in changing if not hasattr(writer, name)] == []
    opened_reader.close()
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
    opened_writer.close()
