"""Frame <-> lossless JPEG XL, through jxlpy or imagecodecs. Only this module imports jxlpy.

jxlpy is smaller, but has no wheels from Python 3.13 on, where fsmount installs imagecodecs instead
(docs/architecture.md, section 10). If both are installed, jxlpy encodes, as before, and imagecodecs
decodes, since other threads run meanwhile. Each reads the files of the other.

An encoder may end its process for some inputs, so only worker processes should call this module.
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

MAX_SAMPLES = 1 << 29  # 512 Mi: planes of the decoder have 32 bits a sample, so at most 2 GiB

_DType = np.dtype[np.unsignedinteger[Any]]

_COLOURS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


@functools.cache
def jxlpy() -> ModuleType | None:
    """Return the package, or None if it is not installed."""
    try:
        import jxlpy
    except ImportError:
        return None
    return jxlpy  # type: ignore[no-any-return]


def fits(image: Frame) -> bool:
    """Whether encode and decode accept `image` (height, width, channels): uint8 or uint16."""
    return image.dtype in (np.uint8, np.uint16) and 0 < image.size <= MAX_SAMPLES


def encode(image: Frame, effort: int = 1) -> bytes:
    """Return the JPEG XL file of `image`, losslessly coded, at `effort` 1 to 9.

    `image` is uint8 or uint16 (height, width, 1 to 4 channels). Raises ValueError if :func:`fits`
    returns False, and FsmountError if no library is installed.
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
    samples = image.tobytes()  # the encoder keeps a bare pointer to these bytes until close
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
    # Without this label, images of 16 bits count as linear, and viewers show them too bright. Older
    # versions of imagecodecs cannot set it.
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
    """Decode a file that :func:`encode` made: uint8 or uint16 (height, width, channels).

    Raises Damaged for any other file, before it allocates memory for a size that the header only
    claims. Raises FsmountError if no library is installed.
    """
    data = bytes(data)  # jxlpy accepts only bytes, and keeps a bare pointer to them until close
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
    """Return the samples of any JPEG XL file of 8 or 16 bits: uint8 or uint16.

    Shape: (height, width, channels). Raises Damaged for any other file, and FsmountError if no
    library is installed.
    """
    found = header(data)
    return decode(data, found.colours + found.extra)


def _layout(found: Header, channels: int) -> tuple[tuple[int, int, int], _DType]:
    """Return the shape and dtype that a header announces.

    Raises Damaged if `encode` made no such file.
    """
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
