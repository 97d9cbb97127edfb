"""A store that cannot be opened leaves no descriptor open, whichever step fails."""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from fsmount.errors import Damaged, FsmountError, StoreLocked
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index, database
from fsmount.store.layout import Layout
from fsmount.store.packs.pack import Entry, Pack
from fsmount.store.packs.staging import Staging
from fsmount.store.store import open_store
from tests.support.encoding import open_either

# System functions that opening a store calls. Each call of each function fails once.
CALLS: list[tuple[Any, str]] = [
    *((os, name) for name in ("open", "pread", "pwrite", "ftruncate", "fsync", "fstat")),
    *((os, name) for name in ("scandir", "statvfs", "close", "posix_fallocate")),
    (fcntl, "flock"),
    *((Path, name) for name in ("open", "stat", "unlink", "rename", "mkdir", "read_bytes")),
    (database, "translated"),
]


class Faults:
    """Counts calls, and fails the call with the number `at`."""

    def __init__(self, patch: pytest.MonkeyPatch, error: BaseException, at: int = 0) -> None:
        self.calls = 0
        self._error = error
        self._at = at
        for owner, name in CALLS:
            patch.setattr(owner, name, self._failing(getattr(owner, name), name))
        patch.setattr(apsw, "Connection", self._connection())

    def _failing(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if name == "close":
                # The kernel closes the descriptor even if it reports an error.
                real(*args, **more)
                self.fail()
                return None
            self.fail()
            return real(*args, **more)

        return call

    def fail(self) -> None:
        self.calls += 1
        if self.calls == self._at:
            raise self._error

    def _connection(self) -> type[apsw.Connection]:
        faults = self

        class Connection(apsw.Connection):
            def pragma(self, *args: Any, **more: Any) -> Any:
                faults.fail()
                return super().pragma(*args, **more)

        return Connection


def descriptors() -> dict[str, str]:
    """Number and file of each descriptor of this process."""
    folder = Path("/proc/self/fd")
    found = {}
    for name in os.listdir(folder):
        # The listing itself had a descriptor.
        if (folder / name).is_symlink():
            found[name] = os.readlink(folder / name)
    return found


@contextmanager
def no_collection() -> Iterator[None]:
    """Stop the garbage collector, so that it closes no unreferenced object."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def pack(layout: Layout, number: int, tail: bytes) -> int:
    """Make a pack that is not sealed and has entries that do not count. Returns its length."""
    made = Pack(layout.pack(number), number, Disk(), 0)
    for at in range(3):
        made.append(Entry(f"{number * 100 + at:08x}.bin", b"record", random.randbytes(50)))
    made.close()
    length = made.length
    with made.path.open("ab") as file:
        file.write(tail)
    return length


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose writer was killed, and in which recovery has every kind of work to do."""
    root = tmp_path_factory.mktemp("crashed") / "store"
    config.make(root, Disk())
    layout = Layout(root)
    index = Index(layout.index, Disk())
    staging = Staging(layout.staging, Disk())
    for number in (1, 2, 3, 4):
        index.set_pack(number, pack(layout, number, b"tail"), False)
    # Packs 2 and 4 come from repack, 1 and 3 have new objects. Opening seals one of each kind.
    for number in (2, 4):
        index.set_repacked(number, index.packs()[number][0])
    pack(layout, 5, b"")
    layout.kept(7).write_bytes(b"never committed")
    staging.create()
    token = staging.create()
    staging.path(token).write_bytes(b"written after its row")
    node = index.create(1, b"a", mode=0o100644, uid=0, gid=0, now_ns=1, staged=token, size=3)
    gone = staging.create()
    index.create(1, b"b", mode=0o100644, uid=0, gid=0, now_ns=1, staged=gone, size=0)
    index.purge(index.unlink(1, b"b", 2).ino)
    assert node.staged == token
    index.close()
    return root


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, "told to fail"), Damaged("x", reason="told to fail"), KeyboardInterrupt()],
    ids=["io", "damaged", "interrupted"],
)
def test_whatever_call_fails(
    crashed: Path, tmp_path: Path, read_only: bool, error: BaseException
) -> None:
    def attempt(at: int) -> tuple[int, BaseException | None]:
        root = tmp_path / "store"
        shutil.copytree(crashed, root)
        try:
            with pytest.MonkeyPatch.context() as patch:
                faults = Faults(patch, error, at)
                try:
                    store = open_either(root, read_only=read_only)
                except (OSError, FsmountError, KeyboardInterrupt) as caught:
                    return faults.calls, caught
            store.close()
            return faults.calls, None
        finally:
            shutil.rmtree(root)

    # A process loads the VFS with checksums once.
    attempt(0)
    count, nothing = attempt(0)
    assert nothing is None
    assert count > (5 if read_only else 100)
    failed = 0
    kept = []
    with no_collection():
        before = descriptors()
        for at in range(1, count + 1):
            _, caught = attempt(at)
            # A caller that shows the error later keeps it. The frames of the error live as long.
            kept.append(caught)
            failed += caught is not None
            assert descriptors() == before, f"call {at} of {count}"
    assert failed > count // 4


@pytest.mark.parametrize("rows", ["staged_inodes", "orphans", "packs", "repacked", "opened"])
def test_an_index_that_cannot_be_read(
    crashed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: str
) -> None:
    """The n-th read of these rows fails. The reads before it succeed."""
    shutil.copytree(crashed, tmp_path / "store")
    real = getattr(Index, rows)
    calls = 0
    at = 1

    def fail(index: Index) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Damaged("index", reason="told to fail")
        return real(index)

    kept: list[Exception] = []
    with no_collection():
        before = descriptors()
        monkeypatch.setattr(Index, rows, fail)
        while True:
            calls = 0
            try:
                open_store(tmp_path / "store").close()
            except Damaged as error:
                kept.append(error)
                assert descriptors() == before
                at += 1
            else:
                break
    assert kept
    assert descriptors() == before


def _other_index(root: Path) -> None:
    path = root / "fsmount.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"uuid": "another"}))


def _no_database(root: Path) -> None:
    (root / "index.sqlite").write_bytes(b"nonsense" * 999)


def _damaged_page(root: Path) -> None:
    data = bytearray((root / "index.sqlite").read_bytes())
    # Damage all pages but the first, which has the schema.
    for at in range(4096 + 2000, len(data), 4096):
        data[at] ^= 1
    (root / "index.sqlite").write_bytes(data)


def _empty_database(root: Path) -> None:
    (root / "index.sqlite").write_bytes(b"")


def _no_pack_folder(root: Path) -> None:
    shutil.rmtree(root / "packs")
    (root / "packs").write_bytes(b"")


def _rows_missing(root: Path) -> None:
    index = Index(root / "index.sqlite", Disk())
    index._run("DELETE FROM inodes WHERE ino != 1")
    index._run("DELETE FROM packs")
    index.close()


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "spoil",
    [_other_index, _no_database, _damaged_page, _empty_database, _no_pack_folder, _rows_missing],
)
def test_a_store_that_is_damaged(
    crashed: Path, tmp_path: Path, spoil: Callable[[Path], None], read_only: bool
) -> None:
    root = tmp_path / "store"
    shutil.copytree(crashed, root)
    spoil(root)
    kept = []
    with no_collection():
        before = descriptors()
        for _ in range(3):
            try:
                open_either(root, read_only=read_only).close()
            except (FsmountError, OSError) as error:
                kept.append(error)
            assert descriptors() == before
    assert kept or read_only


def test_a_store_that_somebody_else_has(crashed: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(crashed, root)
    holder = open_store(root)
    with no_collection():
        before = descriptors()
        kept = []
        for wait in (0.0, 0.01):
            with pytest.raises(StoreLocked) as caught:
                open_store(root, lock_wait_s=wait)
            kept.append(caught.value)
            assert descriptors() == before
    holder.close()


def test_a_close_that_fails_closes_the_rest(
    crashed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    shutil.copytree(crashed, root)

    def fail() -> None:
        raise OSError(errno.EIO, "told to fail")

    with no_collection():
        before = descriptors()
        store = open_store(root)
        monkeypatch.setattr(store.index, "packs", fail)
        with pytest.raises(OSError, match="told to fail"):
            store.close()
        assert descriptors() == before
