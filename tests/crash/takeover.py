"""A second writer takes the store over in the middle of the script.

Nothing keeps the second writer out: the two do not share flock, and the second finds the lock file
empty at the same moment. Both use SQLite without locks and without shared memory, as on two hosts.

The first writer asks again and again whether the store is still its own. The takeover happens just
before the n-th question, for every n. (Between a question and the call behind it, the first writer
may still remove or overwrite data. Nothing can prevent this.) The ways of the second writer:

- *visit*: opens the store and closes it.
- *work*: opens the store, encodes the staged files, adds files, and closes it.
- *stay*: as *work*, but closes the store after the first writer.
- *die*: as *stay*, but both writers are killed and neither closes the store.
- *between*: as *visit*, but between a question and the transaction behind it. The first writer
  then commits the transaction, and asks once more before it acknowledges.
- *late*: opens the store with ``--force-lock`` and finds the index as it was at its last fsync.
  Later changes of the first writer have not arrived there yet.

The second writer must find the tree as before or as after the step under way. After that the first
writer must acknowledge no change. At the end the store must be whole and have the tree that the
second writer left. In the way *late*, all acknowledged bytes must be in the tree or in ``lost/``.

``python -m tests.crash.takeover [--every N] [--operations N]``
"""

from __future__ import annotations

import fcntl
import functools
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import apsw
import trio

from fsmount.errors import FsmountError
from fsmount.store import config, lock
from fsmount.store.files import StoreFiles
from fsmount.store.index.database import Database
from fsmount.store.maintenance import copies
from fsmount.store.ownership import Ownership
from fsmount.store.store import OpenedStore, open_store
from tests.crash import traffic
from tests.crash.command import report, run_cases
from tests.crash.errors import remember_codecs
from tests.crash.limits import small_limits
from tests.crash.model import Node, Tree, differences
from tests.crash.planted import caught
from tests.crash.points import quiet
from tests.crash.scratch import fast
from tests.crash.script import Script, Spoilt
from tests.crash.traffic import Call, Tap, WatchedDisk, listen, tapped
from tests.crash.verdict import Chunks, Rendering, tree_of, whole
from tests.support.encoding import NOTE, forget_caches, put
from tests.support.frames import png, screens

T = TypeVar("T")
WAYS = ("visit", "work", "stay", "die", "between", "late")
_LOG = "index.sqlite-wal"


class Forced(Tap):
    """Keeps a copy of the index's log as of its last fsync."""

    def __init__(self, root: Path) -> None:
        self._log = root / _LOG
        self.data = b""

    def call(self, call: Call, do: Callable[[], T]) -> T:
        result = do()
        if call.name == "fsync" and call.path == _LOG and self._log.exists():
            self.data = self._log.read_bytes()
        return result


class FirstWriter(Script):
    """The script. After the takeover each step must fail or change nothing."""

    def __init__(self, seed: int, count: int) -> None:
        super().__init__(seed, count)
        # The step under way at the takeover (0: before the first step).
        self.taken_at: int | None = None
        # The trees before and after that step.
        self.around: tuple[Tree, Tree] = ({}, {})
        self.late: list[str] = []
        # The tree after the step under way, if that step was acknowledged. The second writer must
        # then have found this tree.
        self.acknowledged: Tree | None = None

    async def _operation(self, number: int) -> None:
        try:
            await super()._operation(number)
        except (OSError, FsmountError):
            # The failure of work that is no step: waiting for the encoder, making room.
            if self.taken_at is None:
                raise

    async def _read(self, number: int) -> None:
        try:
            await super()._read(number)
        except Spoilt:
            # A change that was under way may be there, although it was not acknowledged.
            if self.around[0] == self.around[1]:
                raise

    def _failed_step(
        self,
        error: Exception,
        undo: Callable[[], None],
        written: tuple[Node, int, bytes] | None,
    ) -> None:
        if self.taken_at is None:
            super()._failed_step(error, undo, written)
            return
        undo()
        self.now = self.then = self.history[-1][0]

    def _note(self) -> None:
        changed = self.now != self.history[-1][0]
        if self.taken_at is not None and self.steps == self.taken_at:
            self.acknowledged = self.now
        elif self.taken_at is not None and changed:
            self.late.append(differences(self.now, self.history[-1][0]))
        super()._note()

    def forced(self, node: Node | None) -> None:
        if self.taken_at is not None and self.steps > self.taken_at:
            self.late.append("an fsync")
        super().forced(node)


class Takeover:
    """Takes the store over at question number `at` of the first writer; never if `at` is 0."""

    def __init__(self, root: Path, script: FirstWriter, tap: Forced, at: int, way: str) -> None:
        self.root = root
        self.asked = 0
        self.wrong = ""
        self.store: OpenedStore | None = None
        # The tree that the second writer left; None if it took nothing over.
        self.tree: Tree | None = None
        self._script = script
        self._tap = tap
        self._at = at
        self._way = way
        self._first: Ownership | None = None
        self._index: Database | None = None
        self._begun = 0
        self._rendering = Rendering()

    def ask(self, ownership: Ownership) -> None:
        """Called when the first writer is about to ask."""
        self._first = self._first or ownership
        if ownership is not self._first:
            return
        self.asked += 1
        if self._way != "between" and self.asked == self._at:
            self._take_beside()

    def run(self, index: Database, sql: str) -> None:
        """Called when the first writer has asked and is about to run `sql`."""
        self._index = self._index or index
        if index is not self._index or sql != "BEGIN IMMEDIATE":
            return
        self._begun += 1
        if self._way == "between" and self._begun == self._at:
            self._take_beside()

    def _take_beside(self) -> None:
        other = threading.Thread(target=self._take)
        other.start()
        other.join()

    def _take(self) -> None:
        try:
            self._taken()
        except Exception as error:
            self.wrong = f"the second writer: {error!r}"

    def _taken(self) -> None:
        self._script.taken_at = self._script.steps
        self._script.around = self._script.now, self._script.then
        late = self._way == "late"
        self._show_lock(late)
        if late:
            log = self.root / _LOG
            if log.exists():
                # The first writer has this file open and continues to use it.
                log.rename(self.root.parent / "log of the first")
                log.write_bytes(self._tap.data)
        forget_caches()
        disk = WatchedDisk(self.root, Tap())
        opened = self.store = open_store(self.root, disk=disk, force_lock=late)
        found = tree_of(opened, self._rendering)
        wrong = [differences(found, tree) for tree in self._script.around]
        if all(wrong) and not late:
            self.wrong = "; ".join(wrong)
        if self._way in ("work", "stay", "die"):
            trio.run(self._work, opened)
        self.tree = tree_of(opened, self._rendering)
        if self._way not in ("stay", "die"):
            self.close()
        forget_caches()

    def _show_lock(self, late: bool) -> None:
        """Make the second writer find an empty lock file, or an unknown holder if `late`."""
        path = self.root / "lock"
        data = path.read_bytes().replace(b'"boot": "', b'"boot": "another ')
        path.write_bytes(data if late else b"")

    async def _work(self, opened: OpenedStore) -> None:
        collect = copies.collect_beside
        _set(copies, "collect_beside", _collector(opened))
        try:
            async with opened.running(count=1) as store:
                for number, frame in enumerate(screens(3, seed=99, height=48, width=64)):
                    put(store, b"second-%d.png" % number, png(frame))
                put(store, b"second.txt", NOTE)
                await store.drain()
                put(store, b"second-staged.txt", NOTE)
        finally:
            _set(copies, "collect_beside", collect)

    def close(self) -> None:
        """Close the store of the second writer, if it is open."""
        if self.store is not None:
            self.store.close()
            self.store = None


def _collector(store: StoreFiles) -> Callable[[str], bytes]:
    return lambda _: copies.collect(store.index)


def one(seed: int, operations: int, at: int, way: str) -> tuple[int, str]:
    """Run once; returns (number of questions, failure text or ""). `at` 0: no takeover."""
    with tempfile.TemporaryDirectory(dir=fast()) as scratch:
        root = Path(scratch) / "store"
        with tapped(root, Tap()) as disk:
            config.make(root, disk)
        script = FirstWriter(seed, operations)
        rendering = Rendering()
        script.look = lambda store: tree_of(store, rendering)
        tap = Forced(root)
        with tapped(root, tap) as disk:
            takeover = Takeover(root, script, tap, at, way)
            with _watched(takeover):
                wrong = _run(root, disk, script, takeover, way)
            with suppress(OSError, FsmountError, apsw.Error):
                takeover.close()
            return takeover.asked, wrong


@contextmanager
def _watched(takeover: Takeover) -> Iterator[None]:
    asks, runs = Ownership.ask, Database._run

    def ask(self: Ownership) -> None:
        takeover.ask(self)
        asks(self)

    def run(self: Database, sql: str, values: tuple[Any, ...] = ()) -> apsw.Cursor:
        takeover.run(self, sql)
        return runs(self, sql, values)

    _set(Ownership, "ask", ask)
    _set(Database, "_run", run)
    try:
        yield
    finally:
        _set(Ownership, "ask", asks)
        _set(Database, "_run", runs)


def _set(owner: object, name: str, value: object) -> None:
    setattr(owner, name, value)


def _run(root: Path, disk: WatchedDisk, script: FirstWriter, takeover: Takeover, way: str) -> str:
    place = root
    store: OpenedStore | None = None
    try:
        store = trio.run(_first, root, disk, script)
        if way == "die" and takeover.tree is not None:
            chunks = Chunks()
            place = root.parent / "left"
            chunks.put_files(chunks.contents(chunks.files(root)), place)
    except Spoilt as error:
        return str(error)
    except Exception as error:
        return f"raised {error!r}"
    finally:
        if store is not None:
            with suppress(OSError, FsmountError, apsw.Error):
                store.close()
    if place == root:
        takeover.close()
    if script.late:
        return f"acknowledged after the takeover: {script.late[0]}"
    return takeover.wrong or _judge(place, script, takeover, way)


async def _first(root: Path, disk: WatchedDisk, script: FirstWriter) -> OpenedStore | None:
    """Run the first writer to its end; returns its open store, or None if it could not open."""
    try:
        opened = open_store(root, disk=disk)
    except OSError:
        # The second writer took the store over during this open.
        return None
    try:
        async with opened.running(count=1) as store:
            await script.run(store)
    except BaseException:
        with suppress(OSError, FsmountError, apsw.Error):
            opened.close()
        raise
    return opened


def _judge(root: Path, script: FirstWriter, takeover: Takeover, way: str) -> str:
    rendering = Rendering()
    with tapped(root, Tap()) as disk:
        try:
            store = open_store(root, disk=disk)
        except (FsmountError, OSError) as error:
            return f"does not open: {error}"
        try:
            found = tree_of(store, rendering)
            if takeover.tree is None:
                return differences(found, script.now) or whole(store, rendering)
            if differences(found, takeover.tree):
                return f"the second's: {differences(found, takeover.tree)}"
            if way == "late":
                return _kept(root, found, script) or whole(store, rendering, lost=True)
            if script.acknowledged is not None and differences(
                *(_without_second(tree) for tree in (found, script.acknowledged))
            ):
                return "a step that the second has not found was acknowledged"
            return whole(store, rendering)
        except (FsmountError, OSError) as error:
            return f"cannot be read: {error}"
        finally:
            store.close()


def _without_second(tree: Tree) -> Tree:
    return {path: seen for path, seen in tree.items() if not path.startswith(b"second")}


def _kept(root: Path, found: Tree, script: FirstWriter) -> str:
    """Check that all acknowledged bytes are there; returns the failure text or "".

    The bytes are those before the step under way, or those after it.
    """
    there = {seen.data for seen in found.values()}
    there |= {path.read_bytes() for path in (root / "lost").glob("*")}
    missing = [
        [p for p, seen in tree.items() if stat.S_ISREG(seen.mode) and seen.data not in there]
        for tree in script.around
    ]
    return f"the bytes of {missing[0][0]!r} are gone" if all(missing) else ""


@functools.cache
def _prepare() -> None:
    quiet()
    _set(traffic, "_UNIX", "unix-none")
    listen()
    small_limits()
    remember_codecs()
    _set(fcntl, "flock", lambda fd, how: None)
    _set(lock, "_sleep", lambda seconds: None)
    # Without heartbeats no other questions come in between, so each run is the same.
    _set(lock, "BEAT_S", 1e6)


def some(work: tuple[int, int, list[tuple[int, str]]]) -> list[str]:
    """Run the cases of (seed, operations, cases); returns the failure texts."""
    seed, operations, cases = work
    _prepare()
    wrong = []
    for at, way in cases:
        _, why = one(seed, operations, at, way)
        if why:
            wrong.append(f"question {at}, {way}: {why}")
        if caught(wrong):
            break
    return wrong


def count(seed: int, operations: int) -> int:
    """Number of questions in a run without a takeover. Raises AssertionError if that run fails."""
    _prepare()
    asked, why = one(seed, operations, 0, "visit")
    assert not why, why
    return asked


def _cases(asked: int) -> list[tuple[int, str]]:
    return [(at, way) for at in range(1, asked + 1) for way in WAYS]


def main() -> int:
    """Run the command that the module describes."""
    asked, cases, wrong = run_cases(__doc__, count, _cases, some)
    return report(f"{asked} questions, {cases} takeovers", wrong)


if __name__ == "__main__":
    sys.exit(main())
