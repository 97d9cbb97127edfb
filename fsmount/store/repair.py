"""`check --repair`: save what can be saved, list the rest, and never make it worse.

1. An index that cannot be read is made anew: rows from their copy in ``packs/``, and what is
   missing there (or all of it) from the entries of the packs. The old one goes to ``lost/``.
2. A damaged entry of which there is a second copy gets its bytes back, at its place.
3. What still cannot be read is listed in ``lost/`` and its names are removed, so that a copy from
   elsewhere (rsync, import) brings it back; objects that nothing can be made of are forgotten.

Each step may be repeated, and a repair that is killed is just done again: nothing is removed
before what replaces it is on the disk, and the same damage gives the same result.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from fsmount.codec import record
from fsmount.codec.memory import WorkerMemory
from fsmount.errors import Damaged, FsmountError
from fsmount.folder import readable
from fsmount.store import config, contents, copies, jobs
from fsmount.store.bodies import Kept, load_sums
from fsmount.store.config import Layout
from fsmount.store.copies import Rows
from fsmount.store.disk import Disk
from fsmount.store.entries import JPEG, SUMS
from fsmount.store.index import ROOT, Index, Inode, Object
from fsmount.store.pack import Entry, read_entry, scan
from fsmount.store.reader import Place, Reader

_log = logging.getLogger(__name__)

_FOUND = b"lost+found"
_LAYER_BYTES = 64 << 20


@dataclass
class Repairs:
    """What was done: `rebuilt` says why the index was made anew; objects that got their bytes
    back; files that may have an older name than they had, and files that are lost."""

    rebuilt: str = ""
    healed: list[int] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


# -- the index


def rebuild_index(root: Path, disk: Disk, repairs: Repairs) -> None:
    """Make the index anew if it cannot be read. The caller holds the store's lock."""
    layout = Layout(root)
    identity = str(config.read(root).get("uuid", ""))
    why = _unreadable(layout, disk, identity)
    if not why:
        return
    if not layout.packs.is_dir():
        # Perhaps a disk that is not there. An index made without packs would know no file.
        raise Damaged(layout.packs, reason=contents.MISSING)
    repairs.rebuilt = why
    rows = copies.read_rows(layout, identity) or Rows()
    world = _World(layout, rows, repairs)
    world.add_entries()
    world.add_staged()
    fresh = layout.index.with_name("index.new")
    for name in (fresh, *_logs(fresh)):
        disk.unlink(name)
    Index.make(fresh, identity=identity, uid=os.getuid(), gid=os.getgid(), now_ns=time.time_ns())
    disk.chmod(fresh, 0o600)
    index = Index(fresh, disk)
    try:
        world.save(index, _opened(layout))
        index.force()
    finally:
        index.close()
    _fsync(disk, fresh)
    _aside(layout, disk)
    disk.rename(fresh, layout.index)
    disk.fsync_folder(root)


def _unreadable(layout: Layout, disk: Disk, identity: str) -> str:
    """Why the index cannot be read, or ""."""
    try:
        index = Index(layout.index, disk)
    except (FsmountError, OSError) as error:
        return readable(str(error))
    try:
        problems = index.integrity()
        if not problems and index.identity() != identity:
            problems = ["it belongs to another store"]
        return "; ".join(problems[:3]) or _wrong_rows(layout, index)
    except (FsmountError, OSError) as error:
        return readable(str(error))
    finally:
        index.close()


def _wrong_rows(layout: Layout, index: Index) -> str:
    """Why the rows are wrong, or ""; raises :class:`Damaged` if some cannot be read."""
    # These are not in the copy, or found by an index of their own.
    for read in (index.packs, index.repacked, index.staged_inodes, index.orphans):
        read()
    return index.contradiction() or copies.disagreement(layout, index)


def _logs(path: Path) -> list[Path]:
    return [path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal")]


def _aside(layout: Layout, disk: Disk) -> None:
    """What is left of the old index goes to ``lost/``, its log first: alone it says nothing."""
    if not layout.lost.exists():
        disk.mkdir(layout.lost)
    now = time.time_ns()
    for path in (*_logs(layout.index), layout.index):
        if path.exists():
            disk.rename(path, layout.lost / f"{path.name}-{now}")
    disk.fsync_folder(layout.lost)


def _opened(layout: Layout) -> int:
    try:
        return int(layout.opened.read_text())
    except (OSError, ValueError):
        return 0


def _fsync(disk: Disk, path: Path) -> None:
    fd = disk.open(path, os.O_RDWR)
    try:
        disk.fsync(fd)
    finally:
        disk.close(fd)


@dataclass(frozen=True)
class _Found:
    """An entry in a pack, and what its record says."""

    place: Place
    pack: int
    entry: Entry
    path: bytes
    mtime_ns: int
    size: int
    sha256: bytes
    kind: str
    reason: str | None


class _World:
    """The rows of an index that is made anew."""

    def __init__(self, layout: Layout, rows: Rows, repairs: Repairs) -> None:
        self._layout = layout
        self._repairs = repairs
        self._next_object = rows.next_object
        self._opened = rows.opened
        self._inodes = {node.ino: node for node in rows.inodes}
        if ROOT not in self._inodes:
            self._inodes[ROOT] = _folder(ROOT, 0o755)
        self._names = {(folder, name): ino for folder, name, ino in rows.names}
        self._xattrs = rows.xattrs
        self._objects = {found.id: found for found in rows.objects}
        self._packs: dict[int, tuple[int, bool]] = {}

    # -- objects

    def add_entries(self) -> None:
        """Objects of the packs that the copy does not know, with the names they had at first."""
        # Entries are read again when their turn comes: all of them do not fit into memory.
        later: dict[int, tuple[Place, int]] = {}
        places: dict[int, Place] = {}
        packs: dict[int, int] = {}
        seen: set[tuple[int, int, int, int]] = set()
        lengths: dict[int, int] = {}
        for number, path in _pack_files(self._layout):
            lengths[number] = 0
            for offset, size, entry in scan(path):
                place = Place(entry.object_id, str(path), offset, size)
                lengths[number] = offset + size
                places[entry.object_id] = place
                packs[entry.object_id] = number
                seen.add((entry.object_id, number, offset, size))
                # What the copy's index had given up is below its next number, and not in it.
                if entry.object_id >= self._next_object:
                    later[entry.object_id] = place, number
        self._follow(seen, places, packs)
        for known in self._objects.values():
            if known.pack in lengths:
                lengths[known.pack] = max(lengths[known.pack], known.offset + known.length)
        # Sealed: what is damaged inside is not to be appended to.
        self._packs.update((number, (length, True)) for number, length in lengths.items())
        memory = WorkerMemory()
        memory.layers.resize(_LAYER_BYTES)
        reader = Reader(list(places.values()), memory)
        for object_id in sorted(later):
            found = self._read(*later[object_id], reader)
            if found is not None:
                self._add(found, reader)
        self._next_object = max([self._next_object, *(number + 1 for number in places)])

    def _follow(
        self,
        seen: set[tuple[int, int, int, int]],
        places: dict[int, Place],
        packs: dict[int, int],
    ) -> None:
        """Objects whose entries a repack has moved since the copy are where they are now."""
        for found in list(self._objects.values()):
            at = found.id, found.pack, found.offset, found.length
            place = places.get(found.id)
            if place is not None and at not in seen:
                self._objects[found.id] = replace(
                    found, pack=packs[found.id], offset=place.offset, length=place.length
                )

    def _read(self, place: Place, number: int, reader: Reader) -> _Found | None:
        try:
            entry = reader.entry(place.id)
            known = reader.record(entry)
            header = known.header
            return _Found(
                place,
                number,
                entry,
                str(header["path"]).encode("utf-8", "surrogateescape"),
                int(header["mtime"]),
                int(header["size"]),
                known.arrays.get("sha256", b""),
                str(header["kind"]),
                header.get("reason"),
            )
        except (FsmountError, KeyError, ValueError, TypeError) as error:
            _log.error("object %d: %s", place.id, error)
            self._repairs.lost.append(readable(f"object {place.id}: {error}"))
            return None

    def _add(self, found: _Found, reader: Reader) -> None:
        kept = found.kind == "raw" and found.entry.suffix == SUMS
        needs: tuple[int, ...] = ()
        layer: tuple[int, ...] = ()
        depth = 0
        try:
            if found.kind not in ("raw", JPEG):
                needs, layer, depth = jobs.relations(found.place, reader)
            elif kept:
                self._check_kept(found)
        except (FsmountError, OSError, ValueError) as error:
            self._repairs.lost.append(f"{os.fsdecode(found.path)}: {readable(str(error))}")
            return
        object_id = found.place.id
        self._objects[object_id] = Object(
            id=object_id,
            kind=found.kind,
            pack=found.pack,
            offset=found.place.offset,
            length=found.place.length,
            size=found.size,
            sha256=found.sha256,
            depth=depth,
            needs=needs,
            layer=layer,
            reason=found.reason,
        )
        self._name(found)

    def _check_kept(self, found: _Found) -> None:
        load_sums(found.entry.payload)
        path = self._layout.kept(found.place.id)
        if not path.exists() or path.stat().st_size != found.size:
            raise Damaged(path, reason="the file is missing or has another size")

    # -- names

    def _name(self, found: _Found) -> None:
        """The file of an entry that is younger than the copy."""
        object_id = found.place.id
        for folder, name, ino in self._at(found.path):
            node = self._inodes[ino]
            if node.staged is not None and not self._is_staged(node.staged):
                # It waited to be encoded when the copy was made.
                self._inodes[ino] = node._replace(staged=None, object_id=object_id, size=found.size)
                return
            _log.info("%r in folder %d is taken", name, folder)
        path = found.path
        while self._at(path):
            path = found.path + b".recovered-%d" % object_id
            if self._at(path):
                return
        self._put(path, 0o100644, object_id=object_id, size=found.size, mtime_ns=found.mtime_ns)
        self._repairs.renamed.append(os.fsdecode(path))

    def add_staged(self) -> None:
        """Staged files the copy does not know keep their bytes under a name of their own."""
        known = {node.staged for node in self._inodes.values()}
        staged = contents.own(self._layout.staging, contents.STAGED)
        for entry in sorted(staged, key=lambda entry: entry.name):
            if int(entry.name) not in known:
                info = entry.stat()
                target = _FOUND + b"/staged-" + entry.name.encode()
                self._put(
                    target,
                    0o100644,
                    staged=int(entry.name),
                    size=info.st_size,
                    mtime_ns=info.st_mtime_ns,
                )
                self._repairs.renamed.append(os.fsdecode(target))

    def _is_staged(self, token: int) -> bool:
        return (self._layout.staging / str(token)).exists()

    def _at(self, path: bytes) -> list[tuple[int, bytes, int]]:
        """The entry at a path: (folder, name, ino), or nothing."""
        ino = ROOT
        place: tuple[int, bytes, int] | None = None
        for name in path.split(b"/"):
            found = self._names.get((ino, name))
            if found is None or found not in self._inodes:
                return []
            place = ino, name, found
            ino = found
        return [] if place is None else [place]

    def _put(
        self,
        path: bytes,
        mode: int,
        *,
        size: int,
        mtime_ns: int,
        object_id: int | None = None,
        staged: int | None = None,
    ) -> None:
        folder = ROOT
        *folders, name = path.split(b"/")
        for part in folders:
            ino = self._names.get((folder, part))
            if ino is None or not stat.S_ISDIR(self._inodes[ino].mode):
                own = part if ino is None else part + b".folder"
                ino = self._names.get((folder, own)) or self._new(_folder(0, 0o755))
                self._names[folder, own] = ino
            folder = ino
        times = mtime_ns, mtime_ns, mtime_ns
        node = Inode(0, mode, os.getuid(), os.getgid(), 1, size, 0, *times, object_id, staged, None)
        self._names[folder, name] = self._new(node)

    def _new(self, node: Inode) -> int:
        ino = max(self._inodes) + 1
        self._inodes[ino] = node._replace(ino=ino)
        return ino

    # -- the end

    def save(self, index: Index, opened: int) -> None:
        """Write all rows."""
        self._drop_bodiless()
        names = [(folder, name, ino) for (folder, name), ino in self._names.items()]
        index.restore(
            list(self._inodes.values()),
            names,
            [row for row in self._xattrs if row[0] in self._inodes],
            [self._objects[number] for number in sorted(self._objects)],
            self._next_object,
        )
        with index.transaction():
            for number, (length, sealed) in self._packs.items():
                index.set_pack(number, length, sealed)
            index.set_opened(max(opened, self._opened))

    def _drop_bodiless(self) -> None:
        """Files whose body is nowhere: staged when the copy was made, and not encoded since."""
        for ino, node in list(self._inodes.items()):
            gone = node.staged is not None and not self._is_staged(node.staged)
            gone |= node.object_id is not None and node.object_id not in self._objects
            if gone:
                del self._inodes[ino]
                names = [place for place, target in self._names.items() if target == ino]
                for place in names:
                    self._repairs.lost.append(os.fsdecode(self._path(place)))
                    del self._names[place]
        for folder, name in list(self._names):
            if folder not in self._inodes or self._names[folder, name] not in self._inodes:
                del self._names[folder, name]

    def _path(self, place: tuple[int, bytes]) -> bytes:
        parts = [place[1]]
        above = {ino: key for key, ino in self._names.items()}
        folder = place[0]
        while folder != ROOT and folder in above and len(parts) < 4096:
            folder, name = above[folder]
            parts.append(name)
        return b"/".join(reversed(parts))


def _folder(ino: int, mode: int) -> Inode:
    now = time.time_ns()
    kind = stat.S_IFDIR | mode
    return Inode(ino, kind, os.getuid(), os.getgid(), 2, 0, 0, now, now, now, None, None, None)


def _pack_files(layout: Layout) -> Iterator[tuple[int, Path]]:
    for name in sorted(entry.name for entry in contents.own(layout.packs, contents.PACKS)):
        if name.endswith(".zip"):
            yield int(name.removesuffix(".zip")), layout.packs / name


# -- entries and files


def heal(layout: Layout, index: Index, disk: Disk, repairs: Repairs) -> None:
    """Entries that are damaged and kept twice get their bytes back, at their place."""
    for object_id, data in copies.second(layout):
        try:
            found = index.object(object_id)
        except Damaged:
            continue
        path = layout.pack(found.pack)
        if len(data) == found.length and not _is_whole(path, found):
            _put_back(disk, path, found.offset, data)
            repairs.healed.append(object_id)


def _is_whole(path: Path, found: Object) -> bool:
    try:
        return read_entry(path, found.offset, found.length).object_id == found.id
    except Damaged:
        return False


def _put_back(disk: Disk, path: Path, offset: int, data: bytes) -> None:
    fd = disk.open(path, os.O_RDWR) if path.exists() else disk.create(path)
    try:
        disk.pwrite(fd, data, offset)
        disk.fsync(fd)
    finally:
        disk.close(fd)
    disk.fsync_folder(path.parent)


def hopeless(layout: Layout, index: Index, suspects: set[int]) -> set[int]:
    """Those of the objects that cannot be rendered for damage that is there to see.

    An object whose entries are all whole and that renders to other bytes all the same is none of
    them: another deflate, or a bug, may be mended. Neither is one that could not be read for an
    error of the disk.
    """
    verdicts: dict[int, bool] = {}

    def spoilt(object_id: int) -> bool:
        if object_id not in verdicts:
            verdicts[object_id] = _is_spoilt(layout, index, object_id)
        return verdicts[object_id]

    return {
        suspect
        for suspect in suspects
        if any(spoilt(needed) for needed in (suspect, *index.object(suspect).needs))
    }


def _is_spoilt(layout: Layout, index: Index, object_id: int) -> bool:
    try:
        found = index.object(object_id)
        entry = _entry(layout, found)
        anchor = record.anchor_of(entry.record)
        known = record.unpack(_entry(layout, index.object(anchor)).record) if anchor else None
        record.unpack(entry.record, known)
        if found.is_kept:
            body = Kept(layout.kept(object_id), found.size, load_sums(entry.payload))
            body.verify()
    except Damaged as error:
        reason = error.fields.get("reason")
        return not isinstance(reason, OSError) or isinstance(reason, FileNotFoundError)
    return False


def _entry(layout: Layout, found: Object) -> Entry:
    entry = read_entry(layout.pack(found.pack), found.offset, found.length)
    if entry.object_id != found.id:
        raise Damaged(f"object {found.id}", reason=f"entry {entry.name} stands there")
    return entry


def cut(layout: Layout, index: Index, disk: Disk, bad: set[int], repairs: Repairs) -> None:
    """Objects in `bad` cannot be rendered: list and remove their files, and forget what nothing
    can be made of. Staged files that are gone go the same way."""
    rows = {found.id: found for found in index.all_objects()}
    needed = {i for found in rows.values() if found.id not in bad for i in found.needs}
    places: dict[int, list[str]] = defaultdict(list)
    for folder, name, ino in index.names():
        above = index.path(folder)
        places[ino].append(os.fsdecode(above + b"/" * bool(above) + name))
    inodes: list[int] = []
    files: list[dict[str, object]] = []
    for node in index.inodes():
        missing = node.staged is not None and not (layout.staging / str(node.staged)).exists()
        unknown = node.object_id is not None and node.object_id not in rows
        if missing or unknown or node.object_id in bad:
            found = rows.get(node.object_id or 0)
            about: dict[str, object] = {"size": node.size, "mtime": node.mtime_ns}
            about |= {"sha256": found.sha256.hex() if found else None, "object": node.object_id}
            inodes.append(node.ino)
            files += [{"path": path} | about for path in sorted(places[node.ino])]
    if files:
        _list(layout, disk, files)
        repairs.lost += [str(line["path"]) for line in files]
    gone = [number for number in bad if number not in needed]
    if inodes or gone:
        index.drop_bodies(inodes, gone)
    _shorten_packs(layout, index)
    index.force()


def _shorten_packs(layout: Layout, index: Index) -> None:
    """Of packs that have lost bytes, those that are left count."""
    ends: dict[int, int] = defaultdict(int)
    for found in index.all_objects():
        ends[found.pack] = max(ends[found.pack], found.offset + found.length)
    for number, (length, _) in index.packs().items():
        path = layout.pack(number)
        present = path.stat().st_size if path.exists() else 0
        if present < length:
            index.set_pack(number, ends[number], sealed=True)
        if not path.exists() and not ends[number]:
            index.drop_pack(number)


def _list(layout: Layout, disk: Disk, files: list[dict[str, object]]) -> None:
    """One file in ``lost/`` names what is lost; the same losses give the same file."""
    lines = sorted(json.dumps(about) for about in files)
    text = ("\n".join(lines) + "\n").encode()
    if not layout.lost.exists():
        disk.mkdir(layout.lost)
    name = f"files-{hashlib.sha256(text).hexdigest()[:16]}.json"
    disk.write_file(layout.lost / name, text)
