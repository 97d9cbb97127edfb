"""A legacy folder as a tree of files, for a read-only mount: differences appear as PNGs."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import trio

from fsmount import threads
from fsmount.errors import Damaged
from fsmount.legacy.archive import DEFAULT_CACHE_BYTES, Archive
from fsmount.legacy.decoding import Decoded
from fsmount.legacy.runs import RunFile, png_name
from fsmount.threads import Kind

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Node:
    """The attributes of a file or folder; ``size``: bytes, None until the picture was decoded."""

    mode: int
    size: int | None
    uid: int
    gid: int
    mtime_ns: int
    target: bytes | None = None


def _node(info: os.stat_result, size: int | None) -> Node:
    """Return the attributes of a file, with another size."""
    return Node(info.st_mode, size, info.st_uid, info.st_gid, info.st_mtime_ns)


class _FileBody:
    """The bytes of a file of the source folder."""

    def __init__(self, path: Path) -> None:
        """Open the file; called in a thread."""
        self._lock = trio.Lock()
        self._file = path.open("rb")
        self.size = os.fstat(self._file.fileno()).st_size

    async def pread(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes at ``offset``; fewer only at the end."""
        async with self._lock:
            return await threads.call(Kind.READ, self._read, offset, length)

    def _read(self, offset: int, length: int) -> bytes:
        """Do the work of :meth:`pread`."""
        self._file.seek(offset)
        # Unlike pread(2) this continues after a short read and so raises a later error.
        return self._file.read(length)


@dataclass(frozen=True, slots=True)
class _PngBody:
    """The bytes of a decoded difference."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    async def pread(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes at ``offset``."""
        return self.data[offset : offset + length]


class LegacyTree:
    """The tree of a legacy folder. Belongs to one trio task.

    A ``.jxl`` counts as a difference, by its name and position, until it is decoded. If it turns
    out to be a picture of its own, it appears under its own name from then on.

    Parameters
    ----------
    source : Path
        The folder. Nothing in it is changed.
    cache_bytes : int
        Memory for pictures.
    """

    def __init__(self, source: Path, cache_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self.source = source
        self._archive = Archive(cache_bytes)
        # Threads read the folder, one thread at a time.
        self._lock = trio.Lock()

    async def _call(self, function: Callable[[Path], T], source: Path) -> T:
        """Call a function that may wait for the disk, in a thread."""
        async with self._lock:
            return await threads.call(Kind.TREE, function, source)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Run the workers while the tree is mounted."""
        return self._archive.running()

    def _path(self, path: bytes) -> Path:
        """Return the path in the source folder."""
        return self.source / os.fsdecode(path)

    async def children(self, folder: bytes) -> Sequence[tuple[bytes, Node]]:
        """List the entries of a folder, in order of name. Raises OSError."""
        return await self._call(self._children, self._path(folder))

    def _children(self, parent: Path) -> Sequence[tuple[bytes, Node]]:
        found = []
        for name in os.listdir(os.fsencode(parent)):
            try:
                info = (parent / os.fsdecode(name)).lstat()
            except FileNotFoundError:
                continue
            file = self._archive.difference(parent, name)
            if file is None or self._archive.is_picture(file):
                found.append((name, _node(info, info.st_size)))
            else:
                found.append((png_name(name), _node(info, self._archive.png_size(file))))
        return sorted(found, key=lambda entry: entry[0])

    async def attributes(self, path: bytes) -> Node:
        """Return the attributes of a file or folder; decode a picture if its size is unknown.

        Raises
        ------
        FileNotFoundError
            If the path does not exist in the tree.
        Damaged, WorkerDied, OSError
            If the picture cannot be decoded.
        """
        source = self._path(path)
        node, file, is_hidden = await self._call(self._look, source)
        if is_hidden:
            size = None if file is None else self._archive.png_size(file)
            if size is None:
                size = len(await self._decode_png(source.with_suffix(".jxl")))
            return replace(node, size=size)
        if file is not None and not (await self._decode(source)).is_picture:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return node

    def _look(self, source: Path) -> tuple[Node, RunFile | None, bool]:
        """Look at the file of a path, or at the difference behind it.

        Returns
        -------
        tuple of Node, RunFile or None, and bool
            Its attributes, the difference of its name if it has one, and whether that difference
            appears as the PNG of this path.
        """
        hidden = self._difference_behind(source)
        real = hidden or source
        info = real.lstat()
        file = None
        if real.suffix == ".jxl":
            file = self._archive.difference(real.parent, os.fsencode(real.name))
        node = _node(info, info.st_size)
        if stat.S_ISLNK(info.st_mode):
            node = replace(node, target=os.fsencode(os.readlink(real)))
        return node, file, hidden is not None

    def _difference_behind(self, source: Path) -> Path | None:
        """Return the difference that appears as a PNG which does not exist in the folder."""
        if source.suffix != ".png" or os.path.lexists(source) or not source.parent.is_dir():
            return None
        other = source.with_suffix(".jxl")
        file = self._archive.difference(source.parent, os.fsencode(other.name))
        return None if file is None else other

    async def _decode(self, source: Path) -> Decoded:
        """Decode a difference."""
        return await self._archive.decode(source.parent, os.fsencode(source.name))

    async def _decode_png(self, source: Path) -> bytes:
        """Return the PNG of a difference; raise Damaged if there is none."""
        decoded = await self._decode(source)
        if decoded.is_picture:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if decoded.png is None:
            raise Damaged(source, reason=decoded.reason)
        return decoded.png

    async def body(self, path: bytes) -> _FileBody | _PngBody:
        """Return the bytes of a file, to be read piece by piece.

        Raises
        ------
        Damaged, WorkerDied, OSError
            If the file cannot be opened, or the picture cannot be decoded.
        """
        found = await self._call(self._open, self._path(path))
        if isinstance(found, _FileBody):
            return found
        return _PngBody(await self._decode_png(found))

    def _open(self, source: Path) -> _FileBody | Path:
        """Open the file of a path, or return the difference behind it."""
        return self._difference_behind(source) or _FileBody(source)

    async def xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        """Return the extended attributes of a file, or of the difference behind it."""
        return await self._call(self._xattrs, self._path(path))

    def _xattrs(self, source: Path) -> Mapping[bytes, bytes]:
        source = self._difference_behind(source) or source
        try:
            names = os.listxattr(source, follow_symlinks=False)
            return {
                os.fsencode(name): os.getxattr(source, name, follow_symlinks=False)
                for name in names
            }
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return {}
            raise
