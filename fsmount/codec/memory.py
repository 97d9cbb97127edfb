"""The caches that a worker process keeps from one job to the next.

One object holds all of them. A job calls :func:`of_worker`, sets the budgets, and passes the object
down. Code that gets None keeps nothing. The caches never change a result, only the time it takes.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import Any

from fsmount.lru import Lru

# Apart from the budget. Enough for a picture of 3840 x 2160 pixels. The filters of larger pictures
# are undone whole.
_PICTURE_BYTES = 128 << 20
# Mostly frames that are also in `pictures`.
_FEATURE_BYTES = 64 << 20
_RECORD_BYTES = 8 << 20


class WorkerMemory:
    """The caches of a process.

    Values have type Any: they belong to packages above this module, and only these read them.

    Within the budget:

    - `streams`: deflate streams, by parameters and length of their input.
    - `layers`: decoded layers, by pack and object.
    - `runs`: pictures of legacy folders, by their steps.

    Apart from the budget:

    - `models`: models of deflate encoders, newest first.
    - `pictures`: the newest picture of each layout.
    - `features`: features of the newest frame of each geometry.
    - `records`: records, by pack and object.
    - `held`: pictures for other processes, by SHA-256 (see :mod:`fsmount.work.shared_frames`).
    - `genuine`: whether a legacy file is exactly what the encoder here writes, by path and stamp.
    """

    def __init__(self) -> None:
        self.streams: Lru[Any, Any] = Lru(0)
        self.layers: Lru[tuple[str, int], Any] = Lru(0)
        self.runs: Lru[Any, Any] = Lru(0)
        self.models: list[bytes] = []
        self.pictures: Lru[Any, Any] = Lru(_PICTURE_BYTES)
        self.features: Lru[str, Any] = Lru(_FEATURE_BYTES)
        self.records: Lru[tuple[str, int], Any] = Lru(_RECORD_BYTES)
        self.held: OrderedDict[bytes, Any] = OrderedDict()
        self.genuine: dict[tuple[str, tuple[int, int]], bool] = {}

    def share_for_store(self, budget: int) -> None:
        """Split `budget` bytes for jobs of a store: half for streams, half for layers."""
        self.streams.resize(budget // 2)
        self.layers.resize(budget - budget // 2)

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
