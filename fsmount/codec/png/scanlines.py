"""The frame behind a PNG's scanlines, made from the one before where the two are alike.

Consecutive screenshots differ in few rows. A row whose scanline and whose row above are those of
the picture before is that picture's row; only the others are undone. So a worker remembers
the newest picture of each layout.

What is proved: filtering the rows of the frame gives the scanlines back. Rows made now are
filtered again and compared; a row taken over was compared when it was made, and neither its
scanline nor the row above it has changed since.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fsmount.codec.memory import WorkerMemory
from fsmount.codec.png import filters, samples
from fsmount.codec.png.samples import Frame, Layout, Rows
from fsmount.errors import NotExact


class Before(NamedTuple):
    """The newest picture of a layout. `frame` shares memory with `rows` unless it is `opaque`."""

    raw: bytes
    rows: Rows
    frame: Frame
    opaque: bool


def read(
    raw: bytes, layout: Layout, memory: WorkerMemory | None = None
) -> tuple[Frame, bool, bytes]:
    """The frame of scanlines, whether an opaque alpha channel was dropped, and the filter types.

    `memory` has the newest picture of each layout, and gets this one.

    The frame may be given out again: it is not to be written to. Raises NotExact for filter types
    above 4 and for bits set beyond the end of a row.
    """
    if layout.bit_depth != 8:
        return _read_whole(raw, layout)
    before = None
    if memory is not None:
        before = memory.pictures.get(layout)
        # Its rows may be written to from here on.
        memory.pictures.discard(layout)
    rows, changed = filters.undo_from(
        raw, layout.height, layout.row_bytes, layout.pixel_bytes, _given(before)
    )
    frame, opaque = _without_alpha(rows, changed, layout, before)
    if memory is not None:
        size = len(raw) + rows.nbytes + frame.nbytes * opaque
        memory.pictures.put(layout, Before(raw, rows, frame, opaque), size)
    return frame, opaque, raw[:: layout.row_bytes + 1]


def _given(before: Before | None) -> tuple[bytes, Rows] | None:
    """The scanlines before and their rows, to be written to: a copy where they are the frame."""
    if before is None:
        return None
    return before.raw, before.rows if before.opaque else before.rows.copy()


def _without_alpha(
    rows: Rows, changed: filters.Flags, layout: Layout, before: Before | None
) -> tuple[Frame, bool]:
    """The frame of 8-bit rows, less its alpha channel where that is opaque, and whether it was."""
    whole = samples.from_rows(rows, layout)
    if not layout.has_alpha:
        return whole, False
    if before is None or not before.opaque:
        opaque = samples.is_opaque(whole)
        return (samples.drop_alpha(whole) if opaque else whole), opaque
    index = np.flatnonzero(changed)
    if not len(index):
        return before.frame, True
    new = whole[index]
    if not samples.is_opaque(new):
        return whole, False
    frame = before.frame.copy()
    frame[index] = samples.drop_alpha(new)
    return frame, True


def _read_whole(raw: bytes, layout: Layout) -> tuple[Frame, bool, bytes]:
    rows, types = filters.undo(raw, layout.height, layout.row_bytes, layout.pixel_bytes)
    frame = samples.from_rows(rows, layout)
    opaque = layout.has_alpha and samples.is_opaque(frame)
    if filters.apply(samples.to_rows(frame, layout), types, layout.pixel_bytes) != raw:
        raise NotExact("bits set beyond the end of a row")
    return (samples.drop_alpha(frame) if opaque else frame), opaque, types.tobytes()
