"""Power cuts: writes that were not forced may be lost, torn, or kept out of order.

A script runs once. The harness records every call that changes the store, also the calls of SQLite.
Then it makes states that a disk could have after a power cut at any call:

- All forced data is on the disk.
- Of the writes to a file since its last fsync, any subset is there. Any of them may be torn at a
  sector.
- Of the changes to a folder's names since its last fsync, a prefix or any subset is there.

In every other script some fsyncs of files fail, too. The data that they should have forced never
reaches the disk, although later fsyncs of the same file succeed.

The store must open each state without help and be whole. It must have the tree of a step that is
not older than the last acknowledged fsync. Fsynced files must have their bytes, and all encoded
files must be exact.

``python -m tests.crash.power [--states N] [--seeds N]``
"""

from __future__ import annotations

import errno
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import apsw

from fsmount.errors import FsmountError
from fsmount.store import config
from fsmount.store.files import StoreFiles
from fsmount.store.store import open_store
from tests.crash.command import options, processes, report
from tests.crash.limits import small_limits
from tests.crash.model import Tree, agrees, differences
from tests.crash.planted import caught
from tests.crash.points import quiet, run_script
from tests.crash.scratch import fast
from tests.crash.script import Script
from tests.crash.traffic import Call, Tap, WatchedDisk, listen, tapped
from tests.crash.verdict import Chunks, Rendering, tree_of, whole

T = TypeVar("T")
_SECTOR = 512
# The shares of fsyncs that fail, of staged files and of others. There are fewer of the former.
_FAILING_STAGED, _FAILING = 0.3, 0.1


@dataclass
class Cut:
    """A moment of the script: the number of calls so far, and the promises made by then."""

    calls: int
    first_step: int
    last_step: int
    durable: dict[int, bytes]
    loose: dict[int, list[slice]]


class Recording(Tap):
    """Notes each call after it was made, and the promises to the script at that moment.

    With `failing`, some fsyncs fail once and lose the data that they should force.
    """

    def __init__(self, root: Path, script: Script, *, failing: bool) -> None:
        self._failing = failing
        self._chance = random.Random(1)
        self.start = Chunks()
        self.before = self.start.files(root)
        self.calls: list[Call] = []
        self.cuts: list[Cut] = []
        self._script = script

    def call(self, call: Call, do: Callable[[], T]) -> T:
        if call.name == "fsync" and self._fails(call):
            self._note(replace(call, name="lost"))
            raise apsw.IOError("told to fail") if call.sqlite else OSError(errno.EIO, "told to")
        result = do()
        self._note(call)
        return result

    def _fails(self, call: Call) -> bool:
        share = _FAILING_STAGED if call.path.startswith("staging/") else _FAILING
        return self._failing and self._chance.random() < share

    def _note(self, call: Call) -> None:
        self.calls.append(call)
        script = self._script
        last = len(script.history)  # the cut may also keep the step under way
        durable = dict(script.durable)
        loose = {number: list(spots) for number, spots in script.loose.items()}
        self.cuts.append(Cut(len(self.calls), script.durable_step, last, durable, loose))


@dataclass
class _File:
    """A file: its data on the disk, and the later changes in order."""

    data: bytearray = field(default_factory=bytearray)
    pending: list[Call] = field(default_factory=list)

    def force(self) -> None:
        for call in self.pending:
            _apply(self.data, call)
        self.pending.clear()

    def after(self, chance: random.Random, mode: str) -> bytes:
        """File contents that a power cut may leave."""
        data = bytearray(self.data)
        if mode == "all":
            for call in self.pending:
                _apply(data, call)
        elif mode == "prefix":
            for call in self.pending[: chance.randint(0, len(self.pending))]:
                _apply(data, call)
        elif mode != "none":
            for call in self.pending:
                if chance.random() < 0.5:
                    _apply(data, _torn(call, chance) if chance.random() < 0.5 else call)
        return bytes(data)


def _apply(data: bytearray, call: Call) -> None:
    if call.name == "pwrite":
        if len(data) < call.offset:
            data.extend(bytes(call.offset - len(data)))
        data[call.offset : call.offset + len(call.data)] = call.data
    elif call.size < len(data):
        del data[call.size :]
    else:
        data.extend(bytes(call.size - len(data)))


def _torn(call: Call, chance: random.Random) -> Call:
    """A torn write: its data up to a sector boundary. The other sectors keep their old data."""
    if call.name != "pwrite" or len(call.data) < 2:
        return call
    end = call.offset + chance.randrange(len(call.data))
    end -= end % _SECTOR
    return Call(
        "pwrite", call.path, offset=call.offset, data=call.data[: max(0, end - call.offset)]
    )


@dataclass
class Platter:
    """Files and names on the disk, and the later changes that are not forced."""

    files: dict[int, _File] = field(default_factory=dict)
    names: dict[str, int | None] = field(default_factory=dict)
    durable_names: dict[str, int | None] = field(default_factory=dict)
    pending: list[tuple[tuple[tuple[str, int | str | None], ...], set[str]]] = field(
        default_factory=list
    )
    _next: int = 0

    def load(self, files: dict[str, bytes | None]) -> None:
        """Take `files` as the first state, all of it forced."""
        for name, data in files.items():
            number = None if data is None else self._new(bytearray(data))
            self.names[name] = self.durable_names[name] = number

    def _new(self, data: bytearray) -> int:
        self._next += 1
        self.files[self._next] = _File(data)
        return self._next

    def _change(self, *changes: tuple[str, int | str | None]) -> None:
        """Add names and remove names ("gone"). A power cut keeps all of these changes, or none."""
        for name, number in changes:
            if number == "gone":
                self.names.pop(name, None)
            else:
                assert not isinstance(number, str)
                self.names[name] = number
        self.pending.append((changes, {_folder(name) for name, _ in changes}))

    def take(self, call: Call) -> None:
        """Apply one more call."""
        if call.name == "create":
            self._change((call.path, self._new(bytearray())))
        elif call.name == "mkdir":
            self._change((call.path, None))
        elif call.name in ("pwrite", "ftruncate"):
            self._file(call.path).pending.append(call)
        elif call.name == "fsync":
            self._file(call.path).force()
        elif call.name == "lost":
            self._file(call.path).pending.clear()
        elif call.name == "fsync_folder":
            self._force_names(call.path)
        elif call.name == "rename":
            self._change((call.other, self.names[call.path]), (call.path, "gone"))
        elif call.name == "link":
            self._change((call.other, self.names[call.path]))
        elif call.name == "unlink" and call.path in self.names:
            self._change((call.path, "gone"))

    def _file(self, path: str) -> _File:
        # Programs may still write to a file that was removed while it was open.
        number = self.names.get(path)
        return self.files[number] if isinstance(number, int) else _File()

    def _force_names(self, folder: str) -> None:
        folder = "" if folder == "." else folder.removesuffix("/.").removesuffix("/")
        folder = "" if folder == "." else folder
        left = []
        for changes, folders in self.pending:
            if folder in folders:
                _rename(self.durable_names, changes)
            else:
                left.append((changes, folders))
        self.pending = left

    def after(self, chance: random.Random) -> dict[str, bytes | None]:
        """A state that a power cut may leave at this moment."""
        mode = chance.choice(["none", "all", "prefix", "subset", "subset"])
        order = chance.choice(["none", "all", "prefix", "subset"])
        names = dict(self.durable_names)
        kept = self.pending
        if order == "none":
            kept = []
        elif order == "prefix":
            kept = kept[: chance.randint(0, len(kept))]
        elif order == "subset":
            kept = [entry for entry in kept if chance.random() < 0.5]
        for changes, _ in kept:
            _rename(names, changes)
        cache: dict[int, bytes] = {}
        out: dict[str, bytes | None] = {}
        for name, number in names.items():
            if number is None:
                out[name] = None
                continue
            if number not in cache:
                each = mode if mode != "subset" else chance.choice(["none", "all", "subset"])
                cache[number] = self.files[number].after(chance, each)
            out[name] = cache[number]
        return out


def _rename(
    names: dict[str, int | None], changes: tuple[tuple[str, int | str | None], ...]
) -> None:
    for name, number in changes:
        if number == "gone":
            names.pop(name, None)
        else:
            assert not isinstance(number, str)
            names[name] = number


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def explore(seed: int, operations: int, states: int) -> tuple[int, int, list[str]]:
    """Run one script; returns (calls, judged states, failure texts)."""
    quiet()
    listen()
    small_limits()
    with tempfile.TemporaryDirectory(dir=fast()) as scratch:
        root = Path(scratch) / "store"
        with tapped(root, Tap()) as plain:
            config.make(root, plain)
        script = Script(seed, operations)
        live = Rendering()
        script.look = lambda store: tree_of(store, live)
        tap = Recording(root, script, failing=seed % 2 == 0)
        run_script(root, tap, script)
        return len(tap.calls), states, _judge_some(Path(scratch) / "after", tap, script, states)


def _judge_some(root: Path, tap: Recording, script: Script, states: int) -> list[str]:
    chance = random.Random(states)
    rendering, chunks = Rendering(), Chunks()
    platter = Platter()
    platter.load(tap.start.contents(tap.before))
    wrong = []
    share = states / len(tap.calls)
    due = 0.0
    for call, cut in zip(tap.calls, tap.cuts, strict=True):
        platter.take(call)
        due += share
        while due >= 1:
            due -= 1
            chunks.put_files(platter.after(chance), root)
            with tapped(root, Tap()) as disk:
                why = _judge(root, script, cut, rendering, disk)
            if why:
                wrong.append(f"call {cut.calls} ({call.name} {call.path}): {why}")
            if caught(wrong):
                return wrong
    return wrong


def _judge(root: Path, script: Script, cut: Cut, rendering: Rendering, disk: WatchedDisk) -> str:
    try:
        store = open_store(root, disk=disk)
    except (FsmountError, OSError) as error:
        return f"does not open: {error}"
    try:
        why = whole(store, rendering, power=True)
        if why:
            return why
        found, encoded = tree_of(store, rendering, missing=b"?"), _encoded(store)
        steps = range(min(cut.last_step, len(script.history) - 1), cut.first_step - 1, -1)
        reasons = [_matches(found, encoded, script, step, cut) for step in steps]
        return "" if "" in reasons else f"{len(reasons)} trees, none fits: {reasons[0]}"
    except (FsmountError, OSError) as error:
        return f"cannot be read: {error}"
    finally:
        store.close()


def _encoded(store: StoreFiles) -> set[bytes]:
    return {path for path, node in store.index.walk() if node.object_id is not None}


def _matches(found: Tree, encoded: set[bytes], script: Script, step: int, cut: Cut) -> str:
    """Compare the found tree with that of a step, except bytes never forced; "" if they match."""
    wanted, numbers = script.history[step]
    if found.keys() != wanted.keys():
        return differences(found, wanted)
    for path, seen in found.items():
        expected = wanted[path]
        number = numbers[path]
        forced = cut.durable.get(number) == expected.data
        loose = cut.loose.get(number, [])
        if forced and not _keeps(expected.data, seen.data, loose):
            return f"{path!r} has lost bytes that were forced"
        # A staged file that was not forced may have lost bytes, and with them its time. Later
        # writes to it may be there before the rest of that step.
        if not (path in encoded or (forced and not loose)):
            expected = expected._replace(data=seen.data, mtime=None)
        if not agrees({path: seen}, {path: expected}):
            return differences({path: seen}, {path: expected})
    return ""


def _keeps(wanted: bytes, found: bytes, loose: list[slice]) -> bool:
    """Whether `found` begins with the bytes of `wanted`, except in the loose places."""
    if len(found) < len(wanted):
        return False
    known = bytearray(found[: len(wanted)])
    for spot in loose:
        known[spot] = wanted[spot]
    return known == wanted


def main() -> int:
    """Run the command that the module describes."""
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--operations", type=int, default=200)
    parser.add_argument("--states", type=int, default=50_000, help="of all scripts together")
    given = parser.parse_args()
    each = given.states // given.seeds
    work = [(given.first + i, given.operations, each) for i in range(given.seeds)]
    with processes(given, len(work)) as pool:
        results = pool.starmap(explore, work)
    calls, states = sum(r[0] for r in results), sum(r[1] for r in results)
    wrong = [line for _, _, lines in results for line in lines]
    return report(f"{calls} calls, {states} states", wrong)


if __name__ == "__main__":
    sys.exit(main())
