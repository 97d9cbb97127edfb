"""A legacy folder open for reading: names at once, pictures decoded by worker processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fsmount import threads
from fsmount.legacy.decoding import (
    Decoded,
    FolderContext,
    decode,
    find_reference,
    is_difference_of,
)
from fsmount.legacy.runs import FolderRuns, RunFile, scan
from fsmount.threads import Kind
from fsmount.work import machine
from fsmount.work.cache import Cache
from fsmount.work.workers import Workers

DEFAULT_CACHE_BYTES = 256 << 20
_RUNS_AROUND = 8  # runs on each side whose differences a worker may look at
_FILES_AROUND = 32  # and the files of these runs that count, on each side


class Archive:
    """The pictures of legacy folders. Belongs to one trio task.

    Decoding needs :meth:`running` around it.

    Parameters
    ----------
    cache_bytes : int
        Memory for pictures: half of it for finished PNGs, half for all workers.
    count : int, optional
        Number of workers. Default: one a core.
    """

    def __init__(self, cache_bytes: int = DEFAULT_CACHE_BYTES, count: int | None = None) -> None:
        self._count = count or machine.cores()
        self._worker_budget = cache_bytes // 2 // self._count
        self._workers: Workers | None = None
        self._decoded: Cache[RunFile, Decoded] = Cache(cache_bytes // 2)
        self._scans: dict[Path, tuple[int, FolderRuns]] = {}
        self._png_sizes: dict[RunFile, int] = {}
        self._pictures: set[RunFile] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the worker processes; they start when the first picture is wanted."""
        async with Workers(self._count) as workers:
            self._workers = workers
            yield

    def scan(self, folder: Path) -> FolderRuns:
        """Return the runs of a folder; they are read again if its mtime has changed.

        Raises
        ------
        OSError
            If the folder cannot be listed.
        """
        mtime_ns = folder.stat().st_mtime_ns
        known = self._scans.get(folder)
        if known is None or known[0] != mtime_ns:
            known = self._scans[folder] = (mtime_ns, scan(folder))
        return known[1]

    def forget(self, folder: Path) -> None:
        """Free the runs of a folder."""
        self._scans.pop(folder, None)

    def difference(self, folder: Path, name: bytes) -> RunFile | None:
        """Return the difference of a name, or None if no run has one. Raises OSError."""
        found = self.scan(folder)
        position = found.positions.get(name)
        if position is None:
            return None
        file = found.runs[position[0]][position[1]]
        # A twin has the position of its PNG, which has another name.
        return file if file.is_difference and file.name == name else None

    def run_of(self, folder: Path, name: bytes) -> tuple[bytes, int] | None:
        """Return the first name of the run that a file is part of, and its position in the run.

        None for a file that belongs to no difference and is none. Raises OSError.
        """
        found = self.scan(folder)
        if name not in found.positions:
            return None
        number, at = found.positions[name]
        run = found.runs[number]
        return (run[0].name, at) if len(run) > 1 else None

    def png_size(self, file: RunFile) -> int | None:
        """Return the size of a difference's PNG in bytes, None unless it has been decoded."""
        return self._png_sizes.get(file)

    def is_picture(self, file: RunFile) -> bool:
        """Return whether a ``.jxl`` has turned out to be a picture of its own."""
        return file in self._pictures

    async def decode(self, folder: Path, name: bytes) -> Decoded:
        """Decode a difference, which must be in a run (:meth:`difference`).

        Raises
        ------
        WorkerDied
            If the job killed two workers.
        OSError
            If the folder cannot be listed.
        """
        found = await threads.call(Kind.TREE, self.scan, folder)
        number, at = found.positions[name]
        file = found.runs[number][at]
        decoded = await self._decoded.get(file, lambda: self._decode(found, number, at))
        if decoded.png is not None:
            self._png_sizes[file] = len(decoded.png)
        elif decoded.is_picture:
            self._pictures.add(file)
        return decoded

    async def is_difference_of(self, before: bytes, after: bytes, file: RunFile) -> bool:
        """Return whether two PNGs have a difference; see :mod:`fsmount.legacy.decoding`."""
        assert self._workers is not None
        return await self._workers.run(is_difference_of, before, after, file.path)

    async def _decode(self, found: FolderRuns, number: int, at: int) -> tuple[Decoded, int]:
        """Decode in a worker; the result with its size in bytes."""
        assert self._workers is not None
        run = found.runs[number][: at + 1]
        around = _differences_around(found, number, at)
        context = FolderContext(around, around.index(run[-1]), find_reference(found.runs, number))
        decoded = await self._workers.run(decode, run, context, self._worker_budget)
        return decoded, len(decoded.png or b"") + 1000


def _differences_around(found: FolderRuns, number: int, at: int) -> tuple[RunFile, ...]:
    """Return the differences of a run up to a file, and some of the runs around it, in order."""
    run = found.runs[number]
    runs_before = found.runs[max(0, number - _RUNS_AROUND) : number]
    runs_after = found.runs[number + 1 : number + 1 + _RUNS_AROUND]
    before = [file for other in runs_before for file in other]
    after = [file for other in runs_after for file in other]
    around = before[-_FILES_AROUND:] + list(run) + after[:_FILES_AROUND]
    return tuple(file for file in around if file.is_difference)
