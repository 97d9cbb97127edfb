"""Canvases to video packets and back, and the video file. The only module that uses PyAV.

One run of an encoder makes a **group**: one photo, or a few that look alike. A group starts with a
key packet and needs nothing before it. So groups are encoded one by one, in several processes or
years apart, and written one after another into one video. This requires that a codec's extradata
(what a decoder must know before the first packet) depends on the settings alone. A key packet of
AV1 repeats what it needs, so there it is enough that both mean the same pictures. :func:`encode`
checks this.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fsmount.album import av1
from fsmount.album.canvas import Bytes, Samples
from fsmount.errors import Damaged, FsmountError

# Otherwise SVT-AV1 prints its settings to stderr.
os.environ.setdefault("SVT_LOG", "1")

MAX_GROUP = 8
_FULL, _LIMITED = 2, 1  # AVCOL_RANGE_JPEG, AVCOL_RANGE_MPEG
# BT470BG and SMPTE170M have the same matrix. ProRes knows only the latter.
_BT601 = {_FULL: 5, _LIMITED: 6}
_BT709_PRIMARIES, _SRGB_CURVE = 1, 13
_LUMA_SPAN, _CHROMA_SPAN = 876, 896  # limited range in 10 bits
_AV1_DELIMITER = b"\x12\x00"


@dataclass(frozen=True, slots=True)
class Codec:
    """A video codec.

    ``grade`` is the default CRF (ProRes: quantiser), ``finest`` the lowest one used, ``step`` the
    amount by which it is lowered at a time. ``pixels`` is FFmpeg's pixel format, ``suffix`` that of
    the video file.
    """

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
        """Whether chroma has half the height too (4:2:0)."""
        return "420" in self.pixels

    @property
    def is_10_bit(self) -> bool:
        """Whether samples have 10 bits instead of 8."""
        return self.pixels.endswith("10le")

    @property
    def colour_range(self) -> int:
        """Full range, except for ProRes, whose players know only limited range."""
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
    """Import PyAV when it is first needed: it is large, and optional."""
    try:
        import av
        import av.logging
    except ImportError as error:
        raise FsmountError(
            "albums need PyAV, which is not installed: pip install 'fsmount[album]' (in a "
            "checkout: contrib/install)"
        ) from error
    av.logging.set_level(av.logging.PANIC)  # Errors are raised anyway.
    return av


def _options(codec: Codec, grade: int, chained: bool) -> dict[str, str]:
    """Return an encoder's measured options (docs/album-format.md); one thread a photo."""
    length = MAX_GROUP if chained else 1
    match codec.name:
        case "av1":
            # tune 3 is for still images; with it quality varies least between photos.
            tuning = f"tune={0 if chained else 3}:keyint={length}:lp=1"
            return {"preset": "8", "crf": str(grade), "svtav1-params": tuning}
        case "h264":
            # All groups share these settings. `stitchable` keeps the grade out of the extradata.
            tuning = f"keyint={MAX_GROUP}:min-keyint=1:scenecut=0:bframes=0"
            tuning += ":stitchable=1:threads=1"
            return {"preset": "medium", "crf": str(grade), "x264-params": tuning}
        case "hevc":
            tuning = f"keyint={MAX_GROUP}:min-keyint=1:scenecut=0:bframes=0:info=0"
            tuning += ":pools=1:frame-threads=1:log-level=error"
            return {"preset": "medium", "crf": str(grade), "x265-params": tuning}
        case _:
            # FF_QP2LAMBDA: `ffmpeg -qscale` multiplies by it too.
            return {"flags": "+qscale", "global_quality": str(grade * 118)}


def encode(
    codec: Codec, canvases: Sequence[Sequence[Samples]], grade: int, extradata: bytes
) -> list[bytes]:
    """Encode a group.

    Parameters
    ----------
    codec : Codec
        The codec.
    canvases : sequence
        One canvas a photo (:func:`fsmount.album.canvas.paint`).
    grade : int
        CRF, or quantiser of ProRes.
    extradata : bytes
        That of the video (:func:`extradata_of`).

    Returns
    -------
    list of bytes
        One packet a canvas in the form of the file; the first one is a key packet.

    Raises
    ------
    FsmountError
        If this encoder's packets need another extradata.
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
    stored = [_to_container_form(codec, bytes(packet)) for packet in packets]
    in_order = [packet.pts for packet in packets] == list(range(len(canvases)))
    if not in_order or not _fits(codec, stored[0], bytes(context.extradata or b""), extradata):
        raise FsmountError(
            f"{codec.encoder} of this machine makes packets that do not fit this video"
        )
    return stored


def _fits(codec: Codec, key: bytes, ours: bytes, extradata: bytes) -> bool:
    """Return whether a decoder that knows ``extradata`` can decode a group.

    ``key`` is the first packet of the group; ``ours`` is the extradata of its encoder.
    """
    if codec.name != "av1":
        return all(unit in extradata for unit in _nal_units(ours))
    try:
        return av1.read_sequence_header(key) == av1.read_sequence_header(extradata)
    except av1.NoHeader:
        return False


def _encoder(codec: Codec, box: int, grade: int, *, chained: bool) -> Any:
    """Return an open encoder."""
    context: Any = _av().CodecContext.create(codec.encoder, "w")
    _configure(context, codec, box, grade, chained=chained)
    context.flags |= _av().codec.context.Flags.global_header
    with _usual_scheduling():
        context.open()
    return context


@contextmanager
def _usual_scheduling() -> Iterator[None]:
    """Undo what SVT-AV1 does in a process of root that opens an encoder.

    It gives real-time priority (SCHED_FIFO, 99) to the calling thread and to its own threads. The
    calling thread keeps it and hands it to each process it starts. Everything else on the machine
    then gets a twentieth of the processors.
    """
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):
                if os.sched_getscheduler(int(thread)) != policy:
                    os.sched_setscheduler(int(thread), policy, parameter)


def _configure(context: Any, codec: Codec, box: int, grade: int, *, chained: bool) -> None:
    """Set the options that the encoder and the video's stream share."""
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
    """Convert a canvas (quarter steps, full range) to the samples of the codec."""
    frame = _av().VideoFrame(canvas[0].shape[1], canvas[0].shape[0], codec.pixels)
    if codec.name == "prores":
        # ProRes writes the colours of the frame into each header, not those of the encoder.
        frame.colorspace = _BT601[codec.colour_range]
        frame.color_primaries = _BT709_PRIMARIES
    for number, (plane, samples) in enumerate(zip(frame.planes, canvas, strict=True)):
        if codec.colour_range == _LIMITED:
            span, offset = (_CHROMA_SPAN, 512) if number else (_LUMA_SPAN, 64)
            zero_level = 512 if number else 0
            scaled = (samples.astype(np.int32) - zero_level) * span
            stored = ((scaled + 510) // 1020 + offset).astype(np.uint16)
        elif codec.is_10_bit:
            stored = samples
        else:
            stored = np.minimum((samples + 2) >> 2, 255).astype(np.uint8)
        width = plane.line_size // stored.itemsize
        rows = np.zeros((plane.height, width), stored.dtype)
        rows[:, : plane.width] = stored
        plane.update(rows.tobytes())
    return frame


def _to_container_form(codec: Codec, packet: bytes) -> bytes:
    """Convert a packet to the form that the file format wants."""
    if codec.name == "av1":
        return packet.removeprefix(_AV1_DELIMITER)
    if codec.name in ("h264", "hevc"):
        return b"".join(len(unit).to_bytes(4, "big") + unit for unit in _nal_units(packet))
    return packet


def _nal_units(packet: bytes) -> Iterator[bytes]:
    """Yield the units between the start codes of H.264 and HEVC (ITU-T H.264, annex B)."""
    for unit in packet.split(b"\0\0\1"):
        # A start code may have a further zero, which `split` leaves at the end of the unit before.
        # No unit ends in zeros of its own.
        if stripped := unit.rstrip(b"\0"):
            yield stripped


class Decoder:
    """A decoder for the packets of one group, from the key packet on."""

    def __init__(self, codec: Codec, extradata: bytes) -> None:
        self._codec = codec
        self._context: Any = _av().CodecContext.create(codec.decoder, "r")
        if extradata:
            self._context.extradata = extradata
        self._context.thread_count = 1

    def decode(self, packets: Sequence[bytes]) -> list[list[Bytes]]:
        """Decode all packets.

        Returns
        -------
        list of canvases
            One a packet: luma (box, box) and two of chroma, uint8, full range.

        Raises
        ------
        Damaged
            If a packet does not decode to a frame.
        """
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
    """Convert a decoded frame to a canvas."""
    if frame.format.name.replace("yuvj", "yuv") != codec.pixels:
        raise Damaged("the video", reason=f"its frames are {frame.format.name}")
    kind = np.dtype("<u2") if codec.is_10_bit else np.dtype(np.uint8)
    canvas = []
    for number, plane in enumerate(frame.planes):
        rows = np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width]
        canvas.append(_full_range(rows, number > 0, codec))
    return canvas


def _full_range(rows: Any, chroma: bool, codec: Codec) -> Bytes:
    """Convert a plane to uint8, full range."""
    full: Bytes
    if codec.colour_range == _LIMITED:
        span, offset, zero_level = (_CHROMA_SPAN, 512, 128) if chroma else (_LUMA_SPAN, 64, 0)
        scaled = (rows.astype(np.int32) - offset) * 255
        full = ((2 * scaled + span) // (2 * span) + zero_level).clip(0, 255).astype(np.uint8)
    elif codec.is_10_bit:
        full = np.minimum((rows + 2) >> 2, 255).astype(np.uint8)
    else:
        full = np.array(rows)
    return full


def is_damaged_jpeg(jpeg: bytes) -> bool:
    """Return whether libavcodec finds damage in a JPEG that Pillow decodes without an error.

    Measured on 211 photos: no false alarm. Of 35 photos with 20 flipped bits each, which Pillow all
    decoded, it found 30. Damage that leaves a valid stream cannot be found.
    """
    context: Any = _av().CodecContext.create("mjpeg", "r")
    context.thread_count = 1
    context.options = {"err_detect": "crccheck+bitstream+buffer+careful+explode"}
    try:
        frames = [*context.decode(_av().Packet(jpeg)), *context.decode(None)]
    except _av().error.InvalidDataError:
        return True
    except _av().error.FFmpegError:
        return False  # This decoder does not know this kind of JPEG.
    return any(frame.is_corrupt for frame in frames)


@dataclass(frozen=True, slots=True)
class PacketInfo:
    """Where a packet is in the file: ``offset`` and ``size`` in bytes, ``pts`` in seconds."""

    offset: int
    size: int
    pts: int
    is_key: bool


def template(codec: Codec, box: int) -> bytes:
    """Return a video of one black frame, which defines the stream of a new video."""
    halves = box // 2 if codec.halve_height else box
    grey = np.full((halves, box // 2), 512, np.uint16)
    frame = _frame(codec, [np.zeros((box, box), np.uint16), grey, grey])
    frame.pts = 0
    frame.time_base = Fraction(1)
    stream = io.BytesIO()
    with _usual_scheduling(), _av().open(stream, "w", format=codec.suffix[1:]) as output:
        made: Any = output.add_stream(codec.encoder, rate=1)
        _configure(made.codec_context, codec, box, codec.grade, chained=False)
        for packet in [*made.encode(frame), *made.encode(None)]:
            output.mux(packet)
    return stream.getvalue()


@contextmanager
def _open_video(source: str | io.BytesIO) -> Iterator[tuple[Any, Any]]:
    """Open a video and its stream; raise Damaged if there is none."""
    name = source if isinstance(source, str) else "the video"
    try:
        container = _av().open(source)
    except _av().error.FFmpegError as error:
        raise Damaged(name, reason=f"it does not open ({error.strerror})") from error
    with container:
        if not container.streams.video:
            raise Damaged(name, reason="there is no video in it")
        yield container, container.streams.video[0]


def extradata_of(video: bytes) -> bytes:
    """Return what a decoder must know before the first packet of a video (a :func:`template`)."""
    with _open_video(io.BytesIO(video)) as (_, stream):
        return bytes(stream.codec_context.extradata or b"")


def packets_in(path: Path) -> list[PacketInfo]:
    """List the packets of a video file in order.

    Raises
    ------
    Damaged
        If the file does not read to its end.
    """
    found = []
    with _open_video(str(path)) as (container, stream):
        try:
            for packet in container.demux(stream):
                if packet.size:
                    at = round(packet.pts * packet.time_base)
                    found.append(PacketInfo(packet.pos, packet.size, at, packet.is_keyframe))
        except _av().error.FFmpegError as error:
            raise Damaged(str(path), reason=f"it does not read to its end ({error})") from error
    return found


class VideoWriter:
    """A context manager that writes a video file, one packet a second.

    Parameters
    ----------
    path : Path
        The new file.
    like : bytes or Path
        A :func:`template`, or the video that is continued: the stream is made like its stream.
    """

    def __init__(self, path: Path, like: bytes | Path) -> None:
        """`like`: a :func:`template`, or the video that is continued."""
        self._path = path
        self._like = like
        self.frames = 0

    def __enter__(self) -> VideoWriter:
        source = str(self._like) if isinstance(self._like, Path) else io.BytesIO(self._like)
        self._source = _av().open(source)
        self._output = _av().open(str(self._path), "w", format=self._path.suffix[1:])
        # Opaque: this stream takes finished packets, and needs no encoder.
        stream = self._source.streams.video[0]
        self._stream: Any = self._output.add_stream_from_template(stream, opaque=True)
        return self

    def add(self, packet: bytes, is_key: bool) -> None:
        """Append a packet."""
        made: Any = _av().Packet(packet)
        made.stream = self._stream
        made.time_base = Fraction(1)
        made.pts = made.dts = self.frames
        made.duration = 1
        made.is_keyframe = is_key
        self._output.mux(made)
        self.frames += 1

    def __exit__(self, *_: object) -> None:
        self._output.close()
        self._source.close()


def versions() -> str:
    """Return the versions of the libraries that encode, for the album's record."""
    return f"PyAV {_av().__version__}, libavcodec {_av().library_versions['libavcodec'][0]}"
