"""The runs of a folder: a PNG and the differences that follow it in time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from fsmount.legacy.order import OrderedFile, TimedFile, sort_by_time
from fsmount.legacy.timestamps import parse_other_timestamp, parse_timestamp

_SUFFIXES = (b".png", b".jxl")
# An interval this many times the usual one may be a pause, or hide a missing picture.
_GAP_FACTOR = 1.5
# JPEG XL: a bare codestream, or in a container (ISO/IEC 18181-2).
_MAGIC = (b"\xff\x0a", b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a")

Stamp = tuple[int, int]
"""Size in bytes and mtime in ns."""


@dataclass(frozen=True, slots=True)
class RunFile:
    """One file of a run; ``stamp`` tells whether the file has changed since it was listed."""

    name: bytes
    path: str
    stamp: Stamp
    is_difference: bool
    after_gap: bool = False
    """The interval before it is longer than usual."""
    doubt: str = ""
    """Why its position, or that of the file before a difference, is uncertain; "" if certain."""
    twin: RunFile | None = None
    """The ``.jxl`` beside a PNG of the same stem, if the next difference belongs to one of them."""


Run = tuple[RunFile, ...]


@dataclass(frozen=True)
class FolderRuns:
    """The runs of a folder in order of time, and the position of each file.

    A run is what must be read, and kept, together. Mostly that is a PNG and the differences after
    it; but a run also holds all PNGs of which one may be the one that a difference belongs to.

    ``positions`` maps a file's name to (number of its run, position in the run). A twin has the
    position of its PNG.
    """

    runs: Sequence[Run]
    positions: Mapping[bytes, tuple[int, int]]

    def differences(self) -> list[RunFile]:
        """Return all differences in order."""
        return [file for run in self.runs for file in run if file.is_difference]


def png_name(name: bytes) -> bytes:
    """Return the name of the PNG that a difference stands for."""
    return name.removesuffix(b".jxl") + b".png"


def scan(folder: Path) -> FolderRuns:
    """Find the runs of a folder by the names of its files. Raises OSError."""
    files, ordered = _list_ordered(folder)
    return _find_runs(files, ordered)


def pairs(folder: Path) -> list[tuple[Path, Path]]:
    """List the PNGs of a folder that may become differences.

    Returns
    -------
    list of (Path, Path)
        The PNG before it, and the PNG itself. The order of both is certain.

    Raises
    ------
    OSError
        If the folder cannot be listed.
    """
    files, ordered = _list_ordered(folder)
    return [
        (folder / os.fsdecode(early.file.name), folder / os.fsdecode(late.file.name))
        for early, late in pairwise(ordered)
        if not early.doubt and not late.doubt
        if early.file.name.endswith(b".png") and late.file.name.endswith(b".png")
        if late.file.name[:-4] + b".jxl" not in files
    ]


def _list_ordered(folder: Path) -> tuple[dict[bytes, RunFile], list[OrderedFile]]:
    """List the files whose names tell a time, by name and in order.

    A ``.jxl`` beside a PNG of its stem is not in the order: the scripts were stopped before they
    deleted the PNG, and the PNG is the picture.
    """
    files, timed_files = {}, []
    entries = list(os.scandir(os.fsencode(folder)))
    not_files = {entry.name for entry in entries if not entry.is_file(follow_symlinks=False)}
    for entry in entries:
        # The PNG of a `.jxl` cannot be shown if a link or a folder has its name.
        is_plain = entry.name not in not_files and png_name(entry.name) not in not_files
        timed = _timed_file(entry.name, is_plain=is_plain)
        if timed is not None:
            info = entry.stat(follow_symlinks=False)
            is_difference = not timed.may_be_skipped and entry.name.endswith(b".jxl")
            stamp = info.st_size, info.st_mtime_ns
            files[entry.name] = RunFile(entry.name, os.fsdecode(entry.path), stamp, is_difference)
            timed_files.append(timed)
    twins = {twin.name for timed in timed_files if (twin := _twin(timed, files))}
    return files, sort_by_time(timed for timed in timed_files if timed.name not in twins)


def _timed_file(name: bytes, *, is_plain: bool) -> TimedFile | None:
    """Return a file with the time in its name, or None if it is no picture with a time."""
    stem, suffix = os.fsdecode(name[:-4]), name[-4:]
    if suffix.lower() not in _SUFFIXES:
        return None
    if time := parse_timestamp(stem):
        return TimedFile(name, time, may_be_skipped=not is_plain or suffix not in _SUFFIXES)
    if time := parse_other_timestamp(stem):
        return TimedFile(name, time, may_be_skipped=True)
    return None


def _twin(timed: TimedFile, files: Mapping[bytes, RunFile]) -> RunFile | None:
    """Return the ``.jxl`` beside a PNG of the same stem, or None."""
    if timed.may_be_skipped or not timed.name.endswith(b".png"):
        return None
    found = files.get(timed.name[:-4] + b".jxl")
    return found if found is not None and found.is_difference else None


def _find_runs(files: Mapping[bytes, RunFile], ordered: Sequence[OrderedFile]) -> FolderRuns:
    """Split the files in order into runs."""
    runs: list[list[RunFile]] = []
    for file, begins_run in _describe(files, ordered):
        if begins_run or not runs:
            runs.append([])
        runs[-1].append(file)
    # PNGs without a difference among them do not belong together.
    parts = [
        part
        for run in runs
        for part in ([run] if any(file.is_difference for file in run) else [[f] for f in run])
    ]
    positions = {}
    for number, part in enumerate(parts):
        for at, file in enumerate(part):
            positions[file.name] = (number, at)
            if file.twin is not None:
                positions[file.twin.name] = (number, at)
    return FolderRuns([tuple(part) for part in parts], positions)


def _describe(
    files: Mapping[bytes, RunFile], ordered: Sequence[OrderedFile]
) -> Iterator[tuple[RunFile, bool]]:
    """Yield the files in order, with gap, doubt and twin, and whether a run begins there."""
    intervals = [late.file.time.us - early.file.time.us for early, late in pairwise(ordered)]
    usual = median(intervals) if intervals else 0
    for at, one in enumerate(ordered):
        file = files[one.file.name]
        after_gap = at > 0 and intervals[at - 1] > _GAP_FACTOR * usual
        doubt_before = ordered[at - 1].doubt if at and file.is_difference else ""
        following = files[ordered[at + 1].file.name] if at + 1 < len(ordered) else None
        twin = _twin(one.file, files) if following and following.is_difference else None
        begins_run = not (file.is_difference or one.doubt or twin)
        doubt = one.doubt or doubt_before
        yield replace(file, after_gap=after_gap, doubt=doubt, twin=twin), begins_run


def is_legacy(folder: Path) -> bool:
    """Return whether a folder, or one below it, holds a ``.jxl`` whose name tells a time."""
    for parent, _, names in os.walk(os.fsencode(folder)):
        for name in names:
            timed = name.endswith(b".jxl") and parse_timestamp(os.fsdecode(name[:-4])) is not None
            if timed and _is_jxl(parent + b"/" + name):
                return True
    return False


def _is_jxl(path: bytes) -> bool:
    """Return whether a file begins as JPEG XL does."""
    try:
        with open(path, "rb") as file:
            return file.read(12).startswith(_MAGIC)
    except OSError:
        return False
