"""What runs in worker processes: a group of photos -> packets; packets -> a JPEG."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

from fsmount.album import jpeg, photos, quality, similar, video
from fsmount.album.canvas import Bytes, Planes, Rect, cut, paint
from fsmount.album.photos import Photo, Unfit
from fsmount.album.quality import Quality
from fsmount.album.segments import SOI
from fsmount.errors import Damaged, FsmountError

_LARGEST = 1 << 30


@dataclass(frozen=True, slots=True)
class Settings:
    """How an album's photos are coded."""

    codec: str
    grade: int
    box: int
    jpeg_quality: int
    floor: float
    extradata: bytes

    @property
    def kind(self) -> video.Codec:
        """The codec itself."""
        return video.CODECS[self.codec]


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it was read."""

    bytes: int
    mtime_ns: int
    mode: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Coded:
    """A photo and its packet; `starts`: whether the packet is key, the first of its group."""

    source: Source
    rect: Rect
    size: tuple[int, int]
    orientation: int
    head: bytes
    left_out: int
    grade: int
    quality: Quality
    packet: bytes
    starts: bool
    served_bytes: int
    served_sha256: str


def look(path: str, mtime_ns: int) -> similar.Look | None:
    """The look of a photo file, for finding those that are alike."""
    try:
        with open(path, "rb") as file:
            return similar.look(file.read(_LARGEST), mtime_ns)
    except OSError:
        return None


def encode(paths: Sequence[str], settings: Settings) -> list[Coded | str]:
    """Code photos that may form a group; of what is no photo, the reason."""
    answers: list[Coded | str] = []
    read: list[tuple[int, Source, Photo]] = []
    for number, path in enumerate(paths):
        try:
            source, data = _load(path)
            photo = photos.read(data, settings.box)
            if data.startswith(SOI) and video.finds_damage(data):
                raise Unfit("its data is damaged, though a picture comes out")
            read.append((number, source, photo))
            answers.append("")
        except Unfit as error:
            answers.append(str(error))
        except OSError as error:
            answers.append(error.strerror or str(error))
    packets = _packets([photo for _, _, photo in read], settings)
    for (number, source, photo), packet in zip(read, packets, strict=True):
        answers[number] = _coded(source, photo, packet, settings)
    return answers


def _load(path: str) -> tuple[Source, bytes]:
    with open(path, "rb") as file:
        before = os.fstat(file.fileno())
        if before.st_size > _LARGEST:
            raise Unfit("it is larger than 1 GiB")
        data = file.read()
        after = os.fstat(file.fileno())
    if (before.st_mtime_ns, len(data)) != (after.st_mtime_ns, after.st_size):
        raise Unfit("it changed while it was read")
    digest = hashlib.sha256(data).hexdigest()
    return Source(len(data), after.st_mtime_ns, after.st_mode, digest), data


@dataclass(frozen=True, slots=True)
class _Packet:
    data: bytes
    grade: int
    quality: Quality
    planes: Planes
    starts: bool


def _packets(read: Sequence[Photo], settings: Settings) -> list[_Packet]:
    """One a photo: each by itself, or all as one group where that is smaller and good enough."""
    alone = [_graded([photo], settings)[0] for photo in read]
    if len(read) < 2:
        return alone
    try:
        chained = _graded(read, settings)
    except FsmountError:
        return alone  # an encoder that cannot make such groups
    worst = min(settings.floor, *(packet.quality.ssim for packet in alone))
    smaller = sum(len(packet.data) for packet in chained) < sum(len(one.data) for one in alone)
    good = min(packet.quality.ssim for packet in chained) >= worst
    return chained if smaller and good else alone


def _graded(group: Sequence[Photo], settings: Settings) -> list[_Packet]:
    """Code a group; again and better while one of its photos is below the floor."""
    codec = settings.kind
    canvases = [
        paint(photo.planes, photo.rect, settings.box, halve_height=codec.halve_height)
        for photo in group
    ]
    grade = settings.grade
    while True:
        packets = video.encode(codec, canvases, grade, settings.extradata)
        decoded = video.Decoder(codec, settings.extradata).all(packets)
        made = []
        for number, (photo, packet, canvas) in enumerate(zip(group, packets, decoded, strict=True)):
            planes = cut(canvas, photo.rect)
            reached = quality.measure(photo.planes[0], planes[0])
            made.append(_Packet(packet, grade, reached, planes, number == 0))
        if grade <= codec.finest or min(one.quality.ssim for one in made) >= settings.floor:
            return made
        grade = max(codec.finest, grade - codec.step)


def _coded(source: Source, photo: Photo, packet: _Packet, settings: Settings) -> Coded:
    halve_height = settings.kind.halve_height
    body = jpeg.body(packet.planes, settings.jpeg_quality, halve_height=halve_height)
    served = photo.head + body
    return Coded(
        source=source,
        rect=photo.rect,
        size=photo.size,
        orientation=photo.orientation,
        head=photo.head,
        left_out=photo.left_out,
        grade=packet.grade,
        quality=packet.quality,
        packet=packet.data,
        starts=packet.starts,
        served_bytes=len(served),
        served_sha256=hashlib.sha256(served).hexdigest(),
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """A photo to serve: `packets` (offset, bytes, hash) from the start of its group to its own."""

    name: str
    video: str
    packets: tuple[tuple[int, int, str], ...]
    rect: Rect
    head: bytes
    served_bytes: int
    served_sha256: str


def serve(wanted: Wanted, settings: Settings) -> tuple[bytes, bool]:
    """The JPEG, and whether it is the one recorded (else a library differs; its size still is).

    Raises :class:`Damaged` if the video is not the one recorded, OSError.
    """
    canvases = video.Decoder(settings.kind, settings.extradata).all(read_packets(wanted))
    return finish(canvases[-1], wanted, settings)


def read_packets(wanted: Wanted) -> list[bytes]:
    """The packets of a photo, each checked against its hash; raises :class:`Damaged`."""
    packets = []
    try:
        with open(wanted.video, "rb", buffering=0) as file:
            for offset, size, sha256 in wanted.packets:
                packet = os.pread(file.fileno(), size, offset)
                if hashlib.sha256(packet).hexdigest() != sha256:
                    raise Damaged(
                        wanted.name, reason=f"its frame in {wanted.video} is not as written"
                    )
                packets.append(packet)
    except FileNotFoundError:
        raise Damaged(wanted.name, reason=f"its video {wanted.video} is not there") from None
    return packets


def finish(canvas: list[Bytes], wanted: Wanted, settings: Settings) -> tuple[bytes, bool]:
    """The JPEG of a decoded canvas, exactly as long as recorded."""
    planes = cut(canvas, wanted.rect)
    halve_height = settings.kind.halve_height
    size = wanted.served_bytes - len(wanted.head)
    served = wanted.head + jpeg.fitted(
        planes, settings.jpeg_quality, size, halve_height=halve_height
    )
    return served, hashlib.sha256(served).hexdigest() == wanted.served_sha256
