"""How much of the screen was new in each picture, for all pictures of a store.

It stands in the records of packs, and to read one takes 0.13 ms of processor time: 200 s for three
years of minutes. So it is read once, in a worker, and kept in a file of the folder for caches: a
byte for each object of the store, by its number. The file may be deleted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fsmount import threads
from fsmount.errors import FsmountError
from fsmount.store.disk.disk import Disk
from fsmount.store.frames.novelty import Novelty
from fsmount.store.index import Index
from fsmount.store.layout import Layout
from fsmount.store.read_store import ReadStore
from fsmount.threads import Kind

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.uint32]

FEW = 500
"""So many are read within 0.1 s."""
_log = logging.getLogger(__name__)
_MAGIC = b"fsmount shares 1\n"
# A byte is a share in steps of 1/250, or one of these.
_STEPS = 250
_UNREADABLE, _UNKNOWN = 254, 255
# No store has more objects; a damaged index may name any number.
_MOST_OBJECTS = 1 << 27
_SAVE_S = 60.0
# Everything else that a worker can do comes first.
_PRIORITY = -1


class Shares:
    """See the module. Belongs to the trio task."""

    def __init__(self, store: ReadStore, caches: Path) -> None:
        """Read the file of the store in the folder for `caches`, if there is one."""
        self._store = store
        self._path = caches / "shares" / store.index.identity()
        self._known = _load(self._path)
        self._saved = time.monotonic()

    def of(self, objects: Numbers) -> npt.NDArray[np.float32]:
        """Return the share of each object, 0.0 to 1.0: float32 (n,).

        1.0 for one that is no frame or that cannot be read, NaN for one that was not read yet.
        """
        found = self._bytes(objects)
        shares = np.minimum(found, _STEPS).astype(np.float32) / _STEPS
        return np.where(found == _UNKNOWN, np.float32(np.nan), shares)

    def missing(self, objects: Numbers) -> list[int]:
        """Return those objects that were not read yet, each once, the newest first."""
        found: list[int] = np.unique(objects[self._bytes(objects) == _UNKNOWN])[::-1].tolist()
        return found

    async def read(self, objects: Sequence[int]) -> None:
        """Read the shares of a few objects, in a thread. Raises OSError, :class:`Damaged`."""
        self._note(objects, await threads.call(Kind.ENTRY, _read, self._store.layout, objects))

    async def fill(self, objects: Sequence[int]) -> None:
        """Read the shares of many objects, in a worker, and save them.

        A task that is cancelled loses the work of a minute at most. Raises FsmountError, OSError.
        """
        for start in range(0, len(objects), FEW):
            some = objects[start : start + FEW]
            found = await self._store.workers.run(
                _read, self._store.layout, some, priority=_PRIORITY
            )
            self._note(some, found)
            if time.monotonic() - self._saved > _SAVE_S:
                await self._save()
        if objects:
            await self._save()

    def _bytes(self, objects: Numbers) -> Bytes:
        """Return the byte of each object."""
        found = np.full(len(objects), _UNKNOWN, np.uint8)
        found[objects >= _MOST_OBJECTS] = _UNREADABLE
        there = objects < len(self._known)
        found[there] = self._known[objects[there]]
        return found

    def _note(self, objects: Sequence[int], found: bytes) -> None:
        longest = max(objects, default=-1) + 1
        if longest > len(self._known):
            # Grows by an eighth, so that a new picture each minute does not copy it each time.
            more = np.full(longest + longest // 8 - len(self._known), _UNKNOWN, np.uint8)
            self._known = np.concatenate([self._known, more])
        self._known[np.array(objects, np.int64)] = np.frombuffer(found, np.uint8)

    async def _save(self) -> None:
        """Write the file. A failure is logged: the shares are read again the next time."""
        known = self._known.copy()
        # What lies at a URL may be here tomorrow.
        known[known == _UNREADABLE] = _UNKNOWN
        self._saved = time.monotonic()
        try:
            await threads.call(Kind.ENTRY, _write, self._path, known.tobytes())
        except OSError as error:
            _log.warning("%s cannot be kept: %s", self._path, error)


def _load(path: Path) -> Bytes:
    """Return the bytes of a file of shares; none if there is no such file, or another one."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    except OSError as error:
        _log.warning("%s cannot be read: %s", path, error)
        data = b""
    if not data.startswith(_MAGIC):
        return np.empty(0, np.uint8)
    return np.frombuffer(data, np.uint8, offset=len(_MAGIC)).copy()


def _write(path: Path, known: bytes) -> None:
    disk = Disk()
    for folder in (path.parent.parent, path.parent):
        disk.mkdir(folder, parents=True)
    disk.write_file(path, _MAGIC + known)


def _read(layout: Layout, objects: Sequence[int]) -> bytes:
    """Return a byte for each object. Runs in a thread or a worker, with an index of its own."""
    index = Index(Path(layout.index), Disk(), read_only=True)
    try:
        novelty = Novelty(layout, index)
        return bytes(_share(index, novelty, number) for number in objects)
    finally:
        index.close()


def _share(index: Index, novelty: Novelty, number: int) -> int:
    try:
        known = index.known_object(number)
        return _UNREADABLE if known is None else round(novelty.share(known) * _STEPS)
    except (FsmountError, OSError):
        return _UNREADABLE
