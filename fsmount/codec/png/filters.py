"""PNG scanline filters, both ways (PNG specification, third edition, section 9).

Filters work on bytes: each byte is predicted from the same byte of the pixel to the left (a), of
the pixel above (b) and of the one above left (c), with zeros outside the picture. Applying them is
free of dependencies, since the raw rows are known. Undoing Average and Paeth depends on the byte
just undone. The native kernel does both; without it numpy applies them, and Pillow's PNG decoder
undoes them.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from fsmount.codec.deflate import engine
from fsmount.errors import NotExact

Bytes2 = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

NONE, SUB, UP, AVERAGE, PAETH = range(5)

# Rows are worked on in batches of about this many bytes, which then stay in the processor's cache:
# a third of the time of whole pictures at once, and the extra memory stays small.
_APPLY_BATCH = 1 << 17
_UNDO_BATCH = 1 << 18

# Pixels of as many bytes, in Pillow's words.
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def apply(rows: Bytes2, types: npt.NDArray[np.uint8], bpp: int, alpha: int = 0) -> bytes:
    """Filter scanlines and put the type byte before each, ready for deflate.

    `rows` is uint8 (height, row bytes), `types` uint8 (height,) of 0 to 4, `bpp` the bytes of a
    pixel, at least 1 (section 9.2). ValueError for other types. The last `alpha` bytes of each
    pixel are not in `rows`: the picture is opaque.
    """
    height, row_bytes = rows.shape
    row_bytes = row_bytes // (bpp - alpha) * bpp
    if engine.NATIVE:
        data = np.ascontiguousarray(rows).data
        return engine.apply_filters(data, types.tobytes(), row_bytes, bpp, alpha)
    if int(types.max(initial=0)) > PAETH:
        raise ValueError("filter type above 4")
    if alpha:
        rows = _opaque(rows, bpp, alpha)
    out = np.empty((height, row_bytes + 1), np.uint8)
    out[:, 0] = types
    batch = max(1, _APPLY_BATCH // row_bytes)
    for kind in range(5):
        picked = np.flatnonzero(types == kind)
        for start in range(0, len(picked), batch):
            index = picked[start : start + batch]
            out[index, 1:] = _filtered(rows, index, kind, bpp)
    return out.tobytes()


def undo_from(
    filtered: bytes,
    height: int,
    row_bytes: int,
    bpp: int,
    before: tuple[bytes, Bytes2] | None = None,
) -> tuple[Bytes2, Flags]:
    """As :func:`undo`, by the native kernel: the rows, and which differ from before (height,).

    `before`: scanlines of the same shape and their rows, which are written to and returned. Each
    row that is made anew is filtered again and compared with its scanline.
    """
    raw, rows = before or (None, np.empty((height, row_bytes), np.uint8))
    try:
        changed = engine.undo_filters(filtered, raw, rows.data, row_bytes, bpp)
    except ValueError:
        raise NotExact("damaged: filter type above 4") from None
    return rows, np.frombuffer(changed, np.bool_)


def undo(
    filtered: bytes | bytearray | memoryview, height: int, row_bytes: int, bpp: int
) -> tuple[Bytes2, npt.NDArray[np.uint8]]:
    """Undo the filters: rows uint8 (height, row_bytes) and their types uint8 (height,).

    `filtered` holds height * (1 + row_bytes) bytes, `row_bytes` is a multiple of `bpp` (1, 2, 3,
    4, 6 or 8). Raises NotExact for a filter type above 4.
    """
    lines = np.frombuffer(filtered, np.uint8).reshape(height, row_bytes + 1)
    types = lines[:, 0].copy()
    if int(types.max(initial=0)) > PAETH:
        raise NotExact("damaged: filter type above 4")
    if engine.NATIVE:
        return undo_from(bytes(filtered), height, row_bytes, bpp)[0], types
    if bpp in _MODES:
        return _undo_lines(lines, bpp), types
    # Byte k of a pixel depends on bytes k only: 16-bit pixels go as two halves.
    half = bpp // 2
    pixels = lines[:, 1:].reshape(height, row_bytes // bpp, bpp)
    rows = np.empty_like(pixels)
    for lanes in (slice(0, half), slice(half, bpp)):
        part = np.empty((height, 1 + row_bytes // 2), np.uint8)
        part[:, 0] = types
        part[:, 1:] = pixels[:, :, lanes].reshape(height, -1)
        rows[:, :, lanes] = _undo_lines(part, half).reshape(height, -1, half)
    return rows.reshape(height, row_bytes), types


def _opaque(rows: Bytes2, bpp: int, alpha: int) -> Bytes2:
    """Rows with the alpha that they lack."""
    pixels = rows.reshape(len(rows), -1, bpp - alpha)
    out = np.empty((*pixels.shape[:2], bpp), np.uint8)
    # Byte by byte numpy copies seven times as fast as pixel by pixel.
    for place in range(bpp - alpha):
        out[..., place] = pixels[..., place]
    out[..., bpp - alpha :] = 255
    return out.reshape(len(rows), -1)


def _filtered(rows: Bytes2, index: npt.NDArray[np.intp], kind: int, bpp: int) -> Bytes2:
    """The rows of `index`, all filtered by `kind`."""
    if kind == NONE:
        return rows[index]
    current = _padded(rows, index, bpp)
    x, a = current[:, bpp:], current[:, :-bpp]
    if kind == SUB:
        return np.subtract(x, a)
    above = _padded(rows, index - 1, bpp)
    if index[0] == 0:
        above[0] = 0
    b, c = above[:, bpp:], above[:, :-bpp]
    if kind == UP:
        return np.subtract(x, b)
    if kind == AVERAGE:
        return np.subtract(x, (a & b) + ((a ^ b) >> 1))
    return np.subtract(x, _paeth(a, b, c))


def _padded(rows: Bytes2, index: npt.NDArray[np.intp], bpp: int) -> Bytes2:
    """The rows of `index` with one pixel of zeros to their left."""
    out = np.empty((len(index), rows.shape[1] + bpp), np.uint8)
    out[:, :bpp] = 0
    out[:, bpp:] = rows[index]
    return out


def _paeth(a: Bytes2, b: Bytes2, c: Bytes2) -> Bytes2:
    """The Paeth predictor (section 9.4) without branches or absolute values.

    With t = 3c - a - b: the smaller of a and b where the larger one is at most t, the larger
    where the smaller one is at least t, else c. That is the rule of the specification put in
    order of size; choosing by bit masks keeps all but t in bytes.
    """
    low, high = np.minimum(a, b), np.maximum(a, b)
    t = c.astype(np.int16)
    t *= 3
    t -= a
    t -= b
    takes_low = np.negative((high <= t).view(np.uint8))
    takes_high = np.negative((t <= low).view(np.uint8))
    # Where mask bits are set the first, elsewhere the second: second ^ ((first ^ second) & mask).
    low ^= c
    low &= takes_low
    low ^= c
    high ^= low
    high &= takes_high
    low ^= high
    return low


def _undo_lines(lines: Bytes2, bpp: int) -> Bytes2:
    """Undo the filters of lines with type bytes in batches, each led by the row above it."""
    height, row_bytes = lines.shape[0], lines.shape[1] - 1
    rows = np.empty((height, row_bytes), np.uint8)
    batch = max(1, _UNDO_BATCH // row_bytes)
    for start in range(0, height, batch):
        part = lines[start : start + batch]
        lead = min(start, 1)
        if lead:
            above = np.zeros((1, row_bytes + 1), np.uint8)
            above[0, 1:] = rows[start - 1]
            part = np.concatenate((above, part))
        size = row_bytes // bpp, len(part)
        # Pillow's decoder of the inside of a PNG: no chunks, no limits on the size of pictures.
        image = Image.frombytes(
            _MODES[bpp], size, zlib.compress(part.data, 0), "zip", _MODES[bpp], 0
        )
        undone = np.frombuffer(image.tobytes(), np.uint8).reshape(-1, row_bytes)
        rows[start : start + batch] = undone[lead:]
    return rows
