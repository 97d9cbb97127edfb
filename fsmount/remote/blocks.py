"""Blocks of a remote store on the local disk: sparse files, and notes of what is in them.

A file of the store is a sparse file of its full size. It has the blocks that were read once; the
rest is holes. Beside it lie the notes: for each block 16 bytes of hash and 4 bytes of time, zeros
for a block that is not there. A block is written before its note, and its note is removed before
the block becomes a hole. Nothing is forced to the disk: after a restart a block counts only if it
has the hash of its note, so a crash, a power cut or rot costs a block, which is read anew.

The table belongs to the trio task; what waits for the disk stands in :class:`Files`, which threads
use.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fsmount.errors import UsageError
from fsmount.store.disk.disk import Disk, pread
from fsmount.store.disk.holes import data_parts

BLOCK = 256 << 10
_NOTE = struct.Struct("<16sI")
_NO_NOTE = bytes(_NOTE.size)


class Block(NamedTuple):
    """A block of a file.

    file : path of the file below the store, as ``packs/00000001.zip``.
    number : from 0; it begins at this times :data:`BLOCK`.
    """

    file: str
    number: int


class Note(NamedTuple):
    """What is noted of a block that is there: its hash, and when it was used, in s since 1970."""

    digest: bytes
    used: int


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


class Files:
    """The sparse files below `root`, and their notes in `notes`. `sizes`: bytes of each by path.

    Contract: any thread may call any method, but for one block only one at a time. All may raise
    OSError.
    """

    def __init__(self, root: Path, notes: Path, sizes: dict[str, int], disk: Disk) -> None:
        self.sizes = sizes
        self._root = root
        self._notes = notes
        self._disk = disk

    def length(self, block: Block) -> int:
        """Bytes of a block; the last one of a file is shorter."""
        return max(0, min(BLOCK, self.sizes[block.file] - block.number * BLOCK))

    def write(self, first: Block, data: bytes) -> None:
        """Write blocks that follow each other, and then their notes."""
        with self._opened(self._root / first.file) as fd:
            self._disk.pwrite(fd, data, first.number * BLOCK)
        now = int(time.time())
        notes = [
            _NOTE.pack(_digest(data[at : at + BLOCK]), now) for at in range(0, len(data), BLOCK)
        ]
        with self._opened(self._path_of_notes(first.file)) as fd:
            self._disk.pwrite(fd, b"".join(notes), first.number * _NOTE.size)

    def is_whole(self, block: Block, note: Note) -> bool:
        """Whether a block has the hash of its note."""
        try:
            with self._opened(self._root / block.file) as fd:
                data = pread(fd, self.length(block), block.number * BLOCK)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        return len(data) == self.length(block) and _digest(data) == note.digest

    def drop(self, blocks: Iterable[Block]) -> None:
        """Remove the notes of blocks, and free their space."""
        for block in blocks:
            with self._opened(self._path_of_notes(block.file)) as fd:
                self._disk.pwrite(fd, _NO_NOTE, block.number * _NOTE.size)
            with self._opened(self._root / block.file) as fd:
                self._disk.punch(fd, block.number * BLOCK, BLOCK)

    def touch(self, used: dict[Block, int]) -> None:
        """Note when blocks were used last, in seconds since 1970."""
        for block, when in used.items():
            with self._opened(self._path_of_notes(block.file)) as fd:
                self._disk.pwrite(fd, struct.pack("<I", when), block.number * _NOTE.size + 16)

    def prepare(self) -> dict[Block, Note]:
        """Make all files, remove those that are not named any more, and return all notes.

        Frees what has no note. Raises :class:`UsageError` if the disk cannot free parts of files.
        """
        found: dict[Block, Note] = {}
        for folder in ("packs", "staging", "raw"):
            for name in os.listdir(self._root / folder):
                if f"{folder}/{name}" not in self.sizes:
                    self._disk.unlink(self._root / folder / name)
        wanted = {self._path_of_notes(name).name for name in self.sizes}
        for name in set(os.listdir(self._notes)) - wanted:
            self._disk.unlink(self._notes / name)
        for name, size in self.sizes.items():
            with self._opened(self._root / name) as fd:
                notes = self._read_notes(name, size)
                self._free_others(fd, os.fstat(fd).st_size, {each.number for each in notes})
                self._disk.ftruncate(fd, size)
            found |= notes
        self._try_to_punch()
        return found

    def _read_notes(self, name: str, size: int) -> dict[Block, Note]:
        path = self._path_of_notes(name)
        if not path.exists():
            return {}
        # Staged files are written in place, and nothing proves their bytes when they are read.
        if name.startswith("staging/"):
            self._disk.unlink(path)
            return {}
        data = path.read_bytes()
        data = data[: len(data) // _NOTE.size * _NOTE.size]
        rows = enumerate(_NOTE.iter_unpack(data[: -(-size // BLOCK) * _NOTE.size]))
        return {Block(name, at): Note(*row) for at, row in rows if row[0] != bytes(16)}

    def _free_others(self, fd: int, size: int, kept: set[int]) -> None:
        """Free the blocks of an open file that have no note."""
        last = -1
        for start, end in list(data_parts(fd, size)):
            for number in range(max(last + 1, start // BLOCK), -(-end // BLOCK)):
                last = number
                if number not in kept:
                    self._disk.punch(fd, number * BLOCK, BLOCK)

    def _try_to_punch(self) -> None:
        scratch = self._notes / "try"
        with self._opened(scratch) as fd:
            self._disk.pwrite(fd, b"x" * BLOCK, 0)
            try:
                self._disk.punch(fd, 0, BLOCK)
            except OSError as error:
                why = f"{error.strerror}: it cannot free parts of files"
                raise UsageError(
                    f"the cache cannot lie in {self._root.parent} ({why}). Choose a folder on"
                    " another disk with -o cache_dir="
                ) from error
            finally:
                self._disk.unlink(scratch)

    def _path_of_notes(self, name: str) -> Path:
        return self._notes / name.replace("/", "-")

    @contextmanager
    def _opened(self, path: Path) -> Iterator[int]:
        """Open a file for reading and writing; make it if it is missing."""
        try:
            fd = self._disk.open(path, os.O_RDWR)
        except FileNotFoundError:
            try:
                fd = self._disk.create(path)
            except FileExistsError:
                # Another thread, with other blocks of the file, has just made it.
                fd = self._disk.open(path, os.O_RDWR)
        try:
            yield fd
        finally:
            self._disk.close(fd)


class Table:
    """Which blocks are there, in the order of their use, under one budget.

    budget : bytes of blocks. Blocks that are in use may exceed it.

    Contract: belongs to the trio task. No method awaits.
    """

    def __init__(self, files: Files, notes: dict[Block, Note], budget: int) -> None:
        self.budget = budget
        self.used = 0
        self._files = files
        # Blocks that are there, least recently used first. The value is the note of a block that
        # has not been compared with it since the start; None for one that has.
        self._there: OrderedDict[Block, Note | None] = OrderedDict()
        for block in sorted(notes, key=lambda block: (notes[block].used, block)):
            self._there[block] = notes[block]
            self.used += files.length(block)
        self._pins: Counter[Block] = Counter()
        self._touched: dict[Block, int] = {}

    def has(self, block: Block) -> bool:
        """Whether a block is there, proved or not."""
        return block in self._there

    def unproved(self, blocks: Iterable[Block]) -> dict[Block, Note]:
        """Those of some blocks that are there, and were not compared with their notes yet."""
        found = ((block, self._there.get(block)) for block in blocks)
        return {block: note for block, note in found if note is not None}

    def add(self, block: Block) -> None:
        """Note that a block was brought or proved."""
        if block not in self._there:
            self.used += self._files.length(block)
        self._there[block] = None
        self._there.move_to_end(block)

    def remove(self, block: Block) -> None:
        """Note that a block is not there any more."""
        if block in self._there:
            del self._there[block]
            self._touched.pop(block, None)
            self.used -= self._files.length(block)

    @contextmanager
    def pinned(self, blocks: Sequence[Block]) -> Iterator[None]:
        """In the block of code these blocks are in use: they are not chosen to go."""
        self._pins.update(blocks)
        try:
            yield
        finally:
            self._pins.subtract(blocks)
            for block in blocks:
                if not self._pins[block]:
                    del self._pins[block]

    def touch(self, blocks: Iterable[Block]) -> None:
        """Note that blocks are used now."""
        now = int(time.time())
        for block in blocks:
            if block in self._there:
                self._there.move_to_end(block)
                self._touched[block] = now

    def taken_touches(self) -> dict[Block, int]:
        """The blocks that were used since the last call, and when."""
        taken, self._touched = self._touched, {}
        return taken

    def too_many(self) -> list[Block]:
        """Blocks to let go of: those used longest ago, until the budget holds."""
        over = self.used - self.budget
        chosen = []
        for block in self._there:
            if over <= 0:
                break
            if not self._pins[block]:
                chosen.append(block)
                over -= self._files.length(block)
        return chosen
