"""Verify: proves that a folder and a store, or a folder and a mount, hold the same files."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from fsmount import threads
from fsmount.errors import FsmountError
from fsmount.legacy.archive import Archive
from fsmount.legacy.decoding import Decoded
from fsmount.legacy.pictures import same_picture
from fsmount.legacy.runs import png_name
from fsmount.store.frames.group import Rendered
from fsmount.store.index import Object
from fsmount.store.ingest.sequencer import Sequencer, Slot
from fsmount.store.read_store import ReadStore
from fsmount.store.transfer.exporting import below
from fsmount.store.transfer.groups import Tell, Wanted, for_each
from fsmount.store.transfer.patterns import ALL, Patterns
from fsmount.store.transfer.tree import (
    SLICE,
    Item,
    Progress,
    Report,
    Summary,
    find,
    ignore,
    same,
    slices,
    walk,
)
from fsmount.threads import Kind
from fsmount.work import machine

_ARCHIVE_BYTES = 128 << 20
_DIFFERENCE = ".jxl"


class _Source(NamedTuple):
    """An entry of a source.

    slot : when it may be decoded, if it may be a difference of a legacy folder.
    unread : (path, reason) for what could not be read just before it.
    """

    item: Item
    slot: Slot | None
    unread: list[tuple[str, str]]


class Counterpart(Protocol):
    """The other side of a comparison with sources.

    `name` is used in messages. Paths are bytes from its root.
    """

    name: str

    def mode(self, path: bytes) -> int | None:
        """Return the mode of an entry with its type bits, or None if there is no entry."""

    def same(self, path: bytes, item: Item) -> bool:
        """Whether a link has the same target as `item`, or a device the same number.

        Raises OSError.
        """

    def slices(self, path: bytes) -> AsyncIterator[bytes]:
        """Yield the bytes of a regular file. Raises FsmountError, OSError."""

    def below(self, path: bytes, chosen: Patterns) -> Iterator[tuple[bytes, int]]:
        """Yield an entry and everything under it that is chosen: (path, mode)."""

    def object(self, path: bytes) -> Object | None:
        """Return the object of a regular file, if :meth:`render` may render it."""

    @property
    def count(self) -> int:
        """See :class:`Renderer`."""

    async def render(self, object_ids: Sequence[int], *, with_bytes: bool) -> list[Rendered | None]:
        """See :class:`Renderer`."""


class StoreCounterpart:
    """A store to compare with. The caller opens it and keeps it running."""

    name = "the store"

    def __init__(self, store: ReadStore) -> None:
        self._store = store

    def mode(self, path: bytes) -> int | None:
        """See :class:`Counterpart`."""
        inode = find(self._store, path)
        return None if inode is None else inode.mode

    def same(self, path: bytes, item: Item) -> bool:
        """See :class:`Counterpart`."""
        inode = find(self._store, path)
        return inode is not None and same(inode, item.source, item.info)

    async def slices(self, path: bytes) -> AsyncIterator[bytes]:
        """See :class:`Counterpart`."""
        inode = find(self._store, path)
        assert inode is not None
        async for data in slices(self._store, inode.ino):
            yield data

    def below(self, path: bytes, chosen: Patterns) -> Iterator[tuple[bytes, int]]:
        """See :class:`Counterpart`."""
        if find(self._store, path) is not None:
            yield from ((name, inode.mode) for name, inode in below(self._store, path, chosen))

    def object(self, path: bytes) -> Object | None:
        """See :class:`Counterpart`."""
        inode = find(self._store, path)
        if inode is None or inode.object_id is None:
            return None
        return self._store.index.known_object(inode.object_id)

    @property
    def count(self) -> int:
        """See :class:`Counterpart`."""
        return self._store.count

    async def render(self, object_ids: Sequence[int], *, with_bytes: bool) -> list[Rendered | None]:
        """See :class:`Counterpart`."""
        return await self._store.render(object_ids, with_bytes=with_bytes)


class FolderCounterpart:
    """A folder to compare with, for example a mount."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.name = str(root)

    def _path(self, path: bytes) -> Path:
        return self._root / os.fsdecode(path)

    def mode(self, path: bytes) -> int | None:
        """See :class:`Counterpart`."""
        try:
            return self._path(path).lstat().st_mode
        except FileNotFoundError:
            return None

    def same(self, path: bytes, item: Item) -> bool:
        """See :class:`Counterpart`."""
        if stat.S_ISLNK(item.info.st_mode):
            return os.readlink(self._path(path)) == os.readlink(item.source)
        return self._path(path).lstat().st_rdev == item.info.st_rdev

    async def slices(self, path: bytes) -> AsyncIterator[bytes]:
        """See :class:`Counterpart`."""
        with self._path(path).open("rb", buffering=0) as file:
            # The slowest disk of this machine may serve the mount: other tasks go on meanwhile.
            while data := await threads.call(Kind.READ, file.read, SLICE):
                yield data

    def below(self, path: bytes, chosen: Patterns) -> Iterator[tuple[bytes, int]]:
        """See :class:`Counterpart`."""
        for item in walk(self._path(path), path, Summary(), chosen):
            if item.target:
                yield item.target, item.info.st_mode

    def object(self, path: bytes) -> None:
        """See :class:`Counterpart`. A folder has no objects."""
        return

    @property
    def count(self) -> int:
        """See :class:`Counterpart`."""
        return machine.cores()

    async def render(self, object_ids: Sequence[int], *, with_bytes: bool) -> list[Rendered | None]:
        """See :class:`Counterpart`."""
        return [None] * len(object_ids)


class Verifier:
    """Compares folders with a store, names and bytes, in both directions.

    `chosen` chooses the entries of both sides. With `one_way`, entries that only the other side has
    are no difference. `report` is called with the path of each file that is equal.

    `summary.files` counts the files that were compared and are equal. `total` counts all files that
    should be equal. The verifier compares a picture that a legacy folder keeps as a difference as
    the PNG that it stands for.
    """

    def __init__(
        self,
        other: Counterpart,
        progress: Progress,
        *,
        chosen: Patterns = ALL,
        one_way: bool = False,
        report: Report = ignore,
    ) -> None:
        self._other = other
        self._progress = progress
        self._chosen = chosen
        self._one_way = one_way
        self._report = report
        self._archive = Archive(_ARCHIVE_BYTES, count=1)
        self.summary = Summary()
        self.total = 0

    async def verify(self, sources: Sequence[tuple[Path, bytes]]) -> None:
        """Compare each source with the entry at its target.

        The caller keeps the other side running. The summary lists each difference and each failure.
        """
        seen: set[bytes] = set()
        unread = Summary()
        compare = partial(self._compare, seen=seen)
        async with self._archive.running():
            wanted = self._wanted(sources, unread)
            await for_each(self._other, wanted, compare, with_bytes=False)
        self.summary.problems += unread.problems
        if self._one_way:
            return
        for target in dict.fromkeys(target for _, target in sources):
            for name, mode in self._other.below(target, self._chosen):
                if name not in seen:
                    seen.add(name)
                    self.total += not stat.S_ISDIR(mode)
                    self._differs(os.fsdecode(name), f"only in {self._other.name}")

    def _wanted(
        self, sources: Sequence[tuple[Path, bytes]], unread: Summary
    ) -> Iterator[Wanted[_Source]]:
        """Yield all entries of the sources, and the object to render for each.

        What cannot be read is listed with the next entry; the rest stays in `unread`.
        """
        decoded = Sequencer()
        for source, target in sources:
            for item in walk(source, target, unread, self._chosen):
                mode, found, slot = item.info.st_mode, None, None
                if stat.S_ISREG(mode):
                    found = self._other.object(item.target)
                # Files of other sizes differ; their bytes tell how.
                if found is not None and found.size != item.info.st_size:
                    found = None
                if not stat.S_ISDIR(mode) and item.source.suffix == _DIFFERENCE:
                    slot = decoded.slot()
                yield Wanted(_Source(item, slot, unread.problems.copy()), found)
                unread.problems.clear()

    def _differs(self, path: Path | str, reason: str) -> None:
        self.summary.problems.append((str(path), reason))

    async def _compare(self, source: _Source, rendered: Rendered | None, seen: set[bytes]) -> Tell:
        """Compare one entry and report progress. Returns what counts or lists the result."""
        item = source.item
        if stat.S_ISDIR(item.info.st_mode):
            return partial(self._compare_folder, source, seen)
        try:
            reason = await self._difference(source, rendered, seen)
        except FsmountError as error:
            reason = str(error)
        except OSError as error:
            reason = error.strerror or str(error)
        finally:
            self._progress(1, item.info.st_size)
        return partial(self._tell, source, reason)

    def _compare_folder(self, source: _Source, seen: set[bytes]) -> None:
        """Compare a folder. Adds its target to `seen`."""
        item = source.item
        self.summary.problems += source.unread
        seen.add(item.target)
        mode = self._other.mode(item.target)
        if mode is None or not stat.S_ISDIR(mode):
            self._differs(item.source, f"no such folder in {self._other.name}")

    def _tell(self, source: _Source, reason: str | None) -> None:
        """Count a file that is equal, or list the difference."""
        item = source.item
        self.summary.problems += source.unread
        self.total += 1
        if reason:
            self._differs(item.source, reason)
        else:
            self.summary.files += 1
            self.summary.bytes += item.info.st_size
            self._report(item.target)

    async def _decode(self, source: _Source) -> Decoded | None:
        """Decode a picture that the source keeps as a difference. None for another file.

        The pictures are decoded in the order of their names: each begins with the one before.
        Raises FsmountError, OSError.
        """
        if source.slot is None:
            return None
        try:
            await source.slot.enter()
            folder, name = source.item.source.parent, os.fsencode(source.item.source.name)
            if self._archive.difference(folder, name) is None:
                return None
            return await self._archive.decode(folder, name)
        finally:
            source.slot.leave()

    async def _difference(
        self, source: _Source, rendered: Rendered | None, seen: set[bytes]
    ) -> str | None:
        """Return the difference between a source and the other side, or None.

        Adds its target to `seen`. Raises FsmountError, OSError.
        """
        where = self._other.name
        item, target, whole = source.item, source.item.target, None
        made = await self._decode(source)
        if made is not None:
            if made.png is not None:
                target, whole = png_name(target), made.png
            elif not made.is_picture:
                seen.add(png_name(target))
                return made.reason
        seen.add(target)
        mode = self._other.mode(target)
        if mode is None:
            return f"not in {where}"
        if stat.S_IFMT(mode) != stat.S_IFMT(item.info.st_mode):
            return f"another type of file in {where}"
        if not stat.S_ISREG(mode):
            alike = self._other.same(target, item)
            return None if alike else f"another target or device in {where}"
        if whole is not None:
            there = b"".join([data async for data in self._other.slices(target)])
            alike = there == whole or await threads.call(Kind.STAGED, same_picture, there, whole)
            return None if alike else f"another picture in {where}"
        if rendered is not None:
            here_too = await threads.call(Kind.TREE, _sha256_of, item.source)
            if here_too == rendered.sha256:
                return None
        with item.source.open("rb") as file:
            async for data in self._other.slices(target):
                here = await threads.call(Kind.TREE, file.read, len(data))
                if here != data:
                    longer = len(here) < len(data) and data.startswith(here)
                    return f"longer in {where}" if longer else f"other bytes in {where}"
            return f"shorter in {where}" if file.read(1) else None


def _sha256_of(path: Path) -> bytes:
    """Return the SHA-256 of a file. May wait for the disk. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
