"""Observes each call that changes a store: the calls of `store/disk/disk.py` and of SQLite.

A *tap* gets each call and decides about it: it may look, fail the call, or do half of it.

SQLite's own writes come through a VFS of apsw below ``cksumvfs``. The files of apsw have no shared
memory, so connections are exclusive here. This changes no write and no order of writes.
:func:`listen` must run before fsmount opens an index, so a harness needs a process of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import apsw
import apsw.sqlite_extra

from fsmount.store.disk.disk import Disk, pread

T = TypeVar("T")
_UNIX = "unix"
_OURS = "watched"


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `path` and `other` (of rename and link) are relative to the store's folder."""

    name: str
    path: str
    other: str = ""
    offset: int = 0
    data: bytes = b""
    size: int = 0
    sqlite: bool = False


class Tap:
    """Lets every call through."""

    def call(self, call: Call, do: Callable[[], T]) -> T:
        """Do the call, or not. Returns the result of the call."""
        return do()


class Misused(BaseException):
    """A descriptor was used that is not open. Another file may have its number.

    No handler of the store catches this.
    """


def _plain(path: Path) -> str:
    """The same path without a descriptor at its beginning."""
    return re.sub(r"^/proc/self/fd/[0-9]+", lambda found: os.readlink(found[0]), str(path))


class WatchedDisk(Disk):
    """A disk whose calls go through a tap. It forces nothing, which makes it fast.

    The folder may be moved meanwhile. Calls for files outside of it do not go through the tap.
    """

    def __init__(self, root: Path, tap: Tap) -> None:
        self.root = root
        self.tap = tap
        self._open: dict[int, str] = {}

    def _name(self, path: Path) -> str:
        """The file's name in the folder; it begins with ``..`` if the file is outside."""
        return os.path.relpath(_plain(path), _plain(self.root))

    def _ask(self, call: Call, do: Callable[[], T]) -> T:
        return do() if call.path.startswith("..") else self.tap.call(call, do)

    def create(self, path: Path) -> int:
        name = self._name(path)
        fd = self._ask(Call("create", name), lambda: Disk.create(self, path))
        self._open[fd] = name
        return fd

    def open(self, path: Path, flags: int) -> int:
        name = self._name(path)
        fd = self._ask(Call("open", name), lambda: Disk.open(self, path, flags))
        self._open[fd] = name
        return fd

    def close(self, fd: int) -> None:
        if fd not in self._open:
            raise Misused(f"close of {fd}")
        name = self._open.pop(fd)
        Disk.close(self, fd)
        self._ask(Call("close", name), lambda: None)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        call = Call("pwrite", self._where(fd), offset=offset, data=bytes(data))
        return self._ask(call, lambda: Disk.pwrite(self, fd, data, offset))

    def _where(self, fd: int) -> str:
        """The file's present name; it may have been renamed since it was opened."""
        if fd not in self._open:
            raise Misused(f"use of {fd}")
        return os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), _plain(self.root))

    def ftruncate(self, fd: int, size: int) -> None:
        call = Call("ftruncate", self._where(fd), size=size)
        self._ask(call, lambda: Disk.ftruncate(self, fd, size))

    def allocate(self, fd: int, size: int) -> None:
        call = Call("allocate", self._where(fd), size=size)
        self._ask(call, lambda: Disk.ftruncate(self, fd, size))

    def fsync(self, fd: int) -> None:
        self._ask(Call("fsync", self._where(fd)), lambda: None)

    def read_cached(self, fd: int, length: int, offset: int) -> bytes:
        # A tmpfs has all files in memory, and cannot say which parts are cached.
        return pread(fd, length, offset)

    def fsync_folder(self, path: Path) -> None:
        self._ask(Call("fsync_folder", self._name(path)), lambda: None)

    def rename(self, old: Path, new: Path) -> None:
        call = Call("rename", self._name(old), self._name(new))
        self._ask(call, lambda: Disk.rename(self, old, new))

    def link(self, old: Path, new: Path) -> None:
        call = Call("link", self._name(old), self._name(new))
        self._ask(call, lambda: Disk.link(self, old, new))

    def unlink(self, path: Path) -> None:
        self._ask(Call("unlink", self._name(path)), lambda: Disk.unlink(self, path))

    def mkdir(self, path: Path, *, parents: bool = False) -> None:
        call = Call("mkdir", self._name(path))
        self._ask(call, lambda: Disk.mkdir(self, path, parents=parents))

    def chmod(self, path: Path, mode: int) -> None:
        self._ask(Call("chmod", self._name(path)), lambda: Disk.chmod(self, path, mode))


class _Ear:
    """Sends calls for SQLite's files below `root` through a tap, and ignores other files."""

    def __init__(self) -> None:
        self.root = ""
        self.tap = Tap()

    def ask(self, name: str, path: str, do: Callable[[], T], **what: Any) -> T:
        if not self.root or not path.startswith(self.root + "/"):
            return do()
        call = Call(name, path[len(self.root) + 1 :], sqlite=True, **what)
        return self.tap.call(call, do)


_ear = _Ear()


class _File(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int]) -> None:
        super().__init__(_UNIX, name, flags)
        self._path = _text(name)
        # As in SQLite's own VFS (os_unix.c, UNIXFILE_DIRSYNC): the first fsync of a journal or log
        # that may be new forces the name, too.
        log = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL
        self._name_too = bool(flags[0] & apsw.SQLITE_OPEN_CREATE and flags[0] & log)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        def do() -> None:
            super(_File, self).xWrite(data, offset)

        _ear.ask("pwrite", self._path, do, data=bytes(data), offset=offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        _ear.ask("ftruncate", self._path, lambda: super(_File, self).xTruncate(size), size=size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        _ear.ask("fsync", self._path, lambda: None)
        if self._name_too:
            self._name_too = False
            _ear.ask("fsync_folder", str(Path(self._path).parent) + "/.", lambda: None)


class _Vfs(apsw.VFS):
    def __init__(self) -> None:
        super().__init__(_OURS, _UNIX, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        path = _text(name)
        if path and not Path(path).exists():
            return _ear.ask("create", path, lambda: _File(name, flags))
        return _File(name, flags)

    def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
        _ear.ask("unlink", name, lambda: super(_Vfs, self).xDelete(name, False))
        if sync:
            _ear.ask("fsync_folder", str(Path(name).parent) + "/.", lambda: None)


def _text(name: Any) -> str:
    return str(name.filename()) if isinstance(name, apsw.URIFilename) else str(name or "")


_kept: list[apsw.VFS] = []


def _exclusive(connection: apsw.Connection) -> None:
    connection.pragma("locking_mode", "exclusive")


def listen() -> None:
    """Put our VFS below ``cksumvfs``. Further calls in the same process do nothing."""
    if not _kept:
        _kept.append(_Vfs())
        apsw.sqlite_extra.load(apsw.Connection(":memory:"), "cksumvfs")
        apsw.connection_hooks.append(_exclusive)


@contextmanager
def tapped(root: Path, tap: Tap, follow: Path | None = None) -> Iterator[WatchedDisk]:
    """A disk for the store at `root`; its index goes through the same tap.

    `follow` is a path to the store that stays right when the store is moved.
    """
    _ear.root, _ear.tap = str(root), tap
    try:
        yield WatchedDisk(follow or root, tap)
    finally:
        _ear.root = ""


@contextmanager
def unheard() -> Iterator[None]:
    """Let SQLite's calls in the block bypass the tap, because they are for another store."""
    root, _ear.root = _ear.root, ""
    try:
        yield
    finally:
        _ear.root = root
