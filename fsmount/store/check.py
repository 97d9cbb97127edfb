"""Is the store whole? One small check for each invariant; `full` renders every object too.

Nothing is changed. Each finding is one line that names the file and what is wrong with it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import trio

from fsmount.errors import Damaged
from fsmount.store.index import ROOT, Object
from fsmount.store.pack import read_entry
from fsmount.store.store import Store
from fsmount.store.tree import SLICE

_AT_ONCE = 4


@dataclass
class Report:
    """`objects` checked, and the findings: (what, why, names of the files that hang on it).

    `readable`: whether the index can be read at all; if not, nothing else was looked at.
    """

    objects: int = 0
    findings: list[tuple[str, str, list[str]]] = field(default_factory=list)
    readable: bool = True


# What, why, and the objects that cannot be read for it.
Finding = tuple[str, str, Iterable[int]]


class _Rows:
    """The index as it is at one moment."""

    def __init__(self, store: Store) -> None:
        self.objects = {found.id: found for found in store.index.all_objects()}
        self.inodes = {inode.ino: inode for inode in store.index.inodes()}
        self.packs = store.index.packs()
        self.names = list(store.index.names())
        self._store = store
        self._dependents: dict[int, list[int]] = defaultdict(list)
        self._shown: dict[int, list[int]] = defaultdict(list)
        self._places: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
        for found in self.objects.values():
            for needed in found.needs:
                self._dependents[needed].append(found.id)
        for inode in self.inodes.values():
            if inode.object_id is not None:
                self._shown[inode.object_id].append(inode.ino)
        for folder, name, ino in self.names:
            self._places[ino].append((folder, name))

    def name(self, ino: int) -> str:
        """A path to show for an inode."""
        return os.fsdecode(self._store.index.path(ino)) or f"inode {ino}"

    def names_of(self, object_id: int) -> set[str]:
        """All names of the files that show an object."""
        places = [p for ino in self._shown.get(object_id, ()) for p in self._places.get(ino, ())]
        paths = [(self._store.index.path(folder), name) for folder, name in places]
        return {os.fsdecode(path + b"/" * bool(path) + name) for path, name in paths}

    def names_on(self, object_ids: Iterable[int]) -> list[str]:
        """Files that cannot be read without these objects."""
        hit = {i for known in object_ids for i in (known, *self._dependents.get(known, ()))}
        return sorted(set().union(*map(self.names_of, hit)))


def check_relations(store: Store) -> Report:
    """Names, rows, packs and staged files against each other; nothing is decoded."""
    report = Report()
    problems = store.index.integrity()
    if problems:
        report.findings.append(("index.sqlite", "; ".join(problems[:3]), []))
        report.readable = False
        return report
    with store.index.snapshot():
        rows = _Rows(store)
        report.objects = len(rows.objects)
        for check in (_packs, _objects, _kept, _names, _bodies):
            for what, why, object_ids in check(store, rows):
                report.findings.append((what, why, rows.names_on(object_ids)))
    # Outside the snapshot: a mount beside us may have encoded a file since.
    for what, why in _staged(store, rows):
        report.findings.append((what, why, []))
    return report


def _packs(store: Store, rows: _Rows) -> Iterator[Finding]:
    """Every pack is as long as the index says."""
    for number, (length, _) in rows.packs.items():
        path = store.layout.pack(number)
        try:
            present = path.stat().st_size
        except FileNotFoundError:
            present = -1
        if present < length:
            why = "the pack is missing" if present < 0 else f"{present} bytes of {length} are left"
            inside = (found for found in rows.objects.values() if found.pack == number)
            yield path.name, why, [f.id for f in inside if f.offset + f.length > present]


def _objects(store: Store, rows: _Rows) -> Iterator[Finding]:
    """Every object lies inside its pack, what it needs is there, and uses are counted right."""
    uses = Counter(inode.object_id for inode in rows.inodes.values())
    for found in rows.objects.values():
        what = f"object {found.id}"
        if found.offset + found.length > rows.packs.get(found.pack, (-1, False))[0]:
            yield what, f"lies outside pack {found.pack}", [found.id]
        missing = sorted({*found.needs, *found.layer} - rows.objects.keys())
        if missing:
            yield what, f"needs objects that are not there: {missing}", [found.id]
        if uses[found.id] != found.uses:
            yield what, f"is counted {found.uses} times, used {uses[found.id]} times", []


def _kept(store: Store, rows: _Rows) -> Iterator[Finding]:
    """Every large file is in raw/, whole."""
    for found in rows.objects.values():
        if not found.is_kept:
            continue
        path = store.layout.kept(found.id)
        try:
            present = path.stat().st_size
        except FileNotFoundError:
            yield f"raw/{path.name}", "the file is missing", [found.id]
            continue
        if present != found.size:
            yield f"raw/{path.name}", f"{present} bytes, should be {found.size}", [found.id]


def _names(store: Store, rows: _Rows) -> Iterator[Finding]:
    """Every name shows an inode, and link counts are what the names say."""
    links: Counter[int] = Counter()
    folders: Counter[int] = Counter()
    for folder, name, ino in rows.names:
        child, above = rows.inodes.get(ino), rows.inodes.get(folder)
        if child is None or above is None or not stat.S_ISDIR(above.mode):
            yield os.fsdecode(name), "the name hangs on nothing", []
            continue
        links[ino] += 1
        if stat.S_ISDIR(child.mode):
            folders[folder] += 1
    for inode in rows.inodes.values():
        is_folder = stat.S_ISDIR(inode.mode)
        wanted = 2 + folders[inode.ino] if is_folder else links[inode.ino]
        if is_folder and not links[inode.ino] and inode.ino != ROOT:
            wanted = 0
        if inode.nlink != wanted:
            yield rows.name(inode.ino), f"has {inode.nlink} links, should have {wanted}", []


def _bodies(store: Store, rows: _Rows) -> Iterator[Finding]:
    """Every regular file has exactly one body, and its object is there."""
    for inode in rows.inodes.values():
        if not stat.S_ISREG(inode.mode):
            continue
        found = None if inode.object_id is None else rows.objects.get(inode.object_id)
        if (inode.staged is None) == (inode.object_id is None):
            yield rows.name(inode.ino), "has no body, or two", []
        elif inode.object_id is not None and found is None:
            yield rows.name(inode.ino), f"its object {inode.object_id} is not there", []
        elif found is not None and found.size != inode.size:
            yield rows.name(inode.ino), "its size and its object's size differ", []


def _staged(store: Store, rows: _Rows) -> Iterator[tuple[str, str]]:
    """Every staged file is there."""
    for inode in rows.inodes.values():
        if inode.staged is not None and not store.staging.path(inode.staged).exists():
            now = {found.staged for found in store.index.staged_inodes()}
            if inode.staged in now:
                yield rows.name(inode.ino), f"its staged file {inode.staged} is missing"


async def check_contents(store: Store, report: Report, progress: Callable[[int], None]) -> None:
    """Render every object and compare hashes; the store is running."""
    with store.index.snapshot():
        rows = _Rows(store)
    slots = trio.Semaphore(_AT_ONCE)
    async with trio.open_nursery() as nursery:
        for found in rows.objects.values():
            await slots.acquire()
            nursery.start_soon(_check_object, store, rows, found, report, slots)
            progress(1)


async def _check_object(
    store: Store, rows: _Rows, found: Object, report: Report, slots: trio.Semaphore
) -> None:
    try:
        place = store.layout.pack(found.pack)
        await trio.to_thread.run_sync(read_entry, place, found.offset, found.length)
        body = await store.body(found.id)
        digest = hashlib.sha256()
        for offset in range(0, body.size, SLICE):
            digest.update(await body.pread(offset, SLICE))
        # Vast sparse files have no hash of the whole.
        if found.sha256 and digest.digest() != found.sha256:
            raise Damaged(f"object {found.id}", reason="its hash is not the one in the index")
    except Exception as error:
        # Whatever a damaged record makes our code raise is damage of this object.
        why = str(error) or repr(error)
        report.findings.append((f"object {found.id}", why, sorted(rows.names_of(found.id))))
    finally:
        slots.release()
