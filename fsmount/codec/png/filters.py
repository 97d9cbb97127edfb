"""PNG scanline filters, both ways (PNG specification, third edition, section 9).

A filter predicts each byte from the same byte of the pixel to the left (a), of the pixel above (b),
and of the pixel above left (c). Bytes outside the picture are zero. Bytes can be filtered in any
order, since all raw rows are known. Undoing Average or Paeth needs the bytes undone just before.
The native kernel does both.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fsmount.codec.deflate import engine
from fsmount.errors import NotExact

Bytes2 = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

NONE, SUB, UP, AVERAGE, PAETH = range(5)


def apply(rows: Bytes2, types: npt.NDArray[np.uint8], bpp: int, alpha: int = 0) -> bytes:
    """Filter scanlines and put the type byte before each, ready for deflate.

    `rows` is uint8 (height, row bytes). `types` is uint8 (height,) with values 0 to 4. `bpp` is the
    number of bytes of a pixel, at least 1 (section 9.2). The picture is opaque if `alpha` is not 0:
    then `rows` does not contain the last `alpha` bytes of each pixel. Raises ValueError for other
    types.
    """
    row_bytes = rows.shape[1] // (bpp - alpha) * bpp
    data = np.ascontiguousarray(rows).data
    return engine.apply_filters(data, types.tobytes(), row_bytes, bpp, alpha)


def undo_from(
    filtered: bytes,
    height: int,
    row_bytes: int,
    bpp: int,
    before: tuple[bytes, Bytes2] | None = None,
) -> tuple[Bytes2, Flags]:
    """Undo the filters as :func:`undo`, and reuse the rows of a similar picture.

    `before` holds scanlines of the same shape, and their rows. This function overwrites these rows
    and returns them. It filters each new row again, and compares the result with the scanline.
    Returns the rows, and bool (height,): which rows differ from before. Raises NotExact for a
    filter type above 4.
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
    """Undo the filters: returns rows uint8 (height, row_bytes) and their types uint8 (height,).

    `filtered` holds height * (1 + row_bytes) bytes. `row_bytes` is a multiple of `bpp` (1, 2, 3, 4,
    6 or 8). Raises NotExact for a filter type above 4.
    """
    rows, _ = undo_from(bytes(filtered), height, row_bytes, bpp)
    return rows, np.frombuffer(filtered, np.uint8)[:: row_bytes + 1].copy()
