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

import trio

from fsmount.store import config
from fsmount.store.index import ROOT, TRASH, Index, Inode, Trashed
from fsmount.store.layout import Layout
from fsmount.store.retention.limits import TrashLimits

_log = logging.getLogger(__name__)

# Names that one transaction moves or removes.
_BATCH = 500


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
        """Read the limits. Raises NoStore, FormatUnsupported, OSError."""
        return TrashLimits.of(config.read(self._layout.root))

    async def put(self, names: Iterable[tuple[int, bytes, bytes]]) -> int:
        """Move names of files to the trash: (folder, name, path). Returns their number.

        Each batch is a transaction: after a kill, some of the names are in the trash. Raises
        OSError, Damaged.
        """
        count = 0
        left = iter(names)
        while batch := list(islice(left, _BATCH)):
            self._index.put_in_trash(batch, time.time_ns())
            count += len(batch)
            await trio.lowlevel.checkpoint()
        return count

    async def expire(self) -> int:
        """Remove the names that the limits let go; return their number. Raises OSError, Damaged."""
        names = self._index.trash_bytes()
        return await self.remove(self.limits().leaving(names, time.time_ns())) if names else 0

    async def evict(self, wanted: int) -> int:
        """Remove the oldest names, until their files took `wanted` bytes. Returns their number.

        Raises OSError, Damaged.
        """
        gone: list[bytes] = []
        for name, nbytes in self._index.trash_bytes():
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
