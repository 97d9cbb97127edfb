"""Albums as folders of files, for a mount that only reads.

One album is a folder of its photos; a folder with albums in it shows each as a folder. Names, sizes
and times are known from the XML. So is the head of every photo, with its EXIF: reading no more than
that decodes nothing. (It is of the shape that :mod:`fsmount.mount.readonly_fs` asks for.)
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
from fsmount.album.document import Entry, Other
from fsmount.album.files import place_of
from fsmount.errors import Damaged, FsmountError
from fsmount.threads import Kind
from fsmount.work.cache import Cache
from fsmount.work.workers import Workers

T = TypeVar("T")
_log = logging.getLogger(__name__)

# Albums kept open: a descriptor each, and 1.5 kB a photo. Others are read again when asked for.
_MOST_ALBUMS, _MOST_PHOTOS = 256, 50_000
# And one more, for readers who wait.
_WORKERS = 1


@dataclass(frozen=True, slots=True)
class Node:
    """What `stat` says of a file or folder."""

    mode: int
    size: int
    uid: int
    gid: int
    mtime_ns: int
    target: bytes | None = None


class _Photo:
    """The bytes of a photo; decoded when more than its head is read."""

    def __init__(self, tree: AlbumTree, album: Album, entry: Entry) -> None:
        """In a thread."""
        self._tree = tree
        self._album = album
        self._entry = entry
        self._head = album.head(entry)
        self._whole: bytes | None = None

    @property
    def size(self) -> int:
        return self._entry.served_bytes

    async def pread(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`."""
        end = min(offset + length, self.size)
        if end <= len(self._head):
            return self._head[offset:end]
        if self._whole is None:
            self._whole = await self._tree.rendered(self._album, self._entry)
        return self._whole[offset:end]


class _Kept:
    """The bytes of a file kept verbatim; raises :class:`Damaged` if it is not as long as it was."""

    def __init__(self, path: Path, other: Other) -> None:
        """In a thread."""
        self._path = path
        self._other = other
        if path.stat().st_size != other.bytes:
            raise Damaged(path, reason="it is not as long as when it was kept")

    @property
    def size(self) -> int:
        return self._other.bytes

    async def pread(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; fewer only at the end."""
        return await threads.call(Kind.READ, self._read, offset, length)

    def _read(self, offset: int, length: int) -> bytes:
        with self._path.open("rb") as file:
            file.seek(offset)
            # Unlike pread(2) this goes on after a short read, and so meets an error behind it.
            return file.read(length)


class AlbumTree:
    """See the module. `source` is the XML of an album, or a folder with some in it."""

    def __init__(self, source: Path, cache_bytes: int) -> None:
        self.source = source
        self._owner = os.getuid(), os.getgid()
        self._cache: Cache[tuple[Path, int], bytes] = Cache(cache_bytes)
        self._albums: OrderedDict[Path, Album] = OrderedDict()
        self._workers = Workers(_WORKERS, preload=("fsmount.album.jobs", "av"))
        self._nursery: trio.Nursery | None = None
        self._last: tuple[Path, int] | None = None
        # Albums are found, opened and let go of in threads, one at a time.
        self._asking = trio.Lock()
        if not source.is_dir():
            self._album(source)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Workers, and what is decoded ahead of readers, for as long as it is mounted."""
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
        """So that the first reader does not wait for a process to start."""
        with suppress(FsmountError):
            await self._workers.warm()

    # -- names

    async def _ask(self, function: Callable[[bytes], T], path: bytes) -> T:
        async with self._asking:
            return await threads.call(Kind.TREE, function, path)

    def _album(self, xml: Path) -> Album:
        """An album, kept open for a while; whoever uses it may hold on to it."""
        if xml not in self._albums:
            self._albums[xml] = Album(place_of(xml))
        self._albums.move_to_end(xml)
        while len(self._albums) > 1 and self._too_many():
            self._albums.popitem(last=False)
        return self._albums[xml]

    def _too_many(self) -> bool:
        photos = sum(len(album.contents.photos) for album in self._albums.values())
        return photos > _MOST_PHOTOS or len(self._albums) > _MOST_ALBUMS

    def _find(self, path: bytes) -> Path | tuple[Album, bytes]:
        """The folder of albums a path means, or the album and the name in it (b"": itself)."""
        if not self.source.is_dir():
            return self._album(self.source), path
        here = self.source
        parts = [part for part in path.split(b"/") if part]
        for number, part in enumerate(parts):
            xml = here / f"{os.fsdecode(part)}.xml"
            if document.is_album(xml):
                return self._album(xml), b"/".join(parts[number + 1 :])
            here = here / os.fsdecode(part)
            if not _is_shown(here):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return here

    async def children(self, folder: bytes) -> Sequence[tuple[bytes, Node]]:
        """The entries of a folder, in order of name."""
        return await self._ask(self._children, folder)

    def _children(self, folder: bytes) -> Sequence[tuple[bytes, Node]]:
        found = self._find(folder)
        if isinstance(found, Path):
            return self._albums_in(found)
        album, name = found
        if name:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        nodes = [(entry.shown, self._of_photo(entry)) for entry in album.contents.photos]
        nodes += [(other.name, self._of_other(other)) for other in album.others()]
        return sorted(nodes, key=lambda pair: pair[0])

    def _albums_in(self, folder: Path) -> list[tuple[bytes, Node]]:
        nodes: dict[bytes, Node] = {}
        for path in folder.iterdir():
            if document.is_album(path):
                nodes[os.fsencode(path.stem)] = self._folder(path)
            elif _is_shown(path):
                nodes.setdefault(os.fsencode(path.name), self._folder(path))
        return sorted(nodes.items())

    def _folder(self, path: Path) -> Node:
        return Node(stat.S_IFDIR | 0o555, 0, *self._owner, path.stat().st_mtime_ns)

    def _of_photo(self, entry: Entry) -> Node:
        mode = stat.S_IFREG | (entry.mode & 0o444)
        return Node(mode, entry.served_bytes, *self._owner, entry.mtime_ns)

    def _of_other(self, other: Other) -> Node:
        mode = stat.S_IFREG | (other.mode & 0o555)
        return Node(mode, other.bytes, *self._owner, other.mtime_ns)

    async def attributes(self, path: bytes) -> Node:
        """One file or folder; raises FileNotFoundError."""
        return await self._ask(self._attributes, path)

    def _attributes(self, path: bytes) -> Node:
        found = self._find(path)
        if isinstance(found, Path):
            return self._folder(found)
        album, name = found
        if not name:
            return self._folder(album.place.xml)
        record = _record(album, name)
        return self._of_photo(record) if isinstance(record, Entry) else self._of_other(record)

    # -- bytes

    async def body(self, path: bytes) -> _Photo | _Kept:
        """The bytes of a file."""
        return await self._ask(self._body, path)

    def _body(self, path: bytes) -> _Photo | _Kept:
        found = self._find(path)
        if isinstance(found, Path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        album, name = found
        record = _record(album, name)
        if isinstance(record, Entry):
            return _Photo(self, album, record)
        return _Kept(album.path_of(record), record)

    async def rendered(self, album: Album, entry: Entry) -> bytes:
        """A whole photo; for those who read in order the next one is decoded ahead."""
        before, self._last = self._last, (album.place.xml, entry.frame)
        data = await self._cached(album, entry)
        following = album.after(entry)
        in_order = before is None or before == (album.place.xml, entry.frame - 1)
        if in_order and following is not None and self._nursery is not None:
            self._nursery.start_soon(self._ahead, album, following)
        return data

    async def _cached(self, album: Album, entry: Entry) -> bytes:
        async def make() -> tuple[bytes, int]:
            data, same = await reading.serve(album, entry, self._workers)
            if not same:
                name = os.fsdecode(entry.shown)
                _log.info("%s: this machine's libraries make other bytes of the same frame", name)
            return data, len(data)

        return await self._cache.get((album.place.xml, entry.frame), make)

    async def _ahead(self, album: Album, entry: Entry) -> None:
        try:
            await self._cached(album, entry)
        except Exception as error:
            # Whoever reads it will be told.
            _log.info("decoding ahead: %s", error)

    async def xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        """Of a photo: that it is a lossy copy, and how good."""
        return await self._ask(self._xattrs, path)

    def _xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        found = self._find(path)
        if isinstance(found, Path) or not found[1]:
            return {}
        record = _record(*found)
        facts: dict[str, object] = {"kind": "verbatim", "sha256": record.sha256}
        if isinstance(record, Entry):
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


def _record(album: Album, name: bytes) -> Entry | Other:
    record = album.photo(name) or album.other(name)
    if record is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return record


def _is_shown(path: Path) -> bool:
    """Folders that may hold albums; not those that belong to one."""
    if not path.is_dir() or path.name.startswith("."):
        return False
    return not (path.suffix == ".files" and document.is_album(path.with_suffix(".xml")))


def holds_albums(folder: Path) -> bool:
    """Whether there are albums in a folder, or in folders in it."""
    for here, names, files in os.walk(folder):
        names[:] = [name for name in names if not name.startswith(".")]
        if any(document.is_album(Path(here, name)) for name in files):
            return True
    return False


def source_of(path: Path) -> Path | None:
    """What there is to mount at a path: the XML of the album it names, a folder of albums, or None.

    A folder is one that holds albums and is nothing else (a store, say).
    """
    xml = place_of(path).xml
    if document.is_album(xml):
        return xml
    return path if path.is_dir() and holds_albums(path) else None
