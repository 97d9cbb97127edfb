"""Scanlines to a frame and back.

Reading reuses the rows of the previous picture where they are equal, because consecutive
screenshots differ in few rows. If a scanline and the row above it equal those of the previous
picture, then the row equals the row of that picture. Only the other rows are undone. So a worker
remembers the newest picture of each layout.

Proof: filtering the rows of the frame reproduces the scanlines. A row made now is filtered again
and compared with its scanline. A reused row was compared when it was made, and neither its scanline
nor the row above it has changed since.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fsmount.codec.deflate import engine
from fsmount.codec.memory import WorkerMemory
from fsmount.codec.png import filters, samples
from fsmount.codec.png.samples import Frame, Rows, SampleLayout
from fsmount.errors import NotExact


class NewestPicture(NamedTuple):
    """The newest picture of a layout. `frame` shares memory with `rows` unless it is `opaque`."""

    raw: bytes
    rows: Rows
    frame: Frame
    opaque: bool


def read(
    raw: bytes, layout: SampleLayout, memory: WorkerMemory | None = None
) -> tuple[Frame, bool, bytes]:
    """Return the frame of scanlines, whether opaque alpha was dropped, and the filter types.

    The frame is uint8 or uint16, shape (height, width, channels). The filter types are one byte a
    row. `memory` provides the newest picture of each layout, and keeps this one. A later call may
    return the same frame again: the caller must not write to it. Raises NotExact for filter types
    above 4, and for bits set beyond the end of a row.
    """
    if layout.bit_depth != 8 or layout.interlaced:
        return _read_whole(raw, layout)
    before = None
    if memory is not None:
        before = memory.pictures.get_as(layout, NewestPicture)
        # This call may overwrite its rows from here on.
        memory.pictures.discard(layout)
    rows, changed = filters.undo_from(
        raw, layout.height, layout.row_bytes, layout.pixel_bytes, _given(before)
    )
    frame, opaque = _without_alpha(rows, changed, layout, before)
    if memory is not None:
        size = len(raw) + rows.nbytes + frame.nbytes * opaque
        memory.pictures.put(layout, NewestPicture(raw, rows, frame, opaque), size)
    return frame, opaque, raw[:: layout.row_bytes + 1]


def _given(before: NewestPicture | None) -> tuple[bytes, Rows] | None:
    """Return the previous scanlines and their rows, which the caller may overwrite.

    Copies the rows if they share memory with the frame.
    """
    if before is None:
        return None
    return before.raw, before.rows if before.opaque else before.rows.copy()


def _without_alpha(
    rows: Rows, changed: filters.Flags, layout: SampleLayout, before: NewestPicture | None
) -> tuple[Frame, bool]:
    """Return the frame of 8-bit rows, and whether an opaque alpha channel was dropped from it."""
    whole = samples.from_rows(rows, layout)
    if not layout.has_alpha:
        return whole, False
    known = before.frame if before is not None and before.opaque else None
    if known is not None and not changed.any():
        return known, True
    frame = np.empty((layout.height, layout.width, layout.channels - 1), np.uint8)
    old = None if known is None else known.data
    if engine.drop_alpha(rows.data, layout.pixel_bytes, changed.data, old, frame.data):
        return frame, True
    return whole, False


def _read_whole(raw: bytes, layout: SampleLayout) -> tuple[Frame, bool, bytes]:
    """Read a picture as :func:`read`, without a previous picture, at any bit depth."""
    frame, types = read_all(raw, layout)
    opaque = layout.has_alpha and samples.is_opaque(frame)
    return (samples.drop_alpha(frame) if opaque else frame), opaque, types


def read_all(raw: bytes, layout: SampleLayout) -> tuple[Frame, bytes]:
    """Return the frame of scanlines, with all channels, and the filter types.

    The frame is uint8 or uint16, shape (height, width, channels). The filter types are one byte a
    row. Raises NotExact for filter types above 4, and for bits set beyond the end of a row.
    """
    frame, types = unfiltered(raw, layout)
    if write(frame, layout, types) != raw:
        raise NotExact("bits set beyond the end of a row")
    return frame, types


def unfiltered(raw: bytes, layout: SampleLayout) -> tuple[Frame, bytes]:
    """Return what :func:`read_all` returns. Ignores bits beyond the end of a row.

    Raises NotExact for filter types above 4.
    """
    parts, at = [], 0
    for part, area in layout.passes():
        lines = raw[at : at + part.scanline_bytes]
        at += len(lines)
        rows, kinds = filters.undo(lines, part.height, part.row_bytes, part.pixel_bytes)
        parts.append((area, samples.from_rows(rows, part), kinds.tobytes()))
    types = b"".join(kinds for _, _, kinds in parts)
    if len(parts) == 1:
        return parts[0][1], types
    frame = np.empty((layout.height, layout.width, layout.channels), layout.dtype)
    for area, pixels, _ in parts:
        frame[area] = pixels
    return frame, types


def write(frame: Frame, layout: SampleLayout, types: bytes, *, opaque: bool = False) -> bytes:
    """Return the scanlines of a frame: the inverse of :func:`read`.

    `frame` is uint8 or uint16, shape (height, width, channels). It has no alpha channel if it is
    `opaque`. `types` has the filter type of each row. Raises ValueError for other types, and for
    another number of them.
    """
    alpha = frame.itemsize if opaque else 0
    at, parts = 0, []
    for part, area in layout.passes():
        kinds = np.frombuffer(types[at : at + part.height], np.uint8)
        at += part.height
        rows = samples.to_rows(frame[area], part)
        parts.append(filters.apply(rows, kinds, part.pixel_bytes, alpha))
    return b"".join(parts)
