"""Plans for a repair, made from facts alone. These functions neither read nor write the disk.

:func:`plan_index` plans the rows of a new index. Its rules:

1. The rows of the copy stay valid. If an entry was moved since, its object gets the new place.
2. An object that is newer than the copy gets a file: the file of its path, if it was staged when
   the copy was made and is no longer staged, or else a new file under the path in the entry.
3. A staged file that no row names keeps its bytes under a name in ``lost+found/``.
4. A file loses its name only if its content exists nowhere. It is then listed as lost.

:func:`plan_removal` plans which files of a readable index lose their names. Equal facts give equal
plans. A second plan does not change the result of a plan that was performed.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from fsmount.store.index import ROOT, TRASH, Inode, Object
from fsmount.store.maintenance.copies import IndexRows
from fsmount.store.packs.entries import DICTIONARY
from fsmount.store.recovery.scan import (
    Condition,
    DescribedFile,
    EntryPlace,
    IndexFacts,
    Replica,
    StagedFile,
    StoreFacts,
    UnusableEntry,
)

_LOST_FOUND = b"lost+found"
# The number of folders in a path that are followed at most. PATH_MAX allows no more than 2048.
_DEEPEST = 4096


# -- a new index


@dataclass(frozen=True)
class NewIndex:
    """The content of a new index.

    - `packs`: the committed length of each pack in bytes. All packs count as sealed, since nothing
      may be appended to a pack with damage inside.
    - `renamed`: paths of files that may have had a newer name than this.
    - `lost`: paths of files that are gone, some with the reason.
    """

    rows: IndexRows
    packs: Mapping[int, int]
    renamed: tuple[str, ...]
    lost: tuple[str, ...]


def plan_index(facts: StoreFacts) -> NewIndex:
    """Plan the index that the facts give by the rules of this module."""
    copy = facts.copy
    objects = _relocated(copy.objects, facts.entries)
    packs = _committed(facts.packs, objects.values())
    staged = {file.token for file in facts.staged}
    blank = _blank(facts)
    tree = _Tree({node.ino: node for node in copy.inodes}, blank)
    renamed = list(_take_names(tree, copy.names))
    lost: list[str] = []
    for found in facts.descriptions:
        if isinstance(found, UnusableEntry):
            lost.append(f"{found.name}: {found.why}")
            if found.row is not None and found.row.id not in objects:
                objects[found.row.id] = found.row
        elif found.place.object_id not in objects:
            objects[found.place.object_id] = _object(found)
            if found.kind != DICTIONARY:
                renamed += _show(tree, found, staged, blank)
    renamed += _show_staged(tree, facts.staged, blank)
    lost += tree.drop(
        node.ino
        for node in tree.inodes.values()
        if (node.staged is not None and node.staged not in staged)
        or (node.object_id is not None and node.object_id not in objects)
    )
    rows = IndexRows(
        opened=max(facts.opened, copy.opened),
        next_object=max([copy.next_object, *(place.object_id + 1 for place in facts.entries)]),
        inodes=list(tree.inodes.values()),
        names=[(folder, name, ino) for (folder, name), ino in tree.names.items()],
        xattrs=[row for row in copy.xattrs if row[0] in tree.inodes],
        objects=[objects[number] for number in sorted(objects)],
    )
    return NewIndex(rows, packs, tuple(renamed), tuple(lost))


def _relocated(known: Iterable[Object], entries: Collection[EntryPlace]) -> dict[int, Object]:
    """The objects of the copy, at the present places of their entries.

    An object keeps its place in the copy if a whole entry is there, or if no place has one.
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
    """The length of each pack in bytes: the end of its last object, whole or damaged."""
    lengths = dict(ends)
    for found in objects:
        if found.pack in lengths:
            lengths[found.pack] = max(lengths[found.pack], found.offset + found.length)
    return lengths


def _object(found: DescribedFile) -> Object:
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
    """The inodes and names of a plan. `blank` is the inode from which new folders are made."""

    def __init__(self, inodes: dict[int, Inode], blank: Inode) -> None:
        self.inodes = inodes
        self.names: dict[tuple[int, bytes], int] = {}
        self._folder = blank._replace(mode=stat.S_IFDIR | 0o755, nlink=2)
        self.inodes.setdefault(ROOT, self._folder._replace(ino=ROOT))
        self._next_ino = max(inodes) + 1

    def new(self, node: Inode) -> int:
        """Add an inode under the next free number. Returns the number."""
        ino = self._next_ino
        self._next_ino += 1
        self.inodes[ino] = node._replace(ino=ino)
        return ino

    def is_folder(self, ino: int) -> bool:
        """Whether an inode exists and is a folder."""
        return ino in self.inodes and stat.S_ISDIR(self.inodes[ino].mode)

    def find(self, path: bytes) -> Inode | None:
        """The inode at a path, or None."""
        ino = ROOT
        for name in path.split(b"/"):
            found = self.names.get((ino, name))
            if found is None:
                return None
            ino = found
        return self.inodes[ino]

    def add(self, path: bytes, ino: int, suffix: bytes) -> str:
        """Name an inode, and add missing folders. Returns the path that it has now.

        `suffix` is appended to a name while the name is taken.
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
        """Find or add the folder `name` in a folder. Returns its inode number and its name.

        ``.folder`` is appended to the name while a file has it.
        """
        while (ino := self.names.get((folder, name))) is not None:
            if self.is_folder(ino):
                return ino, name
            name += b".folder"
        ino = self.names[folder, name] = self.new(self._folder)
        return ino, name

    def drop(self, inodes: Iterable[int]) -> list[str]:
        """Drop inodes and all their names. Returns the paths that they had."""
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
    """The path of a name in a folder. `places` gives the folder and name of each inode."""
    folder, name = place
    parts = [name]
    # Damaged rows may make folders form a cycle.
    while folder != ROOT and folder in places and len(parts) < _DEEPEST:
        folder, name = places[folder]
        parts.append(name)
    return b"/".join(reversed(parts))


def _take_names(tree: _Tree, names: Collection[tuple[int, bytes, int]]) -> Iterator[str]:
    """Give inodes the names of the copy.

    If the folder of a file has no path, the file moves to ``lost+found/``. Yields its new path. No
    copy that this program writes should have such a file.
    """
    named = {ROOT, *(ino for _, _, ino in names)}
    homeless = []
    for folder, name, ino in names:
        in_folder = folder in named and tree.is_folder(folder)
        if ino in tree.inodes and (in_folder or folder == TRASH):
            tree.names[folder, name] = ino
        elif ino in tree.inodes:
            homeless.append(ino)
    for ino in homeless:
        yield tree.add(_LOST_FOUND + b"/inode-%d" % ino, ino, b".again")


def _show(
    tree: _Tree, found: DescribedFile, staged: Collection[int], blank: Inode
) -> Iterator[str]:
    """Give a file to an object that the copy does not list. Yields its path if it may be old."""
    object_id = found.place.object_id
    node = tree.find(found.path)
    if node is not None and node.staged is not None and node.staged not in staged:
        # The file waited to be encoded when the copy was made.
        tree.inodes[node.ino] = node._replace(staged=None, object_id=object_id, size=found.size)
    else:
        ino = tree.new(_file(blank, found.size, found.mtime_ns)._replace(object_id=object_id))
        yield tree.add(found.path, ino, b".recovered-%d" % object_id)


def _show_staged(tree: _Tree, staged: Iterable[StagedFile], blank: Inode) -> Iterator[str]:
    """Name the staged files that no inode has. Yields their paths."""
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
    """Whether an entry is damaged and its second copy has the length of its place."""
    return not replica.is_whole and len(replica.data) == replica.found.length


@dataclass(frozen=True)
class LostFile:
    """The record in ``lost/`` of a file that lost its name.

    `size` is in bytes, `mtime` in ns since 1970. `sha256` is in hex, or None if it is unknown.
    `object` is the id of its object, or None.
    """

    path: str
    size: int
    mtime: int
    sha256: str | None
    object: int | None


@dataclass(frozen=True)
class Removal:
    """The rows that must leave an index.

    - `inodes`: inodes that lose their content.
    - `files`: one record for each name of these inodes.
    - `objects`: objects that cannot be rendered and that no renderable object needs.
    - `packs`: new committed lengths in bytes of packs that are sealed from now on. None: the pack
      is forgotten.
    """

    inodes: tuple[int, ...]
    files: tuple[LostFile, ...]
    objects: tuple[int, ...]
    packs: Mapping[int, int | None]


def plan_removal(facts: IndexFacts, suspects: Iterable[int]) -> Removal:
    """Plan the removal of lost files. `suspects`: ids of objects that could not be rendered.

    A file also loses its names if its staged file is missing, or if the index has no such object.
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
    """The suspects that cannot be rendered because stored bytes are damaged.

    If all stored bytes are whole, a bug of this program or another deflate makes the render fail.
    If the disk has an error, the bytes may come back. Neither costs a file its name.
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
    """Packs that have lost bytes -> the end of their last object; None: missing and empty."""
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
