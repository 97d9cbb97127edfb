"""A file or a commit fails: only the files that failed have to wait."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from fsmount.codec.delta import record
from fsmount.store.frames import jobs
from fsmount.store.index import Index
from fsmount.store.ingest import committer, retries
from fsmount.store.ingest.encoder import Encoder
from fsmount.store.ingest.retries import Retries
from fsmount.store.store import open_store
from fsmount.store.writable_store import WritableStore
from tests.support.encoding import NOTE, Inline, put, reopened, settled
from tests.support.frames import FlakyDisk, png, screens

pytestmark = pytest.mark.usefixtures("inline", "long_wait")


@pytest.fixture
def long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry failed files only long after the test."""
    monkeypatch.setattr(retries, "_RETRY_SECONDS", 1e6)


async def until(done: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not done():
            await trio.sleep(0.001)


async def encoded(store: WritableStore, *inodes: int) -> None:
    await until(lambda: all(store.index.inode(ino).staged is None for ino in inodes))


def of(store: WritableStore) -> Encoder:
    return store._encoder


async def put_two(store: WritableStore, disk: FlakyDisk) -> int:
    """The commit of the file `a` fails; then the file `b` is encoded. Returns the inode of `a`."""
    disk.fail_once("fsync")
    first = put(store, b"a", NOTE)
    await until(lambda: of(store).queue.failures(first) == 1)
    second = put(store, b"b", NOTE * 2)
    await encoded(store, second)
    return first


async def test_a_failed_commit_delays_no_file_that_comes_after_it(
    root: Path, disk: FlakyDisk
) -> None:
    opened = open_store(root, disk=disk)
    async with opened.running(count=1) as store:
        first = await put_two(store, disk)
        assert store.index.inode(first).staged is not None
    opened.close()
    await reopened(root, {b"a": NOTE, b"b": NOTE * 2})


@pytest.mark.parametrize("count", [1, 2])
async def test_others_of_the_batch_do_not_wait_for_the_file_that_failed(
    root: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """If one entry fails, all the others begin again at once."""
    files = [png(frame) for frame in screens(6)]
    bad = {hashlib.sha256(data).digest() for data in files[:count]}
    run = Inline.run

    async def lie(inline: Inline, asked: Callable[..., Any], *args: Any, **how: Any) -> Any:
        answer = await run(inline, asked, *args, **how)
        if asked is jobs.encode:
            found = record.unpack(answer.result.entry.record).arrays.get("sha256")
            proof = answer.result.proof._replace(digest=b"")
            wrong = replace(answer, result=replace(answer.result, proof=proof))
            return wrong if found in bad else answer
        return answer

    monkeypatch.setattr(Inline, "run", lie)
    opened = open_store(root)
    async with opened.running(count=2) as store:
        inodes = [put(store, b"%d" % number, data) for number, data in enumerate(files)]
        await encoded(store, *inodes[count:])
        staged = [inode.ino for inode in store.index.staged_inodes()]
        assert staged == inodes[:count]
        order = [store.index.names_of(found.id)[0] for found in store.index.all_objects()]
        assert order == sorted(order), "what is begun anew keeps its order"
    opened.close()
    monkeypatch.undo()
    await reopened(root, {b"%d" % number: data for number, data in enumerate(files)})


async def test_a_file_whose_row_cannot_be_read_delays_no_other(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row cannot be read just after the commit, when the file is taken from the queue."""
    opened = open_store(root)
    inode, committed = Index.inode, False
    requeue = Retries._requeue

    def mark(this: Retries, inos: Any) -> list[int]:
        nonlocal committed
        committed = True
        try:
            return requeue(this, inos)
        finally:
            committed = False

    def fail(index: Index, ino: int) -> Any:
        if committed and ino == first:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return inode(index, ino)

    async with opened.running(count=1) as store:
        first = put(store, b"a", NOTE)
        monkeypatch.setattr(Retries, "_requeue", mark)
        monkeypatch.setattr(Index, "inode", fail)
        await until(lambda: of(store).queue.failures(first) == 1)
        second = put(store, b"b", NOTE * 2)
        await encoded(store, second)
        assert of(store).queue.count() <= 2
    opened.close()


async def test_files_that_wait_for_their_next_try_hold_no_batch_open(
    root: Path, disk: FlakyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "_BATCH_SECONDS", 1e6)
    opened = open_store(root, disk=disk)
    async with opened.running(count=1) as store:
        await put_two(store, disk)
    opened.close()


@pytest.mark.parametrize(
    ("calls", "code"),
    [
        (("create", "pwrite"), errno.ENOSPC),
        (("pwrite",), errno.EDQUOT),
        (("fsync",), errno.EIO),
        (("fsync",), errno.ENOSPC),
        (("link",), errno.ENOSPC),
    ],
)
@pytest.mark.usefixtures("small_limits")
async def test_each_file_is_tried_once_while_a_disk_is_full(
    root: Path, disk: FlakyDisk, calls: tuple[str, ...], code: int
) -> None:
    """After that, the encoder does nothing until the wait is over."""
    tries = 0

    def hook(call: str, what: object) -> int:
        nonlocal tries
        tries += call in calls
        return code if call in calls else 0

    # If the link is the call that fails, all files are large.
    size = 6000 if calls == ("link",) else 100
    opened = open_store(root, disk=disk)
    async with opened.running(count=2) as store:
        inodes = [put(store, b"%d" % number, b"%d" % number * size) for number in range(8)]
        disk.hook = hook
        await until(lambda: all(of(store).queue.failures(ino) == 1 for ino in inodes))
        # Files under way may retry after a commit gave up. After that nothing is tried.
        before = tries
        for _ in range(2000):
            await trio.lowlevel.checkpoint()
        await trio.sleep(0.05)
        assert tries == before
        assert all(of(store).queue.failures(ino) == 1 for ino in inodes)
        assert not of(store)._committer._committing.locked()
        disk.hook = lambda call, what: 0
    opened.close()
    await reopened(root, {b"%d" % number: b"%d" % number * size for number in range(8)})


@pytest.mark.parametrize("call", ["fsync", "pwrite", "rows"])
async def test_nobody_waits_for_ever_for_commits_that_fail(
    root: Path, disk: FlakyDisk, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """``umount`` waits for a drain. The drain makes three tries, then the files stay staged."""
    monkeypatch.setattr(retries, "_RETRY_SECONDS", 0.001)
    opened = open_store(root, disk=disk)

    def hook(name: str, what: object) -> int:
        # Fail only for packs: an fsync of their folder would fail before anything is appended.
        return errno.EIO if name == call and isinstance(what, int) and is_pack(what) else 0

    def rows(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with opened.running(count=1) as store:
        files = {b"%d" % number: b"%d" % number * 100 for number in range(5)}
        for name, data in files.items():
            put(store, name, data)
        disk.hook = hook
        with monkeypatch.context() as patch:
            if call == "rows":
                patch.setattr(Index, "set_pack", rows)
            with trio.fail_after(20):
                await store.drain()
            assert len(store.index.staged_inodes()) == len(files)
        disk.hook = lambda name, what: 0
        await settled(store, files)
        assert store.pending() == 0
    opened.close()
    await reopened(root, files)


def is_pack(fd: int) -> bool:
    return os.readlink(f"/proc/self/fd/{fd}").endswith(".zip")


async def test_a_retry_does_not_wait_for_the_commits_of_others(
    root: Path, disk: FlakyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several files fail many times, and each succeeds in the end."""
    monkeypatch.setattr(retries, "_RETRY_SECONDS", 0.001)
    opened = open_store(root, disk=disk)
    failures = iter([errno.EIO, 0, errno.EIO, errno.EIO, 0, errno.ENOSPC] * 3)
    files: dict[bytes, bytes] = {}
    async with opened.running(count=2) as store:
        disk.hook = lambda name, what: next(failures, 0) if name == "fsync" else 0
        for number, frame in enumerate(screens(10)):
            files[b"%d" % number] = png(frame)
            put(store, b"%d" % number, png(frame))
            await trio.sleep(0.002)
        await settled(store, files)
    opened.close()
    await reopened(root, files)
