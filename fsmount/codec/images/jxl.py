"""Frame <-> lossless JPEG XL, through jxlpy (the only module that imports it) or imagecodecs.

jxlpy is the smaller one, but has no wheels from Python 3.13 on: imagecodecs is installed there
(docs/architecture.md, section 10). Where both are, jxlpy encodes, as it did before, and imagecodecs
decodes, since other threads run meanwhile. What one writes the other reads.

An encoder may end its process at some inputs, so this belongs into a worker process.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import numpy as np

from fsmount.codec.images.extra import imagecodecs
from fsmount.codec.images.jxl_header import Header, header
from fsmount.codec.png.samples import Frame
from fsmount.errors import Damaged, FsmountError

MAX_SAMPLES = 1 << 29  # 512 Mi: the decoder's own planes are 32 bits a sample, so 2 GiB at most

_DType = np.dtype[np.unsignedinteger[Any]]

_COLOURS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


@functools.cache
def jxlpy() -> ModuleType | None:
    """The package, None if it is not installed."""
    try:
        import jxlpy
    except ImportError:
        return None
    return jxlpy  # type: ignore[no-any-return]


def fits(image: Frame) -> bool:
    """Whether `image` (height, width, channels) is something encode and decode take."""
    return image.dtype in (np.uint8, np.uint16) and 0 < image.size <= MAX_SAMPLES


def encode(image: Frame, effort: int = 1) -> bytes:
    """The JPEG XL file of `image`, uint8 or uint16 (height, width, 1..4), at effort 1..9.

    ValueError if :func:`fits` says no.
    """
    if not fits(image):
        raise ValueError(f"no JPEG XL for {image.dtype} of shape {image.shape}")
    first, second = jxlpy(), imagecodecs("JPEGXL")
    if first is not None:
        return _encode_by_jxlpy(first, image, effort)
    if second is not None:
        return _encode_by_imagecodecs(second, image, effort)
    raise _nothing_installed()


def _encode_by_jxlpy(library: ModuleType, image: Frame, effort: int) -> bytes:
    height, width, channels = image.shape
    depth = 8 * image.dtype.itemsize
    samples = image.tobytes()  # the encoder keeps a bare pointer to them until close
    encoder = library.JXLPyEncoder(
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


def _encode_by_imagecodecs(library: ModuleType, image: Frame, effort: int) -> bytes:
    # Or 16 bits are called linear, and viewers show them too bright; older versions cannot help it.
    label = {"transfer": "SRGB"} if hasattr(library.JPEGXL, "TRANSFER_FUNCTION") else {}
    data: bytes = library.jpegxl_encode(
        np.ascontiguousarray(image if image.shape[2] > 1 else image[:, :, 0]),
        effort=effort,
        lossless=True,
        planar=False,
        usecontainer=False,
        numthreads=1,
        **label,
    )
    return data


def decode(data: bytes, channels: int) -> Frame:
    """The frame, uint8 or uint16 (height, width, channels), of a file that :func:`encode` made.

    Raises Damaged for anything else, before any memory is taken for a size the header only claims.
    """
    data = bytes(data)  # jxlpy takes nothing else, and keeps a bare pointer to it until close
    shape, dtype = _layout(header(data), channels)
    first, second = imagecodecs("JPEGXL"), jxlpy()
    if first is None and second is None:
        raise _nothing_installed()
    try:
        if first is not None:
            samples: Frame = first.jpegxl_decode(data, index=0, numthreads=1)
        elif second is not None:
            samples = _decode_by_jxlpy(second, data, dtype)
    except MemoryError:
        raise
    except Exception as error:
        raise Damaged("JPEG XL image", reason=str(error)) from error
    if samples.dtype != dtype or samples.size != np.prod(shape):
        raise Damaged("JPEG XL image", reason="its size is not the one in its header")
    return samples.reshape(shape)


def _decode_by_jxlpy(library: ModuleType, data: bytes, dtype: _DType) -> Frame:
    decoder = library.JXLPyDecoder(data, num_threads=1)
    try:
        return np.frombuffer(decoder.get_frame() or b"", dtype)
    finally:
        decoder.close()


def _nothing_installed() -> FsmountError:
    return FsmountError("JPEG XL needs imagecodecs or jxlpy, and neither is installed here")


def read(data: bytes) -> Frame:
    """The samples of any JPEG XL file of 8 or 16 bits; raises Damaged for what is none."""
    found = header(data)
    return decode(data, found.colours + found.extra)


def _layout(found: Header, channels: int) -> tuple[tuple[int, int, int], _DType]:
    """Shape and dtype that a header announces; Damaged if not ours."""
    alpha = channels in (2, 4)
    if (found.colours, found.extra) != (channels - alpha, int(alpha)):
        raise Damaged("JPEG XL image", reason=f"it does not have {channels} channels")
    if found.bits not in (8, 16) or found.alpha_bits != (found.bits if alpha else 0):
        raise Damaged("JPEG XL image", reason="its samples do not have 8 or 16 bits")
    shape = (found.height, found.width, channels)
    if found.height * found.width * channels > MAX_SAMPLES:
        raise Damaged("JPEG XL image", reason=f"{shape[1]} x {shape[0]} pixels are too many")
    dtype: _DType = np.dtype(np.uint8) if found.bits == 8 else np.dtype(np.uint16)
    return shape, dtype
