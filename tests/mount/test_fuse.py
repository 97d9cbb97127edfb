"""The adapter between pyfuse3 and a filesystem: only FUSEError leaves a handler."""

from __future__ import annotations

import errno
import inspect
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import apsw
import pyfuse3
import pytest
import trio
from pyfuse3 import FUSEError

from fsmount.errors import Damaged, DiskFull, FsmountError, NoSuchInode, WorkerDied
from fsmount.mount import fuse
from fsmount.mount.attributes import Attributes, DirEntry
from fsmount.mount.filesystem import Filesystem
from fsmount.mount.fuse import Operations
from fsmount.mount.options import MountOptions
from tests.support.names import ODD_NAMES

HANDLERS = sorted(
    name
    for name, member in vars(Operations).items()
    if inspect.iscoroutinefunction(member) and not name.startswith("_")
)

ERRORS: list[tuple[Exception, int]] = [
    *[
        (OSError(code, "told so"), code)
        for code in (
            errno.ENOENT,
            errno.EINVAL,
            errno.EBADF,
            errno.EIO,
            errno.EFBIG,
            errno.EDESTADDRREQ,
            errno.ENOSPC,
            errno.EROFS,
            errno.ENOTEMPTY,
            errno.EMFILE,
        )
    ],
    (OSError(), errno.EIO),
    (OSError(-7, "odd"), errno.EIO),
    (OSError(10**12, "odd"), errno.EIO),
    (KeyError("x"), errno.EIO),
    (MemoryError(), errno.EIO),
    (RecursionError(), errno.EIO),
    (AssertionError(), errno.EIO),
    (apsw.CorruptError("damaged"), errno.EIO),
    (OSError(errno.ENOSPC, "full"), errno.ENOSPC),
    (ExceptionGroup("two", [ValueError(), KeyError()]), errno.EIO),
    (trio.BrokenResourceError(), errno.EIO),
    (NoSuchInode(7), errno.ENOENT),
    (Damaged("x", reason="y"), errno.EIO),
    (DiskFull("x"), errno.ENOSPC),
    (WorkerDied("x"), errno.EIO),
    (FsmountError("x"), errno.EIO),
    (FUSEError(errno.EXDEV), errno.EXDEV),
]


class BrokenFilesystem:
    """A filesystem whose methods all raise the same error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name in ("remember", "keeps_pages"):

            def fail(*_: object) -> None:
                raise self._error

            return fail

        async def fail_later(*_: object) -> None:
            raise self._error

        return fail_later


class Context:
    """The fields that pyfuse3 gives about the caller of a request."""

    uid, gid, pid, umask = 1000, 100, 1, 0o022


class AnyFields:
    """The fields of a setattr request that sets all of them."""

    update_mode = update_uid = update_gid = update_size = True
    update_atime = update_mtime = update_ctime = True


def arguments(handler: str) -> list[Any]:
    values: dict[str, Any] = {
        "name": b"n",
        "name_old": b"n",
        "name_new": b"m",
        "new_name": b"m",
        "target": b"t",
        "value": b"v",
        "buf": b"data",
        "ctx": Context(),
        "attr": pyfuse3.EntryAttributes(),
        "fields": AnyFields(),
        "inode_list": [(2, 1), (3, 2)],
        "token": None,
    }
    names = list(inspect.signature(getattr(Operations, handler)).parameters)[1:]
    return [values.get(name, 1) for name in names]


def test_every_handler_of_a_mount_that_can_be_written_is_there() -> None:
    asked = {
        name
        for name, member in vars(pyfuse3.Operations).items()
        if inspect.iscoroutinefunction(member)
    }
    # With default_permissions the kernel checks access itself. For poll it has a default.
    assert asked - set(HANDLERS) == {"access", "poll"}


@pytest.mark.parametrize("handler", HANDLERS)
async def test_only_fuse_errors_leave(handler: str) -> None:
    for error, code in ERRORS:
        operations = Operations(cast(Filesystem, BrokenFilesystem(error)))
        call = getattr(operations, handler)
        if handler == "forget":
            await call(*arguments(handler))
            continue
        with pytest.raises(FUSEError) as caught:
            await call(*arguments(handler))
        assert caught.value.errno == code, error


@pytest.mark.parametrize("handler", [name for name in HANDLERS if name != "forget"])
async def test_cancellation_passes(handler: str) -> None:
    class Slow:
        def __getattr__(self, name: str) -> Callable[..., Any]:
            async def wait(*_: object) -> None:
                await trio.sleep_forever()

            return wait

    operations = Operations(cast(Filesystem, Slow()))
    with trio.CancelScope() as scope:
        scope.cancel()
        await getattr(operations, handler)(*arguments(handler))
    assert scope.cancelled_caught


def shown(ino: int, **changes: Any) -> Attributes:
    values: dict[str, Any] = {
        "ino": ino,
        "mode": stat.S_IFREG | 0o666,
        "nlink": 2,
        "uid": 5,
        "gid": 6,
        "rdev": 0,
        "size": 1000,
        "blocks": 2,
        "atime_ns": 1_000_000_001,
        "mtime_ns": -1,
        "ctime_ns": 3_000_000_003,
        "valid_s": 7.0,
    }
    return Attributes(**{**values, **changes})


class OneFolder:
    """A filesystem that returns given attributes, and lists the inodes it is told to remember."""

    def __init__(self, entries: list[tuple[int, bytes, Attributes]]) -> None:
        self.entries = entries
        self.remembered: list[int] = []

    async def getattr(self, ino: int) -> Attributes:
        return shown(ino)

    async def readdir(self, fh: int, after: int) -> Iterator[DirEntry]:
        return (entry for entry in self.entries if entry[0] > after)

    async def statfs(self) -> os.statvfs_result:
        return os.statvfs("/")

    def remember(self, ino: int) -> None:
        self.remembered.append(ino)


async def test_attributes_are_translated() -> None:
    operations = Operations(cast(Filesystem, OneFolder([])))
    entry = await operations.getattr(9, cast(Any, Context()))
    assert (entry.st_ino, entry.st_mode, entry.st_nlink) == (9, stat.S_IFREG | 0o666, 2)
    assert (entry.st_uid, entry.st_gid, entry.st_size, entry.st_blocks) == (5, 6, 1000, 2)
    assert (entry.st_atime_ns, entry.st_mtime_ns) == (1_000_000_001, -1)
    assert entry.st_ctime_ns == 3_000_000_003
    assert entry.attr_timeout == entry.entry_timeout == 7.0


async def test_overrides_change_what_is_shown() -> None:
    operations = Operations(
        cast(Filesystem, OneFolder([])), MountOptions(uid=0, gid=33, umask=0o027)
    )
    entry = await operations.getattr(9, cast(Any, Context()))
    assert (entry.st_uid, entry.st_gid) == (0, 33)
    assert entry.st_mode == stat.S_IFREG | 0o640


async def test_statfs_tells_the_longest_name() -> None:
    operations = Operations(cast(Filesystem, OneFolder([])))
    assert (await operations.statfs(cast(Any, Context()))).f_namemax == 255


@pytest.mark.parametrize("room", range(9))
async def test_only_accepted_entries_are_remembered(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [b".", b"..", b"a", b"b", b"c", b"d", b"e"]
    entries = [(n + 1, name, shown(100 + n)) for n, name in enumerate(names)]
    folder = OneFolder(entries)
    accepted: list[tuple[bytes, int]] = []

    def reply(token: object, name: bytes, entry: pyfuse3.EntryAttributes, cookie: int) -> bool:
        if len(accepted) == room:
            return False
        accepted.append((name, cookie))
        return True

    monkeypatch.setattr(pyfuse3, "readdir_reply", reply)
    await Operations(cast(Filesystem, folder)).readdir(1, 0, cast(Any, None))
    assert accepted == [(name, n + 1) for n, name in enumerate(names)][:room]
    assert folder.remembered == [100 + n for n in range(2, min(room, len(names)))]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_path_is_one_mount_option_in_ascii(name: bytes) -> None:
    path = Path(os.fsdecode(b"/" + name))
    chosen = fuse.libfuse_options(path, MountOptions(read_only=True, allow_other=True))
    (option,) = chosen - {"default_permissions", "subtype=fsmount", "ro", "allow_other"}
    assert re.fullmatch(r"fsname=([A-Za-z0-9/._-]|\\[0-3][0-7]{2})*", option)
    plain = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), option.encode("ascii"))
    assert plain == b"fsname=/" + name


def test_options_of_the_kernel_reach_it() -> None:
    plain = fuse.libfuse_options(Path("/store"), MountOptions())
    chosen = fuse.libfuse_options(Path("/store"), MountOptions(no_exec=True, sync=True))
    assert chosen - plain == {"noexec", "sync"}
