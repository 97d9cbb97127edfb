"""Damaged stretches of large packs: each file must be read right, and a repair must heal the pack.

The harness makes a store of some packs, writes random bytes over one stretch at a time, and reads
files whose entries the stretch touches. Seven of eight stretches have up to 4 KiB, the others 64.
Each 25th pack is healed instead of restored.

``python -m tests.crash.stretches [--damages 4000] [--megabytes 150]``
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import trio

from fsmount.errors import FsmountError
from fsmount.store import config
from fsmount.store import store as store_module
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Object
from fsmount.store.layout import Layout
from fsmount.store.packs.parity import STRETCH_BYTES
from fsmount.store.recovery.heal import heal_packs
from fsmount.store.store import open_read_store, open_store
from tests.crash.command import options, processes, report
from tests.crash.limits import patch
from tests.crash.planted import caught
from tests.crash.points import quiet
from tests.support.encoding import Inline, forget_caches, put
from tests.support.frames import png, screens

_SHORT = 4096
_EACH_LONG, _EACH_HEALED = 8, 25
_MOST_READ = 4
_FRAMES = 100


def make_store(root: Path, nbytes: int) -> None:
    """Make a store of screens and of files of noise that have so many bytes together."""
    config.make(root, Disk())
    chance = random.Random(1)

    async def fill() -> None:
        with open_store(root) as opened:
            async with opened.running(count=1) as store:
                for number, frame in enumerate(screens(_FRAMES)):
                    put(store, b"%d.png" % number, png(frame))
                await store.drain()
                left = nbytes
                while left > 0:
                    size = min(left, int(10 ** chance.uniform(2, 5.5)))
                    put(store, b"%d.bin" % left, chance.randbytes(size))
                    left -= size
                    await store.drain()

    trio.run(fill)


class Packs:
    """The packs of a store, and the objects of its files by pack."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.objects: dict[int, list[Object]] = defaultdict(list)
        with open_read_store(root) as opened:
            self.lengths = {number: length for number, (length, _) in opened.index.packs().items()}
            shown = {inode.object_id for *_, inode in opened.index.named_files()}
            for row in opened.index.all_objects():
                if row.id in shown:
                    self.objects[row.pack].append(row)

    def touched(self, number: int, at: int, length: int) -> list[Object]:
        """Return the objects of files whose entries have a byte of a stretch."""
        return [
            row
            for row in self.objects[number]
            if row.offset < at + length and at < row.offset + row.length
        ]


async def _reads(root: Path, rows: list[Object]) -> str:
    """Read files. Return what is wrong, or ""."""
    forget_caches()
    with open_read_store(root) as opened:
        async with opened.running(count=1, cache_bytes=0) as store:
            for row in rows:
                try:
                    body = await store.body(row.id)
                    data = await body.pread(0, body.size)
                except (FsmountError, OSError) as error:
                    return f"object {row.id} cannot be read: {error}"
                if hashlib.sha256(data).digest() != row.sha256:
                    return f"object {row.id} gives wrong bytes"
    return ""


async def _damage_often(root: Path, seed: int, count: int) -> list[str]:
    """Damage random stretches, one after the other. Returns the failure texts."""
    packs, chance, wrong = Packs(root), random.Random(seed), list[str]()
    numbers, weights = zip(*packs.lengths.items(), strict=True)
    for turn in range(count):
        (number,) = chance.choices(numbers, weights)
        longest = STRETCH_BYTES if turn % _EACH_LONG == 0 else chance.randint(1, _SHORT)
        length = min(longest, packs.lengths[number])
        at = chance.randint(0, packs.lengths[number] - length)
        rows = packs.touched(number, at, length)
        with packs.layout.pack(number).open("r+b", buffering=0) as file:
            whole = os.pread(file.fileno(), length, at)
            os.pwrite(file.fileno(), chance.randbytes(length), at)
            why = await _reads(root, chance.sample(rows, min(len(rows), _MOST_READ)))
            if turn % _EACH_HEALED == 0:
                heal_packs(packs.layout, Disk(), packs.lengths)
                if os.pread(file.fileno(), length, at) != whole:
                    why = why or "it is not healed"
            os.pwrite(file.fileno(), whole, at)
        if why:
            wrong.append(f"{length} bytes at {at} of pack {number}: {why}")
        if caught(wrong):
            break
    return wrong


def explore(seed: int, count: int, nbytes: int) -> list[str]:
    """Make a store and damage it so many times. Returns the failure texts."""
    quiet()
    patch(store_module, "Workers", Inline)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "store"
        make_store(root, nbytes)
        return trio.run(_damage_often, root, seed, count)


def main() -> int:
    """Run the command that the module describes."""
    parser = options(__doc__)
    parser.add_argument("--damages", type=int, default=4000)
    parser.add_argument("--megabytes", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    share = -(-given.damages // given.jobs)
    work = [(given.seed + job, share, given.megabytes * 10**6) for job in range(given.jobs)]
    with processes(given) as pool:
        wrong = [line for lines in pool.starmap(explore, work) for line in lines]
    return report(f"{share * given.jobs} stretches", wrong)


if __name__ == "__main__":
    sys.exit(main())
