"""What a worker process keeps from one job to the next.

One object holds all of it. A job asks :func:`of_worker` for it, says what it may take, and hands it
down; code that is given None keeps nothing. What is kept never changes a result, only the time it
takes.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import Any

from fsmount.lru import Lru

# Beside the budget. Enough for a picture of 3840 x 2160; larger ones are undone whole.
_PICTURE_BYTES = 128 << 20
# Mostly frames that are among `pictures`, too.
_FEATURE_BYTES = 64 << 20
_RECORD_BYTES = 8 << 20


class WorkerMemory:
    """The caches of a process.

    Values are of type Any: they belong to packages above this module, which alone read them.

    Within the budget: `streams`, deflate streams by parameters and length of their input;
    `layers`, decoded layers by pack and object; `runs`, pictures of legacy folders by their steps.

    Beside it: `models` of encoders, newest first; `pictures`, the newest of each layout;
    `features` of the newest frame of each geometry; `records` by pack and object; `held`, pictures
    for other processes by SHA-256 (see :mod:`fsmount.work.shared_frames`); `genuine`, legacy files
    that are what the encoder here writes, by path and stamp.
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
        """Split `budget` bytes for jobs of a legacy folder: all for its pictures, of which the
        streams take no more than a quarter as much."""
        if budget != self.runs.budget:
            self.runs.resize(budget)
            self.streams.resize(budget // 4)


@functools.cache
def of_worker() -> WorkerMemory:
    """The memory of this process, made by its first job."""
    return WorkerMemory()
