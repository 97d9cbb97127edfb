"""Death of the process before, within and after every call of a prune and what follows it.

A store has pictures that take pixels from each other. Some of them are pruned, some come back, and
the others leave the trash: objects are dropped and trimmed, and packs get shorter. This happens
three times. The harness notes the state of the folder at each call, and opens each state as
another process would find it. The store must be whole, each picture that had to be kept must have
its bytes, and what is in the trash must be there as a whole or shown as a whole.

``python -m tests.crash.prunes [--seeds N] [--first N] [--every N] [--again N]``
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from fsmount.store import config
from fsmount.store.index import ROOT
from fsmount.store.maintenance import compacting, copies, maintenance, trimming
from fsmount.store.recovery import consistency
from fsmount.store.retention import pruning
from fsmount.store.retention.trash import Name
from fsmount.store.store import open_store
from fsmount.store.writable_store import WritableStore
from tests.crash.alarms import alarms
from tests.crash.command import options, processes, report
from tests.crash.limits import patch, small_limits
from tests.crash.model import Tree, differences
from tests.crash.points import Noting, judge_all, quiet
from tests.crash.scratch import fast
from tests.crash.traffic import Tap, listen, tapped
from tests.crash.verdict import Chunks, Rendering, tree_of
from tests.support.encoding import put
from tests.support.frames import png, screens, scrolled

_ROUNDS = 3


class Prunes:
    """The steps. `now` is the tree before the step under way, `then` the tree after it."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.now: Tree = {}
        self.then: Tree = {}
        self.wrong: list[str] = []

    async def fill(self, store: WritableStore, seed: int) -> None:
        """Store the pictures, and note the tree."""
        frames = [*screens(12, seed=seed, height=48, width=64), *scrolled(4, 64, 96)]
        for number, frame in enumerate(frames):
            put(store, b"%02d.png" % number, png(frame))
            await store.drain()
        await store.durable()
        self.now = self.then = tree_of(store, Rendering())

    async def run(self, store: WritableStore) -> None:
        """Prune, bring back and empty, several times."""
        # There is only one connection: see Script.run.
        patch(copies, "collect_beside", lambda _: copies.collect(store.index))
        patch(consistency, "contradiction_at", lambda _: store.index.contradiction())
        patch(compacting, "faults_at", lambda _: store.index.integrity())
        patch(maintenance, "find_hidden_at", lambda _: trimming.find_hidden_in(store.index))
        for _ in range(_ROUNDS):
            gone = self._chance.sample(sorted(self.now), 4)
            before = dict(self.now)
            names = [Name(ROOT, name, name, self._ino(store, name)) for name in gone]
            left = {path: seen for path, seen in before.items() if path not in gone}
            await self._step(store, left, partial(store.prune, names))
            back = gone[0]
            await self._step(store, left | {back: before[back]}, partial(_restore, store, back))
            await self._step(store, self.now, partial(_remove, store))
            await self._step(store, self.now, store.give_back)

    async def _step(
        self, store: WritableStore, then: Tree, call: Callable[[], Awaitable[object]]
    ) -> None:
        self.then = then
        await call()
        self.now = then
        if why := differences(tree_of(store, Rendering()), then):
            self.wrong.append(f"after a step: {why}")

    def _ino(self, store: WritableStore, name: bytes) -> int:
        found = store.index.lookup(ROOT, name)
        assert found is not None
        return found.ino


async def _restore(store: WritableStore, path: bytes) -> None:
    assert [reason for _, reason in store.trash.restore(lambda other: other == path)] == [None]
    await store.durable()


async def _remove(store: WritableStore) -> None:
    await store.trash.remove([entry.name for entry, _ in store.index.in_trash()])


def explore(seed: int, every: int, again: int) -> tuple[int, int, list[str]]:
    """Run the steps and the recoveries; returns (points, distinct states, failure texts)."""
    quiet()
    listen()
    small_limits()
    patch(trimming, "_LEAST_BYTES", 1)
    patch(pruning, "WASTE", 0.0)
    with tempfile.TemporaryDirectory(dir=fast()) as scratch:
        folder = Path(scratch)
        root = folder / "store"
        script = Prunes(seed)
        with tapped(root, Tap()) as disk:
            config.make(root, disk)
        _run(root, Tap(), partial(script.fill, seed=seed))
        chunks = Chunks()
        noting = Noting(root, chunks, lambda: (script.now, script.then))
        with alarms() as errors:
            try:
                _run(root, noting, script.run)
            except* Exception as error:
                script.wrong.append(f"while the steps ran: {error!r} {error.exceptions!r}")
        wrong = script.wrong + [f"while the steps ran: {error}" for error in errors]
        points, states, found = judge_all(folder, noting, chunks, every, again)
        return points, states, wrong + found


def _run(root: Path, tap: Tap, work: Callable[[WritableStore], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        with tapped(root, tap) as disk, open_store(root, disk=disk) as opened:
            async with opened.running(count=1) as store:
                await work(store)

    trio.run(all_of_it)


def main() -> int:
    """Run the command that the module describes."""
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="judge every n-th state only")
    parser.add_argument("--again", type=int, default=20, help="kill every n-th recovery, too")
    given = parser.parse_args()
    work = [(given.first + i, given.every, given.again) for i in range(given.seeds)]
    with processes(given, len(work)) as pool:
        results = pool.starmap(explore, work)
    points, states = sum(r[0] for r in results), sum(r[1] for r in results)
    wrong = [line for _, _, lines in results for line in lines]
    return report(f"{points} points, {states} distinct states", wrong)


if __name__ == "__main__":
    sys.exit(main())
