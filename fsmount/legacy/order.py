"""The order of the pictures of a folder, by the times in their names.

The blog's scripts sort by ``datetime.fromisoformat`` of the names: names without a time zone by
their digits, names with one by their instants. The scripts fail on a folder that has both kinds.
fsmount reads such a folder, and reports where the order is uncertain:

- The order of a name without a zone and a name with one is certain if the digits of the first and
  the UTC time of the second are a day or more apart. No time zone is a day away from UTC.
- The order of two names of the same time is uncertain: the scripts took them in the order of the
  filesystem.
- The scripts may have skipped a file such as ``....PNG`` or a symbolic link. So it may or may not
  come between two pictures.

A difference is right only if its own position and that of the file before it are certain.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fsmount.legacy.timestamps import Timestamp

_DAY_US = 24 * 3600 * 10**6


@dataclass(frozen=True, slots=True)
class TimedFile:
    """A file whose name tells a time.

    ``may_be_skipped`` says that the scripts may have skipped it.
    """

    name: bytes
    time: Timestamp
    may_be_skipped: bool = False


@dataclass(frozen=True, slots=True)
class OrderedFile:
    """A file at its position; ``doubt`` says why the position is uncertain, "" if it is certain."""

    file: TimedFile
    doubt: str


def sort_by_time(files: Iterable[TimedFile]) -> list[OrderedFile]:
    """Sort files by the times in their names. The time zone of this machine has no effect."""
    ordered = sorted(files, key=lambda file: (file.time.us, file.time.zoned, file.name))
    doubts: dict[bytes, str] = {}
    for early, late in pairwise(ordered):
        if early.time == late.time:
            _add_doubt(doubts, early, late, "tell the same time")
    mixed = "are less than a day apart, and only one of the two names a time zone"
    for direction in (ordered, ordered[::-1]):
        for file, other in _neighbours_of_other_kind(direction):
            if abs(file.time.us - other.time.us) < _DAY_US:
                _add_doubt(doubts, file, other, mixed)
    for file in ordered:
        if file.may_be_skipped:
            doubts[file.name] = f"{os.fsdecode(file.name)} may count as a picture before it, or not"
    return [OrderedFile(file, doubts.get(file.name, "")) for file in ordered]


def _add_doubt(doubts: dict[bytes, str], file: TimedFile, other: TimedFile, why: str) -> None:
    """Note a doubt about two files, unless they have one."""
    first, second = sorted((os.fsdecode(file.name), os.fsdecode(other.name)))
    for name in (file.name, other.name):
        doubts.setdefault(name, f"{first} and {second} {why}")


def _neighbours_of_other_kind(
    ordered: Sequence[TimedFile],
) -> Iterable[tuple[TimedFile, TimedFile]]:
    """Yield each file with the last one before it of the other kind (zoned or not)."""
    last: dict[bool, TimedFile] = {}
    for file in ordered:
        last[file.time.zoned] = file
        if other := last.get(not file.time.zoned):
            yield file, other
