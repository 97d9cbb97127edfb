"""Kills of a repair before, within and after each of its calls; then the repair runs again.

For each kind of damage one repair runs to its end, and the harness notes the folder at each call.
From each noted state the repair runs again. The files must be the same as after the first repair,
and a further repair must find nothing.

``python -m tests.crash.repairs [--every N]``
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import trio

from fsmount.errors import FsmountError
from fsmount.store.index import Object
from fsmount.store.layout import Layout
from fsmount.store.maintenance import copies, second_entries
from fsmount.store.recovery.repair import Repairs
from fsmount.store.store import open_store
from tests.crash.limits import small_limits
from tests.crash.planted import BUGS, plant
from tests.crash.points import Noting, quiet
from tests.crash.rot import look, make_reference, remember_renders
from tests.crash.scratch import fast
from tests.crash.traffic import Tap, listen, tapped
from tests.crash.verdict import Chunks
from tests.repairing import repair


def _objects(root: Path) -> list[Object]:
    store = open_store(root)
    try:
        return list(store.index.all_objects())
    finally:
        store.close()


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def _middle(found: Object) -> int:
    return found.offset + found.length // 2


def _entries(root: Path) -> None:
    """Damage one entry that is kept twice, and one that is not."""
    twice = {number for number, _ in second_entries.read(Layout(root))}
    known = _objects(root)
    for found in (next(o for o in known if o.id in twice), known[-3]):
        _flip(root / "packs" / "00000001.zip", _middle(found))


def _index(root: Path) -> None:
    (root / "index.sqlite").unlink()


def _zeros(root: Path) -> None:
    path = root / "index.sqlite"
    path.write_bytes(bytes(path.stat().st_size))


def _all(root: Path) -> None:
    _entries(root)
    _zeros(root)


def _no_copy(root: Path) -> None:
    _index(root)
    (root / "packs" / "names.gz").unlink()


DAMAGES: tuple[Callable[[Path], None], ...] = (_entries, _index, _zeros, _all, _no_copy)


def repaired(root: Path, tap: Tap) -> Repairs:
    """Repair the store at `root`. Raises AssertionError if damage is left."""
    with tapped(root, tap) as disk:
        repairs, report = trio.run(repair, root, disk)
    if report.findings:
        raise AssertionError(f"still found: {report.findings[0]}")
    return repairs


def _contents(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Files with their attributes. Folders with their type only: a repair may make them anew."""
    found = trio.run(lambda: look(root, read_only=False))
    return {
        path: (about[0],) if about[0] == 0o40755 else (*about, found.bodies.get(path))
        for path, about in found.facts.items()
    }


def explore(damage: Callable[[Path], None], every: int) -> tuple[int, list[str]]:
    """Try one kind of damage; returns (kills, failure texts)."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(dir=fast()) as scratch:
        root = Path(scratch) / "store"
        make_reference(root)
        damage(root)
        chunks = Chunks()
        tap = Noting(root, chunks, lambda: ({}, {}))
        repaired(root, tap)
        wanted = _contents(root)
        for number, (state, notes) in enumerate(tap.states.items()):
            if number % every:
                continue
            chunks.put(state, root)
            try:
                repaired(root, Tap())
                again = repaired(root, Tap())
                if _contents(root) != wanted:
                    wrong.append(f"{damage.__name__}, {notes[0][0]}: other files")
                if again != Repairs():
                    wrong.append(f"{damage.__name__}, {notes[0][0]}: repaired twice: {again}")
            except (FsmountError, OSError, AssertionError) as error:
                wrong.append(f"{damage.__name__}, {notes[0][0]}: {error}")
    return sum(list(tap.points.values())[::every]), wrong


def main() -> int:
    """Run the command that the module describes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="every n-th distinct state only")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--plant", default="", choices=["", *BUGS])
    given = parser.parse_args()
    quiet()
    listen()
    small_limits()
    plant(given.plant)
    copies.MANY = 3
    remember_renders()
    results = [explore(damage, given.every) for damage in DAMAGES]
    wrong = [line for _, lines in results for line in lines]
    for line in wrong[:20]:
        print(line)
    print(f"{sum(points for points, _ in results)} points, {len(wrong)} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
