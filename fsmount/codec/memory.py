"""The caches that a worker process keeps from one job to the next.

One object holds all of them. A job calls :func:`of_worker`, sets the budgets, and passes the object
down. Code that gets None keeps nothing. The caches never change a result, only the time it takes.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import TypeVar

from fsmount.lru import Lru

# Level, strategy, memory level, window bits; number of input bytes.
_StreamKey = tuple[int, int, int, int, int]

_K = TypeVar("_K", bound=Hashable)
_T = TypeVar("_T")

# Apart from the budget. Enough for a picture of 3840 x 2160 pixels. The filters of larger pictures
# are undone whole.
_PICTURE_BYTES = 128 << 20
# Mostly frames that are also in `pictures`.
_FEATURE_BYTES = 64 << 20
_RECORD_BYTES = 8 << 20
_DICTIONARY_BYTES = 16 << 20


class OpaqueLru(Lru[_K, object]):
    """A cache of values whose types belong to packages above this module."""

    def get_as(self, key: _K, kind: type[_T]) -> _T | None:
        """Return the value as `get` does, if it is a `kind`; otherwise None."""
        value = self.get(key)
        return value if isinstance(value, kind) else None


class WorkerMemory:
    """The caches of a process. Only the package that a value belongs to reads and writes it.

    Within the budget:

    - `streams`: deflate streams, by their four parameters and the bytes of their input.
    - `runs`: pictures of legacy folders, by their steps.

    Apart from the budget:

    - `models`: models of deflate encoders, newest first.
    - `pictures`: the newest picture of each layout.
    - `features`: features of the newest frame of each geometry.
    - `records`: records, by pack and object.
    - `dictionaries`: contents of dictionaries, by pack and object.
    - `lent`: layers that the latest job was lent, by their keys.
    - `genuine`: whether a legacy file is exactly what the encoder here writes, by path and stamp.
    """

    def __init__(self) -> None:
        self.streams: OpaqueLru[_StreamKey] = OpaqueLru(0)
        self.runs: OpaqueLru[Hashable] = OpaqueLru(0)
        self.models: list[bytes] = []
        self.pictures: OpaqueLru[Hashable] = OpaqueLru(_PICTURE_BYTES)
        self.features: OpaqueLru[str] = OpaqueLru(_FEATURE_BYTES)
        self.records: OpaqueLru[tuple[str, int]] = OpaqueLru(_RECORD_BYTES)
        self.dictionaries: OpaqueLru[tuple[str, int]] = OpaqueLru(_DICTIONARY_BYTES)
        self.lent: dict[Hashable, object] = {}
        self.genuine: dict[tuple[str, tuple[int, int]], bool] = {}

    def share_for_runs(self, budget: int) -> None:
        """Give `budget` bytes to jobs of a legacy folder.

        Its pictures get all of them. The streams get at most a quarter as many bytes on top.
        """
        if budget != self.runs.budget:
            self.runs.resize(budget)
            self.streams.resize(budget // 4)


@functools.cache
def of_worker() -> WorkerMemory:
    """Return the memory of this process. The first job creates it."""
    return WorkerMemory()
