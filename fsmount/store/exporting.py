"""Export and verify: files out of a store without a mount, and the proof that they are the same.

An exported file gets its name when all its bytes are written, never half of them. What is there
already with the same size and mtime is skipped; what differs is left alone unless told otherwise.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import trio

from fsmount.errors import DiskFull, FsmountError
from fsmount.store.index import Inode
from fsmount.store.store import Store
from fsmount.store.tree import NO_SPACE, Progress, Summary, find, same, slices, walk

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
        # One scratch name a file, so that an export after a kill takes the place of what was left.
        self._scratch = f".fsmount-{store.config['uuid'][:8]}-"
        self.summary = Summary()

    async def export(self, path: bytes) -> None:
        """Export the entry at `path` and everything under it; the store is running.

        Raises :class:`DiskFull`; what else goes wrong with a file is listed in the summary.
        """
        folders = []
        slots = trio.Semaphore(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for name, inode in below(self._store, path):
                target = self._dest / os.fsdecode(name)
                if stat.S_ISDIR(inode.mode):
                    with self._listed(target):
                        target.mkdir(parents=True, exist_ok=True)
                        folders.append((target, inode))
                    continue
                await slots.acquire()
                # In order, so that a hard link finds its first name written.
                if inode.nlink > 1:
                    await self._guarded(inode, target, slots)
                else:
                    nursery.start_soon(self._guarded, inode, target, slots)
        for target, inode in reversed(folders):
            with self._listed(target):
                self._attributes(target, inode)

    @contextmanager
    def _listed(self, target: Path) -> Iterator[None]:
        """What goes wrong with one file is listed, and the others come all the same."""
        try:
            yield
        except FsmountError as error:
            self.summary.problems.append((str(target), str(error)))
        except OSError as error:
            if error.errno in NO_SPACE:
                raise DiskFull(self._dest) from error
            self.summary.problems.append((str(target), error.strerror or str(error)))

    async def _guarded(self, inode: Inode, target: Path, slots: trio.Semaphore) -> None:
        try:
            with self._listed(target):
                await self._one(inode, target)
        finally:
            slots.release()
            self._progress(1, inode.size)

    async def _one(self, inode: Inode, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(target):
            if same(inode, target, target.lstat()):
                self.summary.skipped += 1
                self._note_links(inode, target)
                return
            if not self._force:
                reason = "something else of this name is there; --force replaces it"
                self.summary.problems.append((str(target), reason))
                return
        first = self._links.get(inode.ino)
        scratch = target.with_name(f"{self._scratch}{inode.ino}")
        scratch.unlink(missing_ok=True)
        try:
            if first is not None:
                scratch.hardlink_to(first)
            else:
                await self._write(inode, scratch)
                self._attributes(scratch, inode)
            scratch.replace(target)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        self._note_links(inode, target)
        self.summary.files += 1
        self.summary.bytes += inode.size

    def _note_links(self, inode: Inode, target: Path) -> None:
        if inode.nlink > 1:
            self._links[inode.ino] = target

    async def _write(self, inode: Inode, scratch: Path) -> None:
        """The file itself, whatever it is, readable by its owner only."""
        if stat.S_ISLNK(inode.mode):
            scratch.symlink_to(os.fsdecode(inode.target or b""))
        elif stat.S_ISREG(inode.mode):
            with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                async for data in slices(self._store, inode.ino):
                    file.write(data)
        else:
            os.mknod(scratch, stat.S_IFMT(inode.mode) | 0o600, inode.rdev)

    def _attributes(self, target: Path, inode: Inode) -> None:
        if os.geteuid() == 0:
            os.chown(target, inode.uid, inode.gid, follow_symlinks=False)
        # Before the permissions, which may forbid it.
        for name, value in self._store.index.xattrs(inode.ino).items():
            try:
                os.setxattr(target, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno in NO_SPACE:
                    raise
                why = f"attribute {os.fsdecode(name)}: {error.strerror}"
                self.summary.problems.append((os.fsdecode(self._store.index.path(inode.ino)), why))
        if not stat.S_ISLNK(inode.mode):
            target.chmod(stat.S_IMODE(inode.mode))
        os.utime(target, ns=(inode.atime_ns, inode.mtime_ns), follow_symlinks=False)


class Verifier:
    """Compares folders with a store, names and bytes, in both directions.

    `summary.files` counts the files compared and found equal, `total` all that should be.
    """

    def __init__(self, store: Store, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self.summary = Summary()
        self.total = 0

    async def verify(self, sources: Sequence[tuple[Path, bytes]]) -> None:
        """Compare each source with the entry at its target; the store is running."""
        seen: set[bytes] = set()
        slots = trio.Semaphore(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for source, target in sources:
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
        for target in dict.fromkeys(target for _, target in sources):
            self._only_in_store(target, seen)

    def _only_in_store(self, target: bytes, seen: set[bytes]) -> None:
        if find(self._store, target) is None:
            return
        for name, inode in below(self._store, target):
            if name not in seen:
                seen.add(name)
                self.total += not stat.S_ISDIR(inode.mode)
                self._differs(os.fsdecode(name), "only in the store")

    def _differs(self, path: Path | str, reason: str) -> None:
        self.summary.problems.append((str(path), reason))

    async def _compare(
        self, source: Path, info: os.stat_result, inode: Inode | None, slots: trio.Semaphore
    ) -> None:
        try:
            reason = await self._difference(source, info, inode)
        except FsmountError as error:
            reason = str(error)
        except OSError as error:
            reason = error.strerror or str(error)
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
        if not stat.S_ISREG(info.st_mode):
            return None if same(inode, source, info) else "another target or device in the store"
        with source.open("rb") as file:
            async for data in slices(self._store, inode.ino):
                here = file.read(len(data))
                if here != data:
                    longer = len(here) < len(data) and data.startswith(here)
                    return "longer in the store" if longer else "other bytes in the store"
            return "shorter in the store" if file.read(1) else None
