"""Is the store whole? One small check for each invariant; `full` renders every object too.

Nothing is changed. Each finding is one line that names the file and what is wrong with it.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
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
    """`objects` checked, and the findings: (what, why, names of the files that hang on it)."""

    objects: int = 0
    findings: list[tuple[str, str, list[str]]] = field(default_factory=list)


def check_relations(store: Store) -> Report:
    """Names, rows, packs and staged files against each other; nothing is decoded."""
    report = Report()
    problems = store.index.integrity()
    if problems:
        report.findings.append(("index.sqlite", "; ".join(problems[:3]), []))
        return report
    objects = {found.id: found for found in store.index.all_objects()}
    report.objects = len(objects)
    for check in (_packs, _objects, _names, _bodies):
        for what, why, object_id in check(store, objects):
            names = [] if object_id is None else names_on(store, object_id)
            report.findings.append((what, why, names))
    return report


Finding = tuple[str, str, int | None]


def _packs(store: Store, objects: dict[int, Object]) -> Iterator[Finding]:
    """Every pack is as long as the index says."""
    for number, (length, _) in store.index.packs().items():
        path = store.layout.pack(number)
        try:
            present = path.stat().st_size
        except FileNotFoundError:
            yield path.name, "the pack is missing", None
            continue
        if present < length:
            yield path.name, f"{present} bytes of {length} are left", None


def _objects(store: Store, objects: dict[int, Object]) -> Iterator[Finding]:
    """Every object lies inside its pack, what it needs is there, and uses are counted right."""
    packs = store.index.packs()
    uses = Counter(inode.object_id for inode in store.index.inodes() if inode.object_id is not None)
    for found in objects.values():
        what = f"object {found.id}"
        length = packs.get(found.pack, (-1, False))[0]
        if found.offset + found.length > length:
            yield what, f"lies outside pack {found.pack}", found.id
        missing = [i for i in (*found.needs, *found.layer) if i not in objects]
        if missing:
            yield what, f"needs objects that are not there: {missing}", found.id
        if uses[found.id] != found.uses:
            yield what, f"is counted {found.uses} times, used {uses[found.id]} times", found.id


def _names(store: Store, objects: dict[int, Object]) -> Iterator[Finding]:
    """Every name shows an inode, and link counts are what the names say."""
    links: Counter[int] = Counter()
    folders: Counter[int] = Counter()
    inodes = {inode.ino: inode for inode in store.index.inodes()}
    for folder, name, ino in store.index.names():
        child = inodes.get(ino)
        if child is None or folder not in inodes:
            yield repr(name), "the name hangs on nothing", None
            continue
        links[ino] += 1
        if stat.S_ISDIR(child.mode):
            folders[folder] += 1
    for inode in inodes.values():
        is_folder = stat.S_ISDIR(inode.mode)
        wanted = 2 + folders[inode.ino] if is_folder else links[inode.ino]
        unlinked = is_folder and not links[inode.ino] and inode.ino != ROOT
        if inode.nlink != (0 if unlinked else wanted):
            yield f"inode {inode.ino}", f"has {inode.nlink} links, should have {wanted}", None


def _bodies(store: Store, objects: dict[int, Object]) -> Iterator[Finding]:
    """Every regular file has exactly one body, and it is there."""
    for inode in store.index.inodes():
        if not stat.S_ISREG(inode.mode):
            continue
        what = os.fsdecode(store.index.path(inode.ino)) or f"inode {inode.ino}"
        if (inode.staged is None) == (inode.object_id is None):
            yield what, "has no body, or two", None
        elif inode.staged is not None:
            if not store.staging.path(inode.staged).exists():
                yield what, f"its staged file {inode.staged} is missing", None
        elif inode.object_id not in objects:
            yield what, f"its object {inode.object_id} is not there", None
        elif objects[inode.object_id].size != inode.size:
            yield what, "its size and its object's size differ", None


def names_on(store: Store, object_id: int) -> list[str]:
    """Files that cannot be read without an object."""
    return [
        os.fsdecode(name)
        for dependent in [object_id, *store.index.dependents(object_id)]
        for name in store.index.names_of(dependent)
    ]


async def check_contents(store: Store, report: Report, progress: Callable[[int], None]) -> None:
    """Render every object and compare hashes; the store is running."""
    slots = trio.Semaphore(_AT_ONCE)
    async with trio.open_nursery() as nursery:
        for found in store.index.all_objects():
            await slots.acquire()
            nursery.start_soon(_check_object, store, found, report, slots)
            progress(1)


async def _check_object(store: Store, found: Object, report: Report, slots: trio.Semaphore) -> None:
    try:
        place = store.layout.pack(found.pack)
        await trio.to_thread.run_sync(read_entry, place, found.offset, found.length)
        body = await store.body(found.id)
        for offset in range(0, body.size, SLICE):
            await body.pread(offset, SLICE)
    except Damaged as error:
        names = [os.fsdecode(name) for name in store.index.names_of(found.id)]
        report.findings.append((f"object {found.id}", str(error), names))
    finally:
        slots.release()
