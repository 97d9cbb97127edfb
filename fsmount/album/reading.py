"""Photos out of an album: extract them as files, and verify that all are there and whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from fsmount import refused, threads
from fsmount.album import files, jobs, video
from fsmount.album.album import Album
from fsmount.album.document import Entry, Other
from fsmount.errors import Damaged, FsmountError
from fsmount.threads import Kind
from fsmount.work.workers import Workers

Progress = Callable[[int, int], None]
_AT_ONCE = 4


@dataclass
class Found:
    """What was read. (name, why): `problems`; `other_bytes` of photos that this machine's libraries
    make otherwise than those that built the album (same size, nothing damaged)."""

    files: int = 0
    bytes: int = 0
    skipped: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    other_bytes: list[str] = field(default_factory=list)


class Extractor:
    """Writes the files of an album to a folder; see :meth:`extract`."""

    def __init__(self, album: Album, dest: Path, workers: Workers, progress: Progress) -> None:
        self._album = album
        self._dest = dest
        self._workers = workers
        self._progress = progress
        # Names by what they are where case does not count.
        self._folds = False
        self._written: dict[str, bytes] = {}
        self.found = Found()

    async def extract(self, *, force: bool) -> None:
        """Write all; what is there already is left alone unless `force`."""
        self._dest.mkdir(parents=True, exist_ok=True)
        self._folds = refused.folds_case(self._dest, ".fsmount-case")
        slots = trio.Semaphore(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for entry in self._album.contents.photos:
                await slots.acquire()
                nursery.start_soon(self._guarded, entry, entry.shown, force, slots)
            for other in self._album.others():
                await slots.acquire()
                nursery.start_soon(self._guarded, other, other.name, force, slots)

    async def _guarded(
        self, record: Entry | Other, name: bytes, force: bool, slots: trio.Semaphore
    ) -> None:
        target = self._dest / os.fsdecode(name)
        try:
            if self._folds and self._written.setdefault(target.name.casefold(), name) != name:
                raise FsmountError(refused.CLASH)
            if os.path.lexists(target) and not force:
                self.found.skipped += 1
            else:
                await self._one(record, target)
        except FsmountError as error:
            self.found.problems.append((str(target), str(error)))
        except OSError as error:
            if error.errno in files.NO_SPACE:
                raise
            self.found.problems.append((str(target), refused.reason(Path(target.name), error)))
        finally:
            slots.release()
            self._progress(1, record.bytes)

    async def _one(self, record: Entry | Other, target: Path) -> None:
        scratch = target.with_name(
            f".fsmount-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}"
        )
        try:
            if isinstance(record, Entry):
                data, same = await serve(self._album, record, self._workers)
                if not same:
                    self.found.other_bytes.append(str(target))
                scratch.write_bytes(data)
            else:
                await threads.call(Kind.READ, shutil.copyfile, self._album.path_of(record), scratch)
            scratch.chmod(record.mode & 0o777)
            os.utime(scratch, ns=(record.mtime_ns, record.mtime_ns))
            scratch.rename(target)
            refused.check_listed(target)
        finally:
            scratch.unlink(missing_ok=True)
        self.found.files += 1
        self.found.bytes += target.stat().st_size


async def serve(album: Album, entry: Entry, workers: Workers) -> tuple[bytes, bool]:
    """A photo's JPEG, and whether it is the recorded one to the byte."""
    wanted = await threads.call(Kind.TREE, album.wanted, entry)
    return await workers.run(jobs.serve, wanted, album.settings, urgent=True)


class Verifier:
    """Reads all of an album; see :meth:`verify`."""

    def __init__(self, album: Album, workers: Workers, progress: Progress) -> None:
        self._album = album
        self._workers = workers
        self._progress = progress
        self.found = Found()

    async def verify(self) -> None:
        """Every packet against its hash and its place in the video, every photo decoded and made,
        every file kept verbatim against its hash. `found.files` counts those that are well."""
        try:
            self._check_video()
        except Damaged as error:
            self.found.problems.append((str(self._album.video), str(error)))
        except OSError as error:
            self.found.problems.append((str(self._album.video), error.strerror or str(error)))
        slots = trio.Semaphore(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            records: list[Entry | Other] = [*self._album.contents.photos, *self._album.others()]
            for record in records:
                await slots.acquire()
                nursery.start_soon(self._guarded, record, slots)

    def _check_video(self) -> None:
        """That a player finds the photos where we do."""
        entries = self._album.contents.photos
        if not entries:
            return
        found = video.samples(self._album.video)
        told = [(one.offset, one.packet_bytes, one.frame, one.key == one.frame) for one in entries]
        if [(one.offset, one.size, one.pts, one.key) for one in found] != told:
            raise Damaged(self._album.video, reason="its table of frames is not the album's")

    async def _guarded(self, record: Entry | Other, slots: trio.Semaphore) -> None:
        name = os.fsdecode(record.shown if isinstance(record, Entry) else record.name)
        try:
            if isinstance(record, Entry):
                _, same = await serve(self._album, record, self._workers)
                if not same:
                    self.found.other_bytes.append(name)
            else:
                path = self._album.path_of(record)
                if await threads.call(Kind.READ, files.sha256_of, path) != record.sha256:
                    raise Damaged(path, reason="it is not the file that was kept")
            self.found.files += 1
        except FsmountError as error:
            self.found.problems.append((name, str(error)))
        except OSError as error:
            self.found.problems.append((name, error.strerror or str(error)))
        finally:
            slots.release()
            self._progress(1, record.bytes)
