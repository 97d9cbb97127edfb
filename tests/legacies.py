"""Folders as the method of "Losslessly Compressing 25000 Images" leaves them behind."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fsmount.codec import jxl
from fsmount.codec.samples import Frame
from fsmount.legacy.names import instant

MOST_DIFFERING = 100_000


def samples(path: Path) -> Frame:
    """A picture as image libraries give it, always with three dimensions."""
    frame = np.array(Image.open(path))
    return frame.reshape(frame.shape[0], frame.shape[1], -1)


def convert(folder: Path, *, limit: int = MOST_DIFFERING) -> list[Path]:
    """What the blog's first script does to a folder of PNGs; the differences it made."""
    pictures = [path for path in folder.iterdir() if path.suffix == ".png"]
    timed = sorted(
        (path for path in pictures if instant(path.stem) is not None),
        key=lambda path: (instant(path.stem), os.fsencode(path.name)),
    )
    made = []
    frames = {path: samples(path) for path in timed[:1]}
    for before, path in itertools.pairwise(timed):
        frames = {before: frames[before], path: samples(path)}
        made += _convert_one(path, frames[before], frames[path], limit)
    return made


def _convert_one(path: Path, before: Frame, frame: Frame, limit: int) -> list[Path]:
    if before.shape != frame.shape or before.dtype != frame.dtype:
        return []
    difference = frame - before
    if np.count_nonzero(difference) >= limit:
        return []
    target = path.with_suffix(".jxl")
    info = path.stat()
    target.write_bytes(jxl.encode(difference, 1))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
    path.unlink()
    return [target]


def save(folder: Path, stem: str, frame: Frame) -> Path:
    """A PNG of this name."""
    path = folder / f"{stem}.png"
    image = Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame)
    image.save(path, compress_level=1)
    return path


def minutes(count: int, start: int = 0) -> Sequence[str]:
    """Stems as `date -Is` writes them, one a minute."""
    return [
        f"2024-06-06T{(start + at) // 60:02d}:{(start + at) % 60:02d}:00+00:00"
        for at in range(count)
    ]
