"""The order in which the pictures of a folder hang on each other, told from their names.

The blog's scripts sort by `datetime.fromisoformat` of the names. So names without a time zone are
in the order of their digits, and names with one in the order of their instants. The scripts fail on
a folder that has both. fsmount reads such a folder, and says where its order is not certain:

- A name without a zone and one with a zone are in a certain order if the digits of the one and the
  UTC time of the other are a day or more apart. No time zone is as far from UTC as a day.
- Two names that tell the same time are in no certain order: the scripts took them as the file
  system listed them.
- A file that the scripts may have read or not, such as `….PNG` or a symbolic link, may stand
  between two pictures or not.

A difference is right only if its own place and that of the file before it are certain.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fsmount.legacy.names import Time

_DAY = 24 * 3600 * 10**6


@dataclass(frozen=True, slots=True)
class File:
    """A file whose name tells a time. `strange`: the scripts may have read it, or not."""

    name: bytes
    time: Time
    strange: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """A file in its order. `doubt`: why its place is not certain, empty if it is."""

    file: File
    doubt: str


def in_order(files: Iterable[File]) -> list[Placed]:
    """Files in the order of their names' times, which no time zone of this machine changes."""
    ordered = sorted(files, key=lambda file: (file.time.us, file.time.zoned, file.name))
    doubts: dict[bytes, str] = {}
    for early, late in pairwise(ordered):
        if early.time == late.time:
            _doubt(doubts, early, late, "tell the same time")
    mixed = "are less than a day apart, and only one of the two names a time zone"
    for files_so_far in (ordered, ordered[::-1]):
        for file, other in _beside(files_so_far):
            if abs(file.time.us - other.time.us) < _DAY:
                _doubt(doubts, file, other, mixed)
    for file in ordered:
        if file.strange:
            doubts[file.name] = f"{os.fsdecode(file.name)} may count as a picture before it, or not"
    return [Placed(file, doubts.get(file.name, "")) for file in ordered]


def _doubt(doubts: dict[bytes, str], file: File, other: File, why: str) -> None:
    first, second = sorted((os.fsdecode(file.name), os.fsdecode(other.name)))
    for name in (file.name, other.name):
        doubts.setdefault(name, f"{first} and {second} {why}")


def _beside(ordered: Sequence[File]) -> Iterable[tuple[File, File]]:
    """Each file with the last one of the other kind (with a zone, without one) before it."""
    last: dict[bool, File] = {}
    for file in ordered:
        last[file.time.zoned] = file
        if other := last.get(not file.time.zoned):
            yield file, other
