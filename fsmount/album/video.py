"""Canvases <-> the packets of a video, and the video file: everything that needs PyAV.

One run of an encoder makes a **group**: one photo, or a few that look alike. A group starts with a
key packet and needs nothing before it, so groups made one by one, in several processes or years
apart, are written one after another into one video. That asks of a codec that its extradata (what a
decoder must know beforehand) depends on nothing but the settings, or, of AV1, that the key packet
says it again and means the same pictures; :func:`encode` checks it.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fsmount.album import av1
from fsmount.album.canvas import Bytes, Samples
from fsmount.errors import Damaged, FsmountError

# SVT-AV1 writes its settings to stderr otherwise.
os.environ.setdefault("SVT_LOG", "1")

MOST_IN_GROUP = 8
_FULL, _LIMITED = 2, 1  # AVCOL_RANGE_JPEG, AVCOL_RANGE_MPEG
_BT601 = {_FULL: 5, _LIMITED: 6}  # BT470BG, SMPTE170M: the same matrix; ProRes knows the latter
_BT709_PRIMARIES, _SRGB_CURVE = 1, 13
_LUMA_SPAN, _CHROMA_SPAN = 876, 896  # of limited range, in 10 bits
_AV1_DELIMITER = b"\x12\x00"


@dataclass(frozen=True, slots=True)
class Codec:
    """A kind of video. `grade` is the default CRF (ProRes: quantiser), `finest` the least used."""

    name: str
    encoder: str
    decoder: str
    pixels: str
    suffix: str
    grade: int
    finest: int
    step: int

    @property
    def halve_height(self) -> bool:
        """Whether chroma is halved in height too (4:2:0)."""
        return "420" in self.pixels

    @property
    def deep(self) -> bool:
        """10 bits a sample instead of 8."""
        return self.pixels.endswith("10le")

    @property
    def colour_range(self) -> int:
        """Full range but for ProRes, whose players know no other than limited."""
        return _LIMITED if self.name == "prores" else _FULL


CODECS = {
    codec.name: codec
    for codec in (
        Codec("av1", "libsvtav1", "libdav1d", "yuv420p10le", ".mp4", 30, 10, 6),
        Codec("h264", "libx264", "h264", "yuv420p", ".mp4", 30, 12, 5),
        Codec("hevc", "libx265", "hevc", "yuv420p10le", ".mp4", 30, 12, 5),
        Codec("prores", "prores_ks", "prores", "yuv422p10le", ".mov", 16, 2, 6),
    )
}


@functools.cache
def _av() -> ModuleType:
    """PyAV, loaded when it is first needed: it is large, and an extra."""
    try:
        import av
        import av.logging
    except ImportError as error:
        raise FsmountError(
            "albums need PyAV, which is not installed: pip install 'fsmount[album]' (in a "
            "checkout: contrib/install)"
        ) from error
    av.logging.set_level(av.logging.PANIC)  # what is wrong is raised
    return av


def _options(codec: Codec, grade: int, chained: bool) -> dict[str, str]:
    """Measured choices (docs/album-format.md); one thread, since photos are coded side by side."""
    length = MOST_IN_GROUP if chained else 1
    match codec.name:
        case "av1":
            # tune 3 is made for still images and spreads quality least between photos.
            tuning = f"tune={0 if chained else 3}:keyint={length}:lp=1"
            return {"preset": "8", "crf": str(grade), "svtav1-params": tuning}
        case "h264":
            # The same settings for all groups, and stitchable: the extradata must not depend on
            # the grade.
            tuning = f"keyint={MOST_IN_GROUP}:min-keyint=1:scenecut=0:bframes=0"
            tuning += ":stitchable=1:threads=1"
            return {"preset": "medium", "crf": str(grade), "x264-params": tuning}
        case "hevc":
            tuning = f"keyint={MOST_IN_GROUP}:min-keyint=1:scenecut=0:bframes=0:info=0"
            tuning += ":pools=1:frame-threads=1:log-level=error"
            return {"preset": "medium", "crf": str(grade), "x265-params": tuning}
        case _:
            # FF_QP2LAMBDA: what `ffmpeg -qscale` multiplies by.
            return {"flags": "+qscale", "global_quality": str(grade * 118)}


def encode(
    codec: Codec, canvases: Sequence[Sequence[Samples]], grade: int, extradata: bytes
) -> list[bytes]:
    """The packets of a group, the first one key, as they stand in the file.

    `extradata` is the video's (:func:`template`). Raises :class:`FsmountError` if this encoder
    would need another.
    """
    box = canvases[0][0].shape[0]
    context = _encoder(codec, box, grade, chained=len(canvases) > 1)
    packets = []
    for number, canvas in enumerate(canvases):
        frame = _frame(codec, canvas)
        frame.pts = number
        frame.time_base = Fraction(1)
        packets += context.encode(frame)
    packets += context.encode(None)
    stored = [_as_stored(codec, bytes(packet)) for packet in packets]
    in_order = [packet.pts for packet in packets] == list(range(len(canvases)))
    if not in_order or not _fits(codec, stored[0], bytes(context.extradata or b""), extradata):
        raise FsmountError(
            f"{codec.encoder} of this machine makes packets that do not fit this video"
        )
    return stored


def _fits(codec: Codec, key: bytes, ours: bytes, extradata: bytes) -> bool:
    """Whether a decoder that knows `extradata` decodes a group that starts with the packet `key`.

    `ours`: the extradata of the encoder that made it.
    """
    if codec.name != "av1":
        return all(unit in extradata for unit in _units(ours))
    try:
        return av1.pictures(key) == av1.pictures(extradata)
    except av1.NoHeader:
        return False


def _encoder(codec: Codec, box: int, grade: int, *, chained: bool) -> Any:
    context: Any = _av().CodecContext.create(codec.encoder, "w")
    _set_up(context, codec, box, grade, chained=chained)
    context.flags |= _av().codec.context.Flags.global_header
    context.open()
    return context


def _set_up(context: Any, codec: Codec, box: int, grade: int, *, chained: bool) -> None:
    context.width = context.height = box
    context.pix_fmt = codec.pixels
    context.framerate = Fraction(1)
    context.time_base = Fraction(1)
    context.options = _options(codec, grade, chained)
    context.color_range = codec.colour_range
    context.colorspace = _BT601[codec.colour_range]
    context.color_primaries = _BT709_PRIMARIES
    context.color_trc = _SRGB_CURVE


def _frame(codec: Codec, canvas: Sequence[Samples]) -> Any:
    """Quarter steps of full range -> what the codec wants."""
    frame = _av().VideoFrame(canvas[0].shape[1], canvas[0].shape[0], codec.pixels)
    if codec.name == "prores":
        # It writes into each picture's header what the picture says, not the encoder's settings.
        frame.colorspace = _BT601[codec.colour_range]
        frame.color_primaries = _BT709_PRIMARIES
    for number, (plane, samples) in enumerate(zip(frame.planes, canvas, strict=True)):
        if codec.colour_range == _LIMITED:
            span, low = (_CHROMA_SPAN, 512) if number else (_LUMA_SPAN, 64)
            zero = 512 if number else 0
            scaled = (samples.astype(np.int32) - zero) * span
            stored = ((scaled + 510) // 1020 + low).astype(np.uint16)
        elif codec.deep:
            stored = samples
        else:
            stored = np.minimum((samples + 2) >> 2, 255).astype(np.uint8)
        width = plane.line_size // stored.itemsize
        rows = np.zeros((plane.height, width), stored.dtype)
        rows[:, : plane.width] = stored
        plane.update(rows.tobytes())
    return frame


def _as_stored(codec: Codec, packet: bytes) -> bytes:
    """A packet as the file format wants it, where encoders give another form."""
    if codec.name == "av1":
        return packet.removeprefix(_AV1_DELIMITER)
    if codec.name in ("h264", "hevc"):
        return b"".join(len(unit).to_bytes(4, "big") + unit for unit in _units(packet))
    return packet


def _units(packet: bytes) -> Iterator[bytes]:
    """The units between the start codes of H.264 and HEVC."""
    for unit in packet.split(b"\0\0\1"):
        # A start code may have one more zero, which is the end of the piece before it; no unit ends
        # in zeros.
        if stripped := unit.rstrip(b"\0"):
            yield stripped


class Decoder:
    """Packets of one group -> canvases of bytes; takes them one by one, from the key packet on."""

    def __init__(self, codec: Codec, extradata: bytes) -> None:
        self._codec = codec
        self._context: Any = _av().CodecContext.create(codec.decoder, "r")
        if extradata:
            self._context.extradata = extradata
        self._context.thread_count = 1

    def all(self, packets: Sequence[bytes]) -> list[list[Bytes]]:
        """One canvas a packet: luma and two of chroma, full range. Raises :class:`Damaged`."""
        try:
            frames = []
            for packet in packets:
                frames += self._context.decode(_av().Packet(packet))
            frames += self._context.decode(None)
        except _av().error.FFmpegError as error:
            raise Damaged("the video", reason=f"a frame does not decode ({error})") from error
        if len(frames) != len(packets):
            raise Damaged("the video", reason=f"{len(packets)} packets give {len(frames)} frames")
        return [_canvas(self._codec, frame) for frame in frames]


def _canvas(codec: Codec, frame: Any) -> list[Bytes]:
    if frame.format.name.replace("yuvj", "yuv") != codec.pixels:
        raise Damaged("the video", reason=f"its frames are {frame.format.name}")
    kind = np.dtype("<u2") if codec.deep else np.dtype(np.uint8)
    canvas = []
    for number, plane in enumerate(frame.planes):
        rows = np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width]
        canvas.append(_full_range(rows, number > 0, codec))
    return canvas


def _full_range(rows: Any, chroma: bool, codec: Codec) -> Bytes:
    full: Bytes
    if codec.colour_range == _LIMITED:
        span, low, zero = (_CHROMA_SPAN, 512, 128) if chroma else (_LUMA_SPAN, 64, 0)
        scaled = (rows.astype(np.int32) - low) * 255
        full = ((2 * scaled + span) // (2 * span) + zero).clip(0, 255).astype(np.uint8)
    elif codec.deep:
        full = np.minimum((rows + 2) >> 2, 255).astype(np.uint8)
    else:
        full = np.array(rows)
    return full


def finds_damage(jpeg: bytes) -> bool:
    """Whether libavcodec finds a JPEG's data broken where Pillow decodes it without a word.

    Measured on 211 photos: no false alarm; 30 of 35 were found in which 20 bits had been turned
    over and Pillow saw nothing. What leaves a valid stream nobody can find.
    """
    context: Any = _av().CodecContext.create("mjpeg", "r")
    context.thread_count = 1
    context.options = {"err_detect": "crccheck+bitstream+buffer+careful+explode"}
    try:
        frames = [*context.decode(_av().Packet(jpeg)), *context.decode(None)]
    except _av().error.InvalidDataError:
        return True
    except _av().error.FFmpegError:
        return False  # a kind it does not know
    return any(frame.is_corrupt for frame in frames)


@dataclass(frozen=True, slots=True)
class Sample:
    """Where a packet stands in the file; `pts` in seconds."""

    offset: int
    size: int
    pts: int
    key: bool


def template(codec: Codec, box: int) -> bytes:
    """A video of one black frame: what a new video's stream is made like."""
    halves = box // 2 if codec.halve_height else box
    grey = np.full((halves, box // 2), 512, np.uint16)
    frame = _frame(codec, [np.zeros((box, box), np.uint16), grey, grey])
    frame.pts = 0
    frame.time_base = Fraction(1)
    stream = io.BytesIO()
    with _av().open(stream, "w", format=codec.suffix[1:]) as output:
        made: Any = output.add_stream(codec.encoder, rate=1)
        _set_up(made.codec_context, codec, box, codec.grade, chained=False)
        for packet in [*made.encode(frame), *made.encode(None)]:
            output.mux(packet)
    return stream.getvalue()


@contextmanager
def _stream_of(source: str | io.BytesIO) -> Iterator[tuple[Any, Any]]:
    name = source if isinstance(source, str) else "the video"
    try:
        container = _av().open(source)
    except _av().error.FFmpegError as error:
        raise Damaged(name, reason=f"it cannot be opened ({error.strerror})") from error
    with container:
        if not container.streams.video:
            raise Damaged(name, reason="there is no video in it")
        yield container, container.streams.video[0]


def extradata_of(video: bytes) -> bytes:
    """What a decoder must know before the first packet of a video (a :func:`template`)."""
    with _stream_of(io.BytesIO(video)) as (_, stream):
        return bytes(stream.codec_context.extradata or b"")


def samples(path: Path) -> list[Sample]:
    """The packets of a video file in order. Raises :class:`Damaged`."""
    found = []
    with _stream_of(str(path)) as (container, stream):
        try:
            for packet in container.demux(stream):
                if packet.size:
                    at = round(packet.pts * packet.time_base)
                    found.append(Sample(packet.pos, packet.size, at, packet.is_keyframe))
        except _av().error.FFmpegError as error:
            raise Damaged(str(path), reason=f"it does not read to its end ({error})") from error
    return found


class VideoWriter:
    """A video file in the making: packets as they come, one a second. A context manager."""

    def __init__(self, path: Path, like: bytes | Path) -> None:
        """`like`: a :func:`template`, or the video that is continued."""
        self._path = path
        self._like = like
        self.frames = 0

    def __enter__(self) -> VideoWriter:
        source = str(self._like) if isinstance(self._like, Path) else io.BytesIO(self._like)
        self._source = _av().open(source)
        self._output = _av().open(str(self._path), "w", format=self._path.suffix[1:])
        # Opaque: a decoder's name is no encoder's, and there is nothing to encode here.
        stream = self._source.streams.video[0]
        self._stream: Any = self._output.add_stream_from_template(stream, opaque=True)
        return self

    def add(self, packet: bytes, key: bool) -> None:
        """Append a packet."""
        made: Any = _av().Packet(packet)
        made.stream = self._stream
        made.time_base = Fraction(1)
        made.pts = made.dts = self.frames
        made.duration = 1
        made.is_keyframe = key
        self._output.mux(made)
        self.frames += 1

    def __exit__(self, *_: object) -> None:
        self._output.close()
        self._source.close()


def versions() -> str:
    """The libraries that made a video, for its record."""
    return f"PyAV {_av().__version__}, libavcodec {_av().library_versions['libavcodec'][0]}"
