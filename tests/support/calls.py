"""Calls to a filesystem for tests: reading and writing whole files, and their callers."""

from __future__ import annotations

import os
from typing import cast

import pytest

from fsmount.mount.attributes import Attributes, Caller
from fsmount.mount.store_fs import StoreFilesystem
from fsmount.store.index import ROOT
from fsmount.store.read_store import ReadStore
from fsmount.store.writable_store import WritableStore
from tests.support.fake_store import FakeStore

ROOT_USER = Caller(0, 0, 0o022)
USER = Caller(1000, 100, 0o022)


def mount(store: FakeStore) -> StoreFilesystem:
    """Show a fake store as a filesystem, read-only if the store is."""
    writable = None if store.read_only else cast(WritableStore, store)
    return StoreFilesystem(cast(ReadStore, store), writable)


async def put(vfs: StoreFilesystem, name: bytes, data: bytes, folder: int = ROOT) -> int:
    """Write and close a new file. Returns its inode number. Leaves one lookup."""
    fh, shown = await vfs.create(folder, name, 0o644, os.O_WRONLY, ROOT_USER)
    await vfs.write(fh, 0, data)
    await vfs.flush(fh)
    await vfs.release(fh)
    return shown.ino


async def get(vfs: StoreFilesystem, ino: int) -> bytes:
    """Read a file through a handle of its own; 16 MiB at most."""
    fh = await vfs.open(ino, os.O_RDONLY, ROOT_USER)
    data = await vfs.read(fh, 0, 1 << 24)
    await vfs.release(fh)
    return data


async def listing(vfs: StoreFilesystem, folder: int = ROOT) -> dict[bytes, Attributes]:
    """All entries of a folder, with the dots. Fails if a name comes twice."""
    fh = await vfs.opendir(folder)
    found: dict[bytes, Attributes] = {}
    after = 0
    while entries := list(await vfs.readdir(fh, after)):
        for cookie, name, shown in entries:
            assert name not in found
            after = cookie
            found[name] = shown
    await vfs.releasedir(fh)
    return found


def raises(code: int) -> pytest.RaisesExc[OSError]:
    """Expect an OSError with this errno."""
    return pytest.raises(OSError, check=lambda error: error.errno == code)
