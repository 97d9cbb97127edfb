"""Frame <-> lossless JPEG XL, through jxlpy (the only module that imports it).

jxlpy holds the GIL for a whole call, so this belongs into a worker process. Where imagecodecs is
installed it decodes instead, and other threads run meanwhile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jxlpy import JXLPyDecoder, JXLPyEncoder

from fsmount.codec.images.extra import imagecodecs
from fsmount.codec.png.samples import Frame
from fsmount.errors import Damaged

MAX_SAMPLES = 1 << 29  # 512 Mi: the decoder's own planes are 32 bits a sample, so 2 GiB at most

_DType = np.dtype[np.unsignedinteger[Any]]

_COLOURS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def fits(image: Frame) -> bool:
    """Whether `image` (height, width, channels) is something encode and decode take."""
    return image.dtype in (np.uint8, np.uint16) and 0 < image.size <= MAX_SAMPLES


def encode(image: Frame, effort: int = 1) -> bytes:
    """The JPEG XL file of `image`, uint8 or uint16 (height, width, 1..4), at effort 1..9.

    ValueError if :func:`fits` says no.
    """
    if not fits(image):
        raise ValueError(f"no JPEG XL for {image.dtype} of shape {image.shape}")
    height, width, channels = image.shape
    depth = 8 * image.dtype.itemsize
    samples = image.tobytes()  # the encoder keeps a bare pointer to them until close
    encoder = JXLPyEncoder(
        quality=100,
        colorspace=_COLOURS[channels],
        size=(width, height),
        effort=effort,
        use_container=False,
        num_threads=1,
        bit_depth=depth,
        alpha_bit_depth=depth if channels in (2, 4) else 0,
    )
    try:
        encoder.add_frame(samples)
        return bytes(encoder.get_output())
    finally:
        encoder.close()


def decode(data: bytes, channels: int) -> Frame:
    """The frame, uint8 or uint16 (height, width, channels), of a file that :func:`encode` made.

    Raises Damaged for anything else, before any memory is taken for a size the header only claims.
    """
    data = bytes(data)  # jxlpy takes nothing else, and keeps a bare pointer to it until close
    library = imagecodecs("JPEGXL")
    try:
        decoder = JXLPyDecoder(data, num_threads=1)
        try:
            shape, dtype = _layout(decoder.get_info(), channels)
            if library is None:
                samples = np.frombuffer(decoder.get_frame() or b"", dtype)
        finally:
            decoder.close()
        if library is not None:
            samples = library.jpegxl_decode(data, index=0, numthreads=1)
    except (MemoryError, Damaged):
        raise
    except Exception as error:
        raise Damaged("JPEG XL image", reason=str(error)) from error
    if samples.dtype != dtype or samples.size != np.prod(shape):
        raise Damaged("JPEG XL image", reason="its size is not the one in its header")
    return samples.reshape(shape)


def read(data: bytes) -> Frame:
    """The samples of any JPEG XL file of 8 or 16 bits; raises Damaged for what is none."""
    data = bytes(data)
    try:
        decoder = JXLPyDecoder(data, num_threads=1)
        try:
            info = decoder.get_info()
        finally:
            decoder.close()
    except MemoryError:
        raise
    except Exception as error:
        raise Damaged("JPEG XL image", reason=str(error)) from error
    return decode(data, info["num_color_channels"] + info["num_extra_channels"])


def codestream(data: bytes) -> bytes:
    """A file without the container it may stand in (ISO/IEC 18181-2); b"" if it is cut up there."""
    if not data.startswith(b"\0\0\0\x0cJXL "):
        return data
    at = 0
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"jxlc":
            return data[at + 8 : at + size if size else len(data)]
        if size < 8:
            break
        at += size
    return b""


def _layout(info: dict[str, int], channels: int) -> tuple[tuple[int, int, int], _DType]:
    """Shape and dtype a header announces (ISO/IEC 18181-1, image metadata); Damaged if not ours."""
    alpha = channels in (2, 4)
    if (info["num_color_channels"], info["num_extra_channels"]) != (channels - alpha, int(alpha)):
        raise Damaged("JPEG XL image", reason=f"it does not have {channels} channels")
    depth = info["bits_per_sample"]
    if depth not in (8, 16) or info["alpha_bits"] != (depth if alpha else 0):
        raise Damaged("JPEG XL image", reason="its samples do not have 8 or 16 bits")
    shape = (info["ysize"], info["xsize"], channels)
    if shape[0] * shape[1] * channels > MAX_SAMPLES:
        raise Damaged("JPEG XL image", reason=f"{shape[1]} x {shape[0]} pixels are too many")
    dtype: _DType = np.dtype(np.uint8) if depth == 8 else np.dtype(np.uint16)
    return shape, dtype
