"""`check` finds damage in a store, and names the files that need the damaged parts.

It changes nothing.

:func:`check_relations` compares rows, packs and files with each other and decodes nothing.
:func:`check_contents` renders every file and compares hashes, for `--full`.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import trio
from numpy.typing import NDArray

from fsmount import threads
from fsmount.errors import Damaged, NeedsExtra, NoSuchInode
from fsmount.folder import readable
from fsmount.store import config, contents
from fsmount.store.elsewhere import missing
from fsmount.store.files import StoreFiles
from fsmount.store.frames import rebuilding
from fsmount.store.frames.group import Rendered
from fsmount.store.index import Inode, Object
from fsmount.store.layout import Layout
from fsmount.store.maintenance import copies
from fsmount.store.packs import parity
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import scan
from fsmount.store.packs.staging import writer_of
from fsmount.store.read_store import ReadStore
from fsmount.store.transfer.groups import Tell, Wanted, for_each
from fsmount.store.transfer.tree import SLICE
from fsmount.threads import Kind


class Finding(NamedTuple):
    """Damage: the damaged part, the reason, and the paths of files that cannot be read for it."""

    what: str
    why: str
    files: list[str]


class Unchecked(NamedTuple):
    """An object that is whole but cannot be rendered here: the reason, and its paths."""

    why: str
    files: list[str]


class Notice(NamedTuple):
    """A remark on the folders of the store that is no damage."""

    what: str
    why: str


@dataclass
class Report:
    """The result of a check.

    - `objects`: number of objects in the index.
    - `readable`: whether the index can be read. If not, that is the only finding.

    Only :func:`check_contents` fills these:

    - `elsewhere`: number of objects that were not rebuilt, since packs are at a URL only.
    - `unchecked`: objects that need a package which is not installed.
    - `unreadable`: ids of all objects that could not be read.
    - `damaged`: ids of the unreadable objects whose own bytes are damaged.
    - `hit`: paths of all files that need an object of `damaged`.
    """

    objects: int = 0
    readable: bool = True
    elsewhere: int = 0
    findings: list[Finding] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    unchecked: list[Unchecked] = field(default_factory=list)
    unreadable: set[int] = field(default_factory=set)
    damaged: set[int] = field(default_factory=set)
    hit: set[str] = field(default_factory=set)


class _Fault(NamedTuple):
    """A finding before its files are looked up. `objects`: ids that cannot be read for it."""

    what: str
    why: str
    objects: Iterable[int] = ()


def _files_of(store: StoreFiles, faults: Iterable[_Fault], *, dependents: bool) -> list[list[str]]:
    """For each fault, the paths of the files that show its objects. Reads the index once.

    With `dependents` also the paths of files whose objects need one of these for a render.
    """
    hit = [set(fault.objects) for fault in faults]
    named = set().union(*hit)
    if not named:
        return [[] for _ in hit]
    if dependents:
        needing: dict[int, set[int]] = defaultdict(set)
        for found in store.index.all_objects():
            for needed in named.intersection(found.needs):
                needing[needed].add(found.id)
        hit = [each.union(*(needing.get(known, ()) for known in each)) for each in hit]
    paths: dict[int, set[str]] = defaultdict(set)
    for object_id, path in store.index.shown(set().union(*hit)):
        paths[object_id].add(os.fsdecode(path))
    return [sorted(set().union(*(paths.get(known, ()) for known in each))) for each in hit]


# -- comparison of rows, packs and files


def check_relations(store: StoreFiles) -> Report:
    """Compare names, rows, packs, large files and staged files with each other.

    Works beside a mount: changes by the mount during the check are no findings. Raises OSError.
    """
    while True:
        problems = store.index.integrity()
        if problems:
            return _unreadable_index(store, "; ".join(problems[:3]))
        try:
            report, packs = _relations(store)
        except Damaged as error:
            return _unreadable_index(store, str(error))
        # A repack in another process may have removed a pack after its row was read.
        if not report.findings or store.index.packs() == packs:
            report.notices += _notices(store)
            return report


def _unreadable_index(store: StoreFiles, why: str) -> Report:
    finding = Finding("index.sqlite", why, [])
    return Report(readable=False, findings=[finding], notices=_notices(store))


def _notices(store: StoreFiles) -> list[Notice]:
    found = [Notice(what, why) for what, why in contents.notices(store.layout)]
    if away := store.away.packs:
        packs = "1 pack is" if len(away) == 1 else f"{len(away)} packs are"
        why = (
            f"{packs} at {store.away.url} only, with {store.away.bytes} bytes, and not looked at."
            " fsmount check URL looks at them"
        )
        found.append(Notice("packs", why))
    return found


def _relations(store: StoreFiles) -> tuple[Report, dict[int, tuple[int, bool]]]:
    """The findings, and the rows of packs that they rest on. Raises :class:`Damaged`."""
    with store.index.snapshot():
        difference = copies.disagreement(store.layout, store.index)
        ids = np.fromiter(store.index.object_ids(), np.int64)
        faults = [
            *_packs(store),
            *_objects(store, ids),
            *_uses(store),
            *_names(store),
            *_bodies(store),
        ]
        files = _files_of(store, faults, dependents=True)
        staged = store.index.staged_inodes()
        packs = store.index.packs()
    if difference:
        faults.append(_Fault("index.sqlite", difference))
    # This runs outside the snapshot: a mount may have encoded a staged file since.
    faults += [*_staged(store, staged), *_without_row(store)]
    files += [[]] * (len(faults) - len(files))
    findings = [Finding(f.what, f.why, paths) for f, paths in zip(faults, files, strict=True)]
    return Report(objects=len(ids), findings=findings), packs


def _name(store: StoreFiles, ino: int) -> str:
    """A path to show for an inode."""
    return os.fsdecode(store.index.path(ino)) or f"inode {ino}"


def _packs(store: StoreFiles) -> Iterator[_Fault]:
    """Check that every pack is at least as long as the index says."""
    # Number of each pack that is too short -> the bytes that it has, and the reason.
    short: dict[int, tuple[int, str]] = {}
    for number, (length, _) in store.index.packs().items():
        if number in store.away.packs:
            continue
        try:
            present = store.layout.pack(number).stat().st_size
            why = f"the pack has only {present} of its {length} bytes"
        except FileNotFoundError:
            if number in missing(store.layout).packs:
                # An evict beside us has dropped it.
                continue
            present, why = -1, "the pack is missing"
        if present < length:
            if store.layout.parity(number).exists():
                why += "; it has parity, from which --repair may rebuild it"
            short[number] = present, why
    beyond: dict[int, list[int]] = {number: [] for number in short}
    for found in store.index.all_objects() if short else ():
        if found.pack in short and found.offset + found.length > short[found.pack][0]:
            beyond[found.pack].append(found.id)
    for number, (_, why) in short.items():
        yield _Fault(store.layout.pack(number).name, why, beyond[number])


def _objects(store: StoreFiles, ids: NDArray[np.int64]) -> Iterator[_Fault]:
    """Check the place of every object, and the objects and the file that it needs.

    It must lie inside its pack, all objects that it needs must exist, and a large file must exist
    and have the right size.

    `ids`: ids of all objects, ascending.
    """
    packs = store.index.packs()
    for found in store.index.all_objects():
        what = f"object {found.id}"
        if found.offset + found.length > packs.get(found.pack, (-1, False))[0]:
            yield _Fault(what, f"it lies outside pack {found.pack}", [found.id])
        needed = np.unique(np.array(found.needs + found.layer, np.int64))
        places = np.minimum(ids.searchsorted(needed), len(ids) - 1)
        missing = needed[ids[places] != needed].tolist()
        if missing:
            yield _Fault(what, f"it needs objects that do not exist: {missing}", [found.id])
        if found.is_kept:
            yield from _large_file(store, found)


def _large_file(store: StoreFiles, found: Object) -> Iterator[_Fault]:
    path = store.layout.kept(found.id)
    try:
        present = path.stat().st_size
    except FileNotFoundError:
        yield _Fault(f"raw/{path.name}", "the file is missing", [found.id])
        return
    if present != found.size:
        why = f"the file has {present} bytes and should have {found.size}"
        yield _Fault(f"raw/{path.name}", why, [found.id])


def _uses(store: StoreFiles) -> Iterator[_Fault]:
    """Check that the index counts the files that show an object right."""
    for object_id, counted, used in store.index.wrong_uses():
        why = f"the index counts {counted} files that show it, and {used} do"
        yield _Fault(f"object {object_id}", why)


def _names(store: StoreFiles) -> Iterator[_Fault]:
    """Check that every name stands in a folder and shows an inode. Check link counts."""
    for name in store.index.dangling_names():
        yield _Fault(os.fsdecode(name), "the name shows no file, or its folder does not exist")
    for ino, links, wanted in store.index.wrong_links():
        yield _Fault(_name(store, ino), f"its link count is {links} and should be {wanted}")


def _bodies(store: StoreFiles) -> Iterator[_Fault]:
    """Check that every regular file has one content: a staged file, or an object that exists."""
    for inode, size in store.index.wrong_bodies():
        what = _name(store, inode.ino)
        if inode.staged is None and inode.object_id is None:
            yield _Fault(what, "it has neither a staged file nor an object")
        elif inode.staged is not None and inode.object_id is not None:
            yield _Fault(what, "it has both a staged file and an object")
        elif size is None:
            yield _Fault(what, f"its object {inode.object_id} does not exist")
        else:
            yield _Fault(what, f"its size is {inode.size}, that of its object is {size}")


def _staged(store: StoreFiles, inodes: Iterable[Inode]) -> Iterator[_Fault]:
    """Check that every staged file exists. `inodes`: inodes that had one some time ago."""
    for inode in inodes:
        if inode.staged is None or store.staging.path(inode.staged).exists():
            continue
        with suppress(NoSuchInode):
            # A mount may have encoded or removed the file since.
            if store.index.inode(inode.ino).staged == inode.staged:
                yield _Fault(_name(store, inode.ino), f"its staged file {inode.staged} is missing")


def _without_row(store: StoreFiles) -> Iterator[_Fault]:
    """Check that every staged file has a row, unless the last writer made the file.

    The last writer may be a mount that runs now, which makes and removes staged files. If a crash
    leaves some of them without a row, the next start removes them.
    """
    # Tokens come before rows: a file that is removed in between had a row, or is gone below.
    tokens = store.staging.tokens()
    known = {inode.staged for inode in store.index.staged_inodes()}
    for token in sorted(set(tokens) - known):
        if writer_of(token) != store.index.writer() and store.staging.path(token).exists():
            yield _Fault(
                f"staging/{token}",
                "the index has no file for it. Another writer made it, so it may be the only copy."
                " The next mount moves it to lost/",
            )


# -- contents of files


class _Unreadable(NamedTuple):
    """An object that could not be read. `own` tells whether its own entry is damaged."""

    found: Object
    why: str
    own: bool


class _NotInstalled(NamedTuple):
    """An object whose render needs a package that is not installed. Its entry is whole."""

    found: Object
    why: str


async def check_contents(store: ReadStore, report: Report, progress: Callable[[int], None]) -> None:
    """Render every object that a file shows, and compare its hash. Adds to `report`.

    If no file shows an object, only its entry is read: other objects may need its pixels. A damaged
    entry is one finding, for any number of objects that need it. The store must be running.
    `progress` is called with 1 for each object. Works beside a mount. What is at a URL only is not
    looked at; of an object that needs such a one, the entry is read.
    """
    away = _Away(store)
    unreadable: dict[int, _Unreadable] = {}
    unchecked: list[_Fault] = []

    async def check(found: Object, rendered: Rendered | None) -> Tell:
        whole = rendered is not None and rendered[:2] == (found.size, found.sha256)
        renders = away.spares(found)
        result = None if whole else await _check_object(store, found, renders=renders)
        progress(1)

        def tell() -> None:
            if isinstance(result, _Unreadable):
                unreadable[found.id] = result
            elif isinstance(result, _NotInstalled):
                unchecked.append(_Fault(f"object {found.id}", result.why, [found.id]))

        return tell

    def wanted() -> Iterator[Wanted[Object]]:
        for each in store.index.all_objects():
            spared = away.spares(each)
            report.elsewhere += not spared
            if each.id not in away.ids:
                yield Wanted(each, each if each.uses and spared else None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_check_copies, store, report)
        nursery.start_soon(_check_parity, store, report)
        await for_each(store, wanted(), check, with_bytes=False)
    _report_unreadable(store, report, unreadable)
    files = _files_of(store, unchecked, dependents=False)
    for fault, paths in zip(unchecked, files, strict=True):
        report.unchecked.append(Unchecked(fault.why, paths))


async def _check_copies(store: ReadStore, report: Report) -> None:
    """Add to `report` which copies in packs/ cannot be read."""
    identity = store.index.identity()
    faults = await threads.call(Kind.ENTRY, _copies, store.layout, identity)
    report.findings += [Finding(fault.what, fault.why, []) for fault in faults]


async def _check_parity(store: ReadStore, report: Report) -> None:
    """Add to `report` what is wrong with the parity of packs, and how many packs have none."""
    without = 0
    for number, (length, is_sealed) in store.index.packs().items():
        if number in store.away.packs:
            continue
        parts = await threads.call(Kind.ENTRY, _parity, store.layout, number, length)
        now, _ = store.index.packs().get(number, (-1, False))
        # A pack that was cut or removed in the meantime is no finding. The parity of an open pack
        # may come at the end of the mount.
        if parts is None:
            without += is_sealed and now >= length
        elif now >= length:
            report.findings += [Finding(fault.what, fault.why, []) for fault in parts]
    if without and config.parity_of(config.read(store.layout.root)):
        what = "1 pack has" if without == 1 else f"{without} packs have"
        why = f"{what} no parity yet. A mount makes it, and so does --repair"
        report.notices.append(Notice("packs", why))


def _report_unreadable(
    store: ReadStore, report: Report, unreadable: Mapping[int, _Unreadable]
) -> None:
    """Add to `report` the objects that cannot be read, and the files that need them."""
    report.unreadable.update(unreadable)
    causes = _causes(unreadable)
    report.damaged.update(causes)
    faults = [_Fault(f"object {number}", why, [number]) for number, why in causes.items()]
    files = _files_of(store, faults, dependents=True)
    report.hit.update(*files)
    findings = [Finding(f.what, f.why, paths) for f, paths in zip(faults, files, strict=True)]
    report.findings += sorted(findings, key=lambda finding: -len(finding.files))


def _causes(unreadable: Mapping[int, _Unreadable]) -> dict[int, str]:
    """Id -> reason, for the objects whose own bytes are damaged. The others need one of these."""
    return {
        number: each.why
        for number, each in sorted(unreadable.items())
        if each.own or not (set(each.found.needs) - {number}) & unreadable.keys()
    }


def _copies(layout: Layout, identity: str) -> list[_Fault]:
    """Check that the copies in packs/ can be read. They may be older than the index.

    Waits for the disk. `identity` is that of the index.
    """
    faults = []
    path = layout.names_copy
    if path.exists():
        try:
            for _ in copies.read(path.read_bytes(), identity):
                pass
        except (OSError, Damaged) as error:
            faults.append(_Fault(f"packs/{path.name}", readable(str(error))))
    path = layout.second_entries
    if path.exists():
        damaged = path.stat().st_size - sum(length for _, length, _ in scan(path))
        if damaged:
            faults.append(_Fault(f"packs/{path.name}", f"{damaged} bytes of it are no entries"))
    return faults


def _parity(layout: Layout, number: int, length: int) -> list[_Fault] | None:
    """Compare a pack and its parity. Return None if there is none.

    Waits for the disk. `length` is the number of committed bytes of the pack.
    """
    path = layout.pack(number)
    what = f"packs/{layout.parity(number).name}"
    try:
        known = parity.load_of(path)
        faulty = known.damaged_parity()
    except FileNotFoundError:
        return None
    except (OSError, Damaged) as error:
        return [_Fault(what, f"{readable(str(error))}; --repair makes it anew")]
    if known.shape.covered > length:
        return [_Fault(what, "it covers more than the pack has; --repair makes it anew")]
    faults = []
    if faulty:
        why = f"{faulty} of its blocks are damaged; --repair makes it anew"
        faults.append(_Fault(what, why))
    with parity.reading(path) as fd:
        bad = known.damaged(fd)
        rebuilt = known.rebuild(fd, bad)
    if bad:
        at = bad[0] * parity.BLOCK
        left = len(bad) - len(rebuilt)
        how = f"parity cannot rebuild {left} of them" if left else "--repair rebuilds all of them"
        why = f"damaged blocks of {parity.BLOCK} bytes: {len(bad)}, the first at {at}; {how}"
        faults.append(_Fault(f"packs/{path.name}", why))
    return faults


class _Away:
    """Tells which objects need none that is at a URL only. `ids`: those that are."""

    def __init__(self, store: StoreFiles) -> None:
        packs, index = store.away.packs, store.index
        self.ids = {row.id for row in index.all_objects() if row.pack in packs} if packs else set()

    def spares(self, found: Object) -> bool:
        """Whether an object can be rendered from what is here."""
        return found.id not in self.ids and self.ids.isdisjoint(found.needs)


async def _check_object(
    store: ReadStore, found: Object, *, renders: bool
) -> _Unreadable | _NotInstalled | None:
    """Read the entry of an object, and render the object if a file shows it, and it `renders`.

    Returns None if it is whole. An object that was dropped since its row `found` was read counts as
    whole.
    """
    try:
        await _read_entry(store, found)
    except Exception as error:
        return _unreadable(store, found, error, own=True)
    if not found.uses or not renders:
        return None
    try:
        await _render(store, found)
    except NeedsExtra as error:
        return _NotInstalled(found, str(error))
    except Exception as error:
        return _unreadable(store, found, error, own=False)
    return None


def _unreadable(
    store: StoreFiles, found: Object, error: Exception, *, own: bool
) -> _Unreadable | None:
    """The result of a check that raised `error`; None if the object was dropped meanwhile.

    A damaged record can make the code raise any exception.
    """
    if _was_dropped(store, found):
        return None
    return _Unreadable(found, readable(str(error) or repr(error)), own)


async def _render(store: ReadStore, found: Object) -> None:
    """Render an object. Raises :class:`Damaged` if its file has another hash than the index."""
    body = await store.body(found.id)
    digest = hashlib.sha256()
    for offset in range(0, body.size, SLICE):
        await threads.call(Kind.READ, digest.update, await body.pread(offset, SLICE))
    # Very large sparse files have no hash of the whole file.
    if found.sha256 and digest.digest() != found.sha256:
        raise Damaged(f"object {found.id}", reason="its hash is not the one in the index")


async def _read_entry(store: ReadStore, found: Object) -> None:
    """Read the entry of an object, also if a repack moves it meanwhile.

    Raises :class:`Damaged`.
    """
    while True:
        now = store.index.object(found.id)
        place = Location(now.id, str(store.layout.pack(now.pack)), now.offset, now.length)
        try:
            # Damage that parity mends for readers is a finding of its pack.
            await threads.call(Kind.ENTRY, rebuilding.entry, place)
        except Damaged:
            if store.index.object(found.id).pack == now.pack:
                raise
        else:
            return


def _was_dropped(store: StoreFiles, found: Object) -> bool:
    """Whether an unused object was dropped since its row was read."""
    try:
        store.index.object(found.id)
    except Damaged:
        return not store.index.is_used(found.id)
    return False
