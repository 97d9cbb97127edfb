"""What the encoder encodes: staged files, and sources of an import.

A staged file has its row, which the commit turns from staged to encoded. A source lies outside of
the store. It has no row and no copy in ``staging/``: the transaction that adds its object also adds
its inode and its name. So the import writes its bytes once, and until that commit nothing in the
store depends on the source.

The encoder knows both by a number. That of a staged file is its inode number. That of a source is
negative. In the same way both have a token: a staged file that of :class:`Staging`, a source its
own number.

Another program may change, replace or remove a source at any moment. The look reads it, then this
process reads it again and compares (:mod:`prove`), and its stamp must be as before. If anything
fails, the source is *refused*: nothing of it is in the store, and the import stages a copy of it.

Contract: everything here belongs to the trio task, and does not await.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fsmount.errors import FsmountError
from fsmount.store.index import Index
from fsmount.store.packs.staging import Staging


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A regular file outside of the store that becomes a new file of the store.

    path : the file.
    folder, name : the inode number of the folder in the store, and the new name in it.
    info : attributes of the file. It must not change afterwards.
    xattrs : extended attributes.
    """

    path: Path
    folder: int
    name: bytes
    info: os.stat_result
    xattrs: Mapping[bytes, bytes]


class Settled(NamedTuple):
    """What became of a source: `ino` is its inode in the store, or None if it was refused."""

    source: Source
    ino: int | None


class Refused(Exception):
    """The encoder cannot take a source as it lies. The message says why."""


class Inputs:
    """Staged files of inodes, and sources; see the module."""

    def __init__(self, index: Index, staging: Staging) -> None:
        self._index = index
        self._staging = staging
        # Sources that are not settled, by number.
        self._sources: dict[int, Source] = {}
        self._last = 0
        # Inode numbers that a transaction gave to sources. They count once it is committed.
        self._created: dict[int, int] = {}
        self._settled: list[Settled] = []

    def add(self, source: Source) -> int:
        """Take a source. Return its number."""
        self._last -= 1
        self._sources[self._last] = source
        return self._last

    def source(self, ino: int) -> Source | None:
        """Return the source of this number. None for a staged file, and for a settled source."""
        return self._sources.get(ino)

    def token(self, ino: int) -> int | None:
        """Return the token of a file that waits to be encoded. None if it does not wait."""
        if ino < 0:
            return ino if ino in self._sources else None
        try:
            inode = self._index.inode(ino)
        except FsmountError:
            return None
        return inode.staged if inode.nlink else None

    def file(self, token: int) -> Path:
        """Return the path of the file with this token. A source must not be settled."""
        return self._sources[token].path if token < 0 else self._staging.path(token)

    def place(self, ino: int) -> tuple[int, bytes] | None:
        """Return the folder and name of a file in the store, None if it has none."""
        if ino < 0:
            source = self._sources.get(ino)
            return None if source is None else (source.folder, source.name)
        return self._index.folder_of(ino)

    def path(self, ino: int) -> bytes:
        """Return the path of a file in the store, b"" if it has none."""
        place = self.place(ino)
        if place is None:
            return b""
        folder = self._index.path(place[0])
        return folder + b"/" * bool(folder) + place[1]

    def mtime_ns(self, ino: int) -> int:
        """Return the mtime of a file in ns. Raises NoSuchInode."""
        source = self._sources.get(ino)
        return self._index.inode(ino).mtime_ns if source is None else source.info.st_mtime_ns

    def encode(self, ino: int, token: int, object_id: int, size: int) -> bool:
        """Let a file show an object, inside a transaction. `size` is its size in bytes.

        Returns False, and changes nothing, if the file has another body by now, or if a source
        cannot have its name. Call :meth:`committed` after the commit.
        """
        if ino >= 0:
            return self._index.encode(ino, token, object_id, size)
        source = self._sources.get(ino)
        if source is None:
            return False
        if not self._has_room(source):
            self.refuse(ino)
            return False
        info = source.info
        inode = self._index.create(
            source.folder,
            source.name,
            mode=info.st_mode,
            uid=info.st_uid,
            gid=info.st_gid,
            now_ns=info.st_mtime_ns,
            staged=token,
            size=size,
        )
        self._index.update(inode.ino, atime_ns=info.st_atime_ns)
        for name, value in source.xattrs.items():
            self._index.set_xattr(inode.ino, name, value)
        self._created[ino] = inode.ino
        return self._index.encode(inode.ino, token, object_id, size)

    def _has_room(self, source: Source) -> bool:
        """Whether the folder of a source exists, and has no entry of its name."""
        try:
            folder = self._index.inode(source.folder)
        except FsmountError:
            return False
        is_folder = stat.S_ISDIR(folder.mode) and folder.nlink > 0
        return is_folder and self._index.lookup(source.folder, source.name) is None

    def committed(self, ino: int, token: int) -> int | None:
        """Note that what :meth:`encode` did is committed.

        Returns the token of the staged file that is not needed any more, None for a source.
        """
        if ino >= 0:
            return token
        source = self._sources.pop(ino, None)
        if source is not None:
            self._settled.append(Settled(source, self._created.pop(ino)))
        return None

    def refuse(self, ino: int) -> bool:
        """Refuse a source. Returns False if there is no source of this number."""
        source = self._sources.pop(ino, None)
        if source is not None:
            self._created.pop(ino, None)
            self._settled.append(Settled(source, None))
        return source is not None

    def withdraw(self) -> None:
        """Forget all sources. No later commit adds one of them."""
        self._sources.clear()
        self._created.clear()
        self._settled.clear()

    def settled(self) -> list[Settled]:
        """Return the sources that were settled since the last call, in order."""
        settled, self._settled = self._settled, []
        return settled
