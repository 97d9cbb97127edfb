"""States of a store's folder, and the verdict on one.

The verdict answers: Does the store open without help? Is it whole? Does it have the right files?
Did it free the space of unfinished work?
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fsmount.codec.memory import WorkerMemory
from fsmount.errors import FsmountError
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.frames import jobs
from fsmount.store.frames.layers import JobLayers, Loan
from fsmount.store.frames.reader import Reader
from fsmount.store.index import Inode, Object
from fsmount.store.packs import parity
from fsmount.store.packs.bodies import KeptBody, load_sums
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import read_entry
from fsmount.store.recovery.check import check_relations
from fsmount.store.store import open_store
from tests.crash.model import Seen, Tree, differences
from tests.support.encoding import forget_caches

_CHUNK = 1 << 15
_OTHERS = ("lock", "index.sqlite-shm")


Files = dict[str, tuple[bytes, ...] | None]


@dataclass(frozen=True)
class State:
    """The state of a folder: path -> digests of the file's chunks; None for a folder.

    :class:`Chunks` has the chunks.
    """

    files: tuple[tuple[str, tuple[bytes, ...] | None], ...]

    @staticmethod
    def of(files: Files) -> State:
        """The state of these files."""
        return State(tuple(sorted(files.items())))


class Chunks:
    """Keeps the contents of many similar states. Equal chunks are kept once."""

    def __init__(self) -> None:
        self._data: dict[bytes, bytes] = {}

    def files(self, root: Path) -> Files:
        """All files of a folder."""
        return {name: None if data is None else self._cut(data) for name, data in _files(root)}

    def refresh(self, files: Files, root: Path, name: str) -> None:
        """Read one file again, and update `files`."""
        path = root / name
        if path.is_dir():
            files[name] = None
        elif path.exists():
            files[name] = self._cut(path.read_bytes())
        else:
            files.pop(name, None)

    def _cut(self, data: bytes) -> tuple[bytes, ...]:
        digests = []
        for at in range(0, len(data), _CHUNK):
            part = data[at : at + _CHUNK]
            digest = hashlib.blake2b(part, digest_size=16).digest()
            self._data.setdefault(digest, part)
            digests.append(digest)
        return tuple(digests)

    def refresh_part(self, files: Files, root: Path, name: str, offset: int, length: int) -> None:
        """Read one file again, of which only the given part can have changed."""
        known = files.get(name)
        path = root / name
        first = min(offset, len(known or ()) * _CHUNK) // _CHUNK
        if not known or not path.exists() or first == 0:
            self.refresh(files, root, name)
            return
        # A partial last chunk may have grown.
        first = min(first, len(known) - 1)
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            last = -(-max(offset + length, 1) // _CHUNK)
            end = size if last >= len(known) else last * _CHUNK
            data = os.pread(file.fileno(), end - first * _CHUNK, first * _CHUNK)
        tail = () if end == size else known[last:]
        files[name] = known[:first] + self._cut(data) + tail

    def contents(self, files: Files) -> dict[str, bytes | None]:
        """The bytes of files."""
        return {name: None if d is None else self._join(d) for name, d in files.items()}

    def _join(self, digests: tuple[bytes, ...]) -> bytes:
        return b"".join(self._data[digest] for digest in digests)

    def put(self, state: State, root: Path) -> None:
        """Give the folder this state."""
        found = dict(state.files)
        self.put_files({n: None if d is None else self._join(d) for n, d in found.items()}, root)

    def put_files(self, files: dict[str, bytes | None], root: Path) -> None:
        """Make the folder have these files and folders, and no others."""
        if root.exists():
            shutil.rmtree(root)
        root.mkdir()
        for name, data in sorted(files.items()):
            path = root / name
            if data is None:
                path.mkdir(exist_ok=True)
            else:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)


def _files(root: Path) -> Iterator[tuple[str, bytes | None]]:
    for folder, folders, files in os.walk(root):
        place = os.path.relpath(folder, root)
        prefix = "" if place == "." else place + "/"
        for name in folders:
            yield prefix + name, None
        for name in files:
            if name not in _OTHERS:
                yield prefix + name, Path(folder, name).read_bytes()


class Entries:
    """The entries of an open store as they are now. Reads each row and each entry once."""

    def __init__(self, store: StoreFiles) -> None:
        self._store = store
        self._objects = {found.id: found for found in store.index.all_objects()}
        self._packs: dict[int, str] = {}
        self._digests: dict[Location, bytes] = {}

    def object(self, number: int) -> Object:
        """The row of an object. Raises FsmountError."""
        return self._objects.get(number) or self._store.index.object(number)

    def place(self, found: Object) -> Location:
        """Where the entry of an object is."""
        pack = self._packs.get(found.pack)
        if pack is None:
            pack = self._packs[found.pack] = str(self._store.layout.pack(found.pack))
        return Location(found.id, pack, found.offset, found.length)

    def digest(self, place: Location) -> bytes:
        """A digest of an entry, or of the error that reading it gives."""
        found = self._digests.get(place)
        if found is None:
            found = hashlib.blake2b(b"%d " % place.id + _entry(place), digest_size=16).digest()
            self._digests[place] = found
        return found


class Rendering:
    """Renders objects in this process. Caches the result by the bytes of the entries."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes | Exception] = {}

    def file(self, store: StoreFiles, node: Inode, entries: Entries) -> bytes:
        """The bytes of a regular file. Raises FsmountError, OSError."""
        if node.staged is not None:
            return store.staging.path(node.staged).read_bytes()
        assert node.object_id is not None
        return self.object(store, entries.object(node.object_id), entries)

    def object(self, store: StoreFiles, found: Object, entries: Entries) -> bytes:
        """The bytes of an object."""
        places = [entries.place(entries.object(i)) for i in found.needs if i != found.id]
        target = entries.place(found)
        if found.is_kept:
            entry = read_entry(Path(target.pack), target.offset, target.length)
            body = KeptBody(store.layout.kept(found.id), found.size, load_sums(entry.payload))
            return b"".join(body._segment(i)[: found.size] for i in range(-(-found.size >> 20)))
        parts = (found.sha256, found.kind.encode(), *map(entries.digest, (*places, target)))
        key = hashlib.blake2b(b"|".join(parts), digest_size=16).digest()
        known = self._known.get(key)
        if known is None:
            forget_caches()
            try:
                known = jobs.render(target, places, found.sha256).result
            except Exception as error:
                known = error
            self._known[key] = known
        if isinstance(known, Exception):
            raise known
        return known

    def layer(self, found: Object, entries: Entries) -> None:
        """Decode the pixels that an object encodes itself, for an object that no file shows."""
        places = [entries.place(entries.object(i)) for i in found.layer if i != found.id]
        forget_caches()
        places = [entries.place(found), *places]
        reader = Reader(places, WorkerMemory(), JobLayers(Loan()))
        entry, layout = reader.opened(found.id)
        # Of an object that is only an anchor by now, what its layer needs may be gone.
        if not layout.predicting() - set(found.layer) and (
            not entry.dictionary or entry.dictionary in found.layer
        ):
            reader.layer(found.id)


def _entry(place: Location) -> bytes:
    try:
        with open(place.pack, "rb", buffering=0) as file:
            return os.pread(file.fileno(), place.length, place.offset)
    except OSError as error:
        return repr(error).encode()


def tree_of(store: StoreFiles, rendering: Rendering, missing: bytes | None = None) -> Tree:
    """All files of an open store, as a program reads them.

    `missing` stands for the bytes of a staged file that is not there. If it is None, such a file
    raises FileNotFoundError.
    """
    out: Tree = {}
    entries = Entries(store)
    for path, node in store.index.walk():
        if stat.S_ISREG(node.mode):
            try:
                data = rendering.file(store, node, entries)
            except FileNotFoundError:
                if missing is None:
                    raise
                data = missing
        else:
            data = node.target or b""
        xattrs = tuple(sorted(store.index.xattrs(node.ino).items()))
        out[path] = Seen(node.mode, data, node.mtime_ns, xattrs)
    return out


def whole(
    store: StoreFiles, rendering: Rendering, *, power: bool = False, lost: bool = False
) -> str:
    """Check an open store right after its recovery, except its files; returns the failure or "".

    After a power cut (`power`) staged files that were never forced may be missing. With `lost`,
    recovery may have put files aside.
    """
    report = check_relations(store)
    findings = [f for f in report.findings if not (power and "its staged file" in f[1])]
    if findings:
        return f"check: {findings[0]}"
    entries = Entries(store)
    for found in store.index.all_objects():
        try:
            if found.is_layer_only:
                rendering.layer(found, entries)
            else:
                rendering.object(store, found, entries)
        except (FsmountError, OSError) as error:
            return f"check --full: {error}"
    return _left_over(store, power=power, lost=lost)


def _left_over(store: StoreFiles, *, power: bool, lost: bool) -> str:
    """Find space of unfinished work that was not freed; returns the failure text or ""."""
    layout, index = store.layout, store.index
    named = {node.staged for node in index.staged_inodes()}
    if set(store.staging.tokens()) - named or (named - set(store.staging.tokens()) and not power):
        return f"staged files {set(store.staging.tokens()) ^ named} are left over or missing"
    kept = {f"{found.id:08x}" for found in index.all_objects() if found.is_kept}
    if set(os.listdir(layout.raw)) != kept:
        return f"in raw/: {set(os.listdir(layout.raw)) ^ kept}"
    packs = index.packs()
    for name in os.listdir(layout.packs):
        if name in layout.copies:
            continue
        if not name.endswith(".zip"):
            if why := _wrong_parity(layout.packs / name, packs):
                return f"{name}: {why}"
            continue
        number = int(name.removesuffix(".zip"))
        size = (layout.packs / name).stat().st_size
        length, sealed = packs.get(number, (0, False))
        if not sealed and size != length:
            return f"pack {name} has {size} bytes, {length} count"
    if layout.lost.exists() and not lost:
        return f"lost/ has {os.listdir(layout.lost)}"
    if index.orphans():
        return "orphans are left"
    return ""


def _wrong_parity(path: Path, packs: dict[int, tuple[int, bool]]) -> str:
    """Find what is wrong with a parity file; returns the failure text or ""."""
    pack = path.with_suffix(".zip")
    if path.suffix != ".parity":
        return "it is left over"
    try:
        known = parity.load_of(pack)
    except FsmountError as error:
        return f"{error}"
    length, _ = packs.get(known.shape.number, (0, False))
    if known.shape.covered > length:
        return f"it is left over: the pack has {length} bytes"
    with parity.reading(pack) as fd:
        return "it knows other bytes than its pack" if known.damaged(fd) else ""


def judge(root: Path, allowed: list[Tree], rendering: Rendering, disk: Disk) -> str:
    """Open the store at `root` as after a crash; returns the failure text or ""."""
    try:
        store = open_store(root, disk=disk)
    except (FsmountError, OSError) as error:
        return f"does not open: {error}"
    try:
        found = tree_of(store, rendering)
        wrong = [differences(found, tree) for tree in allowed]
        if all(wrong):
            return "; ".join(wrong)
        return whole(store, rendering)
    except (FsmountError, OSError) as error:
        return f"cannot be read: {error}"
    finally:
        store.close()
