"""Death of the process before, within and after every call that changes the store.

A script of 200 operations runs once. At each call (of `store/disk/disk.py` and of SQLite) the
harness notes the state of the folder. Another process would find this state if this process died
at that point. The harness opens each state. The store must recover without help, have the right
files, be whole, and have freed the space of unfinished work.

The calls of recovery are points, too. In the middle of the script the harness renames the folder
and makes another store under its old name. With every second seed it later gives the folder its
name back.

``python -m tests.crash.points [--seeds N] [--operations N] [--every N] [--again N]``
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import trio

from fsmount.store import config
from fsmount.store.store import open_store
from tests.crash.alarms import alarms
from tests.crash.command import options, processes, report
from tests.crash.limits import small_limits
from tests.crash.model import Tree
from tests.crash.moving import Moving
from tests.crash.planted import caught
from tests.crash.scratch import fast
from tests.crash.script import Script
from tests.crash.traffic import Call, Tap, listen, tapped
from tests.crash.verdict import Chunks, Rendering, State, judge

T = TypeVar("T")
_CHANGES_NOTHING = ("open", "close", "fsync", "fsync_folder", "chmod")


class Noting(Tap):
    """Notes the folder before each call, in the middle of writes, and after the call."""

    def __init__(
        self, root: Path, chunks: Chunks, allowed: Callable[[], tuple[Tree, Tree]]
    ) -> None:
        self._root = root
        self._chunks = chunks
        self._allowed = allowed
        self._files = chunks.files(root)
        self._state = State.of(self._files)
        self.points: Counter[State] = Counter()
        self.states: dict[State, list[tuple[str, tuple[Tree, Tree]]]] = {}

    def call(self, call: Call, do: Callable[[], T]) -> T:
        what = f"{call.name} {call.path}"
        self._note("before " + what)
        # Skip a program's own write: before it is answered, any part of it may be in the file.
        if call.name == "pwrite" and len(call.data) > 1 and not call.path.startswith("staging/"):
            self._half(call, what)
        result = do()
        self._look_at(call.path, call)
        if call.other:
            self._look_at(call.other)
        self._note("after " + what)
        return result

    def _look_at(self, path: str, call: Call | None = None) -> None:
        """Read one path again. A call can change only the paths that it names."""
        if call is not None and call.name == "pwrite":
            part = call.offset, len(call.data)
            self._chunks.refresh_part(self._files, self._root, path, *part)
        elif call is None or call.name not in _CHANGES_NOTHING:
            self._chunks.refresh(self._files, self._root, path)
        self._state = State.of(self._files)

    def _note(self, what: str) -> None:
        self.points[self._state] += 1
        seen = self.states.setdefault(self._state, [])
        allowed = self._allowed()
        if not any(known[0] is allowed[0] and known[1] is allowed[1] for _, known in seen):
            seen.append((what, allowed))

    def _half(self, call: Call, what: str) -> None:
        """Note the state after half of a write."""
        path = self._root / call.path
        half = call.data[: len(call.data) // 2]
        with path.open("r+b", buffering=0) as file:
            fd = file.fileno()
            size = os.fstat(fd).st_size
            old = os.pread(fd, len(half), call.offset)
            os.pwrite(fd, half, call.offset)
            self._look_at(call.path, call)
            self._note("within " + what)
            os.pwrite(fd, old, call.offset)
            os.ftruncate(fd, size)


def run_script(root: Path, tap: Tap, script: Script, follow: Path | None = None) -> None:
    """Run the script on the existing store at `root`. All calls go through `tap`."""

    async def work() -> None:
        with tapped(root, tap, follow) as disk:
            opened = open_store(root, disk=disk)
            try:
                async with opened.running(count=1) as store:
                    await script.run(store)
            finally:
                opened.close()

    trio.run(work)


def quiet() -> None:
    """Disable the log; the verdicts report all failures."""
    logging.disable(logging.CRITICAL)


def explore(
    seed: int, operations: int, every: int, again: int, prunes: bool = True
) -> tuple[int, int, list[str]]:
    """Run a script and the recoveries; returns (points, distinct states, failure texts)."""
    quiet()
    listen()
    small_limits()
    with tempfile.TemporaryDirectory(dir=fast()) as scratch:
        folder = Path(scratch)
        root = folder / "store"
        with tapped(root, Tap()) as disk:
            config.make(root, disk)
        script = Script(seed, operations, prunes=prunes)
        chunks = Chunks()
        moving = Moving(root)
        script.events[operations // 3] = moving.away
        if seed % 2:
            script.events[2 * operations // 3] = moving.back
        first = Noting(moving.path, chunks, lambda: (script.now, script.then))
        with alarms() as errors:
            run_script(root, first, script, moving.path)
        changed = moving.close()
        wrong = [changed] * bool(changed) + [f"while the script ran: {error}" for error in errors]
        if script.failed:
            wrong.append(f"{script.failed} operations failed on a disk that did not")
        points, states, found = judge_all(folder, first, chunks, every, again)
        return points, states, wrong + found


def judge_all(
    folder: Path, first: Noting, chunks: Chunks, every: int, again: int
) -> tuple[int, int, list[str]]:
    """Open each `every`-th state that was noted; returns (points, distinct states, failures).

    The calls of each `again`-th of these recoveries are points, too.
    """
    points, wrong = 0, []
    judged = 0
    rendering = Rendering()
    twice: dict[State, tuple[str, list[Tree]]] = {}
    root = folder / "after"
    for number, (state, seen) in enumerate(first.states.items()):
        if number % every:
            continue
        points += first.points[state]
        judged += 1
        for what, allowed in seen:
            chunks.put(state, root)
            second = Noting(root, chunks, lambda allowed=allowed: allowed)  # type: ignore[misc]
            dying = number % (every * again) == 0
            with tapped(root, second if dying else Tap()) as disk:
                why = judge(root, list(allowed), rendering, disk)
            if why:
                wrong.append(f"{what}: {why}")
            if caught(wrong):
                return points, judged, wrong
            if not dying:
                continue
            points += second.points.total()
            for inner, notes in second.states.items():
                if inner not in first.states:
                    twice.setdefault(inner, (f"{what}, then {notes[0][0]}", list(allowed)))
    for state, (what, trees) in twice.items():
        chunks.put(state, root)
        with tapped(root, Tap()) as disk:
            why = judge(root, trees, rendering, disk)
        if why:
            wrong.append(f"{what}: {why}")
    return points, judged + len(twice), wrong


def main() -> int:
    """Run the command that the module describes."""
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--operations", type=int, default=200)
    parser.add_argument("--every", type=int, default=1, help="judge every n-th state only")
    parser.add_argument("--again", type=int, default=20, help="kill every n-th recovery, too")
    parser.add_argument("--no-prunes", action="store_true", help="scripts that prune nothing")
    given = parser.parse_args()
    settings = given.operations, given.every, given.again, not given.no_prunes
    work = [(given.first + i, *settings) for i in range(given.seeds)]
    with processes(given, len(work)) as pool:
        results = pool.starmap(explore, work)
    points, states = sum(r[0] for r in results), sum(r[1] for r in results)
    wrong = [line for _, _, lines in results for line in lines]
    return report(f"{points} points, {states} distinct states", wrong)


if __name__ == "__main__":
    sys.exit(main())
