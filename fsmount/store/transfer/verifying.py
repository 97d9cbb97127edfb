"""Verify: proves that a folder and a store, or a folder and a mount, hold the same files."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import trio

from fsmount import threads
from fsmount.errors import FsmountError
from fsmount.legacy.archive import Archive
from fsmount.legacy.pictures import same_picture
from fsmount.legacy.runs import png_name
from fsmount.store.read_store import ReadStore
from fsmount.store.transfer.exporting import below
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

_AT_ONCE = 4
_ARCHIVE_BYTES = 128 << 20


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
        slots = trio.Semaphore(_AT_ONCE)
        async with self._archive.running(), trio.open_nursery() as nursery:
            for source, target in sources:
                for item in walk(source, target, self.summary, self._chosen):
                    if stat.S_ISDIR(item.info.st_mode):
                        seen.add(item.target)
                        mode = self._other.mode(item.target)
                        if mode is None or not stat.S_ISDIR(mode):
                            self._differs(item.source, f"no such folder in {self._other.name}")
                        continue
                    self.total += 1
                    await slots.acquire()
                    nursery.start_soon(self._compare, item, seen, slots)
        if self._one_way:
            return
        for target in dict.fromkeys(target for _, target in sources):
            for name, mode in self._other.below(target, self._chosen):
                if name not in seen:
                    seen.add(name)
                    self.total += not stat.S_ISDIR(mode)
                    self._differs(os.fsdecode(name), f"only in {self._other.name}")

    def _differs(self, path: Path | str, reason: str) -> None:
        self.summary.problems.append((str(path), reason))

    async def _compare(self, item: Item, seen: set[bytes], slots: trio.Semaphore) -> None:
        """Compare one file, count or list the result, release its slot and report progress."""
        try:
            reason = await self._difference(item, seen)
        except FsmountError as error:
            reason = str(error)
        except OSError as error:
            reason = error.strerror or str(error)
        finally:
            slots.release()
            self._progress(1, item.info.st_size)
        if reason:
            self._differs(item.source, reason)
        else:
            self.summary.files += 1
            self.summary.bytes += item.info.st_size
            self._report(item.target)

    async def _difference(self, item: Item, seen: set[bytes]) -> str | None:
        """Return the difference between a source and the other side, or None.

        Adds its target to `seen`. Raises FsmountError, OSError.
        """
        where = self._other.name
        folder, name = item.source.parent, os.fsencode(item.source.name)
        target, whole = item.target, None
        if name.endswith(b".jxl") and self._archive.difference(folder, name) is not None:
            made = await self._archive.decode(folder, name)
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
        with item.source.open("rb") as file:
            async for data in self._other.slices(target):
                here = file.read(len(data))
                if here != data:
                    longer = len(here) < len(data) and data.startswith(here)
                    return f"longer in {where}" if longer else f"other bytes in {where}"
            return f"shorter in {where}" if file.read(1) else None
