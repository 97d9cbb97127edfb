"""An error below a handler: the caller gets an errno at once, and the mount goes on.

Each call that a handler makes to the index, the disk or the store fails once, with errors of every
kind. Afterwards a program can make, write, read and remove new files, and the store is sound.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast
from unittest import mock

import apsw
import pyfuse3
import pytest
import trio
from pyfuse3 import FUSEError

from fsmount.errors import Damaged, DiskFull, FsmountError, NoSuchInode, WorkerDied
from fsmount.mount import staged_files
from fsmount.mount.fuse import Operations
from fsmount.mount.store_fs import StoreFilesystem
from fsmount.store import config
from fsmount.store import store as store_module
from fsmount.store.disk.disk import Disk
from fsmount.store.index import ROOT, Index
from fsmount.store.ingest import committer
from fsmount.store.recovery.check import check_relations
from fsmount.store.store import open_store
from fsmount.store.writable_store import WritableStore
from tests.mount.test_fuse import HANDLERS, Context
from tests.support.encoding import Inline, put
from tests.support.frames import png, screens

ERRORS: list[Callable[[], Exception]] = [
    *(lambda code=code: OSError(code, os.strerror(code)) for code in (
        errno.EIO, errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.ENOENT,
    )),
    OSError,
    lambda: KeyError("x"),
    lambda: ValueError("x"),
    lambda: TypeError("x"),
    MemoryError,
    RecursionError,
    AssertionError,
    StopIteration,
    lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "told so"),
    lambda: apsw.IOError("x"),
    lambda: apsw.CorruptError("x"),
    lambda: apsw.BusyError("x"),
    trio.BrokenResourceError,
    lambda: ExceptionGroup("two", [ValueError(), KeyError()]),
    lambda: Damaged("x", reason="y"),
    lambda: NoSuchInode(7),
    lambda: DiskFull("x"),
    lambda: WorkerDied("x"),
    lambda: FsmountError("x"),
]  # fmt: skip

SEAMS: list[tuple[Any, str]] = [
    *((Index, name) for name in ("_one", "_all", "_run")),
    *((Disk, name) for name in ("create", "open", "close", "pwrite", "ftruncate", "fsync")),
    *((Disk, name) for name in ("fsync_folder", "unlink")),
    (WritableStore, "body"),
    (staged_files, "pread"),
    (os, "statvfs"),
]


@contextmanager
def failing(at: int, error: Exception) -> Iterator[list[str]]:
    """Make the `at`-th call of all seams raise `error`. Yield the names of the calls so far."""
    called: list[str] = []

    def seam(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            called.append(name)
            if len(called) == at:
                raise error
            return real(*args, **named)

        return call

    with ExitStack() as stack:
        for owner, name in SEAMS:
            real = getattr(owner, name)
            stack.enter_context(mock.patch.object(owner, name, seam(real, name)))
        yield called


class AnyFields:
    """The fields of a setattr request that sets size and mode."""

    update_uid = update_gid = update_atime = update_mtime = update_ctime = False
    update_mode = update_size = True


CONTEXT = cast(Any, Context())


class World:
    """A mount without a kernel. :meth:`arguments` makes the files and folders for a handler."""

    def __init__(self, store: WritableStore) -> None:
        # The store renders files, but nothing encodes them meanwhile.
        self.store = store
        self.vfs = StoreFilesystem(self.store, self.store)
        self.do = Operations(self.vfs)
        self._count = 0

    async def new(self, data: bytes = b"data") -> tuple[bytes, int, int]:
        """Make a new file and leave it open. Returns (name, inode, handle)."""
        self._count += 1
        name = b"new-%d" % self._count
        info, entry = await self.do.create(ROOT, name, 0o644, os.O_RDWR, CONTEXT)
        await self.do.write(info.fh, 0, data)
        return name, entry.st_ino, info.fh

    async def probe(self) -> None:
        """Check that the usual calls of a program succeed on a new file."""
        name, ino, fh = await self.new(b"probe")
        assert await self.do.read(fh, 0, 99) == b"probe"
        await self.do.fsync(fh, False)
        await self.do.flush(fh)
        await self.do.release(fh)
        assert (await self.do.getattr(ino, CONTEXT)).st_size == 5
        await self.do.unlink(ROOT, name, CONTEXT)
        await self.do.forget([(ino, 1)])

    async def arguments(self, handler: str) -> list[Any]:
        """Arguments with which a call of the handler succeeds."""
        name, ino, fh = await self.new()
        free = name + b"+"
        attr = pyfuse3.EntryAttributes()
        attr.st_mode, attr.st_size = stat.S_IFREG | 0o600, 2
        if handler in ("rmdir", "readdir", "fsyncdir", "releasedir"):
            folder = await self.do.mkdir(ROOT, free, 0o755, CONTEXT)
            open_folder = await self.do.opendir(folder.st_ino, CONTEXT)
        if handler == "readlink":
            link = await self.do.symlink(ROOT, free, b"target", CONTEXT)
        if handler in ("getxattr", "removexattr"):
            await self.do.setxattr(ino, b"user.note", b"v", CONTEXT)
        if handler == "rename":
            await self.do.release(
                (await self.do.create(ROOT, free, 0o644, os.O_RDWR, CONTEXT))[0].fh
            )
        if handler in ("open", "read"):
            done = await self.do.lookup(ROOT, b"done.png", CONTEXT)
        if handler == "read":
            encoded = await self.do.open(done.st_ino, os.O_RDONLY, CONTEXT)
        if handler == "forget":
            await self.do.release(fh)
            await self.do.unlink(ROOT, name, CONTEXT)
        known: dict[str, Callable[[], list[Any]]] = {
            "lookup": lambda: [ROOT, name, CONTEXT],
            "forget": lambda: [[(ino, 1)]],
            "getattr": lambda: [ino, CONTEXT],
            "setattr": lambda: [ino, attr, AnyFields(), None, CONTEXT],
            "readlink": lambda: [link.st_ino, CONTEXT],
            "statfs": lambda: [CONTEXT],
            "mknod": lambda: [ROOT, free, stat.S_IFREG | 0o644, 0, CONTEXT],
            "mkdir": lambda: [ROOT, free, 0o755, CONTEXT],
            "symlink": lambda: [ROOT, free, b"target", CONTEXT],
            "link": lambda: [ino, ROOT, free, CONTEXT],
            "unlink": lambda: [ROOT, name, CONTEXT],
            "rmdir": lambda: [ROOT, free, CONTEXT],
            "rename": lambda: [ROOT, name, ROOT, free, 0, CONTEXT],
            "create": lambda: [ROOT, free, 0o644, os.O_RDWR, CONTEXT],
            "open": lambda: [done.st_ino, os.O_RDWR | os.O_TRUNC, CONTEXT],
            "read": lambda: [encoded.fh, 0, 1 << 20],
            "write": lambda: [fh, 2, b"more"],
            "flush": lambda: [fh],
            "fsync": lambda: [fh, False],
            "release": lambda: [fh],
            "opendir": lambda: [ROOT, CONTEXT],
            "readdir": lambda: [open_folder, 0, None],
            "fsyncdir": lambda: [open_folder, False],
            "releasedir": lambda: [open_folder],
            "setxattr": lambda: [ino, b"user.note", b"w", CONTEXT],
            "getxattr": lambda: [ino, b"user.note", CONTEXT],
            "listxattr": lambda: [ino, CONTEXT],
            "removexattr": lambda: [ino, b"user.note", CONTEXT],
        }
        return known[handler]()


@pytest.fixture(name="template", scope="module")
def template_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one encoded file."""
    root = tmp_path_factory.mktemp("alive") / "store"
    config.make(root, Disk())

    async def fill() -> None:
        opened = open_store(root)
        async with opened.running(count=1) as store:
            put(store, b"done.png", png(screens(1)[0]))
            await store.drain()
        opened.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "Workers", Inline)
        patch.setattr(committer, "_BATCH_SECONDS", 0.01)
        trio.run(fill)
    return root


@pytest.mark.parametrize("handler", HANDLERS)
async def test_the_mount_goes_on(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handler: str
) -> None:
    monkeypatch.setattr(pyfuse3, "readdir_reply", lambda *_: True)
    monkeypatch.setattr(store_module, "Workers", Inline)
    shutil.copytree(template, tmp_path / "store")
    opened = open_store(tmp_path / "store")
    async with opened.started(count=1) as store:
        world = World(store)
        call = getattr(world.do, handler)
        at, answered = 0, set()
        while True:
            at += 1
            # All errors at the first call, a quarter of them at each later call: this saves time.
            for make in ERRORS if at == 1 else ERRORS[at % 4 :: 4]:
                given = await world.arguments(handler)
                with failing(at, make()) as called, trio.fail_after(10):
                    try:
                        await call(*given)
                    except FUSEError as error:
                        assert error.errno in errno.errorcode
                        answered.add(error.errno)
                await world.probe()
            if len(called) < at:
                break
        # A handler that calls no seam cannot fail.
        assert answered or at == 1 or handler == "forget"
        world.vfs.close()
        assert check_relations(world.store).findings == []
    opened.close()
    open_store(tmp_path / "store").close()
