"""Kills of a repair before, within and after each of its calls; then the repair runs again.

For each kind of damage one repair runs to its end, and the harness notes the folder at each call.
From each noted state the repair runs again. The files must be the same as after the first repair,
and a further repair must find nothing. Damage that copies and parity mend must cost nothing.

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
from fsmount.store.packs import parity
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
from tests.support.packs import drop_parity


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
    """Damage an entry that has a second copy of an earlier build, and one that has none."""
    drop_parity(root)
    known = _objects(root)
    pack = root / "packs" / "00000001.zip"
    first = known[0]
    Layout(root).second_entries.write_bytes(
        pack.read_bytes()[first.offset : first.offset + first.length]
    )
    for found in (first, known[-3]):
        _flip(Layout(root).pack(found.pack), _middle(found))


def _stretch(root: Path) -> None:
    """Overwrite a stretch of each pack."""
    for path in sorted((root / "packs").glob("*.zip")):
        data = path.read_bytes()
        path.write_bytes(data[:100] + bytes(min(4096, len(data) - 100)) + data[4196:])


def _no_pack(root: Path) -> None:
    (root / "packs" / "00000001.zip").unlink()


def _parity(root: Path) -> None:
    """Damage a parity block, and the checksums of another file."""
    first, second, *_ = sorted((root / "packs").glob("*.parity"))
    _flip(first, first.stat().st_size - 5)
    _flip(second, 50)


def _older(root: Path) -> None:
    """Put parity beside a pack that is whole but knows other bytes of an entry."""
    path = root / "packs" / "00000001.zip"
    good = path.read_bytes()
    _flip(path, _middle(_objects(root)[0]))
    shape = parity.shape_at(parity.file_of(path))
    parity.file_of(path).write_bytes(parity.build(path, shape))
    path.write_bytes(good)


def _index(root: Path) -> None:
    (root / "index.sqlite").unlink()


def _zeros(root: Path) -> None:
    path = root / "index.sqlite"
    path.write_bytes(bytes(path.stat().st_size))


def _all(root: Path) -> None:
    _entries(root)
    _zeros(root)


def _both(root: Path) -> None:
    _stretch(root)
    _no_copy(root)


def _no_copy(root: Path) -> None:
    _index(root)
    (root / "packs" / "names.gz").unlink()


DAMAGES: tuple[Callable[[Path], None], ...] = (
    _older,
    _stretch,
    _entries,
    _index,
    _zeros,
    _all,
    _no_copy,
    _no_pack,
    _parity,
    _both,
)
# These cost nothing.
_MENDED = (_older, _stretch, _index, _zeros, _no_pack, _parity)


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
        before = _contents(root)
        damage(root)
        chunks = Chunks()
        tap = Noting(root, chunks, lambda: ({}, {}))
        try:
            repaired(root, tap)
            wanted = _contents(root)
        except (FsmountError, OSError, AssertionError) as error:
            return 1, [f"{damage.__name__}: {error}"]
        if damage in _MENDED and wanted != before:
            return 1, [f"{damage.__name__}: files are lost or differ"]
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
    remember_renders()
    results = [explore(damage, given.every) for damage in DAMAGES]
    wrong = [line for _, lines in results for line in lines]
    for line in wrong[:20]:
        print(line)
    print(f"{sum(points for points, _ in results)} points, {len(wrong)} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
