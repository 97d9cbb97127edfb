"""Make thumbnails of the pictures of a mounted store, in an order in which decoding them is cheap.

A picture is mostly a difference to earlier ones. A file manager asks for pictures in the order of
names, of a folder, or of what is on the screen. Here they are read in the order in which the store
got them, so pictures that share references come one after another, while their references are in
memory. The pixels come from the store. The mount only tells size and time of each file, because a
thumbnail is valid if it names the size and time that a file manager sees.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import trio

from fsmount.desktop.scaling import NotAPictureError, empty, is_picture, scale
from fsmount.desktop.thumbnail_files import (
    FAILED,
    SIZES,
    Thumbnails,
    cache_folder,
    file_uri,
    mtime_text,
    shared_uri,
)
from fsmount.errors import DiskFull, FsmountError
from fsmount.store.files import StoreFiles
from fsmount.store.index import Inode
from fsmount.store.read_store import ReadStore
from fsmount.store.transfer.exporting import below
from fsmount.store.transfer.tree import (
    NO_SPACE,
    THUMBNAILS,
    Progress,
    Report,
    ignore,
    is_for_desktops,
    slices,
)
from fsmount.work.workers import Workers

_AT_ONCE = 4
# A larger file is hardly a picture, and it is read into memory.
_MOST_BYTES = 256 << 20
_KNOWN = "it is no picture that can be read (noted by an earlier run)"


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture of a store: its path from the root, and its inode."""

    path: bytes
    inode: Inode


@dataclass
class Made:
    """What was made. `problems` lists (path, reason) for each picture that has no thumbnail."""

    pictures: int = 0
    thumbnails: int = 0
    skipped: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)


def pictures(store: StoreFiles, paths: Sequence[bytes] = (b"",)) -> list[PictureFile]:
    """Return the pictures at or below some paths, in the order in which to decode them.

    That is the order in which they were encoded. Pictures that are not encoded yet come last. Left
    out are deleted pictures in the trash, and thumbnails. Raises FsmountError if there is no entry
    at a path.
    """
    found = {
        name: PictureFile(name, inode)
        for path in paths
        for name, inode in below(store, path)
        if stat.S_ISREG(inode.mode) and is_picture(name)
        if not any(map(is_for_desktops, name.split(b"/")))
    }
    return sorted(found.values(), key=_order)


def _order(picture: PictureFile) -> tuple[bool, int, int, bytes]:
    inode = picture.inode
    return inode.object_id is None, inode.object_id or 0, inode.mtime_ns, picture.path


def _body(picture: PictureFile) -> tuple[bool, int]:
    """Return what is the same for files that show the same picture."""
    inode = picture.inode
    return (True, inode.ino) if inode.object_id is None else (False, inode.object_id)


class Thumbnailer:
    """Writes the thumbnails of pictures that have none, or outdated ones; see :meth:`make`.

    mountpoint : where the store is mounted.
    workers : scale pictures.
    kinds : which thumbnails to make, of SIZES.
    shared : whether to write them beside the pictures, through the mount.
    xfce : whether they name times as Xfce does; see :func:`mtime_text`.
    report : called with the path of each picture that gets thumbnails.

    The thumbnailer reports each finished picture to `progress`.
    """

    def __init__(
        self,
        store: ReadStore,
        mountpoint: Path,
        workers: Workers,
        progress: Progress,
        *,
        kinds: Sequence[str],
        shared: bool = False,
        xfce: bool = False,
        report: Report = ignore,
    ) -> None:
        self._store = store
        self._mountpoint = mountpoint
        self._workers = workers
        self._progress = progress
        self._kinds = sorted(set(kinds), key=SIZES.__getitem__, reverse=True)
        self._shared = shared
        self._xfce = xfce
        self._report = report
        self._cache = cache_folder()
        self.summary = Made()

    async def make(self, wanted: Sequence[PictureFile]) -> None:
        """Make thumbnails of pictures, in their order. The caller keeps store and workers running.

        A picture that several files show is decoded once. Raises :class:`DiskFull`. The summary
        lists all other failures of single pictures.
        """
        slots = trio.Semaphore(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for _, group in groupby(wanted, _body):
                await slots.acquire()
                nursery.start_soon(self._guarded, list(group), slots)

    async def _guarded(self, same: Sequence[PictureFile], slots: trio.Semaphore) -> None:
        """Make the thumbnails of files that show the same picture, and list failures."""
        try:
            await self._make(same)
        except FsmountError as error:
            self._list(same, str(error))
        except OSError as error:
            if error.errno in NO_SPACE:
                raise DiskFull(error.filename or self._cache) from error
            self._list(same, error.strerror or str(error))
        finally:
            slots.release()
            self._progress(len(same), sum(one.inode.size for one in same))

    def _list(self, same: Sequence[PictureFile], reason: str) -> None:
        self.summary.problems += [(os.fsdecode(one.path), reason) for one in same]

    async def _make(self, same: Sequence[PictureFile]) -> None:
        """Make the thumbnails of files that show the same picture. Raises FsmountError, OSError."""
        missing: list[tuple[PictureFile, Thumbnails, list[str]]] = []
        for one in same:
            thumbnails, kinds = await trio.to_thread.run_sync(self._missing, one)
            if kinds == [FAILED]:
                self._list([one], _KNOWN)
            elif kinds:
                missing.append((one, thumbnails, kinds))
            else:
                self.summary.skipped += 1
        if not missing:
            return
        wanted = [kind for kind in self._kinds if any(kind in kinds for _, _, kinds in missing)]
        try:
            scaled = dict(zip(wanted, await self._scaled(same[0], wanted), strict=True))
        except NotAPictureError as error:
            self._list([one for one, _, _ in missing], str(error))
            for _, thumbnails, _ in missing:
                await trio.to_thread.run_sync(thumbnails.write, FAILED, empty())
            return
        for one, thumbnails, kinds in missing:
            for kind in kinds:
                await trio.to_thread.run_sync(thumbnails.write, kind, scaled[kind])
                self.summary.thumbnails += 1
            self.summary.pictures += 1
            self._report(one.path)

    async def _scaled(self, picture: PictureFile, kinds: Sequence[str]) -> list[bytes]:
        """Return thumbnails of a picture as PNGs without texts. Raises FsmountError, OSError."""
        if picture.inode.size > _MOST_BYTES:
            raise FsmountError(f"it has more than {_MOST_BYTES >> 20} MiB")
        data = b"".join([part async for part in slices(self._store, picture.inode.ino)])
        return await self._workers.run(scale, data, [SIZES[kind] for kind in kinds])

    def _missing(self, picture: PictureFile) -> tuple[Thumbnails, list[str]]:
        """Return the thumbnails of a picture, and which of them are to be made.

        [FAILED]: an earlier run noted that none can be made. Raises OSError if the user cannot read
        the picture.
        """
        path = self._mountpoint / os.fsdecode(picture.path)
        info = path.stat()
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if self._shared:
            folder, uri = path.parent / os.fsdecode(THUMBNAILS), shared_uri(os.fsencode(path.name))
        else:
            folder, uri = self._cache, file_uri(os.fsencode(path))
        mtime = mtime_text(info.st_mtime_ns, xfce=self._xfce)
        thumbnails = Thumbnails(folder, uri, mtime, info.st_size, private=not self._shared)
        kinds = [kind for kind in self._kinds if not thumbnails.is_valid(kind)]
        if kinds and thumbnails.is_valid(FAILED):
            return thumbnails, [FAILED]
        return thumbnails, kinds
