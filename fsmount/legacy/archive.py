"""A folder of differences to read from: names at once, pictures by worker processes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import trio

from fsmount import threads
from fsmount.errors import Damaged
from fsmount.legacy.pictures import Context, Made, gives, make, sample_of
from fsmount.legacy.runs import Scan, Step, scan, shown
from fsmount.threads import Kind
from fsmount.work.cache import Cache
from fsmount.work.workers import Workers

T = TypeVar("T")
DEFAULT_CACHE_BYTES = 256 << 20
_AROUND = 8  # differences on each side that a worker may want to look at


class Archive:
    """Pictures of legacy folders. Belongs to one trio task; :meth:`running` around it all."""

    def __init__(self, cache_bytes: int = DEFAULT_CACHE_BYTES, count: int | None = None) -> None:
        self._count = count or len(os.sched_getaffinity(0))
        self._budget = cache_bytes // 2 // self._count
        self._workers: Workers | None = None
        self._made: Cache[Step, Made] = Cache(cache_bytes // 2)
        self._scans: dict[Path, tuple[int, Scan]] = {}
        # What each `.jxl` turned out to be: the size of its PNG, -1 for a picture of its own.
        self.known: dict[Step, int] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The worker processes; they are started when the first picture is wanted."""
        async with Workers(self._count) as workers:
            self._workers = workers
            yield

    def scan(self, folder: Path) -> Scan:
        """The runs of a folder, read again when its names have changed. Raises OSError."""
        changed = folder.stat().st_mtime_ns
        known = self._scans.get(folder)
        if known is None or known[0] != changed:
            known = self._scans[folder] = (changed, scan(folder))
        return known[1]

    def forget(self, folder: Path) -> None:
        """Free what is remembered of a folder."""
        self._scans.pop(folder, None)

    def step(self, folder: Path, name: bytes) -> Step | None:
        """The difference of this name, None if no run has it."""
        found = self.scan(folder)
        place = found.places.get(name)
        if place is None:
            return None
        step = found.runs[place[0]][place[1]]
        # A twin has the place of its PNG.
        return step if step.is_difference and step.name == name else None

    def place(self, folder: Path, name: bytes) -> tuple[bytes, int] | None:
        """The run a file is part of, by the name of its first file, and its place in it.

        None for a file that no difference hangs on and that hangs on none.
        """
        found = self.scan(folder)
        if name not in found.places:
            return None
        number, at = found.places[name]
        run = found.runs[number]
        return (run[0].name, at) if len(run) > 1 else None

    async def make(self, folder: Path, name: bytes) -> Made:
        """What the difference `name` of a folder shows."""
        found = await threads.call(Kind.TREE, self.scan, folder)
        number, place = found.places[name]
        run = found.runs[number][: place + 1]
        made = await self._made.get(run[-1], lambda: self._work(found, number, place))
        if made.data is not None:
            self.known[run[-1]] = len(made.data)
        elif made.itself:
            self.known[run[-1]] = -1
        return made

    async def gives(self, before: bytes, after: bytes, step: Step) -> bool:
        """See :func:`fsmount.legacy.pictures.gives`."""
        assert self._workers is not None
        return await self._workers.run(gives, before, after, step.path)

    async def _work(self, found: Scan, number: int, place: int) -> tuple[Made, int]:
        assert self._workers is not None
        run = found.runs[number][: place + 1]
        near = _near(found, number, place)
        context = Context(near, near.index(run[-1]), sample_of(found.runs, number))
        made = await self._workers.run(make, run, context, self._budget)
        return made, len(made.data or b"") + 1000


def _near(found: Scan, number: int, place: int) -> tuple[Step, ...]:
    """The differences around a step and around those of its run that may have to be made first."""
    run = found.runs[number]
    before = [step for other in found.runs[max(0, number - 8) : number] for step in other]
    after = [step for other in found.runs[number + 1 : number + 9] for step in other]
    around = before[-4 * _AROUND :] + list(run) + after[: 4 * _AROUND]
    return tuple(step for step in around if step.is_difference)


@dataclass(frozen=True, slots=True)
class Item:
    """A file of the tree: what a mount shows of it."""

    mode: int
    size: int | None
    uid: int
    gid: int
    mtime_ns: int
    target: bytes | None = None


def _item(info: os.stat_result, size: int | None) -> Item:
    return Item(info.st_mode, size, info.st_uid, info.st_gid, info.st_mtime_ns)


class _File:
    """A file that is shown as it is, read where it lies."""

    def __init__(self, path: Path) -> None:
        """In a thread."""
        self._reading = trio.Lock()
        self._file = path.open("rb")
        self.size = os.fstat(self._file.fileno()).st_size

    async def pread(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; fewer only at the end."""
        async with self._reading:
            return await threads.call(Kind.READ, self._read, offset, length)

    def _read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        # Unlike pread(2) this goes on after a short read, and so meets an error behind it.
        return self._file.read(length)


@dataclass(frozen=True, slots=True)
class _Picture:
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    async def pread(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`."""
        return self.data[offset : offset + length]


class LegacyTree:
    """A legacy folder with everything in it, its differences as whole PNGs.

    A `.jxl` is taken for a difference by its name and place until it is read. One that turns out
    to be a picture of its own is shown under its own name from then on.
    """

    def __init__(self, source: Path, cache_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self.source = source
        self._archive = Archive(cache_bytes)
        # The folder is asked in threads, one at a time.
        self._asking = trio.Lock()

    async def _ask(self, function: Callable[[Path], T], place: Path) -> T:
        async with self._asking:
            return await threads.call(Kind.TREE, function, place)

    def running(self) -> AbstractAsyncContextManager[None]:
        """See :meth:`Archive.running`."""
        return self._archive.running()

    def _path(self, path: bytes) -> Path:
        return self.source / os.fsdecode(path)

    async def children(self, folder: bytes) -> Sequence[tuple[bytes, Item]]:
        """The entries of a folder in name order; sizes of pictures nobody read yet are None."""
        return await self._ask(self._children, self._path(folder))

    def _children(self, place: Path) -> Sequence[tuple[bytes, Item]]:
        found = []
        for name in os.listdir(os.fsencode(place)):
            try:
                info = (place / os.fsdecode(name)).lstat()
            except FileNotFoundError:
                continue
            step = self._archive.step(place, name)
            size = None if step is None else self._archive.known.get(step)
            if step is None or size == -1:
                found.append((name, _item(info, info.st_size)))
            else:
                found.append((shown(name), _item(info, size)))
        return sorted(found, key=lambda entry: entry[0])

    async def attributes(self, path: bytes) -> Item:
        """One entry; a picture is made if that is what it takes to know its size."""
        place = self._path(path)
        item, step, is_hidden = await self._ask(self._look, place)
        if is_hidden:
            size = self._archive.known.get(step) if step is not None else None
            if size is None or size < 0:
                size = len(await self._picture(place.with_suffix(".jxl")))
            return replace(item, size=size)
        if step is not None and not (await self._made(place)).itself:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return item

    def _look(self, place: Path) -> tuple[Item, Step | None, bool]:
        """What is there, which difference that is, and whether it is the one behind a PNG."""
        hidden = self._hidden(place)
        shown_as = hidden or place
        info = shown_as.lstat()
        step = None
        if shown_as.suffix == ".jxl":
            step = self._archive.step(place.parent, os.fsencode(shown_as.name))
        item = _item(info, info.st_size)
        if stat.S_ISLNK(info.st_mode):
            item = replace(item, target=os.fsencode(os.readlink(shown_as)))
        return item, step, hidden is not None

    def _hidden(self, place: Path) -> Path | None:
        """The difference behind a PNG that is not there."""
        if place.suffix != ".png" or os.path.lexists(place) or not place.parent.is_dir():
            return None
        other = place.with_suffix(".jxl")
        step = self._archive.step(place.parent, os.fsencode(other.name))
        return None if step is None else other

    async def _made(self, place: Path) -> Made:
        return await self._archive.make(place.parent, os.fsencode(place.name))

    async def _picture(self, place: Path) -> bytes:
        made = await self._made(place)
        if made.itself:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if made.data is None:
            raise Damaged(place, reason=made.reason)
        return made.data

    async def body(self, path: bytes) -> _File | _Picture:
        """The bytes of a file."""
        found = await self._ask(self._file, self._path(path))
        return found if isinstance(found, _File) else _Picture(await self._picture(found))

    def _file(self, place: Path) -> _File | Path:
        """The file that is there, or the path of the difference behind it."""
        return self._hidden(place) or _File(place)

    async def xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        """Those of the file that is there."""
        return await self._ask(self._xattrs, self._path(path))

    def _xattrs(self, place: Path) -> Mapping[bytes, bytes]:
        place = self._hidden(place) or place
        try:
            names = os.listxattr(place, follow_symlinks=False)
            return {
                os.fsencode(name): os.getxattr(place, name, follow_symlinks=False) for name in names
            }
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return {}
            raise
