"""Export and verify: files out of a store without a mount, and the proof that they are the same.

An exported file gets its name when all its bytes are written, never half of them. What is there
already with the same size and mtime is skipped; what differs is left alone unless told otherwise.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import trio

from fsmount.errors import Damaged, FsmountError
from fsmount.store.index import Inode
from fsmount.store.store import Store
from fsmount.store.tree import Progress, Summary, find, same, slices, walk

_AT_ONCE = 4


def below(store: Store, path: bytes) -> Iterator[tuple[bytes, Inode]]:
    """An entry and everything under it: (path from the root, inode)."""
    inode = find(store, path)
    if inode is None:
        raise FsmountError(f"there is no {os.fsdecode(path)!r} in {store.path}")
    if path:
        yield path, inode
    if stat.S_ISDIR(inode.mode):
        yield from store.index.walk(inode.ino, path)


class Exporter:
    """Writes parts of a store to a folder; see :meth:`export`."""

    def __init__(self, store: Store, dest: Path, progress: Progress, *, force: bool) -> None:
        self._store = store
        self._dest = dest
        self._progress = progress
        self._force = force
        self._links: dict[int, Path] = {}
        self.summary = Summary()

    async def export(self, path: bytes) -> None:
        """Export the entry at `path` and everything under it; the store is running."""
        folders = []
        slots = trio.Semaphore(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for name, inode in below(self._store, path):
                target = self._dest / os.fsdecode(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                if stat.S_ISDIR(inode.mode):
                    target.mkdir(exist_ok=True)
                    folders.append((target, inode))
                    continue
                await slots.acquire()
                # In order, so that a hard link finds its first name written.
                if inode.nlink > 1:
                    await self._guarded(inode, target, slots)
                else:
                    nursery.start_soon(self._guarded, inode, target, slots)
        for target, inode in reversed(folders):
            self._attributes(target, inode)

    async def _guarded(self, inode: Inode, target: Path, slots: trio.Semaphore) -> None:
        try:
            await self._one(inode, target)
        except Damaged as error:
            self.summary.problems.append((str(target), str(error)))
        finally:
            slots.release()
            self._progress(1, inode.size)

    async def _one(self, inode: Inode, target: Path) -> None:
        if os.path.lexists(target):
            if same(inode, target.lstat()):
                self.summary.skipped += 1
                return
            if not self._force:
                reason = "something else of this name is there; --force replaces it"
                self.summary.problems.append((str(target), reason))
                return
        first = self._links.get(inode.ino)
        fd, scratch = tempfile.mkstemp(prefix=".fsmount-", dir=target.parent)
        try:
            if stat.S_ISREG(inode.mode) and first is None:
                async for data in slices(self._store, inode):
                    os.write(fd, data)
            else:
                self._special(inode, Path(scratch), first)
            if first is None:
                self._attributes(Path(scratch), inode)
            os.replace(scratch, target)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        if inode.nlink > 1:
            self._links[inode.ino] = target
        self.summary.files += 1
        self.summary.bytes += inode.size

    def _special(self, inode: Inode, scratch: Path, first: Path | None) -> None:
        """Links and special files take the place of the scratch file."""
        scratch.unlink()
        if first is not None:
            scratch.hardlink_to(first)
        elif stat.S_ISLNK(inode.mode):
            scratch.symlink_to(os.fsdecode(inode.target or b""))
        else:
            os.mknod(scratch, inode.mode, inode.rdev)

    def _attributes(self, target: Path, inode: Inode) -> None:
        if os.geteuid() == 0:
            os.chown(target, inode.uid, inode.gid, follow_symlinks=False)
        if not stat.S_ISLNK(inode.mode):
            target.chmod(stat.S_IMODE(inode.mode))
        for name, value in self._store.index.xattrs(inode.ino).items():
            try:
                os.setxattr(target, name, value, follow_symlinks=False)
            except OSError as error:
                self.summary.problems.append((str(target), f"attribute {name!r}: {error.strerror}"))
        os.utime(target, ns=(inode.atime_ns, inode.mtime_ns), follow_symlinks=False)


class Verifier:
    """Compares a folder with a store, names and bytes, in both directions.

    `summary.files` counts the files compared and found equal, `total` all that should be.
    """

    def __init__(self, store: Store, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self.summary = Summary()
        self.total = 0

    async def verify(self, source: Path, target: bytes) -> None:
        """Compare `source` with the entry at `target`; the store is running."""
        seen: set[bytes] = set()
        slots = trio.Semaphore(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for item in walk(source, target, self.summary):
                seen.add(item.target)
                inode = find(self._store, item.target)
                if stat.S_ISDIR(item.info.st_mode):
                    if inode is None or not stat.S_ISDIR(inode.mode):
                        self._differs(item.source, "no such folder in the store")
                    continue
                self.total += 1
                await slots.acquire()
                nursery.start_soon(self._compare, item.source, item.info, inode, slots)
        if not self.summary.problems or find(self._store, target) is not None:
            for name, _ in below(self._store, target):
                if name not in seen:
                    self._differs(os.fsdecode(name), "only in the store")

    def _differs(self, path: Path | str, reason: str) -> None:
        self.summary.problems.append((str(path), reason))

    async def _compare(
        self, source: Path, info: os.stat_result, inode: Inode | None, slots: trio.Semaphore
    ) -> None:
        try:
            reason = await self._difference(source, info, inode)
        except (Damaged, OSError) as error:
            reason = str(error)
        finally:
            slots.release()
            self._progress(1, info.st_size)
        if reason:
            self._differs(source, reason)
        else:
            self.summary.files += 1
            self.summary.bytes += info.st_size

    async def _difference(
        self, source: Path, info: os.stat_result, inode: Inode | None
    ) -> str | None:
        if inode is None:
            return "not in the store"
        if stat.S_IFMT(inode.mode) != stat.S_IFMT(info.st_mode):
            return "another type of file in the store"
        if stat.S_ISLNK(info.st_mode):
            here = os.fsencode(os.readlink(source))
            return None if here == inode.target else "links elsewhere in the store"
        if not stat.S_ISREG(info.st_mode):
            return None
        with source.open("rb") as file:
            async for data in slices(self._store, inode):
                if file.read(len(data)) != data:
                    return "other bytes in the store"
            return "shorter in the store" if file.read(1) else None
