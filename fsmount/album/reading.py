"""Read photos out of an album: extract them as files, and verify that all of them are whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from fsmount import refused, threads
from fsmount.album import files, jobs, video
from fsmount.album.album import Album
from fsmount.album.document import OtherFile, PhotoRecord
from fsmount.album.ordered import run_in_order
from fsmount.errors import Damaged, FsmountError
from fsmount.threads import Kind
from fsmount.work.workers import Workers

Progress = Callable[[int, int], None]
"""Called with (files, bytes) done since the last call."""
# Files under way besides the one that is told next, by workers.
_AHEAD = 2


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

    def add(self, other: ReadReport) -> None:
        """Add the counts and findings of another report."""
        self.files += other.files
        self.bytes += other.bytes
        self.skipped += other.skipped
        self.problems += other.problems
        self.not_identical += other.not_identical


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
        records = _files_of(self._album)
        calls = [partial(self._extract_one, record, force) for record in records]

        async def tell(_: int, result: ReadReport) -> None:
            self.report.add(result)

        await run_in_order(calls, tell, _AHEAD * self._workers.count)

    async def _extract_one(self, record: PhotoRecord | OtherFile, force: bool) -> ReadReport:
        """Write one file. Returns what became of it."""
        result = ReadReport()
        name = _name_of(record)
        target = self._dest / os.fsdecode(name)
        try:
            written = self._written
            if self._ignores_case and written.setdefault(target.name.casefold(), name) != name:
                raise FsmountError(refused.CLASH)
            if os.path.lexists(target) and not force:
                result.skipped += 1
            else:
                await self._write(record, target, result)
        except FsmountError as error:
            result.problems.append((str(target), str(error)))
        except OSError as error:
            if error.errno in files.NO_SPACE:
                raise
            result.problems.append((str(target), refused.reason(Path(target.name), error)))
        finally:
            self._progress(1, record.bytes)
        return result

    async def _write(
        self, record: PhotoRecord | OtherFile, target: Path, result: ReadReport
    ) -> None:
        """Write one file under a temporary name, then rename it."""
        scratch = target.with_name(
            f".fsmount-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}"
        )
        try:
            if isinstance(record, PhotoRecord):
                rendered = await render_photo(self._album, record, self._workers, urgent=False)
                data, identical = rendered
                if not identical:
                    result.not_identical.append(str(target))
                await threads.call(Kind.WRITE, scratch.write_bytes, data)
            else:
                await threads.call(Kind.READ, shutil.copyfile, self._album.path_of(record), scratch)
            size = await threads.call(Kind.WRITE, _finish, record, scratch, target)
        finally:
            scratch.unlink(missing_ok=True)
        result.files += 1
        result.bytes += size


def _files_of(album: Album) -> list[PhotoRecord | OtherFile]:
    """Return all photos of an album, then the other files."""
    return [*album.contents.photos, *album.other_files()]


def _name_of(record: PhotoRecord | OtherFile) -> bytes:
    return record.shown if isinstance(record, PhotoRecord) else record.name


def _finish(record: PhotoRecord | OtherFile, scratch: Path, target: Path) -> int:
    """Give a written file its permissions, times and name. Returns its size. Raises OSError."""
    scratch.chmod(record.mode & 0o777)
    os.utime(scratch, ns=(record.mtime_ns, record.mtime_ns))
    scratch.rename(target)
    refused.check_listed(target)
    return target.stat().st_size


async def render_photo(
    album: Album, record: PhotoRecord, workers: Workers, *, urgent: bool = True
) -> tuple[bytes, bool]:
    """Render a photo's JPEG in a worker. ``urgent``: a reader waits.

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
    return await workers.run(jobs.render_jpeg, request, album.settings, urgent=urgent)


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
        calls = [partial(self._verify_one, record) for record in _files_of(self._album)]
        found = ReadReport()

        async def tell(_: int, result: ReadReport) -> None:
            found.add(result)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._verify_video)
            await run_in_order(calls, tell, _AHEAD * self._workers.count)
        self.report.add(found)

    async def _verify_video(self) -> None:
        """Verify the video's own index and report what was found."""
        try:
            await threads.call(Kind.READ, self._check_video)
        except Damaged as error:
            self.report.problems.append((str(self._album.video), str(error)))
        except OSError as error:
            self.report.problems.append((str(self._album.video), error.strerror or str(error)))

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

    async def _verify_one(self, record: PhotoRecord | OtherFile) -> ReadReport:
        """Verify one file. Returns what was found."""
        result = ReadReport()
        name = os.fsdecode(_name_of(record))
        try:
            if isinstance(record, PhotoRecord):
                rendered = await render_photo(self._album, record, self._workers, urgent=False)
                if not rendered[1]:
                    result.not_identical.append(name)
            else:
                path = self._album.path_of(record)
                if await threads.call(Kind.READ, files.sha256_of, path) != record.sha256:
                    raise Damaged(path, reason="its contents are not the stored ones")
            result.files += 1
        except FsmountError as error:
            result.problems.append((name, str(error)))
        except OSError as error:
            result.problems.append((name, error.strerror or str(error)))
        finally:
            self._progress(1, record.bytes)
        return result
