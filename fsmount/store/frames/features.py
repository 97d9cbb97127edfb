"""Features of a frame's tiles. The planner compares them.

Each value of :class:`FrameFeatures` depends on one tile alone. So
:func:`of` computes only the tile rows that differ from the newest frame of the same geometry.

Contract: runs in a worker process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fsmount.codec.deflate import engine
from fsmount.codec.delta import delta
from fsmount.codec.delta.delta import TILE
from fsmount.codec.memory import WorkerMemory
from fsmount.codec.png.samples import Frame


@dataclass(frozen=True)
class FrameFeatures:
    """Features of a frame. A worker computes them, and the planner needs nothing else of a frame.

    shape : (height, width, channels) of the frame.
    dtype : name of the sample type: uint8 or uint16.
    signatures : hash of each tile; (tile rows, tile columns), uint64.
    is_flat : whether each tile has one colour; (tile rows, tile columns), bool.
    colours : first pixel of each tile; (tile rows, tile columns, channels), `dtype`.
    """

    shape: tuple[int, int, int]
    dtype: str
    signatures: NDArray[np.uint64]
    is_flat: NDArray[np.bool_]
    colours: Frame

    @property
    def geometry(self) -> str:
        """Shape and sample type as text. Only frames of equal geometry share tiles."""
        return f"{self.shape[1]}x{self.shape[0]}x{self.shape[2]}:{self.dtype}"


class _Newest(NamedTuple):
    """The newest frame of a geometry, and its features."""

    frame: Frame
    features: FrameFeatures


def of(frame: Frame, memory: WorkerMemory) -> FrameFeatures:
    """Compute the features of a frame: (height, width, channels), uint8 or uint16.

    The caller must not write to `frame` afterwards, because `memory` keeps it. `memory` has the
    newest frame of each geometry.
    """
    shape = (frame.shape[0], frame.shape[1], frame.shape[2])
    geometry = f"{shape}:{frame.dtype}"
    before = memory.features.get_as(geometry, _Newest)
    features = _whole(frame, shape) if before is None else _changed(frame, *before)
    memory.features.put(geometry, _Newest(frame, features), frame.nbytes)
    return features


def _whole(frame: Frame, shape: tuple[int, int, int]) -> FrameFeatures:
    """Compute the features of all tiles."""
    is_flat, colours = delta.flat(frame)
    return FrameFeatures(shape, frame.dtype.name, delta.signatures(frame), is_flat, colours.copy())


def _changed(frame: Frame, other: Frame, features: FrameFeatures) -> FrameFeatures:
    """As :func:`_whole`, from `features` of `other`, a frame of equal shape and dtype."""
    if frame is other:
        return features
    signatures, is_flat = features.signatures.copy(), features.is_flat.copy()
    colours = features.colours.copy()
    for first, end in _bands(frame, other):
        part = frame[first * TILE : end * TILE]
        signatures[first:end] = delta.signatures(part)
        is_flat[first:end], colours[first:end] = delta.flat(part)
    return FrameFeatures(features.shape, features.dtype, signatures, is_flat, colours)


def _bands(frame: Frame, other: Frame) -> Iterator[tuple[int, int]]:
    """Find the runs of tile rows that differ between two frames.

    Yields (first tile row, tile row behind the last).
    """
    row_bytes = frame.nbytes // frame.shape[0]
    found = engine.differing_rows(frame.data, other.data, row_bytes)
    starts = np.arange(0, frame.shape[0], TILE)
    tile_rows: NDArray[np.int8] = np.maximum.reduceat(np.frombuffer(found, np.int8), starts)
    edges = np.flatnonzero(np.diff(tile_rows, prepend=0, append=0))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
