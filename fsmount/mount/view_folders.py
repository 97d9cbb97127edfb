"""Virtual folders of a mount: the pictures of a store by day, and those that brought something new.

``.fsmount/by-day/2026/03/14/`` has the pictures of a local day. ``.fsmount/changed/2026/03/14/``
has those of them of which at least CHANGED of the screen was new. A name there is one more name of
the file, as a hard link would be: it has the same inode number. So listing decodes nothing, and the
kernel keeps one copy of its pages. The folders themselves cannot be changed.
``.fsmount/text/`` belongs to :mod:`fsmount.mount.text_files`.

:class:`~fsmount.mount.union_fs.UnionFilesystem` puts the folder ``.fsmount`` into the root.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from fsmount import threads
from fsmount.errors import Damaged
from fsmount.mount import text_files
from fsmount.mount.attributes import (
    NAME_BYTES,
    SHARED_VALID_S,
    Attributes,
    Caller,
    DirEntry,
    failure,
)
from fsmount.mount.filesystem import ROOT, Filesystem
from fsmount.mount.plain_answers import PlainAnswers
from fsmount.mount.text_files import TextFiles
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.frames.novelty import Novelty
from fsmount.store.index import Index
from fsmount.store.layout import Layout
from fsmount.store.transfer.days import Days, Picture
from fsmount.threads import Kind

FIRST = 1 << 52
"""The first number of inodes and handles."""
CHANGED = 0.05
"""The share of the screen that is new in the pictures of ``changed``."""
_TOP, _BY_DAY, _CHANGED, _TEXT = b".fsmount", b"by-day", b"changed", b"text"
# A listing stays as it is for so long, so that looking its names up one by one is quick.
_FRESH_S = 1.0
# Entries of one reply; the kernel takes fewer at a time.
_AT_ONCE = 64

_Path = tuple[bytes, ...]


class ViewFolders(PlainAnswers[None, list[tuple[bytes, int]]]):
    """See the module. Belongs to the trio task.

    `upper` is the filesystem of the store, `texts` that of the folder ``text``.
    """

    def __init__(self, store: StoreFiles, upper: Filesystem, texts: TextFiles) -> None:
        super().__init__(FIRST)
        self._store = store
        self._upper = upper
        self._texts = texts
        self._days = Days(store)
        self._paths: list[_Path] = [(), ()]  # by inode number; number 0 is not used
        self._inodes: dict[_Path, int] = {(): FIRST + ROOT}
        self._listed: tuple[float, _Path, dict[bytes, Picture]] = (-_FRESH_S, (), {})
        self._shares: dict[int, tuple[float, bytes | None]] = {}
        self._refreshed = -_FRESH_S

    # -- the tree

    def _ino(self, path: _Path) -> int:
        ino = self._inodes.get(path)
        if ino is None:
            ino = self._inodes[path] = FIRST + len(self._paths)
            self._paths.append(path)
        return ino

    def _path(self, ino: int) -> _Path:
        if not FIRST < ino < FIRST + len(self._paths):
            raise failure(errno.ENOENT)
        return self._paths[ino - FIRST]

    async def _refresh(self) -> None:
        if time.monotonic() - self._refreshed >= _FRESH_S:
            await self._days.refresh()
            self._refreshed = time.monotonic()

    async def _names(self, path: _Path) -> list[bytes]:
        """The names of the folders in a folder."""
        if len(path) < 2:
            return [[_TOP], [_BY_DAY, _CHANGED]][len(path)]
        if len(path) == 5:
            return []
        await self._refresh()
        given, names = path[2:], dict[bytes, None]()
        for day in self._days.days():
            parts = tuple(b"%02d" % part for part in day.timetuple()[:3])
            if parts[: len(given)] == given:
                names[parts[len(given)]] = None
        return list(names)

    async def _pictures(self, path: _Path) -> dict[bytes, Picture]:
        """The pictures in the folder of a day, by the name that they have there."""
        if len(path) != 5:
            return {}
        listed_at, listed, found = self._listed
        if listed == path and time.monotonic() - listed_at < _FRESH_S:
            return found
        await self._refresh()
        pictures = self._days.pictures(date(*map(int, path[2:])))
        if path[1] == _CHANGED:
            pictures = await self._changed(pictures)
        found = {}
        for picture in pictures:
            found[_free_name(picture, found)] = picture
        self._listed = time.monotonic(), path, found
        return found

    async def _changed(self, pictures: Sequence[Picture]) -> list[Picture]:
        """Return those of some pictures that brought something new."""
        ids = {each.inode.object_id for each in pictures} - self._shares.keys()
        if wanted := sorted(number for number in ids if number is not None):
            layout = self._store.layout
            self._shares |= await threads.call(Kind.ENTRY, _shares, layout, wanted)
        return [each for each in pictures if self._is_new(each)]

    def _is_new(self, picture: Picture) -> bool:
        """Whether a picture brought something new. One that is not encoded yet counts as new."""
        if picture.inode.object_id is None:
            return True
        share, path = self._shares.get(picture.inode.object_id, (1.0, None))
        own = picture.where + b"/" * bool(picture.where) + picture.name
        found = self._store.index.known_object(picture.inode.object_id)
        # Of several equal files, the one that came first brought it.
        is_first = found is None or found.uses < 2 or path in (None, own)
        return share >= CHANGED and is_first

    # -- inodes

    def _show(self, ino: int) -> Attributes:
        """The attributes of a folder: those of the root of the store, without write permission."""
        root = self._store.index.inode(ROOT)
        mode = stat.S_IFDIR | (stat.S_IMODE(root.mode) & 0o555)
        times = root.atime_ns, root.mtime_ns, root.ctime_ns
        return Attributes(ino, mode, 2, root.uid, root.gid, 0, 0, 0, *times, SHARED_VALID_S)

    async def lookup(self, folder: int, name: bytes) -> Attributes:
        """The entry `name` of a folder: another folder, or the file of the upper filesystem."""
        if len(name) > NAME_BYTES:
            raise failure(errno.ENAMETOOLONG)
        path = self._path(folder)
        if path == (_TOP,) and name == _TEXT:
            return await self._texts.root()
        if name in await self._names(path):
            return self._show(self._ino((*path, name)))
        picture = (await self._pictures(path)).get(name)
        if picture is None:
            raise failure(errno.ENOENT)
        found = await self._upper.lookup(picture.folder, picture.name)
        return found._replace(valid_s=SHARED_VALID_S)

    async def getattr(self, ino: int) -> Attributes:
        """What stat(2) shows of a folder."""
        self._path(ino)
        return self._show(ino)

    async def statfs(self) -> os.statvfs_result:
        """As the upper filesystem."""
        return await self._upper.statfs()

    # -- open folders

    async def open(self, ino: int, flags: int, caller: Caller) -> int:
        """Raises OSError EISDIR."""
        raise failure(errno.EISDIR)

    async def read(self, fh: int, offset: int, length: int) -> bytes:
        """Raises OSError EBADF: there are no open files."""
        raise failure(errno.EBADF)

    async def opendir(self, ino: int) -> int:
        """A handle on a folder, which shows its entries as they are now."""
        path = self._path(ino)
        entries = [(b".", ino), (b"..", self._ino(path[:-1]))]
        entries += [(name, self._ino((*path, name))) for name in await self._names(path)]
        if path == (_TOP,):
            entries.append((_TEXT, (await self._texts.root()).ino))
        pictures = (await self._pictures(path)).items()
        entries += [(name, picture.inode.ino) for name, picture in pictures]
        return self._keep_folder(entries)

    async def readdir(self, fh: int, after: int) -> list[DirEntry]:
        """Some entries after the cookie `after`: FIRST + the entry's place from 1."""
        entries = self._folder(fh)
        found: list[DirEntry] = []
        place = max(0, after - FIRST)
        while place < len(entries) and len(found) < _AT_ONCE:
            name, ino = entries[place]
            place += 1
            try:
                if ino >= text_files.FIRST:
                    shown = await self._texts.root()
                else:
                    shown = self._show(ino) if ino >= FIRST else await self._upper.getattr(ino)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                continue  # it was deleted after the folder was opened
            found.append((FIRST + place, name, shown._replace(valid_s=SHARED_VALID_S)))
        return found


def _free_name(picture: Picture, taken: dict[bytes, Picture]) -> bytes:
    """The name of a picture in the folder of its day.

    If another picture of the day has the name, that of its folder comes first, and then a number.
    """
    if picture.name not in taken:
        return picture.name
    name = picture.where.replace(b"/", b"_") + b"_" + picture.name
    number = 2
    while name in taken or len(name) > NAME_BYTES:
        name = b"%d_%s" % (number, picture.name[-(NAME_BYTES - 12) :])
        number += 1
    return name


def _shares(layout: Layout, ids: Sequence[int]) -> dict[int, tuple[float, bytes | None]]:
    """For each object the share of the screen that is new, and the path that it was coded for.

    Runs in a thread, so it opens the index for itself.
    """
    index = Index(Path(layout.index), Disk(), read_only=True)
    found = {}
    try:
        novelty = Novelty(layout, index)
        for number in ids:
            try:
                known = index.known_object(number)
                if known is not None:
                    path = novelty.path(known) if known.uses > 1 else None
                    found[number] = novelty.share(known), path
            except (Damaged, OSError):
                found[number] = 1.0, None
    finally:
        index.close()
    return found
