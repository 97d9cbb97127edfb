"""Folders as the method of "Losslessly Compressing 25000 Images" leaves them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image

from fsmount.codec.images import jxl
from fsmount.codec.png.samples import Frame

MOST_DIFFERING = 100_000
BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"
"""A value for `TZ`: the zone with its rules. The zone need not be installed."""


def samples(path: Path) -> Frame:
    """A picture as image libraries return it, always with three dimensions."""
    frame = np.array(Image.open(path))
    return frame.reshape(frame.shape[0], frame.shape[1], -1)


def convert(folder: Path, *, limit: int = MOST_DIFFERING) -> list[Path]:
    """Do to a folder of PNGs what the blog's first script does. Returns the differences it made."""
    pictures = [path for path in folder.iterdir() if path.suffix == ".png"]
    return convert_all(sorted(pictures, key=lambda path: datetime.fromisoformat(path.stem)), limit)


def convert_all(timed: Sequence[Path], limit: int = MOST_DIFFERING) -> list[Path]:
    """Do the same to PNGs in the given order."""
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
    """Save a frame as a PNG with this name. Returns its path."""
    path = folder / f"{stem}.png"
    image = Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame)
    image.save(path, compress_level=1)
    return path


def minutes(count: int, start: int = 0) -> Sequence[str]:
    """Stems in the format of `date -Is`, one for each minute."""
    return [
        f"2024-06-06T{(start + at) // 60:02d}:{(start + at) % 60:02d}:00+00:00"
        for at in range(count)
    ]


def desk(count: int, seed: int = 1) -> list[Frame]:
    """A desktop with few colours: someone types text, and a clock ticks."""
    source = np.random.default_rng(seed)
    palette = source.integers(0, 256, (12, 4), np.uint8)
    palette[:, 3] = 255
    ground = palette[source.integers(0, 3, (50, 60))].repeat(4, 0).repeat(4, 1)
    out = []
    for at in range(count):
        ground = ground.copy()
        ground[8 + at % 20 * 9 :][:8, 20:180] = palette[source.integers(3, 12, (8, 160))]
        ground[:12, 200:] = palette[source.integers(3, 12, (12, 40))]
        out.append(ground)
    return out


def folder_of(place: Path, frames: list[Frame], stems: list[str] | None = None) -> dict[str, Frame]:
    """Make a folder of PNGs. Returns stem -> frame."""
    place.mkdir(parents=True, exist_ok=True)
    names = stems or list(minutes(len(frames)))
    for stem, frame in zip(names, frames, strict=True):
        save(place, stem, frame)
    return dict(zip(names, frames, strict=True))
