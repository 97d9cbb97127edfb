"""Is the store whole? One small check for each invariant; `full` renders every object too.

Nothing is changed here; :mod:`repair` does that. Each finding is one line that names the file and
what is wrong with it.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import trio
from numpy.typing import NDArray

from fsmount import threads
from fsmount.errors import Damaged, NeedsExtra
from fsmount.folder import readable
from fsmount.store import contents, copies
from fsmount.store.index import Inode, Object
from fsmount.store.pack import read_entry, scan
from fsmount.store.staging import writer_of
from fsmount.store.store import Store
from fsmount.store.tree import SLICE
from fsmount.threads import Kind

_AT_ONCE = 4


@dataclass
class Report:
    """`objects` checked, and the findings: (what, why, names of the files that hang on it).

    `readable`: whether the index can be read at all; if not, nothing else was looked at.
    `unreadable`: objects whose bytes could not be had. `unchecked`: (reason, objects), which are no
    findings: what it takes to render them is not installed. `damaged`: objects that cannot be
    read for damage of their own, and `hit`: names of the files that need these. `notices`: (what,
    why) of the folders, which is no damage either.
    """

    objects: int = 0
    findings: list[tuple[str, str, list[str]]] = field(default_factory=list)
    readable: bool = True
    unreadable: set[int] = field(default_factory=set)
    unchecked: list[tuple[str, list[str]]] = field(default_factory=list)
    damaged: set[int] = field(default_factory=set)
    hit: set[str] = field(default_factory=set)
    notices: list[tuple[str, str]] = field(default_factory=list)


# What, why, and the objects that cannot be read for it.
Finding = tuple[str, str, Iterable[int]]
# The same of one object.
Root = tuple[str, str, list[int]]


def _names_on(store: Store, findings: Iterable[Finding], *, through: bool) -> list[list[str]]:
    """For each finding the files that cannot be read for it, in one pass over the index.

    `through`: also those whose objects need one that is named.
    """
    hit = [set(object_ids) for _, _, object_ids in findings]
    named = set().union(*hit)
    if not named:
        return [[] for _ in hit]
    if through:
        dependents: dict[int, set[int]] = defaultdict(set)
        for found in store.index.all_objects():
            for needed in named.intersection(found.needs):
                dependents[needed].add(found.id)
        hit = [each.union(*(dependents.get(known, ()) for known in each)) for each in hit]
    names: dict[int, set[str]] = defaultdict(set)
    for object_id, path in store.index.shown(set().union(*hit)):
        names[object_id].add(os.fsdecode(path))
    return [sorted(set().union(*(names.get(known, ()) for known in each))) for each in hit]


def check_relations(store: Store) -> Report:
    """Names, rows, packs and staged files against each other; nothing is decoded."""
    while True:
        report, packs = _relations(store)
        if not report.readable or not report.findings or store.index.packs() == packs:
            report.notices += contents.notices(store.layout)
            return report
        # A repack beside us removed a pack while we looked.


def _relations(store: Store) -> tuple[Report, dict[int, tuple[int, bool]]]:
    """The findings, and the packs there were."""
    report = Report()
    problems = store.index.integrity()
    if not problems:
        try:
            return _readable(store, report)
        except Damaged as error:
            problems = [str(error)]
    report.findings.append(("index.sqlite", "; ".join(problems[:3]), []))
    report.readable = False
    return report, {}


def _readable(store: Store, report: Report) -> tuple[Report, dict[int, tuple[int, bool]]]:
    """As :func:`_relations`; raises :class:`Damaged` where rows cannot be read."""
    with store.index.snapshot():
        difference = copies.disagreement(store.layout, store.index)
        ids = np.fromiter(store.index.object_ids(), np.int64)
        report.objects = len(ids)
        findings = [
            *_packs(store),
            *_objects(store, ids),
            *_uses(store),
            *_names(store),
            *_bodies(store),
        ]
        names = _names_on(store, findings, through=True)
        staged = store.index.staged_inodes()
        packs = store.index.packs()
    for (what, why, _), files in zip(findings, names, strict=True):
        report.findings.append((what, why, files))
    if difference:
        report.findings.append(("index.sqlite", difference, []))
    # Outside the snapshot: a mount beside us may have encoded a file since.
    for what, why in (*_staged(store, staged), *_unknown(store)):
        report.findings.append((what, why, []))
    return report, packs


def _name(store: Store, ino: int) -> str:
    """A path to show for an inode."""
    return os.fsdecode(store.index.path(ino)) or f"inode {ino}"


def _packs(store: Store) -> Iterator[Finding]:
    """Every pack is as long as the index says."""
    for number, (length, _) in store.index.packs().items():
        path = store.layout.pack(number)
        try:
            present = path.stat().st_size
        except FileNotFoundError:
            present = -1
        if present < length:
            why = "the pack is missing" if present < 0 else f"{present} bytes of {length} are left"
            inside = (found for found in store.index.all_objects() if found.pack == number)
            yield path.name, why, [f.id for f in inside if f.offset + f.length > present]


def _objects(store: Store, ids: NDArray[np.int64]) -> Iterator[Finding]:
    """Every object lies inside its pack, what it needs is there, large files are in raw/, whole.

    `ids`: of all objects, ascending.
    """
    packs = store.index.packs()
    for found in store.index.all_objects():
        what = f"object {found.id}"
        if found.offset + found.length > packs.get(found.pack, (-1, False))[0]:
            yield what, f"lies outside pack {found.pack}", [found.id]
        needed = np.unique(np.array(found.needs + found.layer, np.int64))
        places = np.minimum(ids.searchsorted(needed), len(ids) - 1)
        missing = needed[ids[places] != needed].tolist()
        if missing:
            yield what, f"needs objects that are not there: {missing}", [found.id]
        if found.is_kept:
            yield from _kept(store, found)


def _kept(store: Store, found: Object) -> Iterator[Finding]:
    path = store.layout.kept(found.id)
    try:
        present = path.stat().st_size
    except FileNotFoundError:
        yield f"raw/{path.name}", "the file is missing", [found.id]
        return
    if present != found.size:
        yield f"raw/{path.name}", f"{present} bytes, should be {found.size}", [found.id]


def _uses(store: Store) -> Iterator[Finding]:
    """The files that show an object are counted right."""
    for object_id, counted, used in store.index.wrong_uses():
        yield f"object {object_id}", f"is counted {counted} times, used {used} times", []


def _names(store: Store) -> Iterator[Finding]:
    """Every name shows an inode, and link counts are what the names say."""
    for name in store.index.dangling_names():
        yield os.fsdecode(name), "the name hangs on nothing", []
    for ino, links, wanted in store.index.wrong_links():
        yield _name(store, ino), f"has {links} links, should have {wanted}", []


def _bodies(store: Store) -> Iterator[Finding]:
    """Every regular file has exactly one body, and its object is there."""
    for inode, size in store.index.wrong_bodies():
        what = _name(store, inode.ino)
        if (inode.staged is None) == (inode.object_id is None):
            yield what, "has no body, or two", []
        elif size is None:
            yield what, f"its object {inode.object_id} is not there", []
        else:
            yield what, "its size and its object's size differ", []


def _staged(store: Store, inodes: Iterable[Inode]) -> Iterator[tuple[str, str]]:
    """Every staged file is there."""
    for inode in inodes:
        if inode.staged is not None and not store.staging.path(inode.staged).exists():
            now = {found.staged for found in store.index.staged_inodes()}
            if inode.staged in now:
                yield _name(store, inode.ino), f"its staged file {inode.staged} is missing"


def _unknown(store: Store) -> Iterator[tuple[str, str]]:
    """Every staged file has a row, those of the last writer aside: a mount beside us makes and
    removes some, and the next start removes what it leaves at a crash."""
    # Before the rows: a file that goes meanwhile had one.
    tokens = store.staging.tokens()
    known = {inode.staged for inode in store.index.staged_inodes()}
    for token in sorted(set(tokens) - known):
        if writer_of(token) != store.index.writer() and store.staging.path(token).exists():
            yield (
                f"staging/{token}",
                "another writer made it, and no file is known for it; it may be the only copy."
                " The next mount moves it to lost/",
            )


async def check_contents(store: Store, report: Report, progress: Callable[[int], None]) -> None:
    """Render every object that a file shows and compare hashes; the store is running.

    Of others, which files may need pixels of, the entries are looked at. A damaged entry is one
    finding, however many objects need it.
    """
    report.findings += [(what, why, []) for what, why in _copies(store)]
    slots = trio.Semaphore(_AT_ONCE)
    faults = _Faults()
    async with trio.open_nursery() as nursery:
        for found in store.index.all_objects():
            await slots.acquire()
            nursery.start_soon(_check_object, store, found, faults, slots)
            progress(1)
    report.unreadable.update(faults.found)
    # Objects that cannot be read for another's damage are told with that one.
    roots = faults.roots()
    report.damaged.update(found for _, _, (found,) in roots)
    names = _names_on(store, roots, through=True)
    report.hit.update(*names)
    told = [(what, why, files) for (what, why, _), files in zip(roots, names, strict=True)]
    report.findings += sorted(told, key=lambda finding: -len(finding[2]))
    names = _names_on(store, faults.unchecked, through=False)
    for (_, why, _), files in zip(faults.unchecked, names, strict=True):
        report.unchecked.append((why, files))


@dataclass
class _Faults:
    """What is wrong with objects. `entries`: those whose own entry is damaged. `unchecked`: what it
    takes to render them is not installed."""

    found: dict[int, tuple[Object, str]] = field(default_factory=dict)
    entries: set[int] = field(default_factory=set)
    unchecked: list[Finding] = field(default_factory=list)

    def roots(self) -> list[Root]:
        """The objects that cannot be read for damage of their own."""
        return [
            (f"object {number}", why, [number])
            for number, (found, why) in sorted(self.found.items())
            if number in self.entries or not (set(found.needs) - {number}) & self.found.keys()
        ]


def _copies(store: Store) -> Iterator[tuple[str, str]]:
    """The second copies in packs/ are whole; what they say may be older than the index."""
    path = store.layout.names_copy
    if path.exists():
        try:
            for _ in copies.read(path.read_bytes(), store.index.identity()):
                pass
        except (OSError, Damaged) as error:
            yield f"packs/{path.name}", readable(str(error))
    path = store.layout.second_entries
    if path.exists():
        whole = sum(length for _, length, _ in scan(path))
        if whole != path.stat().st_size:
            yield f"packs/{path.name}", f"{path.stat().st_size - whole} bytes are no entries"


async def _check_object(
    store: Store, found: Object, faults: _Faults, slots: trio.Semaphore
) -> None:
    try:
        try:
            await _read_entry(store, found)
        except (Damaged, OSError) as error:
            if not _dropped(store, found):
                faults.found[found.id] = found, str(error)
                faults.entries.add(found.id)
            return
        if not found.uses:
            return
        body = await store.body(found.id)
        digest = hashlib.sha256()
        for offset in range(0, body.size, SLICE):
            digest.update(await body.pread(offset, SLICE))
        # Vast sparse files have no hash of the whole.
        if found.sha256 and digest.digest() != found.sha256:
            raise Damaged(f"object {found.id}", reason="its hash is not the one in the index")
    except NeedsExtra as error:
        # Its entry is whole, and that is all that can be told here.
        faults.unchecked.append((f"object {found.id}", str(error), [found.id]))
    except Exception as error:
        if _dropped(store, found):
            return
        # Whatever a damaged record makes our code raise is damage of this object.
        faults.found[found.id] = found, readable(str(error) or repr(error))
    finally:
        slots.release()


async def _read_entry(store: Store, found: Object) -> None:
    """Read an object's own entry, wherever a repack beside us has moved it; raises Damaged."""
    while True:
        now = store.index.object(found.id)
        place = store.layout.pack(now.pack)
        try:
            await threads.call(Kind.ENTRY, read_entry, place, now.offset, now.length)
        except Damaged:
            if store.index.object(found.id).pack == now.pack:
                raise
        else:
            return


def _dropped(store: Store, found: Object) -> bool:
    """Whether an object that nothing needed has gone since its row was read."""
    try:
        store.index.object(found.id)
    except Damaged:
        return not store.index.is_used(found.id)
    return False
