"""Packs, failed commits and crashes: the appended entries count as a whole, or not at all."""

from __future__ import annotations

import errno
import os
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fsmount.store.frames import jobs
from fsmount.store.index import ROOT
from fsmount.store.ingest import committer, encoder, retries
from fsmount.store.layout import Layout
from fsmount.store.packs import pack as packs
from fsmount.store.store import open_store
from fsmount.store.writable_store import WritableStore
from tests.support.encoding import (
    NOTE,
    Inline,
    check,
    left_behind,
    open_files,
    put,
    reopened,
    samples,
    settled,
)
from tests.support.frames import FlakyDisk, png, screens
from tests.support.packs import unzipped

pytestmark = pytest.mark.usefixtures("inline")


# -- packs


async def test_packs_are_sealed_when_they_are_full(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "SEAL_BYTES", 20_000)
    files = {b"%02d" % number: random.Random(number).randbytes(7000) for number in range(14)}
    opened = open_store(root)
    async with opened.running(count=2) as store:
        for name, data in files.items():
            put(store, name, data)
        await settled(store, files)
    table = opened.index.packs()
    assert list(table) == [1, 2, 3, 4, 5]
    assert [sealed for _, sealed in table.values()] == [True] * 4 + [False]
    for number in range(1, 5):
        assert len(unzipped(Layout(root).pack(number))) == 3
    opened.close()
    assert len(unzipped(Layout(root).pack(5))) == 2
    assert open_files(root) == []
    await reopened(root, files)


async def test_a_reopened_store_goes_on_where_it_was(root: Path) -> None:
    files: dict[bytes, bytes] = {}
    for turn, frame in enumerate(screens(5)):
        opened = open_store(root)
        async with opened.running(count=1) as store:
            files[b"%d" % turn] = png(frame)
            put(store, b"%d" % turn, files[b"%d" % turn])
            await settled(store, files)
        opened.close()
    assert [path.name for path in (root / "packs").glob("*.zip")] == ["00000001.zip"]
    assert {name[:8] for name in unzipped(root / "packs" / "00000001.zip")} == {
        f"{number:08x}" for number in range(1, 6)
    }
    opened = open_store(root)
    assert opened.stats()["objects"]["delta"] == 4, "known tiles are loaded at the start"
    opened.close()


# -- commits that fail


async def fill(store: WritableStore, files: dict[bytes, bytes]) -> None:
    for name, data in files.items():
        put(store, name, data)
        await wait_all_tasks_blocked()


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("call", ["fsync", "pwrite", "create", "unlink", "close", "link"])
@pytest.mark.parametrize("skip", [0, 1, 2, 4])
async def test_whatever_fails_once_costs_nothing(
    root: Path, disk: FlakyDisk, monkeypatch: pytest.MonkeyPatch, call: str, skip: int
) -> None:
    monkeypatch.setattr(packs, "SEAL_BYTES", 6_000)
    files = {**samples(), b"big": random.Random(1).randbytes(20_000)}
    opened = open_store(root, disk=disk)
    async with opened.running(count=2) as store:
        for name, data in files.items():
            put(store, name, data)
        disk.fail_once(call, errno.ENOSPC if call == "pwrite" else errno.EIO, skip=skip)
        await settled(store, files)
        disk.hook = lambda name, what: 0
        put(store, b"last", NOTE + b"!")
        files[b"last"] = NOTE + b"!"
        await settled(store, files)
    opened.close()
    await reopened(root, files)


async def test_a_pack_that_could_not_be_forced_is_not_written_to_again(
    root: Path, disk: FlakyDisk
) -> None:
    opened = open_store(root, disk=disk)
    files = {b"a": NOTE}
    async with opened.running(count=1) as store:
        put(store, b"a", NOTE)
        await settled(store, files)
        disk.fail_once("fsync")
        files[b"b"] = NOTE * 2
        put(store, b"b", NOTE * 2)
        await settled(store, files)
    assert [found.pack for found in opened.index.all_objects()] == [1, 2]
    assert len(unzipped(Layout(root).pack(1))) == 1
    opened.close()
    assert open_files(root) == []
    await reopened(root, files)


async def test_what_arrives_while_a_failed_commit_waits_is_not_lost(
    root: Path, disk: FlakyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_RETRY_SECONDS", 0.3)
    opened = open_store(root, disk=disk)
    files = {b"a": NOTE}
    failed = threading.Event()

    def hook(call: str, what: object) -> int:
        if call == "fsync" and not failed.is_set():
            failed.set()
            return errno.EIO
        return 0

    async with opened.running(count=1) as store:
        disk.hook = hook
        put(store, b"a", NOTE)
        while not failed.is_set():
            await trio.sleep(0.001)
        for number in range(3):
            files[b"%d" % number] = NOTE * (number + 2)
            put(store, b"%d" % number, files[b"%d" % number])
        await settled(store, files)
    opened.close()
    await reopened(root, files)


async def test_a_frame_planned_on_what_a_failed_commit_dropped_is_planned_anew(
    root: Path, disk: FlakyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (png(frame) for frame in screens(2))
    reached, failed = trio.Event(), trio.Event()
    encodes = 0
    run = Inline.run

    async def late(self: Inline, function: Callable[..., Any], *args: Any, **how: bool) -> Any:
        """Encode the second frame at once, and return its result late."""
        nonlocal encodes
        result = await run(self, function, *args, **how)
        encodes += function is jobs.encode
        if encodes == 2 and function is jobs.encode:
            assert result.result.proof.references.layers()
            reached.set()
            await failed.wait()
        return result

    monkeypatch.setattr(Inline, "run", late)
    monkeypatch.setattr(committer, "_BATCH_SECONDS", 0.2)
    opened = open_store(root, disk=disk)
    async with opened.running(count=2) as store:
        disk.fail_once("fsync")
        put(store, b"a", first)
        put(store, b"b", second)
        engine = store._encoder
        with trio.fail_after(20):
            await reached.wait()
            while not engine._committer._writer._appended:
                await trio.sleep(0.001)
            while not engine._claims._epoch:
                await trio.sleep(0.001)
            failed.set()
        await settled(store, {b"a": first, b"b": second})
    opened.close()
    await reopened(root, {b"a": first, b"b": second})


async def test_a_disk_that_stays_full_stops_nothing_for_good(root: Path, disk: FlakyDisk) -> None:
    opened = open_store(root, disk=disk)
    files = {**samples()}
    async with opened.running(count=2) as store:
        disk.hook = lambda call, what: errno.ENOSPC if call in ("create", "pwrite") else 0
        for name, data in files.items():
            token = store.staging._next
            (store.staging.folder / str(token)).write_bytes(data)
            store.staging._next += 1
            made = store.index.create(
                ROOT, name, mode=0o100644, uid=0, gid=0, now_ns=1, staged=token, size=len(data)
            )
            store.queue(made.ino)
        await trio.sleep(0.1)
        assert len(store.index.staged_inodes()) == len(files)
        await check(store, files)
        with trio.fail_after(10):
            await store.drain()
        disk.hook = lambda call, what: errno.EIO if call == "fsync" else 0
        await trio.sleep(0.1)
        assert len(store.index.staged_inodes()) == len(files)
        disk.hook = lambda call, what: 0
        await settled(store, files)
    assert len(list((root / "packs").glob("*.zip"))) <= 2, "packs of failed commits are left"
    opened.close()
    assert open_files(root) == []
    await reopened(root, files)


# The folder of the modules that ask the index during encoding.
INGEST = Path(encoder.__file__).parent


@pytest.mark.parametrize("call", ["inode", "folder_of", "find_object"])
async def test_an_index_that_cannot_be_read_for_a_while_stops_nothing_for_good(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    opened = open_store(root)
    files = samples()
    real = getattr(opened.index, call)
    failures = 0

    def fail(*args: object) -> object:
        nonlocal failures
        if Path(sys._getframe(1).f_code.co_filename).parent != INGEST and call != "find_object":
            return real(*args)
        failures += 1
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with opened.running(count=2) as store:
        for name, data in files.items():
            put(store, name, data)
        monkeypatch.setattr(store.index, call, fail)
        with trio.fail_after(10):
            while failures < 20:
                await trio.sleep(0.001)
        monkeypatch.setattr(store.index, call, real)
        await settled(store, files)
    opened.close()
    await reopened(root, files)


async def test_an_index_that_cannot_be_forced_keeps_staged_files(
    root: Path, disk: FlakyDisk
) -> None:
    opened = open_store(root, disk=disk)

    def hook(call: str, what: object) -> int:
        assert isinstance(what, (int, Path))
        if call != "fsync" or isinstance(what, Path):
            return 0
        return errno.EIO if os.readlink(f"/proc/self/fd/{what}").endswith("-wal") else 0

    async with opened.running(count=1) as store:
        disk.hook = hook
        put(store, b"a", NOTE)
        await store.drain()
        assert store.index.suspect
        assert len(store.staging.tokens()) == 1, "removed before the row was durable"
        with pytest.raises(OSError):
            await store.durable()
        disk.hook = lambda call, what: 0
        put(store, b"b", NOTE * 2)
        await settled(store, {b"a": NOTE, b"b": NOTE * 2})
        with trio.fail_after(10):
            while store.staging.tokens():
                await trio.sleep(0.001)
        assert not store.index.suspect
    opened.close()


# -- crashes


@pytest.mark.usefixtures("small_limits")
async def test_a_crash_at_any_call_loses_nothing(
    root: Path, tmp_path: Path, disk: FlakyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each call that changes the store, copy the state that a killed process would leave."""
    monkeypatch.setattr(packs, "SEAL_BYTES", 6_000)
    files = {**samples(), b"big": random.Random(1).randbytes(20_000), b"same": NOTE}
    left: list[tuple[Path, dict[bytes, bytes]]] = []
    main = threading.get_ident()
    names: list[bytes] = []

    def hook(call: str, what: object) -> int:
        def keep() -> None:
            present = {name: files[name] for name in names}
            left.append((left_behind(root, tmp_path / f"left{len(left)}"), present))

        if call not in ("create", "close"):
            if threading.get_ident() == main:
                keep()
            else:
                trio.from_thread.run_sync(keep)
        return 0

    opened = open_store(root, disk=disk)
    async with opened.running(count=2) as store:
        disk.hook = hook
        for name, data in files.items():
            put(store, name, data)
            names.append(name)
            if name == b"2.png":
                await store.drain()
        await settled(store, files)
        disk.hook = lambda call, what: 0
    opened.close()
    assert len(left) > 20
    monkeypatch.setattr(packs, "SEAL_BYTES", 64 << 20)
    for path, present in left:
        await reopened(path, present)


async def test_cancelled_at_any_time_everything_is_there(root: Path, tmp_path: Path) -> None:
    files = samples()
    opened = open_store(root)
    for name, data in files.items():
        put(opened, name, data)
    opened.close()
    for steps in range(0, 60, 10):
        copy = left_behind(root, tmp_path / f"copy{steps}")
        opened = open_store(copy)
        async with opened.running(count=2):
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
        assert open_files(copy / "packs")
        opened.close()
        assert open_files(copy) == []
        await reopened(copy, files)
