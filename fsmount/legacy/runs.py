"""Which pictures of a folder hang on which: runs of a PNG and the differences behind it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from fsmount.legacy.names import other_time_in, time_in
from fsmount.legacy.order import File, Placed, in_order

_SUFFIXES = (b".png", b".jxl")
# A step in time so many times the usual one may be a pause, or a picture that is missing.
_GAP = 1.5
# JPEG XL: a bare codestream, or in a container (ISO/IEC 18181-2).
_MAGIC = (b"\xff\x0a", b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a")

Stamp = tuple[int, int]
"""Size and mtime."""


@dataclass(frozen=True, slots=True)
class Step:
    """One file of a run. `stamp` tells whether it is still the one that was looked at."""

    name: bytes
    path: str
    stamp: Stamp
    is_difference: bool
    after_gap: bool = False
    """More time went by before it than usual."""
    unsure: str = ""
    """Why its place, or that of the file before a difference, is not certain; empty if it is."""
    twin: Step | None = None
    """The `.jxl` of the same stem beside a PNG, where a difference hangs on one of the two."""


Run = tuple[Step, ...]


@dataclass(frozen=True)
class Scan:
    """The runs of a folder in order of time, and where each file stands in them.

    A run is what has to be looked at, and kept, together: mostly a PNG and the differences behind
    it, but also all PNGs of which one may be the one that a difference hangs on.

    `places`: name of a file -> (number of its run, place in the run). A twin is where its PNG is.
    """

    runs: Sequence[Run]
    places: Mapping[bytes, tuple[int, int]]

    def differences(self) -> list[Step]:
        """All of them in order."""
        return [step for run in self.runs for step in run if step.is_difference]


def shown(name: bytes) -> bytes:
    """The name under which a difference shows its picture."""
    return name.removesuffix(b".jxl") + b".png"


def scan(folder: Path) -> Scan:
    """Read a folder's names. Raises OSError."""
    entries, placed = _ordered(folder)
    return _runs(entries, placed)


def pairs(folder: Path) -> list[tuple[Path, Path]]:
    """The PNGs of a folder that may become differences, each behind the one it would hang on."""
    entries, placed = _ordered(folder)
    return [
        (folder / os.fsdecode(before.file.name), folder / os.fsdecode(late.file.name))
        for before, late in pairwise(placed)
        if not before.doubt and not late.doubt
        if before.file.name.endswith(b".png") and late.file.name.endswith(b".png")
        if late.file.name[:-4] + b".jxl" not in entries
    ]


def _ordered(folder: Path) -> tuple[dict[bytes, Step], list[Placed]]:
    """The files of a folder whose names tell a time, by name and in order.

    A `.jxl` beside a PNG of its stem is not in the order: a conversion was stopped before it
    deleted the PNG, and the PNG is the picture.
    """
    entries, files = {}, []
    listed = list(os.scandir(os.fsencode(folder)))
    others = {entry.name for entry in listed if not entry.is_file(follow_symlinks=False)}
    for entry in listed:
        # The PNG of a `.jxl` cannot be shown where a link or a folder has its name.
        plain = entry.name not in others and shown(entry.name) not in others
        file = _file(entry.name, plain=plain)
        if file is not None:
            info = entry.stat(follow_symlinks=False)
            is_difference = not file.strange and entry.name.endswith(b".jxl")
            stamp = info.st_size, info.st_mtime_ns
            entries[entry.name] = Step(entry.name, os.fsdecode(entry.path), stamp, is_difference)
            files.append(file)
    twins = {twin.name for file in files if (twin := _twin(file, entries))}
    return entries, in_order(file for file in files if file.name not in twins)


def _file(name: bytes, *, plain: bool) -> File | None:
    """A file as far as its name tells; None if it is no picture with a time."""
    stem, suffix = os.fsdecode(name[:-4]), name[-4:]
    if suffix.lower() not in _SUFFIXES:
        return None
    if when := time_in(stem):
        return File(name, when, strange=not plain or suffix not in _SUFFIXES)
    if when := other_time_in(stem):
        return File(name, when, strange=True)
    return None


def _twin(file: File, entries: Mapping[bytes, Step]) -> Step | None:
    """The `.jxl` beside a PNG of the same stem."""
    if file.strange or not file.name.endswith(b".png"):
        return None
    found = entries.get(file.name[:-4] + b".jxl")
    return found if found is not None and found.is_difference else None


def _runs(entries: Mapping[bytes, Step], placed: Sequence[Placed]) -> Scan:
    runs: list[list[Step]] = []
    for step, begins in _steps(entries, placed):
        if begins or not runs:
            runs.append([])
        runs[-1].append(step)
    # Nothing hangs on PNGs among which there is no difference.
    parts = [
        part
        for run in runs
        for part in ([run] if any(step.is_difference for step in run) else [[s] for s in run])
    ]
    places = {}
    for number, part in enumerate(parts):
        for at, step in enumerate(part):
            places[step.name] = (number, at)
            if step.twin is not None:
                places[step.twin.name] = (number, at)
    return Scan([tuple(part) for part in parts], places)


def _steps(entries: Mapping[bytes, Step], placed: Sequence[Placed]) -> Iterator[tuple[Step, bool]]:
    """The files in order with all that is told of them, and whether a run begins there."""
    waits = [late.file.time.us - early.file.time.us for early, late in pairwise(placed)]
    usual = median(waits) if waits else 0
    for at, one in enumerate(placed):
        step = entries[one.file.name]
        after_gap = at > 0 and waits[at - 1] > _GAP * usual
        before = placed[at - 1].doubt if at and step.is_difference else ""
        behind = entries[placed[at + 1].file.name] if at + 1 < len(placed) else None
        twin = _twin(one.file, entries) if behind and behind.is_difference else None
        begins = not (step.is_difference or one.doubt or twin)
        yield replace(step, after_gap=after_gap, unsure=one.doubt or before, twin=twin), begins


def is_legacy(folder: Path) -> bool:
    """Whether a folder, or one below it, holds a `.jxl` that its name puts into a run."""
    for place, _, files in os.walk(os.fsencode(folder)):
        for name in files:
            timed = name.endswith(b".jxl") and time_in(os.fsdecode(name[:-4])) is not None
            if timed and _is_jxl(place + b"/" + name):
                return True
    return False


def _is_jxl(path: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(12).startswith(_MAGIC)
    except OSError:
        return False
