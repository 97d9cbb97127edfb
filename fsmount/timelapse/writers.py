"""Writes frames to a video (PyAV) or an animation (Pillow), one after the other.

A frame has its own duration: a picture that stays for long is one frame. Memory holds a few frames.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fsmount.errors import FsmountError

Frame = NDArray[np.uint8]
"""A frame: uint8 (height, width, 3), RGB."""

_MS = Fraction(1, 1000)
# Frames from one that needs no other to the next: players can jump there.
_KEY_FRAMES = 120
_BT709, _LIMITED = 1, 1
# Pillow holds all frames of a GIF, a byte for each pixel.
_MOST_GIF_BYTES = 512 << 20


class _Format(NamedTuple):
    """A container and an encoder of FFmpeg, with their options."""

    container: str
    encoder: str
    options: dict[str, str]
    container_options: dict[str, str]


_H264 = {"crf": "23", "preset": "medium"}
_VP9 = {"crf": "32", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
_VIDEOS = {
    ".mp4": _Format("mp4", "libx264", _H264, {"movflags": "+faststart"}),
    ".mkv": _Format("matroska", "libx264", _H264, {}),
    ".mov": _Format("mov", "libx264", _H264, {"movflags": "+faststart"}),
    ".webm": _Format("webm", "libvpx-vp9", _VP9, {}),
}
_ANIMATIONS = {".gif": "GIF", ".webp": "WEBP"}
SUFFIXES = (*_VIDEOS, *_ANIMATIONS)
"""Endings of the files that :func:`writer` can write."""


class Writer(Protocol):
    """Writes a file in a ``with`` block. Without :meth:`finish` the file is no whole one."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""

    def add(self, frame: Frame, start_ms: int, duration_ms: int) -> None:
        """Add a frame that is shown from `start_ms` on. Raises FsmountError, OSError."""

    def finish(self) -> None:
        """Write the rest. Raises FsmountError, OSError."""


def writer(path: Path, suffix: str, count: int) -> Writer:
    """Return a writer to the file at `path` for the kind of `suffix`, and about `count` frames.

    Raises FsmountError if PyAV is missing.
    """
    if suffix in _ANIMATIONS:
        return _Animation(path, _ANIMATIONS[suffix], count)
    return _Video(path, _VIDEOS[suffix])


def _av() -> ModuleType:
    """Import PyAV when it is first needed: it is large, and optional."""
    try:
        import av
        import av.logging
    except ImportError as error:
        raise FsmountError(
            "videos need PyAV, which is not installed: pip install 'fsmount[album]' (in a "
            "checkout: contrib/install). GIF and WebP do not need it"
        ) from error
    av.logging.set_level(av.logging.PANIC)  # errors are raised anyway
    return av


class _Video:
    """A :class:`Writer` of videos."""

    def __init__(self, path: Path, form: _Format) -> None:
        self._av = _av()
        self._form = form
        self._path = path
        self._file: Any = None
        self._stream: Any = None
        self._last: tuple[Any, int] | None = None

    def __enter__(self) -> Self:
        form = self._form
        self._file = self._av.open(
            str(self._path), "w", format=form.container, container_options=form.container_options
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._file.close()

    def add(self, frame: Frame, start_ms: int, duration_ms: int) -> None:
        """See :meth:`Writer.add`."""
        if self._stream is None:
            self._begin(frame)
        picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=_BT709)
        self._encode(picture, start_ms)
        self._last = picture, start_ms + duration_ms

    def _begin(self, frame: Frame) -> None:
        stream = self._file.add_stream(self._form.encoder, options=self._form.options)
        stream.height, stream.width = frame.shape[:2]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = stream.time_base = _MS
        context.gop_size = _KEY_FRAMES
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        self._stream = stream

    def _encode(self, picture: Any, start_ms: int) -> None:
        picture.pts, picture.time_base = start_ms, _MS
        picture.pict_type = 0
        try:
            self._file.mux(self._stream.encode(picture))
        except self._av.FFmpegError as error:
            self._raise(error)

    def finish(self) -> None:
        """See :meth:`Writer.finish`."""
        if self._last is None:
            return
        picture, end_ms = self._last
        # Players show a frame until the next one. So the last one comes again at the end.
        self._encode(picture, end_ms)
        try:
            self._file.mux(self._stream.encode(None))
            self._file.close()
        except self._av.FFmpegError as error:
            self._raise(error)
        self._stream = None

    def _raise(self, error: Any) -> None:
        """Raise an error of FFmpeg as OSError if it comes from the disk, else as FsmountError."""
        if isinstance(error, OSError):
            raise error
        raise FsmountError(f"the video cannot be encoded: {error}") from error


class _Stopped(Exception):
    """The block ended before all frames came."""


class _Animation:
    """A :class:`Writer` of animations. Pillow asks for frames, so it runs in a thread."""

    def __init__(self, path: Path, form: str, count: int) -> None:
        self._path = path
        self._form = form
        self._count = count
        self._durations: list[int] = []
        self._frames: queue.Queue[Image.Image | None] = queue.Queue(2)
        self._error: BaseException | None = None
        self._is_finished = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread.is_alive():
            self._put(None)
            self._thread.join()

    def add(self, frame: Frame, start_ms: int, duration_ms: int) -> None:
        """See :meth:`Writer.add`."""
        height, width = frame.shape[:2]
        if self._form == "GIF" and height * width * self._count > _MOST_GIF_BYTES:
            raise FsmountError(
                f"{self._count} frames of {width} x {height} pixels are too many for a GIF: choose"
                " a shorter time, a smaller --height, or a file that ends in .webp or .mp4"
            )
        self._durations.append(duration_ms)
        self._put(Image.fromarray(frame))

    def _put(self, frame: Image.Image | None) -> None:
        while self._error is None:
            try:
                self._frames.put(frame, timeout=0.1)
            except queue.Full:
                continue
            return
        if frame is not None:
            self._raise()

    def finish(self) -> None:
        """See :meth:`Writer.finish`."""
        self._is_finished = True
        self._put(None)
        self._thread.join()
        if self._error is not None:
            self._raise()

    def _raise(self) -> None:
        """Raise what the thread has met. Raises OSError, FsmountError."""
        if isinstance(self._error, OSError):
            raise self._error
        raise FsmountError(f"the animation cannot be written: {self._error}") from self._error

    def _taken(self) -> Iterator[Image.Image]:
        """Yield the frames as they come. Raises _Stopped if not all of them came."""
        while (frame := self._frames.get()) is not None:
            yield frame
        if not self._is_finished:
            raise _Stopped

    def _run(self) -> None:
        """Write the file. Runs in a thread."""
        try:
            frames = self._taken()
            first = next(frames, None)
            if first is None:
                return
            # Pillow looks a duration up when it writes the frame.
            with self._path.open("wb") as file:
                first.save(
                    file,
                    self._form,
                    save_all=True,
                    append_images=frames,
                    duration=self._durations,
                    loop=0,
                    **({"quality": 80, "method": 4} if self._form == "WEBP" else {}),
                )
        except _Stopped:
            return
        except BaseException as error:
            self._error = error
