"""A long test of losslessness: made-up files go into stores with workers, and all are read back.

Each batch of files (:mod:`tests.support.picture_files`) goes into a store of its own. The store is
then opened again for reading. Every file must come back byte for byte. The run counts the kinds of
objects that each kind of file became, and the ways in which frames were coded.

``python -m tests.lossless [--files N] [--seed N] [--jobs N] [--batch N]``
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import trio

from fsmount.codec.delta.delta import Copy, Fill
from fsmount.codec.memory import WorkerMemory
from fsmount.errors import FsmountError
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.frames.layers import JobLayers, Loan
from fsmount.store.frames.reader import Reader
from fsmount.store.index import ROOT, Object
from fsmount.store.packs.entries import FRAMES, layout_of
from fsmount.store.packs.location import Location
from fsmount.store.read_store import ReadStore
from fsmount.store.recovery.check import check_relations
from fsmount.store.store import open_read_store, open_store
from tests.support.encoding import get, put
from tests.support.picture_files import KINDS_OF_FILES, files

_AT_ONCE = 4


@dataclass
class Result:
    """Counts of files and objects, and errors.

    `became` counts pairs (kind of file, kind of object), `ways` the ways in which frames were
    coded, and `reasons` the reasons for raw objects. `wrong` lists the errors.
    """

    became: Counter[tuple[str, str]] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Result) -> None:
        """Add the counts and errors of another batch."""
        self.became += other.became
        self.ways += other.ways
        self.reasons += other.reasons
        self.wrong += other.wrong


def batch(seed: int, number: int, count: int) -> Result:
    """Make the files of one batch, store them, and read them back."""
    made = list(files(random.Random(f"{seed}/{number}"), count))
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as scratch:
        root = Path(scratch) / "store"
        config.make(root, Disk())
        trio.run(_fill, root, made)
        found = trio.run(_compare, root, made)
    found.wrong = [f"--seed {seed}, batch {number} of {count}, {why}" for why in found.wrong]
    return found


async def _fill(root: Path, made: list[tuple[str, bytes]]) -> None:
    opened = open_store(root)
    try:
        async with opened.running(count=1) as store:
            for number, (_, data) in enumerate(made):
                put(store, b"%07d.png" % number, data)
                if number % 64 == 0:
                    await trio.lowlevel.checkpoint()
            await store.drain()
    finally:
        opened.close()


async def _compare(root: Path, made: list[tuple[str, bytes]]) -> Result:
    result = Result()
    opened = open_read_store(root)
    try:
        result.wrong += [
            f"check: {what}: {why}" for what, why, _ in check_relations(opened).findings
        ]
        slots = trio.CapacityLimiter(_AT_ONCE)
        async with opened.running(count=1) as store, trio.open_nursery() as nursery:
            for number, (kind, data) in enumerate(made):
                nursery.start_soon(_one, store, number, kind, data, slots, result)
        for found in opened.index.all_objects():
            result.ways.update(_ways(opened, found))
        result.reasons.update(opened.stats()["raw_reasons"])
    finally:
        opened.close()
    return result


async def _one(
    store: ReadStore,
    number: int,
    kind: str,
    data: bytes,
    slots: trio.CapacityLimiter,
    result: Result,
) -> None:
    async with slots:
        node = store.index.lookup(ROOT, b"%07d.png" % number)
        if node is None or node.object_id is None:
            result.wrong.append(f"file {number} ({kind}): not there, or not encoded")
            return
        result.became[kind, store.index.object(node.object_id).kind] += 1
        try:
            same = await get(store, node.ino) == data
        except (FsmountError, OSError, AssertionError) as error:
            result.wrong.append(f"file {number} ({kind}): {error}")
        else:
            if not same:
                result.wrong.append(f"file {number} ({kind}): other bytes")


def _ways(store: StoreFiles, found: Object) -> set[str]:
    """The ways in which a frame was coded."""
    if found.kind not in FRAMES:
        return set()
    needed = (store.index.object(i) for i in {*found.needs, found.id})
    places = [Location(o.id, str(store.layout.pack(o.pack)), o.offset, o.length) for o in needed]
    reader = Reader(places, WorkerMemory(), JobLayers(Loan()))
    written = reader.record(reader.entry(found.id))
    layout = layout_of(written)
    used = {layout.source(slot) for slot in np.unique(layout.tiles).tolist() if slot}
    moved = [isinstance(source, Copy) and bool(source.dx or source.dy) for source in used]
    ways = {
        "with copies": any(isinstance(source, Copy) for source in used),
        "with moves": any(moved),
        "with fills": any(isinstance(source, Fill) for source in used),
        "with residuals": bool(layout.prediction.any()),
        "without own pixels": not layout.own().any(),
        "by corrections": "corrections" in written.arrays,
    }
    return {way for way, is_so in ways.items() if is_so}


def report(result: Result, seconds: float) -> str:
    """The counts and the first errors as text."""
    total = sum(result.became.values())
    lines = result.wrong[:20]
    for kind in KINDS_OF_FILES:
        counts = {one: result.became[kind, one] for one in ("key", "delta", "raw")}
        told = ", ".join(f"{count:,} {one}" for one, count in counts.items())
        lines.append(f"{kind}: {sum(counts.values()):,} files, {told}")
    lines.append("objects " + ", ".join(f"{way}: {n:,}" for way, n in sorted(result.ways.items())))
    reasons = ", ".join(f"{reason}: {n:,}" for reason, n in result.reasons.most_common())
    lines.append(f"raw for {reasons}")
    lines.append(f"{total:,} files in {seconds:.0f} s, {len(result.wrong)} differ")
    return "\n".join(lines)


def main() -> int:
    """Run all batches and print the report. Returns 1 if an error was found, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=2000, help="files in one store")
    given = parser.parse_args()
    sizes = [given.batch] * (given.files // given.batch)
    sizes += [given.files % given.batch] * bool(given.files % given.batch)
    whole, begin, done = Result(), time.monotonic(), 0
    with get_context("spawn").Pool(given.jobs) as pool:
        work = [pool.apply_async(batch, (given.seed, n, size)) for n, size in enumerate(sizes)]
        for size, answer in zip(sizes, work, strict=True):
            whole.add(answer.get())
            done += size
            seconds = time.monotonic() - begin
            told = f"{done:,} files, {seconds:.0f} s, {len(whole.wrong)} differ"
            print(told, file=sys.stderr, flush=True)
    print(report(whole, time.monotonic() - begin))
    return 1 if whole.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
