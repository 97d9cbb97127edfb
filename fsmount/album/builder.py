"""Build the next state of an album: encode photos, write the video and the XML.

Worker processes encode the photos side by side. The builder writes them in order of name and holds
only a few of them in memory at a time.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import trio

import fsmount
from fsmount import threads
from fsmount.album import document, files, jobs, photos, similar, video
from fsmount.album.album import Album
from fsmount.album.document import AlbumContents, AlbumHeader, OtherFile, PhotoRecord
from fsmount.album.files import AlbumPaths
from fsmount.album.jobs import CodecSettings, EncodedPhoto
from fsmount.album.ordered import run_in_order
from fsmount.album.packets import packets_of, with_offsets
from fsmount.album.sources import SourceFile
from fsmount.album.tags import ExifTool
from fsmount.errors import WorkerDied
from fsmount.threads import Kind
from fsmount.work.workers import Workers

Progress = Callable[[int, int], None]
"""Called with (files, bytes) done since the last call."""
Span = tuple[int, int]
"""Offset and length in the spool file."""
_EncodedSource = tuple[EncodedPhoto | str, bytes]
"""A photo, or why it cannot be encoded; and its description."""

DEFAULT_FLOOR = 0.92  # SSIM
# Groups under way besides the one that is written next, by workers. One photo may take several
# times as long as another one; meanwhile the workers go on with the photos behind it.
_AHEAD = 3
_OFFSET = re.compile(rb"(<fsm:Offset>)[0-9]+(</fsm:Offset>)")


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """What the user may choose about an album.

    ``grade`` is the CRF, or the quantiser of ProRes; None means the codec's default. ``box`` is the
    side of the canvas in pixels. ``floor`` is the SSIM below which a photo is encoded again.
    """

    codec: str = "av1"
    grade: int | None = None
    box: int = 2048
    jpeg_quality: int = 90
    floor: float = DEFAULT_FLOOR
    bursts: bool = False
    skip_others: bool = False


@dataclass
class BuildReport:
    """What became of the source files.

    ``photos`` and ``others`` came into the album. The other lists hold (path, reason):

    - ``unfit``: photos that do not decode and are stored verbatim;
    - ``coarse``: photos below the floor even at the finest grade;
    - ``trimmed``: photos that lost some metadata;
    - ``problems``: files that are in no album.

    ``already_present`` counts the files that the album had before.
    """

    photos: list[PhotoRecord] = field(default_factory=list)
    others: list[OtherFile] = field(default_factory=list)
    unfit: list[tuple[str, str]] = field(default_factory=list)
    coarse: list[tuple[str, str]] = field(default_factory=list)
    trimmed: list[tuple[str, str]] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    already_present: int = 0


@dataclass(slots=True)
class _Draft:
    """A photo whose offset in the video is not known yet, and its texts in the spool file."""

    record: PhotoRecord
    description: Span
    head: Span


class AlbumBuilder:
    """Builds the next state of one album in its work folder; used once.

    The caller holds :func:`fsmount.album.files.work_folder`. ``replaced`` is the album that the new
    one replaces: its verbatim files may be overwritten.
    """

    def __init__(
        self,
        paths: AlbumPaths,
        settings: CodecSettings,
        options: CreateOptions,
        workers: Workers,
        progress: Progress,
        replaced: AlbumContents | None = None,
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._options = options
        self._workers = workers
        self._progress = progress
        self._taken_names: set[bytes] = set()
        others = [] if replaced is None else replaced.others
        self._replaceable = {document.stored_name(other) for other in others if other.kept}
        self._drafts: list[_Draft] = []
        # exiftool describes one photo at a time.
        self._describing = trio.Lock()
        self.report = BuildReport()

    def drop_known(self, sources: Sequence[SourceFile], album: Album) -> list[SourceFile]:
        """Return the sources that the album does not have, by name.

        A source of the same name, size and mtime counts as already present. One of the same name
        that differs is reported as a problem.
        """
        have = {record.name: record for record in album.contents.photos}
        have_others = {other.name: other for other in album.contents.others if other.kept}
        new = []
        for source in sources:
            existing = have.get(source.name) or have_others.get(source.name)
            if existing is None:
                new.append(source)
                continue
            self._progress(1, source.bytes)
            if (existing.bytes, existing.mtime_ns) == (source.bytes, source.mtime_ns):
                self.report.already_present += 1
            else:
                why = "left out: the album has another file of this name"
                self.report.problems.append((str(source.path), why))
        return new

    async def build(
        self, sources: Sequence[SourceFile], template: bytes, previous: Album | None
    ) -> AlbumContents:
        """Write the video, the verbatim files and the XML into the work folder.

        Parameters
        ----------
        sources : sequence of SourceFile
            The files to add.
        template : bytes
            A video of the album's settings (:func:`fsmount.album.video.template`).
        previous : Album or None
            The album that is continued; its packets come first.

        Raises
        ------
        Damaged
            If ``previous`` is damaged, or the new video does not hold its packets.
        DiskFull, FsmountError, OSError
            See :func:`fsmount.album.create.create`.
        """
        old = previous.contents if previous is not None else None
        self._taken_names = {source.name for source in sources}
        if old is not None:
            self._taken_names |= {record.shown for record in old.photos}
            self._taken_names |= {other.name for other in old.others}
        path = self._paths.work / f"{self._paths.name}{self._settings.video_codec.suffix}"
        with Path(self._paths.work, "spool").open("w+b") as spool:
            like = previous.video if previous is not None and previous.contents.photos else template
            with ExifTool() as tool, video.VideoWriter(path, like) as writer:
                for packet, is_key in [] if previous is None else packets_of(previous):
                    writer.add(packet, is_key)
                await self._add_sources(sources, writer, tool, spool)
            if writer.frames == 0:
                path.unlink(missing_ok=True)
            contents = self._contents(path, old)
            self._write_xml(contents, spool, previous)
        Path(spool.name).unlink()
        return contents

    async def _add_sources(
        self,
        sources: Sequence[SourceFile],
        writer: video.VideoWriter,
        tool: ExifTool,
        spool: BinaryIO,
    ) -> None:
        """Store the other files, then encode the photos and write them in order."""
        unfit: list[OtherFile] = []
        async with trio.open_nursery() as nursery:
            # Copies keep no worker busy.
            nursery.start_soon(self._store_others, [one for one in sources if not one.is_photo])
            groups = await self._groups([source for source in sources if source.is_photo])

            async def write(number: int, encoded: list[_EncodedSource]) -> None:
                key = writer.frames
                for source, (answer, description) in zip(groups[number], encoded, strict=True):
                    if isinstance(answer, str):
                        if await self._store_verbatim(source, answer, unfit):
                            self.report.unfit.append((str(source.path), answer))
                        continue
                    key = writer.frames if answer.is_key else key
                    self._add_draft(source, answer, description, (writer.frames, key), spool)
                    writer.add(answer.packet, answer.is_key)

            calls = [functools.partial(self._encode_and_describe, group, tool) for group in groups]
            await run_in_order(calls, write, _AHEAD * self._workers.count)
        self.report.others += unfit

    async def _store_others(self, sources: Sequence[SourceFile]) -> None:
        """Store the files that are no photos."""
        for source in sources:
            await self._store_verbatim(source, "no photo", self.report.others)

    def _add_draft(
        self,
        source: SourceFile,
        encoded: EncodedPhoto,
        description: bytes,
        frame_and_key: tuple[int, int],
        spool: BinaryIO,
    ) -> None:
        """Note an encoded photo, and what the user should know of it."""
        self._taken_names.discard(source.name)
        shown = self._take_free_name(photos.shown_name(source.name))
        record = _photo_record(source.name, shown, frame_and_key, encoded)
        spans = _write_to_spool(spool, description), _write_to_spool(spool, encoded.head)
        self._drafts.append(_Draft(record, *spans))
        if record.ssim < self._settings.floor:
            why = f"SSIM is {record.ssim} even at the finest grade"
            self.report.coarse.append((str(source.path), why))
        if record.left_out_bytes:
            why = f"{record.left_out_bytes} bytes beside the picture are left out"
            self.report.trimmed.append((str(source.path), why))
        self._progress(1, source.bytes)

    def _take_free_name(self, name: bytes) -> bytes:
        """Return a name that no file of the album has, and mark it as taken."""
        stem, dot, suffix = name.rpartition(b".")
        free, number = name, 1
        while free in self._taken_names:
            number += 1
            free = b"%s~%d%s%s" % (stem, number, dot, suffix)
        self._taken_names.add(free)
        return free

    async def _store_verbatim(
        self, source: SourceFile, reason: str, stored_files: list[OtherFile]
    ) -> bool:
        """Copy a file that is not encoded, unless others are skipped. Return whether it is kept.

        Adds the file to `stored_files`.
        """
        times_and_mode = (source.mtime_ns, source.mode)
        if self._options.skip_others:
            other = OtherFile(
                source.name, source.bytes, *times_and_mode, "", kept=False, reason=reason
            )
        else:
            folder = self._paths.work / self._paths.files.name
            try:
                copied = await threads.call(
                    Kind.WRITE, files.copy_verbatim, source.path, folder, self._is_free
                )
            except OSError as error:
                if error.errno in files.NO_SPACE:
                    raise
                self.report.problems.append((str(source.path), error.strerror or str(error)))
                self._progress(1, source.bytes)
                return False
            stored = None if copied.name == source.name else copied.name
            other = OtherFile(
                source.name,
                copied.size,
                *times_and_mode,
                copied.sha256,
                kept=True,
                reason=reason,
                stored=stored,
            )
        stored_files.append(other)
        self._progress(1, source.bytes)
        return other.kept

    def _is_free(self, name: bytes) -> bool:
        """Whether no file has a name in the album's folder, or only one that is replaced."""
        existing = self._paths.files / os.fsdecode(name)
        return name in self._replaceable or not os.path.lexists(existing)

    # -- jobs for the workers

    async def _groups(self, sources: Sequence[SourceFile]) -> list[Sequence[SourceFile]]:
        """Split photos into the groups that are encoded together."""
        if not self._options.bursts:
            return [[source] for source in sources]
        grouping = similar.Grouping(video.MAX_GROUP)

        async def add(_: int, features: similar.PhotoFeatures | None) -> None:
            grouping.add(features)

        calls = [functools.partial(self._features, source) for source in sources]
        await run_in_order(calls, add, _AHEAD * self._workers.count)
        groups: list[Sequence[SourceFile]] = []
        at = 0
        for size in grouping.sizes:
            groups.append(sources[at : at + size])
            at += size
        return groups

    async def _features(self, source: SourceFile) -> similar.PhotoFeatures | None:
        """Compute a photo's features in a worker."""
        try:
            return await self._workers.run(jobs.features_of, str(source.path), source.mtime_ns)
        except WorkerDied:
            return None

    async def _encode_and_describe(
        self, group: Sequence[SourceFile], tool: ExifTool
    ) -> list[_EncodedSource]:
        """Encode a group, and have exiftool describe the photos that could be encoded."""
        found = []
        for source, answer in zip(group, await self._encode(group), strict=True):
            description = b""
            if not isinstance(answer, str):
                async with self._describing:
                    description = await threads.call(Kind.READ, tool.describe, source.path)
            found.append((answer, description))
        return found

    async def _encode(self, group: Sequence[SourceFile]) -> list[EncodedPhoto | str]:
        """Encode a group in a worker; a photo that cannot be encoded gives the reason."""
        try:
            paths = [str(source.path) for source in group]
            return await self._workers.run(jobs.encode, paths, self._settings)
        except WorkerDied:
            if len(group) == 1:
                return ["its decoder or encoder died or ran out of memory or time"]
        # One photo of the group killed the worker: the others must not suffer for it.
        return [(await self._encode([source]))[0] for source in group]

    # -- the XML

    def _contents(self, path: Path, old: AlbumContents | None) -> AlbumContents:
        """Return the finished records once the video is written; raise Damaged if it is wrong."""
        settings = self._settings
        new = [draft.record for draft in self._drafts]
        records = [] if old is None else list(old.photos)
        records += new
        if records:
            records = with_offsets(path, records)
        others = ([] if old is None else list(old.others)) + self.report.others
        self.report.photos = records[len(records) - len(new) :]
        header = AlbumHeader(
            video=os.fsencode(path.name) if records else b"",
            video_bytes=path.stat().st_size if records else 0,
            video_sha256=files.sha256_of(path) if records else "",
            files=os.fsencode(self._paths.files.name) if any(one.kept for one in others) else b"",
            codec=settings.codec,
            grade=settings.grade,
            box=settings.box,
            jpeg_quality=settings.jpeg_quality,
            floor=settings.floor,
            bursts=self._options.bursts,
            extradata=settings.extradata,
            made_by=f"fsmount {fsmount.__version__}, {video.versions()}",
        )
        return AlbumContents(header, records, others)

    def _write_xml(self, contents: AlbumContents, spool: BinaryIO, previous: Album | None) -> None:
        """Write the XML: old descriptions with new offsets, then the new ones from the spool."""
        with Path(self._paths.work, self._paths.xml.name).open("xb") as file:
            file.write(document.start_of(contents.header))
            kept = [] if previous is None else previous.contents.photos
            for old, record in zip(kept, contents.photos, strict=False):
                assert previous is not None
                moved = rb"\g<1>%d\g<2>" % record.offset
                file.write(_OFFSET.sub(moved, previous.description(old)) + b"\n")
            for draft, record in zip(self._drafts, contents.photos[len(kept) :], strict=True):
                description = _read_from_spool(spool, draft.description)
                head = _read_from_spool(spool, draft.head)
                file.write(document.photo_element(description, record, head))
            for part in document.end_of(contents.others):
                file.write(part)


def _photo_record(
    name: bytes, shown: bytes, frame_and_key: tuple[int, int], encoded: EncodedPhoto
) -> PhotoRecord:
    """Return the record of an encoded photo, with the offset 0 until the video is finished."""
    frame, key = frame_and_key
    return PhotoRecord(
        name=name,
        shown=shown,
        frame=frame,
        key=key,
        rect=encoded.rect,
        source_size=encoded.size,
        bytes=encoded.source.bytes,
        mtime_ns=encoded.source.mtime_ns,
        mode=encoded.source.mode,
        sha256=encoded.source.sha256,
        orientation=encoded.orientation,
        grade=encoded.grade,
        ssim=encoded.quality.ssim,
        psnr=encoded.quality.psnr,
        offset=0,
        packet_bytes=len(encoded.packet),
        packet_sha256=hashlib.sha256(encoded.packet).hexdigest(),
        served_bytes=encoded.served_bytes,
        served_sha256=encoded.served_sha256,
        head_bytes=len(encoded.head),
        left_out_bytes=encoded.left_out_bytes,
    )


def _write_to_spool(spool: BinaryIO, data: bytes) -> Span:
    """Append bytes to the spool file and return where they are."""
    start = spool.seek(0, os.SEEK_END)
    spool.write(data)
    return start, len(data)


def _read_from_spool(spool: BinaryIO, span: Span) -> bytes:
    """Read bytes back from the spool file."""
    spool.seek(span[0])
    return spool.read(span[1])
