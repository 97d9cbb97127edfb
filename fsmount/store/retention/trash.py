"""The trash of an open store: what goes into it, comes back, and leaves it.

A name that a prune removes moves to the trash (:mod:`fsmount.store.index.trash`). Its file stays as
it is, with all attributes. It costs what it cost before, until the name leaves the trash: by its
limits, by the user, or because the disk is full. Then the file is gone if it has no other name.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import trio

from fsmount import threads
from fsmount.store import config
from fsmount.store.index import ROOT, TRASH, Index, Inode, Trashed
from fsmount.store.layout import Layout
from fsmount.store.retention.limits import TrashLimits
from fsmount.threads import Kind

_log = logging.getLogger(__name__)

# Names that one transaction moves or removes.
_BATCH = 500


class Name(NamedTuple):
    """A name that goes: its folder, itself, its path from the root, and the inode that it shows."""

    folder: int
    name: bytes
    path: bytes
    ino: int


class TrashCan:
    """The trash of a store; see the module.

    discard : removes a staged file by its token.
    nameless : called with the row of a file that has lost its last name. It removes the inode; a
        mount replaces it, because a program may have the file open.

    Contract: belongs to the trio task that owns the store.
    """

    def __init__(self, layout: Layout, index: Index, discard: Callable[[int], None]) -> None:
        self._layout = layout
        self._index = index
        self._discard = discard
        self.nameless: Callable[[Inode], None] = self._purge

    def _purge(self, node: Inode) -> None:
        """Remove an inode that nobody uses."""
        token = self._index.purge(node.ino)
        if token is not None:
            self._discard(token)

    def limits(self) -> TrashLimits:
        """Read the limits. May wait for the disk. Raises NoStore, FormatUnsupported, OSError."""
        return TrashLimits.of(config.read(self._layout.root))

    async def put(
        self, names: Iterable[Name], moved: Callable[[int, bytes], None] = lambda folder, name: None
    ) -> int:
        """Move names of encoded files to the trash. Returns their number.

        A name stays that shows another file by now, or one that was written to meanwhile. Calls
        `moved` with folder and name of each that went. Each batch is a transaction: after a kill,
        some of the names are in the trash. Raises OSError, Damaged.
        """
        count = 0
        left = iter(names)
        while batch := list(islice(left, _BATCH)):
            going = [each for each in batch if self._is_still(each)]
            wanted = [(each.folder, each.name, each.path) for each in going]
            self._index.put_in_trash(wanted, time.time_ns())
            for each in going:
                moved(each.folder, each.name)
            count += len(going)
            await trio.lowlevel.checkpoint()
        return count

    def _is_still(self, name: Name) -> bool:
        """Whether a name shows the file that it is about, and that is encoded."""
        found = self._index.lookup(name.folder, name.name)
        return found is not None and found.ino == name.ino and found.staged is None

    async def expire(self) -> int:
        """Remove the names that the limits let go; return their number. Raises OSError, Damaged."""
        limits = await threads.call(Kind.FREE_SPACE, self.limits)
        if limits.most_bytes is None:
            # Only old names are read.
            names = self._index.in_trash_until(limits.last_ns(time.time_ns()))
        else:
            names = self._index.trash_bytes()
        return await self.remove(limits.leaving(names, time.time_ns())) if names else 0

    async def evict(self, wanted: int) -> int:
        """Remove the oldest names, until their files took `wanted` bytes. Returns their number.

        Raises OSError, Damaged.
        """
        gone: list[bytes] = []
        for name, nbytes in self._index.sizes_in_trash():
            if wanted <= 0:
                break
            gone.append(name)
            wanted -= nbytes
        if gone:
            _log.warning("the disk is full: %d files leave the trash", len(gone))
        return await self.remove(gone)

    async def remove(self, names: Sequence[bytes]) -> int:
        """Remove names from the trash for good. Returns their number. Raises OSError, Damaged."""
        for start in range(0, len(names), _BATCH):
            nameless = []
            with self._index.transaction(deletes=True):
                for name in names[start : start + _BATCH]:
                    node = self._index.unlink(TRASH, name, time.time_ns())
                    if node.nlink == 0:
                        nameless.append(node)
                for node in nameless:
                    self.nameless(node)
            await trio.lowlevel.checkpoint()
        return len(names)

    def restore(self, wanted: Callable[[bytes], bool]) -> Iterator[tuple[bytes, str | None]]:
        """Give files their names back whose path is `wanted`. Makes missing folders.

        Yields each path, with None or the reason why its name stays in the trash. Of several names
        with one path the one that was deleted last comes back. Raises OSError, Damaged.
        """
        for entry, _ in reversed(list(self._index.in_trash())):
            if wanted(entry.path):
                yield entry.path, self._restore(entry)

    def _restore(self, entry: Trashed) -> str | None:
        """Give one file its name back. Returns the reason if it stays in the trash, or None."""
        *folders, name = entry.path.split(b"/")
        now_ns = time.time_ns()
        with self._index.transaction():
            folder = ROOT
            for part in folders:
                found = self._index.lookup(folder, part)
                if found is None:
                    mode = stat.S_IFDIR | 0o755
                    found = self._index.create(
                        folder, part, mode=mode, uid=os.getuid(), gid=os.getgid(), now_ns=now_ns
                    )
                if not stat.S_ISDIR(found.mode):
                    return f"{os.fsdecode(part)} is a file now"
                folder = found.ino
            if self._index.lookup(folder, name) is not None:
                return "another file has its name now"
            self._index.rename(TRASH, entry.name, folder, name, now_ns)
        return None
