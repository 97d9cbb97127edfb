"""Making albums, and adding to them.

Photos are coded side by side in worker processes and written in order of name; at no time is more
than a few of them in memory. Sources are only read.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, TypeVar

import trio

import fsmount
from fsmount import threads
from fsmount.album import document, files, jobs, photos, similar, video
from fsmount.album.album import Album
from fsmount.album.document import Contents, Entry, Header, Other
from fsmount.album.files import Place
from fsmount.album.folders import Item
from fsmount.album.jobs import Coded, Settings
from fsmount.album.tags import ExifTool
from fsmount.errors import Damaged, WorkerDied
from fsmount.threads import Kind
from fsmount.work.workers import Workers

Progress = Callable[[int, int], None]
Span = tuple[int, int]
T = TypeVar("T")
# Groups at work: as many as there may be cores, and the next ones ready.
_AHEAD = 6
FLOOR = 0.92
_OFFSET = re.compile(rb"(<fsm:Offset>)[0-9]+(</fsm:Offset>)")


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user may choose about an album; `grade` None: what the codec is best used with."""

    codec: str = "av1"
    grade: int | None = None
    box: int = 2048
    jpeg_quality: int = 90
    floor: float = FLOOR
    bursts: bool = False
    skip_others: bool = False


@dataclass
class Summary:
    """What became of the files: `photos` and `others` that came into an album.

    (path, why): `unfit` of photos kept as they are, `coarse` of photos that no grade brings above
    the floor, `trimmed` of photos without some metadata, `problems` of what is in no
    album. `known`: files that the album had already.
    """

    photos: list[Entry] = field(default_factory=list)
    others: list[Other] = field(default_factory=list)
    unfit: list[tuple[str, str]] = field(default_factory=list)
    coarse: list[tuple[str, str]] = field(default_factory=list)
    trimmed: list[tuple[str, str]] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    known: int = 0


@dataclass(slots=True)
class _Draft:
    """A photo whose offset in the video is not known yet; where its texts are in the spool."""

    entry: Entry
    description: Span
    head: Span


async def create(
    place: Place, items: Sequence[Item], choices: Choices, workers: Workers, progress: Progress
) -> Summary:
    """Make an album of files, in place of one that may be there."""
    codec = video.CODECS[choices.codec]
    grade = codec.grade if choices.grade is None else choices.grade
    like = video.template(codec, choices.box)
    settings = Settings(
        choices.codec,
        grade,
        choices.box,
        choices.jpeg_quality,
        choices.floor,
        video.extradata_of(like),
    )
    with files.working(place):
        before = files.current(place)
        builder = _Builder(place, settings, choices, workers, progress, before)
        contents = await builder.build(items, like, None)
        files.commit(place, contents, before)
    return builder.summary


async def append(
    place: Place, items: Sequence[Item], skip_others: bool, workers: Workers, progress: Progress
) -> Summary:
    """Add files to an album, coded as it was made; packets that are in it stay as they are."""
    with files.working(place):
        album = Album(place)
        try:
            header = album.contents.header
            choices = Choices(
                codec=header.codec, bursts=header.bursts, floor=header.floor, box=header.box
            )
            choices = replace(choices, skip_others=skip_others)
            builder = _Builder(place, album.settings, choices, workers, progress)
            new = builder.new_ones(items, album)
            if not new:
                return builder.summary
            like = video.template(album.settings.kind, header.box)
            contents = await builder.build(new, like, album)
            files.commit(place, contents, None)
        finally:
            album.close()
    return builder.summary


class _Builder:
    """Builds the next state of one album in its work folder."""

    def __init__(
        self,
        place: Place,
        settings: Settings,
        choices: Choices,
        workers: Workers,
        progress: Progress,
        replaced: Contents | None = None,
    ) -> None:
        self._place = place
        self._settings = settings
        self._choices = choices
        self._workers = workers
        self._progress = progress
        self._taken: set[bytes] = set()
        others = [] if replaced is None else replaced.others
        self._going = {document.stored_name(other) for other in others if other.kept}
        self._drafts: list[_Draft] = []
        self.summary = Summary()

    def new_ones(self, items: Sequence[Item], album: Album) -> list[Item]:
        """Those an album does not have; of its names with other contents say that they are not
        taken."""
        have = {entry.name: entry for entry in album.contents.photos}
        have_others = {other.name: other for other in album.contents.others if other.kept}
        new = []
        for item in items:
            there = have.get(item.name) or have_others.get(item.name)
            if there is None:
                new.append(item)
                continue
            self._progress(1, item.bytes)
            if (there.bytes, there.mtime_ns) == (item.bytes, item.mtime_ns):
                self.summary.known += 1
            else:
                why = "left out: the album has another file of this name"
                self.summary.problems.append((str(item.path), why))
        return new

    async def build(self, items: Sequence[Item], like: bytes, before: Album | None) -> Contents:
        """Write video, files and XML, of `before` and `items`, into the work folder."""
        old = before.contents if before is not None else None
        self._taken = {item.name for item in items}
        if old is not None:
            self._taken |= {entry.shown for entry in old.photos}
            self._taken |= {other.name for other in old.others}
        path = self._place.work / f"{self._place.name}{self._settings.kind.suffix}"
        with Path(self._place.work, "spool").open("w+b") as spool:
            source = before.video if before is not None and before.contents.photos else like
            with ExifTool() as tool, video.VideoWriter(path, source) as writer:
                for packet, key in [] if before is None else packets_of(before):
                    writer.add(packet, key)
                await self._add(items, writer, tool, spool)
            if writer.frames == 0:
                path.unlink(missing_ok=True)
            contents = self._contents(path, old)
            self._write(contents, spool, before)
        Path(spool.name).unlink()
        return contents

    async def _add(
        self, items: Sequence[Item], writer: video.VideoWriter, tool: ExifTool, spool: BinaryIO
    ) -> None:
        for item in items:
            if not item.photo:
                await self._keep(item, "no photo")
        wanted = [item for item in items if item.photo]
        groups = await self._groups(wanted)

        async def write(number: int, answers: list[Coded | str]) -> None:
            start = writer.frames
            for item, answer in zip(groups[number], answers, strict=True):
                if isinstance(answer, str):
                    if await self._keep(item, answer):
                        self.summary.unfit.append((str(item.path), answer))
                    continue
                start = writer.frames if answer.starts else start
                described = await threads.call(Kind.READ, tool.describe, item.path)
                self._draft(item, answer, described, (writer.frames, start), spool)
                writer.add(answer.packet, answer.starts)

        await _in_order([functools.partial(self._encode, group) for group in groups], write)

    def _draft(
        self,
        item: Item,
        coded: Coded,
        description: bytes,
        frame_and_key: tuple[int, int],
        spool: BinaryIO,
    ) -> None:
        self._taken.discard(item.name)
        shown = self._free_name(photos.shown_name(item.name))
        entry = _entry(item.name, shown, frame_and_key, coded)
        spans = _spooled(spool, description), _spooled(spool, coded.head)
        self._drafts.append(_Draft(entry, *spans))
        if entry.ssim < self._settings.floor:
            why = f"SSIM {entry.ssim} although coded as well as this codec is let"
            self.summary.coarse.append((str(item.path), why))
        if entry.left_out_bytes:
            why = f"{entry.left_out_bytes} bytes beside the picture are left out"
            self.summary.trimmed.append((str(item.path), why))
        self._progress(1, item.bytes)

    def _free_name(self, name: bytes) -> bytes:
        """A name that nothing in the album has; it is taken from now on."""
        stem, dot, suffix = name.rpartition(b".")
        free, number = name, 1
        while free in self._taken:
            number += 1
            free = b"%s~%d%s%s" % (stem, number, dot, suffix)
        self._taken.add(free)
        return free

    async def _keep(self, item: Item, reason: str) -> bool:
        """Note a file that is not coded, and keep it if it is to be: whether it is kept."""
        about = (item.mtime_ns, item.mode)
        if self._choices.skip_others:
            other = Other(item.name, item.bytes, *about, "", kept=False, reason=reason)
        else:
            folder = self._place.work / self._place.files.name
            try:
                kept = await threads.call(Kind.WRITE, files.keep, item.path, folder, self._is_free)
            except OSError as error:
                if error.errno in files.NO_SPACE:
                    raise
                self.summary.problems.append((str(item.path), error.strerror or str(error)))
                self._progress(1, item.bytes)
                return False
            stored = None if kept.name == item.name else kept.name
            other = Other(
                item.name, kept.size, *about, kept.sha256, kept=True, reason=reason, stored=stored
            )
        self.summary.others.append(other)
        self._progress(1, item.bytes)
        return other.kept

    def _is_free(self, name: bytes) -> bool:
        """Whether a file that is to be kept may take a name, or takes it from one that goes."""
        there = self._place.files / os.fsdecode(name)
        return name in self._going or not os.path.lexists(there)

    # -- work for the workers

    async def _groups(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        if not self._choices.bursts:
            return [[item] for item in items]
        grouping = similar.Grouping(video.MOST_IN_GROUP)

        async def add(_: int, look: similar.Look | None) -> None:
            grouping.add(look)

        await _in_order([functools.partial(self._look, item) for item in items], add)
        found: list[Sequence[Item]] = []
        at = 0
        for size in grouping.sizes:
            found.append(items[at : at + size])
            at += size
        return found

    async def _look(self, item: Item) -> similar.Look | None:
        try:
            return await self._workers.run(jobs.look, str(item.path), item.mtime_ns)
        except WorkerDied:
            return None

    async def _encode(self, group: Sequence[Item]) -> list[Coded | str]:
        try:
            paths = [str(item.path) for item in group]
            return await self._workers.run(jobs.encode, paths, self._settings)
        except WorkerDied:
            if len(group) == 1:
                return ["its decoder or encoder died or ran out of memory or time"]
        # One of them is to blame, and not the others.
        return [(await self._encode([item]))[0] for item in group]

    # -- the XML

    def _contents(self, path: Path, old: Contents | None) -> Contents:
        """All that is known, once the video is whole; raises :class:`Damaged` if it does not hold
        the packets it was given."""
        settings = self._settings
        new = [draft.entry for draft in self._drafts]
        entries = [] if old is None else list(old.photos)
        entries += new
        if entries:
            entries = _placed(path, entries)
        others = ([] if old is None else list(old.others)) + self.summary.others
        self.summary.photos = entries[len(entries) - len(new) :]
        header = Header(
            video=os.fsencode(path.name) if entries else b"",
            video_bytes=path.stat().st_size if entries else 0,
            video_sha256=files.sha256_of(path) if entries else "",
            files=os.fsencode(self._place.files.name) if any(one.kept for one in others) else b"",
            codec=settings.codec,
            grade=settings.grade,
            box=settings.box,
            jpeg_quality=settings.jpeg_quality,
            floor=settings.floor,
            bursts=self._choices.bursts,
            extradata=settings.extradata,
            made_by=f"fsmount {fsmount.__version__}, {video.versions()}",
        )
        return Contents(header, entries, others)

    def _write(self, contents: Contents, spool: BinaryIO, before: Album | None) -> None:
        with Path(self._place.work, self._place.xml.name).open("xb") as file:
            file.write(document.start_of(contents.header))
            kept = [] if before is None else before.contents.photos
            for old, entry in zip(kept, contents.photos, strict=False):
                assert before is not None
                moved = rb"\g<1>%d\g<2>" % entry.offset
                file.write(_OFFSET.sub(moved, before.description(old)) + b"\n")
            for draft, entry in zip(self._drafts, contents.photos[len(kept) :], strict=True):
                texts = _unspooled(spool, draft.description), _unspooled(spool, draft.head)
                file.write(document.described(texts[0], entry, texts[1]))
            for part in document.end_of(contents.others):
                file.write(part)


def _entry(name: bytes, shown: bytes, frame_and_key: Span, coded: Coded) -> Entry:
    frame, key = frame_and_key
    return Entry(
        name=name,
        shown=shown,
        frame=frame,
        key=key,
        rect=coded.rect,
        source_size=coded.size,
        bytes=coded.source.bytes,
        mtime_ns=coded.source.mtime_ns,
        mode=coded.source.mode,
        sha256=coded.source.sha256,
        orientation=coded.orientation,
        grade=coded.grade,
        ssim=coded.quality.ssim,
        psnr=coded.quality.psnr,
        offset=0,  # known when the video is whole
        packet_bytes=len(coded.packet),
        packet_sha256=hashlib.sha256(coded.packet).hexdigest(),
        served_bytes=coded.served_bytes,
        served_sha256=coded.served_sha256,
        head_bytes=len(coded.head),
        left_out_bytes=coded.left_out,
    )


def _placed(path: Path, entries: Sequence[Entry]) -> list[Entry]:
    """Entries with the offsets of their packets, which are compared with what was written."""
    found = video.samples(path)
    if len(found) != len(entries):
        raise Damaged(path, reason=f"{len(found)} packets of {len(entries)} arrived in it")
    placed = []
    with path.open("rb") as file:
        for entry, sample in zip(entries, found, strict=True):
            packet = os.pread(file.fileno(), sample.size, sample.offset)
            if hashlib.sha256(packet).hexdigest() != entry.packet_sha256:
                raise Damaged(path, reason=f"frame {entry.frame} is not as it was encoded")
            placed.append(replace(entry, offset=sample.offset))
    return placed


def packets_of(album: Album) -> Iterator[tuple[bytes, bool]]:
    """(packet, key) of all photos of an album; raises :class:`Damaged` at one that is not whole."""
    if not album.contents.photos:
        return
    with album.video.open("rb") as file:
        for entry in album.contents.photos:
            packet = os.pread(file.fileno(), entry.packet_bytes, entry.offset)
            if hashlib.sha256(packet).hexdigest() != entry.packet_sha256:
                raise Damaged(album.video, reason=f"frame {entry.frame} is not as written")
            yield packet, entry.key == entry.frame


def _spooled(spool: BinaryIO, data: bytes) -> Span:
    start = spool.seek(0, os.SEEK_END)
    spool.write(data)
    return start, len(data)


def _unspooled(spool: BinaryIO, span: Span) -> bytes:
    spool.seek(span[0])
    return spool.read(span[1])


async def _in_order(
    calls: Sequence[Callable[[], Awaitable[T]]], then: Callable[[int, T], Awaitable[None]]
) -> None:
    """Run calls, a few at a time, and hand on each one's number and result in their order."""

    async def run(call: Callable[[], Awaitable[T]], results: list[T], done: trio.Event) -> None:
        results.append(await call())
        done.set()

    waiting: deque[tuple[int, list[T], trio.Event]] = deque()
    async with trio.open_nursery() as nursery:

        async def hand_on() -> None:
            number, results, done = waiting.popleft()
            await done.wait()
            await then(number, results[0])

        for number, call in enumerate(calls):
            results: list[T] = []
            done = trio.Event()
            waiting.append((number, results, done))
            nursery.start_soon(run, call, results, done)
            if len(waiting) > _AHEAD:
                await hand_on()
        while waiting:
            await hand_on()
