"""Which pictures of a folder hang on which: runs of a PNG and the differences behind it."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from fsmount.legacy.names import instant

_SUFFIXES = (b".png", b".jxl")
# A step in time so many times the usual one may be a pause, or a picture that is missing.
_GAP = 1.5
# JPEG XL: a bare codestream, or in a container (ISO/IEC 18181-2).
_MAGIC = (b"\xff\x0a", b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a")


@dataclass(frozen=True, slots=True)
class Step:
    """One file of a run. `stamp` tells whether it is still the one that was looked at."""

    name: bytes
    path: str
    stamp: tuple[int, int]
    after_gap: bool = False
    """More time went by before it than usual."""

    @property
    def is_difference(self) -> bool:
        return self.name.endswith(b".jxl")


Run = tuple[Step, ...]


@dataclass(frozen=True)
class Scan:
    """The runs of a folder in order of time, and where each file stands in them.

    `places`: name of a file -> (number of its run, place in the run). `ties`: names of
    differences that tell the same instant as the file before them.
    """

    runs: Sequence[Run]
    places: Mapping[bytes, tuple[int, int]]
    ties: Sequence[bytes]

    def differences(self) -> list[Step]:
        """All of them in order."""
        return [step for run in self.runs for step in run if step.is_difference]


def shown(name: bytes) -> bytes:
    """The name under which a difference shows its picture."""
    return name.removesuffix(b".jxl") + b".png"


def scan(folder: Path) -> Scan:
    """Read a folder's names. Raises OSError."""
    found = {}
    for entry in os.scandir(os.fsencode(folder)):
        if not entry.name.endswith(_SUFFIXES):
            continue
        when = instant(os.fsdecode(entry.name[:-4]))
        if when is None:
            continue
        info = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(info.st_mode):
            found[entry.name] = (when, Step(entry.name, _path(entry), _stamp(info)))
    for name in list(found):
        # A conversion was stopped before it deleted the PNG: the PNG is the picture.
        if name.endswith(b".jxl") and shown(name) in found:
            del found[name]
    return _runs(sorted(found.values(), key=lambda item: (item[0], item[1].name)))


def _path(entry: os.DirEntry[bytes]) -> str:
    return os.fsdecode(entry.path)


def _stamp(info: os.stat_result) -> tuple[int, int]:
    return info.st_size, info.st_mtime_ns


def _runs(items: Sequence[tuple[int, Step]]) -> Scan:
    times = [when for when, _ in items]
    steps = [late - early for early, late in pairwise(times)]
    usual = median(steps) if steps else 0
    runs: list[list[Step]] = []
    places = {}
    ties = []
    for at, (_, step) in enumerate(items):
        if not step.is_difference or not runs:
            runs.append([])
        waited = steps[at - 1] if at else 0
        if step.is_difference and at and not waited:
            ties.append(step.name)
        places[step.name] = (len(runs) - 1, len(runs[-1]))
        runs[-1].append(Step(step.name, step.path, step.stamp, waited > _GAP * usual))
    return Scan([tuple(run) for run in runs], places, ties)


def is_legacy(folder: Path) -> bool:
    """Whether a folder, or one below it, holds a `.jxl` that its name puts into a run."""
    for place, _, files in os.walk(os.fsencode(folder)):
        for name in files:
            timed = name.endswith(b".jxl") and instant(os.fsdecode(name[:-4])) is not None
            if timed and _is_jxl(place + b"/" + name):
                return True
    return False


def _is_jxl(path: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(12).startswith(_MAGIC)
    except OSError:
        return False
