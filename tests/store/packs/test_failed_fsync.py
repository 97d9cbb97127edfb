"""A staged file whose fsync failed: its bytes go to another file, or fsmount does not trust it."""

from __future__ import annotations

import errno
import logging
import os
import random
from pathlib import Path

import pytest
import trio

from fsmount.errors import Damaged
from fsmount.mount.store_fs import StoreFilesystem
from fsmount.store.recovery.check import check_relations
from fsmount.store.store import open_store
from fsmount.store.writable_store import WritableStore
from tests.support.calls import USER, raises
from tests.support.encoding import check, get, put, reopened, settled
from tests.support.frames import FlakyDisk, png, screens

pytestmark = pytest.mark.usefixtures("inline", "small_limits")
BODIES = {
    "picture": png(screens(1)[0]),
    "note": b"no picture",
    "large": random.Random(1).randbytes(9000),
    "empty": b"",
}


def failing(disk: FlakyDisk, part: str) -> list[str]:
    """Let the next fsync below a folder `part` fail once, as fsync(2) does.

    Returns a list that gets the path of each fsync.
    """
    paths: list[str] = []

    def hook(call: str, what: object) -> int:
        if call == "fsync":
            paths.append(os.readlink(f"/proc/self/fd/{what}"))
            if part in paths[-1] and sum(part in path for path in paths) == 1:
                return errno.EIO
        return 0

    disk.hook = hook
    return paths


@pytest.mark.parametrize("body", BODIES)
async def test_its_bytes_go_to_another_file(root: Path, disk: FlakyDisk, body: str) -> None:
    opened = open_store(root, disk=disk)
    paths = failing(disk, "/staging/")
    data = BODIES[body]
    async with opened.running(count=1) as store:
        ino = put(store, b"a", data)
        token = store.index.inode(ino).staged or 0
        with pytest.raises(OSError):
            store.staging.force_by_name(token)
        await settled(store, {b"a": data})
        with trio.fail_after(10):
            while store.staging.tokens():
                await trio.sleep(0.001)
    assert sum(path.endswith(f"/staging/{token}") for path in paths) == 1
    opened.close()
    await reopened(root, {b"a": data})


async def test_a_large_file_whose_fsync_fails_on_its_way_is_not_asked_again(
    root: Path, disk: FlakyDisk
) -> None:
    opened = open_store(root, disk=disk)
    paths = failing(disk, "/staging/")
    data = BODIES["large"]
    async with opened.running(count=1) as store:
        token = store.index.inode(put(store, b"a", data)).staged
        await settled(store, {b"a": data})
    assert sum(path.endswith(f"/staging/{token}") for path in paths) == 1
    opened.close()
    await reopened(root, {b"a": data})


@pytest.mark.parametrize("body", ["picture", "large"])
@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EOPNOTSUPP])
async def test_what_the_kernel_does_not_have_any_more_is_not_believed(
    root: Path, disk: FlakyDisk, caplog: pytest.LogCaptureFixture, body: str, code: int
) -> None:
    opened = open_store(root, disk=disk)
    with caplog.at_level(logging.CRITICAL):
        async with opened.running(count=1) as store:
            bad, good = put(store, b"bad", BODIES[body]), put(store, b"good", BODIES["note"])
            token = store.index.inode(bad).staged or 0
            failing(disk, "/staging/")
            with pytest.raises(OSError):
                store.staging.force_by_name(token)
            disk.fail_once("read_cached", code)
            with trio.fail_after(10):
                await store.drain()
            assert "b'bad' is lost" in caplog.text
            await check_only(store, {b"good": BODIES["note"]})
            with pytest.raises(FileNotFoundError):
                await get(store, bad)
            vfs = StoreFilesystem(store, store)
            with raises(errno.EIO):
                try:
                    await vfs.open(bad, os.O_RDONLY, USER)
                except Damaged as error:
                    raise OSError(errno.EIO, str(error)) from error
            vfs.close()
    assert [what for what, _, _ in check_relations(opened).findings] == ["bad"]
    (kept,) = (root / "lost").iterdir()
    assert kept.read_bytes() == BODIES[body]
    assert opened.index.inode(good).object_id is not None
    opened.close()


async def check_only(store: WritableStore, files: dict[bytes, bytes]) -> None:
    for name, data in files.items():
        inode = store.index.lookup(1, name)
        assert inode is not None
        assert await get(store, inode.ino) == data


async def test_a_file_that_fails_while_it_is_encoded_is_encoded_again(
    root: Path, disk: FlakyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_store(root, disk=disk)
    data = BODIES["picture"]
    async with opened.running(count=1) as store:
        ino = put(store, b"a", data)
        token = store.index.inode(ino).staged or 0
        find, turned = store._writer.find, store.index.encode
        encoded: list[int] = []

        def meanwhile(sha256: bytes, size: int) -> int | None:
            if not store.staging.has_failed(token):
                failing(disk, "/staging/")
                with pytest.raises(OSError):
                    store.staging.force_by_name(token)
            return find(sha256, size)

        def encode(ino: int, token: int, object_id: int, size: int) -> bool:
            encoded.append(token)
            return turned(ino, token, object_id, size)

        monkeypatch.setattr(store._writer, "find", meanwhile)
        monkeypatch.setattr(store.index, "encode", encode)
        await settled(store, {b"a": data})
    assert len(encoded) == 1
    assert encoded != [token]
    opened.close()
    await reopened(root, {b"a": data})


# -- filesystems without hard links


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
async def test_large_files_are_copied_where_there_are_no_hard_links(
    root: Path, disk: FlakyDisk, code: int
) -> None:
    disk.hook = lambda call, what: code if call == "link" else 0
    opened = open_store(root, disk=disk)
    sparse = b"begin" + bytes(3 << 20) + b"end"
    async with opened.running(count=1) as store:
        ino = put(store, b"sparse", b"")
        token = store.index.inode(ino).staged or 0
        with store.staging.path(token).open("wb") as file:
            file.write(b"begin")
            file.seek(3 << 20, os.SEEK_CUR)
            file.write(b"end")
        files = {b"large": BODIES["large"], b"sparse": sparse}
        put(store, b"large", BODIES["large"])
        await settled(store, files)
        with trio.fail_after(10):
            while store.staging.tokens():
                await trio.sleep(0.001)
    kept = [entry.stat() for entry in (root / "raw").iterdir()]
    assert sorted(found.st_size for found in kept) == [9000, len(sparse)]
    assert all(found.st_blocks * 512 < 1 << 20 for found in kept)
    opened.close()
    await reopened(root, files)


async def test_a_copy_that_does_not_fit_leaves_the_file_staged(root: Path, disk: FlakyDisk) -> None:
    full = [True]

    def hook(call: str, what: object) -> int:
        if call == "link":
            return errno.EPERM
        if call == "pwrite" and full[0]:
            path = os.readlink(f"/proc/self/fd/{what}")
            return errno.ENOSPC if "/raw/" in path else 0
        return 0

    disk.hook = hook
    opened = open_store(root, disk=disk)
    async with opened.running(count=1) as store:
        put(store, b"large", BODIES["large"])
        with trio.fail_after(10):
            await store.drain()
        # The next try may be under way. Each one removes what it has copied.
        with trio.fail_after(10):
            while list((root / "raw").iterdir()):
                await trio.sleep(0.001)
        await check(store, {b"large": BODIES["large"]})
        full[0] = False
        await settled(store, {b"large": BODIES["large"]})
    opened.close()
