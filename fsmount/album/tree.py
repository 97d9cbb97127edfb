"""Albums as folders of files, for a read-only mount.

An album is a folder of its photos. A folder with albums in it shows each album as a folder. Names,
sizes and times come from the XML, and so does the head of every photo with its EXIF: a reader of
the head alone decodes nothing. :class:`AlbumTree` has the methods that
:mod:`fsmount.mount.readonly_fs` asks for.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio

from fsmount import threads
from fsmount.album import document, reading
from fsmount.album.album import Album
from fsmount.album.document import OtherFile, PhotoRecord
from fsmount.album.files import paths_of
from fsmount.errors import Damaged, FsmountError
from fsmount.threads import Kind
from fsmount.work.cache import Cache
from fsmount.work.workers import Workers

T = TypeVar("T")
_log = logging.getLogger(__name__)

# Limits of open albums: each holds a descriptor, and 1.5 kB a photo. Others are opened again.
_MAX_OPEN_ALBUMS, _MAX_OPEN_PHOTOS = 256, 50_000
# Workers adds one for urgent jobs, which serves waiting readers.
_WORKERS = 1


@dataclass(frozen=True, slots=True)
class Node:
    """The attributes of a file or folder as stat(2) has them; ``size`` is in bytes."""

    mode: int
    size: int
    uid: int
    gid: int
    mtime_ns: int
    target: bytes | None = None


class _PhotoBody:
    """The bytes of a photo, which is decoded when a reader goes beyond the head."""

    def __init__(self, tree: AlbumTree, album: Album, record: PhotoRecord) -> None:
        """Read the head of the photo; called in a thread."""
        self._tree = tree
        self._album = album
        self._record = record
        self._head = album.head(record)
        self._whole: bytes | None = None

    @property
    def size(self) -> int:
        return self._record.served_bytes

    async def pread(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes at ``offset``."""
        end = min(offset + length, self.size)
        if end <= len(self._head):
            return self._head[offset:end]
        if self._whole is None:
            self._whole = await self._tree.render(self._album, self._record)
        return self._whole[offset:end]


class _VerbatimBody:
    """The bytes of a file stored verbatim."""

    def __init__(self, path: Path, other: OtherFile) -> None:
        """Look at the file; called in a thread."""
        self._path = path
        self._other = other
        if path.stat().st_size != other.bytes:
            raise Damaged(path, reason="it does not have its recorded length")

    @property
    def size(self) -> int:
        return self._other.bytes

    async def pread(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes at ``offset``; fewer only at the end."""
        return await threads.call(Kind.READ, self._read, offset, length)

    def _read(self, offset: int, length: int) -> bytes:
        """Do the work of :meth:`pread`."""
        with self._path.open("rb") as file:
            file.seek(offset)
            # Unlike pread(2) this continues after a short read and so raises a later error.
            return file.read(length)


class AlbumTree:
    """The tree of an album or of a folder of albums. Belongs to one trio task.

    Parameters
    ----------
    source : Path
        The XML of an album, or a folder with albums in it.
    cache_bytes : int
        Memory for rendered photos.

    Raises
    ------
    FsmountError, OSError
        If ``source`` is an album that cannot be opened (:class:`fsmount.album.album.Album`).
    """

    def __init__(self, source: Path, cache_bytes: int) -> None:
        self.source = source
        self._owner = os.getuid(), os.getgid()
        self._cache: Cache[tuple[Path, int], bytes] = Cache(cache_bytes)
        self._albums: OrderedDict[Path, Album] = OrderedDict()
        self._workers = Workers(_WORKERS, preload=("fsmount.album.jobs", "av"))
        self._nursery: trio.Nursery | None = None
        self._last_read: tuple[Path, int] | None = None
        # Threads locate, open and drop albums, one thread at a time.
        self._lock = trio.Lock()
        if not source.is_dir():
            self._album(source)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the workers, and decode ahead of readers, while the tree is mounted."""
        async with self._workers, trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._warm)
            try:
                yield
            finally:
                self._nursery = None
                nursery.cancel_scope.cancel()
                for album in self._albums.values():
                    album.close()

    async def _warm(self) -> None:
        """Start a worker, so that the first reader does not wait for one."""
        with suppress(FsmountError):
            await self._workers.warm()

    # -- names

    async def _call(self, function: Callable[[bytes], T], path: bytes) -> T:
        """Call a function that may wait for the disk, in a thread."""
        async with self._lock:
            return await threads.call(Kind.TREE, function, path)

    def _album(self, xml: Path) -> Album:
        """Return an open album. The cache may drop it at any time; a caller may hold on to it."""
        if xml not in self._albums:
            self._albums[xml] = Album(paths_of(xml))
        self._albums.move_to_end(xml)
        while len(self._albums) > 1 and self._holds_too_many():
            self._albums.popitem(last=False)
        return self._albums[xml]

    def _holds_too_many(self) -> bool:
        """Return whether the open albums exceed a limit."""
        photos = sum(len(album.contents.photos) for album in self._albums.values())
        return photos > _MAX_OPEN_PHOTOS or len(self._albums) > _MAX_OPEN_ALBUMS

    def _locate(self, path: bytes) -> Path | tuple[Album, bytes]:
        """Return the folder of albums that a path means, or an album and the name in it."""
        if not self.source.is_dir():
            return self._album(self.source), path
        here = self.source
        parts = [part for part in path.split(b"/") if part]
        for number, part in enumerate(parts):
            xml = here / f"{os.fsdecode(part)}.xml"
            if document.is_album(xml):
                return self._album(xml), b"/".join(parts[number + 1 :])
            here = here / os.fsdecode(part)
            if not _may_hold_albums(here):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return here

    async def children(self, folder: bytes) -> Sequence[tuple[bytes, Node]]:
        """List the entries of a folder, in order of name.

        Raises
        ------
        FileNotFoundError, NotADirectoryError
            If the path does not exist, or is a file.
        """
        return await self._call(self._children, folder)

    def _children(self, folder: bytes) -> Sequence[tuple[bytes, Node]]:
        found = self._locate(folder)
        if isinstance(found, Path):
            return self._list_albums(found)
        album, name = found
        if name:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        nodes = [(record.shown, self._photo_node(record)) for record in album.contents.photos]
        nodes += [(other.name, self._other_node(other)) for other in album.other_files()]
        return sorted(nodes, key=lambda pair: pair[0])

    def _list_albums(self, folder: Path) -> list[tuple[bytes, Node]]:
        """List the albums and folders in a folder."""
        nodes: dict[bytes, Node] = {}
        for path in folder.iterdir():
            if document.is_album(path):
                nodes[os.fsencode(path.stem)] = self._folder_node(path)
            elif _may_hold_albums(path):
                nodes.setdefault(os.fsencode(path.name), self._folder_node(path))
        return sorted(nodes.items())

    def _folder_node(self, path: Path) -> Node:
        """Return the attributes of a folder."""
        return Node(stat.S_IFDIR | 0o555, 0, *self._owner, path.stat().st_mtime_ns)

    def _photo_node(self, record: PhotoRecord) -> Node:
        """Return the attributes of a photo."""
        mode = stat.S_IFREG | (record.mode & 0o444)
        return Node(mode, record.served_bytes, *self._owner, record.mtime_ns)

    def _other_node(self, other: OtherFile) -> Node:
        """Return the attributes of a file stored verbatim."""
        mode = stat.S_IFREG | (other.mode & 0o555)
        return Node(mode, other.bytes, *self._owner, other.mtime_ns)

    async def attributes(self, path: bytes) -> Node:
        """Return the attributes of a file or folder; raises FileNotFoundError."""
        return await self._call(self._attributes, path)

    def _attributes(self, path: bytes) -> Node:
        found = self._locate(path)
        if isinstance(found, Path):
            return self._folder_node(found)
        album, name = found
        if not name:
            return self._folder_node(album.paths.xml)
        record = _find_record(album, name)
        return (
            self._photo_node(record)
            if isinstance(record, PhotoRecord)
            else self._other_node(record)
        )

    # -- bytes

    async def body(self, path: bytes) -> _PhotoBody | _VerbatimBody:
        """Return the bytes of a file, to be read piece by piece.

        Raises
        ------
        FileNotFoundError, IsADirectoryError
            If the path does not exist, or is a folder.
        Damaged
            If a verbatim file or the head of a photo has changed.
        """
        return await self._call(self._body, path)

    def _body(self, path: bytes) -> _PhotoBody | _VerbatimBody:
        found = self._locate(path)
        if isinstance(found, Path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        album, name = found
        record = _find_record(album, name)
        if isinstance(record, PhotoRecord):
            return _PhotoBody(self, album, record)
        return _VerbatimBody(album.path_of(record), record)

    async def render(self, album: Album, record: PhotoRecord) -> bytes:
        """Return a whole photo; if it follows the last one read, the next one is decoded ahead.

        Raises
        ------
        Damaged, WorkerDied, OSError
            See :func:`fsmount.album.jobs.render_jpeg`.
        """
        before, self._last_read = self._last_read, (album.paths.xml, record.frame)
        data = await self._cached(album, record)
        following = album.next_photo(record)
        in_order = before is None or before == (album.paths.xml, record.frame - 1)
        if in_order and following is not None and self._nursery is not None:
            self._nursery.start_soon(self._decode_ahead, album, following)
        return data

    async def _cached(self, album: Album, record: PhotoRecord) -> bytes:
        """Return a whole photo from the cache, or render it."""

        async def make() -> tuple[bytes, int]:
            data, same = await reading.render_photo(album, record, self._workers)
            if not same:
                name = os.fsdecode(record.shown)
                _log.info("%s: this machine's libraries render it to other bytes", name)
            return data, len(data)

        return await self._cache.get((album.paths.xml, record.frame), make)

    async def _decode_ahead(self, album: Album, record: PhotoRecord) -> None:
        """Put a photo into the cache."""
        try:
            await self._cached(album, record)
        except Exception as error:
            # A reader of this photo gets the error itself.
            _log.info("decoding ahead: %s", error)

    async def xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        """Return a file's extended attributes: that a photo is a lossy copy, and its quality."""
        return await self._call(self._xattrs, path)

    def _xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        found = self._locate(path)
        if isinstance(found, Path) or not found[1]:
            return {}
        record = _find_record(*found)
        facts: dict[str, object] = {"kind": "verbatim", "sha256": record.sha256}
        if isinstance(record, PhotoRecord):
            facts = {
                "kind": "lossy copy",
                "stored_bytes": record.packet_bytes,
                "ratio": round(record.bytes / record.packet_bytes, 1),
                "ssim": record.ssim,
                "psnr": record.psnr,
                "source_bytes": record.bytes,
                "source_sha256": record.sha256,
                "source_size": "{}x{}".format(*record.source_size),
                "sha256": record.served_sha256,
                "frame": record.frame,
                "rect": record.rect,
            }
        return {f"user.fsmount.{key}".encode(): str(value).encode() for key, value in facts.items()}


def _find_record(album: Album, name: bytes) -> PhotoRecord | OtherFile:
    """Return the file of an album that is served under a name; raise FileNotFoundError."""
    record = album.photo(name) or album.other_file(name)
    if record is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return record


def _may_hold_albums(path: Path) -> bool:
    """Return whether a folder is shown: not if it is hidden, or belongs to an album."""
    if not path.is_dir() or path.name.startswith("."):
        return False
    return not (path.suffix == ".files" and document.is_album(path.with_suffix(".xml")))


def holds_albums(folder: Path) -> bool:
    """Return whether a folder, or a folder below it that is not hidden, holds an album."""
    for here, names, files in os.walk(folder):
        names[:] = [name for name in names if not name.startswith(".")]
        if any(document.is_album(Path(here, name)) for name in files):
            return True
    return False


def source_of(path: Path) -> Path | None:
    """Return what can be mounted at a path: an album's XML, a folder of albums, or None.

    Parameters
    ----------
    path : Path
        An album (its XML, video, or name without a suffix), or a folder.
    """
    xml = paths_of(path).xml
    if document.is_album(xml):
        return xml
    return path if path.is_dir() and holds_albums(path) else None
