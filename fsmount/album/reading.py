"""Read photos out of an album: extract them as files, and verify that all of them are whole."""

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
from fsmount.album.document import OtherFile, PhotoRecord
from fsmount.errors import Damaged, FsmountError
from fsmount.threads import Kind
from fsmount.work.workers import Workers

Progress = Callable[[int, int], None]
"""Called with (files, bytes) done since the last call."""
_AT_ONCE = 4


@dataclass
class ReadReport:
    """The result of an extraction or a verification.

    ``files`` and ``bytes`` count the written, or whole, files. ``skipped`` counts existing files.
    ``problems`` holds (name, reason). ``not_identical`` names the photos that this machine's
    libraries render to other bytes than those of the album's builder did; they have the recorded
    size and are not damaged.
    """

    files: int = 0
    bytes: int = 0
    skipped: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    not_identical: list[str] = field(default_factory=list)


class Extractor:
    """Writes the files of an album to a folder, once; see :meth:`extract`."""

    def __init__(self, album: Album, dest: Path, workers: Workers, progress: Progress) -> None:
        self._album = album
        self._dest = dest
        self._workers = workers
        self._progress = progress
        self._ignores_case = False
        # Case-folded name -> the name written, to notice names that differ in case only.
        self._written: dict[str, bytes] = {}
        self.report = ReadReport()

    async def extract(self, *, force: bool) -> None:
        """Write all files into the destination, which is created if missing.

        An existing file is skipped unless ``force``. A file that cannot be written goes to
        ``report.problems``.

        Raises
        ------
        OSError
            If the disk is full, or the destination cannot be created.
        """
        self._dest.mkdir(parents=True, exist_ok=True)
        self._ignores_case = refused.folds_case(self._dest, ".fsmount-case")
        slots = trio.Semaphore(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for record in self._album.contents.photos:
                await slots.acquire()
                nursery.start_soon(self._extract_one, record, record.shown, force, slots)
            for other in self._album.other_files():
                await slots.acquire()
                nursery.start_soon(self._extract_one, other, other.name, force, slots)

    async def _extract_one(
        self, record: PhotoRecord | OtherFile, name: bytes, force: bool, slots: trio.Semaphore
    ) -> None:
        """Write one file and report what became of it."""
        target = self._dest / os.fsdecode(name)
        try:
            written = self._written
            if self._ignores_case and written.setdefault(target.name.casefold(), name) != name:
                raise FsmountError(refused.CLASH)
            if os.path.lexists(target) and not force:
                self.report.skipped += 1
            else:
                await self._write(record, target)
        except FsmountError as error:
            self.report.problems.append((str(target), str(error)))
        except OSError as error:
            if error.errno in files.NO_SPACE:
                raise
            self.report.problems.append((str(target), refused.reason(Path(target.name), error)))
        finally:
            slots.release()
            self._progress(1, record.bytes)

    async def _write(self, record: PhotoRecord | OtherFile, target: Path) -> None:
        """Write one file under a temporary name, then rename it."""
        scratch = target.with_name(
            f".fsmount-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}"
        )
        try:
            if isinstance(record, PhotoRecord):
                data, identical = await render_photo(self._album, record, self._workers)
                if not identical:
                    self.report.not_identical.append(str(target))
                scratch.write_bytes(data)
            else:
                await threads.call(Kind.READ, shutil.copyfile, self._album.path_of(record), scratch)
            scratch.chmod(record.mode & 0o777)
            os.utime(scratch, ns=(record.mtime_ns, record.mtime_ns))
            scratch.rename(target)
            refused.check_listed(target)
        finally:
            scratch.unlink(missing_ok=True)
        self.report.files += 1
        self.report.bytes += target.stat().st_size


async def render_photo(album: Album, record: PhotoRecord, workers: Workers) -> tuple[bytes, bool]:
    """Render a photo's JPEG in a worker.

    Returns
    -------
    tuple of bytes and bool
        The served file, and whether it is byte for byte the recorded one.

    Raises
    ------
    Damaged, WorkerDied, OSError
        See :func:`fsmount.album.jobs.render_jpeg`.
    """
    request = await threads.call(Kind.TREE, album.request_for, record)
    return await workers.run(jobs.render_jpeg, request, album.settings, urgent=True)


class Verifier:
    """Verifies all of an album, once; see :meth:`verify`."""

    def __init__(self, album: Album, workers: Workers, progress: Progress) -> None:
        self._album = album
        self._workers = workers
        self._progress = progress
        self.report = ReadReport()

    async def verify(self) -> None:
        """Check every packet, photo and verbatim file; the findings go to ``report``.

        Each packet must have its recorded hash and place in the video, each photo must render, and
        each verbatim file must have its recorded hash. ``report.files`` counts the whole files.
        """
        try:
            self._check_video()
        except Damaged as error:
            self.report.problems.append((str(self._album.video), str(error)))
        except OSError as error:
            self.report.problems.append((str(self._album.video), error.strerror or str(error)))
        slots = trio.Semaphore(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            records: list[PhotoRecord | OtherFile] = [
                *self._album.contents.photos,
                *self._album.other_files(),
            ]
            for record in records:
                await slots.acquire()
                nursery.start_soon(self._verify_one, record, slots)

    def _check_video(self) -> None:
        """Raise Damaged unless the video's own index places the frames where the XML does."""
        records = self._album.contents.photos
        if not records:
            return
        recorded = [
            (one.offset, one.packet_bytes, one.frame, one.key == one.frame) for one in records
        ]
        found = video.packets_in(self._album.video)
        if [(one.offset, one.size, one.pts, one.is_key) for one in found] != recorded:
            raise Damaged(self._album.video, reason="its table of frames is not the album's")

    async def _verify_one(self, record: PhotoRecord | OtherFile, slots: trio.Semaphore) -> None:
        """Verify one file and report what was found."""
        name = os.fsdecode(record.shown if isinstance(record, PhotoRecord) else record.name)
        try:
            if isinstance(record, PhotoRecord):
                _, identical = await render_photo(self._album, record, self._workers)
                if not identical:
                    self.report.not_identical.append(name)
            else:
                path = self._album.path_of(record)
                if await threads.call(Kind.READ, files.sha256_of, path) != record.sha256:
                    raise Damaged(path, reason="its contents are not the stored ones")
            self.report.files += 1
        except FsmountError as error:
            self.report.problems.append((name, str(error)))
        except OSError as error:
            self.report.problems.append((name, error.strerror or str(error)))
        finally:
            slots.release()
            self._progress(1, record.bytes)
