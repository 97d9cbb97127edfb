"""CPU time of each stage of a picture, in and out, and of a whole import.

    python -m tests.bench.stages [FOLDER_OF_PNGS]

The figures are CPU milliseconds a picture. Other programs on the machine change them less than wall
times. `blog` is the method of `tests.bench.blog`, in one process in the same run.
"""

from __future__ import annotations

import itertools
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import trio

from fsmount.codec.deflate.deflate import DeflateParams
from fsmount.codec.png.png import parse
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.frames import jobs
from fsmount.store.frames.jobs import EncodeOrder
from fsmount.store.packs.entries import FileFacts
from fsmount.store.store import open_store
from fsmount.store.transfer.importing import Importer
from tests.bench.blog import difference
from tests.support.corpus import root
from tests.support.encoding import BUDGET, Line, forget_caches

P = ParamSpec("P")
T = TypeVar("T")


class Clock:
    """CPU seconds of this process, of all threads, by the name of the stage."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def time(self, name: str, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        start = time.process_time()
        result = action(*args, **kwargs)
        self.seconds[name] += time.process_time() - start
        return result


class Stages(Line):
    """Encodes pictures one after the other, in this process."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        super().__init__(folder)
        self.clock = clock

    def put(self, file: Path, hints: tuple[DeflateParams, ...]) -> tuple[int, bytes]:
        """Encode one picture and time each stage; returns (object number, SHA-256)."""
        seen = self.clock.time("look", jobs.look, str(file), hints, BUDGET)
        assert seen.picture is not None, seen.reason
        assert seen.features is not None
        plan = self.clock.time("plan", self.planner.plan, seen.features)
        number = len(self.places) + 1
        about = FileFacts(number, file.name, 0, seen.sha256, seen.size)
        order = EncodeOrder(about, seen.picture, plan, self.wanted(plan))
        if plan.near:
            loan = self.loan(order.places)
            plan = self.took(self.clock.time("find moves", jobs.find_moves, order, loan))
        plan = self.clock.time("plan", self.planner.note, seen.features, plan, number)
        places, pack = self.wanted(plan), str(self.pack.path)
        order = replace(order, plan=plan, places=places, pack=pack)
        encoded = self.took(self.clock.time("encode", jobs.encode, order, self.loan(places)))
        self.append(order, encoded)
        self.planner.coded(seen.features, plan, encoded.layout, number)
        return number, seen.sha256

    def get(self, number: int, sha256: bytes, stage: str) -> None:
        """Render one picture, and time it as `stage`."""
        needs = [self.places[known] for known in self.rows[number].needs]
        place, loan = self.places[number], self.loan(needs)
        self.took(self.clock.time(stage, jobs.render, place, needs, sha256, loan))


def stages(files: list[Path], scratch: Path) -> dict[str, float]:
    """CPU seconds a picture, by stage."""
    clock = Clock()
    line = Stages(scratch, clock)
    params = parse(files[0].read_bytes()).recipe.params
    hints = (params,) if isinstance(params, DeflateParams) else ()
    pictures = [line.put(file, hints) for file in files]
    forget_caches()
    for number, sha256 in pictures:
        line.get(number, sha256, "render, in order")
    found = {name: seconds / len(files) for name, seconds in clock.seconds.items()}
    some = pictures[:: max(1, len(pictures) // 12)]
    for number, sha256 in some:
        forget_caches()
        line.get(number, sha256, "render, cold")
    return found | {"render, cold": clock.seconds["render, cold"] / len(some)}


def cpu() -> tuple[float, float]:
    """CPU seconds: (of this process, of its ended children)."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return used[0].ru_utime + used[0].ru_stime, used[1].ru_utime + used[1].ru_stime


async def ingest(folder: Path, scratch: Path) -> None:
    """Import a folder, with workers."""
    config.make(scratch / "store", Disk())
    opened = open_store(scratch / "store")
    async with opened.running() as store:
        await Importer(store, lambda files, count: None).add(folder, b"")
    opened.close()


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else root() / "desk"
    files = sorted(folder.glob("*.png"))
    with tempfile.TemporaryDirectory() as scratch:
        before = cpu()
        trio.run(ingest, folder, Path(scratch))
        after = cpu()
        found = stages(files, Path(scratch))
    start = time.process_time()
    for pair in itertools.pairwise(files):
        difference(pair)
    found["blog, in"] = (time.process_time() - start) / len(files)
    found["import: the process that owns the store"] = (after[0] - before[0]) / len(files)
    found["import: its workers, their start included"] = (after[1] - before[1]) / len(files)
    print(f"{len(files)} pictures, CPU ms a picture")
    for name, seconds in found.items():
        print(f"{name:44}{1000 * seconds:8.1f}")


if __name__ == "__main__":
    main()
