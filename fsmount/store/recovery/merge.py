"""Plans for a repair, made of facts alone: these functions neither read nor write anything.

:func:`plan_index` says what a new index holds. Its rules:

1. The rows of the copy hold. Where an entry has been moved since, the object is where its entry is.
2. An object that the copy is too old to list gets its file: a file that was staged when the copy
   was made and is no longer staged, or else a new file under the path that the entry names.
3. A staged file that no row names keeps its bytes under a name in ``lost+found/``.
4. A file loses its name only if its content is nowhere, and is then listed as lost.

:func:`plan_removal` says which files of a readable index lose their names. Plans are the same for
the same facts, and a plan that was performed is not changed by another.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from fsmount.store.index import ROOT, Inode, Object
from fsmount.store.maintenance.copies import Rows
from fsmount.store.recovery.scan import (
    Condition,
    Described,
    EntryPlace,
    IndexFacts,
    Replica,
    StagedFile,
    StoreFacts,
    Unusable,
)

_LOST_FOUND = b"lost+found"
# Folders in a path: PATH_MAX allows no more than 2048.
_DEEPEST = 4096


# -- a new index


@dataclass(frozen=True)
class NewIndex:
    """What a new index holds.

    `packs`: the committed length of each pack; all of them count as sealed, since nothing may be
    appended to a pack with damage inside. `renamed`: files that may have had a newer name than
    this. `lost`: files that are gone, some with the reason.
    """

    rows: Rows
    packs: Mapping[int, int]
    renamed: tuple[str, ...]
    lost: tuple[str, ...]


def plan_index(facts: StoreFacts) -> NewIndex:
    """The index that the facts give, by the rules of this module."""
    copy = facts.copy
    objects = _relocated(copy.objects, facts.entries)
    packs = _committed(facts.packs, objects.values())
    staged = {file.token for file in facts.staged}
    blank = _blank(facts)
    tree = _Tree({node.ino: node for node in copy.inodes}, blank)
    renamed = list(_take_names(tree, copy.names))
    lost: list[str] = []
    for found in facts.descriptions:
        if isinstance(found, Unusable):
            lost.append(f"{found.name}: {found.why}")
        elif found.place.object_id not in objects:
            objects[found.place.object_id] = _object(found)
            renamed += _show(tree, found, staged, blank)
    renamed += _show_staged(tree, facts.staged, blank)
    lost += tree.drop(
        node.ino
        for node in tree.inodes.values()
        if (node.staged is not None and node.staged not in staged)
        or (node.object_id is not None and node.object_id not in objects)
    )
    rows = Rows(
        opened=max(facts.opened, copy.opened),
        next_object=max([copy.next_object, *(place.object_id + 1 for place in facts.entries)]),
        inodes=list(tree.inodes.values()),
        names=[(folder, name, ino) for (folder, name), ino in tree.names.items()],
        xattrs=[row for row in copy.xattrs if row[0] in tree.inodes],
        objects=[objects[number] for number in sorted(objects)],
    )
    return NewIndex(rows, packs, tuple(renamed), tuple(lost))


def _relocated(known: Iterable[Object], entries: Collection[EntryPlace]) -> dict[int, Object]:
    """The objects of the copy, at the places where their entries are now.

    An object stays where the copy says if a whole entry is there, or if there is none anywhere.
    """
    there = set(entries)
    latest = {place.object_id: place for place in entries}
    objects = {found.id: found for found in known}
    for found in list(objects.values()):
        place = latest.get(found.id)
        known_place = EntryPlace(found.id, found.pack, found.offset, found.length)
        if place is not None and known_place not in there:
            objects[found.id] = replace(
                found, pack=place.pack, offset=place.offset, length=place.length
            )
    return objects


def _committed(ends: Mapping[int, int], objects: Iterable[Object]) -> dict[int, int]:
    """How long each pack is: to the end of its last object, be that damaged or not."""
    lengths = dict(ends)
    for found in objects:
        if found.pack in lengths:
            lengths[found.pack] = max(lengths[found.pack], found.offset + found.length)
    return lengths


def _object(found: Described) -> Object:
    return Object(
        id=found.place.object_id,
        kind=found.kind,
        pack=found.place.pack,
        offset=found.place.offset,
        length=found.place.length,
        size=found.size,
        sha256=found.sha256,
        depth=found.depth,
        needs=found.needs,
        layer=found.layer,
        reason=found.reason,
    )


def _blank(facts: StoreFacts) -> Inode:
    """An inode of which only owner and times are set."""
    times = facts.now_ns, facts.now_ns, facts.now_ns
    return Inode(0, 0, facts.uid, facts.gid, 1, 0, 0, *times, None, None, None)


class _Tree:
    """Inodes and names while they are being planned. `blank`: what new folders are made from."""

    def __init__(self, inodes: dict[int, Inode], blank: Inode) -> None:
        self.inodes = inodes
        self.names: dict[tuple[int, bytes], int] = {}
        self._folder = blank._replace(mode=stat.S_IFDIR | 0o755, nlink=2)
        self.inodes.setdefault(ROOT, self._folder._replace(ino=ROOT))
        self._next_ino = max(inodes) + 1

    def new(self, node: Inode) -> int:
        """Give an inode the next number and keep it; the number."""
        ino = self._next_ino
        self._next_ino += 1
        self.inodes[ino] = node._replace(ino=ino)
        return ino

    def is_folder(self, ino: int) -> bool:
        """Whether there is such an inode and it is a folder."""
        return ino in self.inodes and stat.S_ISDIR(self.inodes[ino].mode)

    def find(self, path: bytes) -> Inode | None:
        """The inode at a path."""
        ino = ROOT
        for name in path.split(b"/"):
            found = self.names.get((ino, name))
            if found is None:
                return None
            ino = found
        return self.inodes[ino]

    def add(self, path: bytes, ino: int, suffix: bytes) -> str:
        """Name an inode, and make the folders that are missing; the path that it has now.

        `suffix` is put behind a name that is taken.
        """
        *parts, name = path.split(b"/")
        folder = ROOT
        for at, part in enumerate(parts):
            folder, parts[at] = self._enter(folder, part)
        while (folder, name) in self.names:
            name += suffix
        self.names[folder, name] = ino
        return os.fsdecode(b"/".join((*parts, name)))

    def _enter(self, folder: int, name: bytes) -> tuple[int, bytes]:
        """A folder in a folder, made if it is missing; with ``.folder`` where a file has its name.

        Its inode, and the name that it has.
        """
        while (ino := self.names.get((folder, name))) is not None:
            if self.is_folder(ino):
                return ino, name
            name += b".folder"
        ino = self.names[folder, name] = self.new(self._folder)
        return ino, name

    def drop(self, inodes: Iterable[int]) -> list[str]:
        """Drop inodes and all their names; the paths that they had."""
        gone = set(inodes)
        places = {ino: place for place, ino in self.names.items()}
        dropped = [place for place, ino in self.names.items() if ino in gone]
        paths = [os.fsdecode(_path(place, places)) for place in dropped]
        for place in dropped:
            del self.names[place]
        for ino in gone:
            del self.inodes[ino]
        return paths


def _path(place: tuple[int, bytes], places: Mapping[int, tuple[int, bytes]]) -> bytes:
    """The path of a name in a folder; `places` has folder and name of each inode."""
    folder, name = place
    parts = [name]
    # Folders that form a circle would have no end.
    while folder != ROOT and folder in places and len(parts) < _DEEPEST:
        folder, name = places[folder]
        parts.append(name)
    return b"/".join(reversed(parts))


def _take_names(tree: _Tree, names: Collection[tuple[int, bytes, int]]) -> Iterator[str]:
    """Give inodes the names of the copy. A file in no folder that has a path moves; its new path.

    No copy that this program writes should hold such a file.
    """
    named = {ROOT, *(ino for _, _, ino in names)}
    homeless = []
    for folder, name, ino in names:
        if ino in tree.inodes and folder in named and tree.is_folder(folder):
            tree.names[folder, name] = ino
        elif ino in tree.inodes:
            homeless.append(ino)
    for ino in homeless:
        yield tree.add(_LOST_FOUND + b"/inode-%d" % ino, ino, b".again")


def _show(tree: _Tree, found: Described, staged: Collection[int], blank: Inode) -> Iterator[str]:
    """Give an object that the copy does not list its file; the path, if that may be an old one."""
    object_id = found.place.object_id
    node = tree.find(found.path)
    if node is not None and node.staged is not None and node.staged not in staged:
        # The file waited to be encoded when the copy was made.
        tree.inodes[node.ino] = node._replace(staged=None, object_id=object_id, size=found.size)
    else:
        ino = tree.new(_file(blank, found.size, found.mtime_ns)._replace(object_id=object_id))
        yield tree.add(found.path, ino, b".recovered-%d" % object_id)


def _show_staged(tree: _Tree, staged: Iterable[StagedFile], blank: Inode) -> Iterator[str]:
    """Name the staged files that no inode has; their paths."""
    known = {node.staged for node in tree.inodes.values()}
    for file in staged:
        if file.token not in known:
            ino = tree.new(_file(blank, file.size, file.mtime_ns)._replace(staged=file.token))
            yield tree.add(_LOST_FOUND + b"/staged-%d" % file.token, ino, b".again")


def _file(blank: Inode, size: int, mtime_ns: int) -> Inode:
    """A regular file whose three times are `mtime_ns`."""
    return blank._replace(
        mode=stat.S_IFREG | 0o644,
        size=size,
        atime_ns=mtime_ns,
        mtime_ns=mtime_ns,
        ctime_ns=mtime_ns,
    )


# -- an index that can be read


def can_heal(replica: Replica) -> bool:
    """Whether an entry is damaged and its second copy fits into its place."""
    return not replica.is_whole and len(replica.data) == replica.found.length


@dataclass(frozen=True)
class LostFile:
    """What ``lost/`` says of a file that lost its name. `sha256`: in hex, if it is known."""

    path: str
    size: int
    mtime: int
    sha256: str | None
    object: int | None


@dataclass(frozen=True)
class Removal:
    """What an index can no longer hold.

    `files`: each name of the inodes. `objects`: those that cannot be rendered and that no object
    needs that can be. `packs`: new committed lengths of packs that are sealed from now on; None
    for a pack that is forgotten.
    """

    inodes: tuple[int, ...]
    files: tuple[LostFile, ...]
    objects: tuple[int, ...]
    packs: Mapping[int, int | None]


def plan_removal(facts: IndexFacts, suspects: Iterable[int]) -> Removal:
    """What to remove, given the ids of the objects that could not be rendered.

    A staged file that is missing, and an object that the index does not have, cost their files
    their names, too.
    """
    bad = _unrecoverable(facts, suspects)
    needed = {i for found in facts.objects.values() if found.id not in bad for i in found.needs}
    gone = bad - needed
    hit = [node for node in facts.inodes if _has_no_content(node, facts, bad)]
    files = [
        _lost_file(path, node, facts.objects.get(node.object_id or 0))
        for node in hit
        for path in facts.paths.get(node.ino, ())
    ]
    left = [found for number, found in facts.objects.items() if number not in gone]
    packs = _shortened(facts, left)
    return Removal(tuple(node.ino for node in hit), tuple(files), tuple(sorted(gone)), packs)


def _unrecoverable(facts: IndexFacts, suspects: Iterable[int]) -> set[int]:
    """Those of the suspects that cannot be rendered because stored bytes are damaged.

    Where all stored bytes are whole, a render that fails is a bug of this program or another
    deflate; where the disk has an error, the bytes may come back. Neither costs a file its name.
    """
    return {
        number
        for number in suspects
        if any(
            facts.conditions.get(each) is Condition.DAMAGED
            for each in (number, *facts.objects[number].needs)
        )
    }


def _has_no_content(node: Inode, facts: IndexFacts, bad: Collection[int]) -> bool:
    if node.staged is not None and node.staged not in facts.staged:
        return True
    return node.object_id is not None and (
        node.object_id not in facts.objects or node.object_id in bad
    )


def _lost_file(path: str, node: Inode, found: Object | None) -> LostFile:
    sha256 = None if found is None else found.sha256.hex()
    return LostFile(path, node.size, node.mtime_ns, sha256, node.object_id)


def _shortened(facts: IndexFacts, left: Iterable[Object]) -> dict[int, int | None]:
    """For each pack that has lost bytes, where its last object ends; None: missing and empty."""
    ends: dict[int, int] = defaultdict(int)
    for found in left:
        ends[found.pack] = max(ends[found.pack], found.offset + found.length)
    packs: dict[int, int | None] = {}
    for number, length in facts.packs.items():
        present = facts.present[number]
        if present is None and not ends[number]:
            packs[number] = None
        elif present is None or present < length:
            packs[number] = ends[number]
    return packs
