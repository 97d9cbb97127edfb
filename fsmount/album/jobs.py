"""The jobs of worker processes: encode a group of photos to packets, render packets to a JPEG."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

from fsmount.album import jpeg, photos, quality, similar, video
from fsmount.album.canvas import Bytes, Planes, Rect, crop, paint
from fsmount.album.photos import Photo, Unfit
from fsmount.album.quality import Quality
from fsmount.album.segments import SOI
from fsmount.errors import Damaged, FsmountError

_MAX_SOURCE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class CodecSettings:
    """How an album's photos are encoded; the fields are those of the album's header."""

    codec: str
    grade: int
    box: int
    jpeg_quality: int
    floor: float
    extradata: bytes

    @property
    def video_codec(self) -> video.Codec:
        """The codec of that name."""
        return video.CODECS[self.codec]


@dataclass(frozen=True, slots=True)
class SourceStat:
    """A source file at the time when it was read: size, mtime, mode, and SHA-256 in hexadecimal."""

    bytes: int
    mtime_ns: int
    mode: int
    sha256: str


@dataclass(frozen=True, slots=True)
class EncodedPhoto:
    """An encoded photo, its head and its packet.

    ``is_key`` says that the packet is a key packet, the first of its group. ``size`` is the
    source's (width, height) as stored, in pixels. ``served_bytes`` and ``served_sha256`` describe
    the JPEG that this machine renders.
    """

    source: SourceStat
    rect: Rect
    size: tuple[int, int]
    orientation: int
    head: bytes
    left_out_bytes: int
    grade: int
    quality: Quality
    packet: bytes
    is_key: bool
    served_bytes: int
    served_sha256: str


def features_of(path: str, mtime_ns: int) -> similar.PhotoFeatures | None:
    """Return the features of a photo file, or None if it cannot be read or decoded."""
    try:
        with open(path, "rb") as file:
            return similar.features_of(file.read(_MAX_SOURCE_BYTES), mtime_ns)
    except OSError:
        return None


def encode(paths: Sequence[str], settings: CodecSettings) -> list[EncodedPhoto | str]:
    """Encode photos that may form a group.

    Parameters
    ----------
    paths : sequence of str
        The files, which look alike; or a single one.
    settings : CodecSettings
        The album's settings.

    Returns
    -------
    list of EncodedPhoto or str
        One answer a path. A string says why a file cannot be encoded.

    Raises
    ------
    FsmountError
        If the encoder of this machine does not fit the album's video.
    """
    answers: list[EncodedPhoto | str] = []
    read: list[tuple[int, SourceStat, Photo]] = []
    for number, path in enumerate(paths):
        try:
            source, data = _read_source(path)
            photo = photos.read(data, settings.box)
            if data.startswith(SOI) and video.is_damaged_jpeg(data):
                raise Unfit("its data is damaged, although a picture can be decoded")
            read.append((number, source, photo))
            answers.append("")
        except Unfit as error:
            answers.append(str(error))
        except OSError as error:
            answers.append(error.strerror or str(error))
    packets = _encode_packets([photo for _, _, photo in read], settings)
    for (number, source, photo), packet in zip(read, packets, strict=True):
        answers[number] = _encoded_photo(source, photo, packet, settings)
    return answers


def _read_source(path: str) -> tuple[SourceStat, bytes]:
    """Read a whole file; raise Unfit if it is too large or changes meanwhile."""
    with open(path, "rb") as file:
        before = os.fstat(file.fileno())
        if before.st_size > _MAX_SOURCE_BYTES:
            raise Unfit("it is larger than 1 GiB")
        data = file.read()
        after = os.fstat(file.fileno())
    if (before.st_mtime_ns, len(data)) != (after.st_mtime_ns, after.st_size):
        raise Unfit("it changed while it was read")
    digest = hashlib.sha256(data).hexdigest()
    return SourceStat(len(data), after.st_mtime_ns, after.st_mode, digest), data


@dataclass(frozen=True, slots=True)
class _EncodedPacket:
    """One photo's packet, and its planes as a decoder gives them."""

    data: bytes
    grade: int
    quality: Quality
    planes: Planes
    is_key: bool


def _encode_packets(read: Sequence[Photo], settings: CodecSettings) -> list[_EncodedPacket]:
    """Encode photos one by one, or as one group if that is smaller and good enough."""
    alone = [_encode_group([photo], settings)[0] for photo in read]
    if len(read) < 2:
        return alone
    try:
        chained = _encode_group(read, settings)
    except FsmountError:
        return alone  # The encoder cannot make such groups.
    worst = min(settings.floor, *(packet.quality.ssim for packet in alone))
    smaller = sum(len(packet.data) for packet in chained) < sum(len(one.data) for one in alone)
    good = min(packet.quality.ssim for packet in chained) >= worst
    return chained if smaller and good else alone


def _encode_group(group: Sequence[Photo], settings: CodecSettings) -> list[_EncodedPacket]:
    """Encode a group, at finer grades until every photo reaches the floor."""
    codec = settings.video_codec
    canvases = [
        paint(photo.planes, photo.rect, settings.box, halve_height=codec.halve_height)
        for photo in group
    ]
    grade = settings.grade
    while True:
        packets = video.encode(codec, canvases, grade, settings.extradata)
        decoded = video.Decoder(codec, settings.extradata).decode(packets)
        made = []
        for number, (photo, packet, canvas) in enumerate(zip(group, packets, decoded, strict=True)):
            planes = crop(canvas, photo.rect)
            reached = quality.measure(photo.planes[0], planes[0])
            made.append(_EncodedPacket(packet, grade, reached, planes, number == 0))
        if grade <= codec.finest or min(one.quality.ssim for one in made) >= settings.floor:
            return made
        grade = max(codec.finest, grade - codec.step)


def _encoded_photo(
    source: SourceStat, photo: Photo, packet: _EncodedPacket, settings: CodecSettings
) -> EncodedPhoto:
    """Add to a packet the served JPEG's size and hash."""
    halve_height = settings.video_codec.halve_height
    body = jpeg.body(packet.planes, settings.jpeg_quality, halve_height=halve_height)
    served = photo.head + body
    return EncodedPhoto(
        source=source,
        rect=photo.rect,
        size=photo.size,
        orientation=photo.orientation,
        head=photo.head,
        left_out_bytes=photo.left_out_bytes,
        grade=packet.grade,
        quality=packet.quality,
        packet=packet.data,
        is_key=packet.is_key,
        served_bytes=len(served),
        served_sha256=hashlib.sha256(served).hexdigest(),
    )


@dataclass(frozen=True, slots=True)
class PhotoRequest:
    """What a worker needs to render a photo.

    ``packets`` holds (offset, bytes, SHA-256) of the packets from the start of the photo's group up
    to its own.
    """

    name: str
    video: str
    packets: tuple[tuple[int, int, str], ...]
    rect: Rect
    head: bytes
    served_bytes: int
    served_sha256: str


def render_jpeg(request: PhotoRequest, settings: CodecSettings) -> tuple[bytes, bool]:
    """Render a photo's JPEG.

    Parameters
    ----------
    request : PhotoRequest
        The photo.
    settings : CodecSettings
        The album's settings.

    Returns
    -------
    tuple of bytes and bool
        The JPEG, of its recorded size, and whether its bytes are the recorded ones. They differ
        where this machine has other versions of the libraries.

    Raises
    ------
    Damaged
        If a packet of the video has changed, does not decode, or the video is missing.
    OSError
        If the video cannot be read.
    """
    canvases = video.Decoder(settings.video_codec, settings.extradata).decode(read_packets(request))
    return jpeg_from_canvas(canvases[-1], request, settings)


def read_packets(request: PhotoRequest) -> list[bytes]:
    """Read the packets of a photo and check their hashes. Raises :class:`Damaged`, OSError."""
    packets = []
    try:
        with open(request.video, "rb", buffering=0) as file:
            for offset, size, sha256 in request.packets:
                packet = os.pread(file.fileno(), size, offset)
                if hashlib.sha256(packet).hexdigest() != sha256:
                    raise Damaged(request.name, reason=f"its frame in {request.video} has changed")
                packets.append(packet)
    except FileNotFoundError:
        raise Damaged(request.name, reason=f"its video {request.video} is missing") from None
    return packets


def jpeg_from_canvas(
    canvas: list[Bytes], request: PhotoRequest, settings: CodecSettings
) -> tuple[bytes, bool]:
    """Make the JPEG of a decoded canvas; see :func:`render_jpeg` for the result.

    `canvas` is uint8: luma, shape (box, box), and two smaller planes of chroma.
    """
    planes = crop(canvas, request.rect)
    halve_height = settings.video_codec.halve_height
    size = request.served_bytes - len(request.head)
    served = request.head + jpeg.body_of_size(
        planes, settings.jpeg_quality, size, halve_height=halve_height
    )
    return served, hashlib.sha256(served).hexdigest() == request.served_sha256
