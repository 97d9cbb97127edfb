"""Whether the file of a difference is intact, by comparison with its encoder's output.

Lossless JPEG XL of effort 1 has no checksum. But an intact file is what the encoder makes of the
samples that the file decodes to. If this holds for the files around a file and not for the file
itself, then the file is damaged. If it does not hold for the files around, another version of the
encoder made them, and the comparison tells nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fsmount.codec.images import jxl
from fsmount.codec.images.jxl_header import codestream
from fsmount.codec.memory import WorkerMemory
from fsmount.codec.png.samples import Frame
from fsmount.errors import Damaged
from fsmount.legacy.runs import RunFile

_NEIGHBOURS = 8  # differences looked at on each side


def is_damaged(
    file: RunFile,
    data: bytes,
    difference: Frame,
    neighbours: Sequence[RunFile],
    at: int,
    memory: WorkerMemory,
) -> bool:
    """Return whether a file is not what the encoder writes, while those around it are.

    Parameters
    ----------
    file : RunFile
        The difference.
    data : bytes
        Its file.
    difference : Frame
        Its samples, (height, width, channels), uint8 or uint16.
    neighbours : sequence of RunFile
        Differences of the folder in order, with ``file`` among them.
    at : int
        Position of ``file`` in ``neighbours``.
    memory : WorkerMemory
        Remembers the answer of each file.
    """
    if _check(file, data, difference, memory):
        return False
    sides = (
        neighbours[max(0, at - _NEIGHBOURS) : at][::-1],
        neighbours[at + 1 : at + 1 + _NEIGHBOURS],
    )
    return any(sides) and all(
        any(_is_intact(other, memory) for other in side) for side in sides if side
    )


def _is_intact(file: RunFile, memory: WorkerMemory) -> bool:
    """Return whether the encoder makes the same file; read it unless the answer is remembered."""
    known = memory.genuine.get((file.path, file.stamp))
    if known is not None:
        return known
    try:
        data = Path(file.path).read_bytes()
        return _check(file, data, jxl.read(data), memory)
    except (Damaged, OSError):
        return False


def _check(file: RunFile, data: bytes, difference: Frame, memory: WorkerMemory) -> bool:
    """Return whether the encoder makes the same file of the samples, and remember the answer."""
    # The same conditions as in `writing`.
    encodable = difference.dtype == np.uint8 and jxl.fits(difference)
    same = encodable and jxl.encode(difference, 1) == codestream(data)
    memory.genuine[file.path, file.stamp] = same
    return same
