"""Deletes sources of an import that are proved to be in the store.

A source goes only after these steps: the file is encoded, its commit is forced to the disk, and the
file is read back from the store and compared. This proof is too weak for a difference of a legacy
folder, since its picture was made from it. So the difference between that picture and the one
before it, both as the store has them, must also have exactly the samples of the `.jxl`. A run of
differences goes as a whole, the last picture first: after a kill, every remaining picture can still
be made from the remaining files.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from fsmount.errors import FsmountError
from fsmount.legacy.archive import Archive
from fsmount.legacy.runs import Run
from fsmount.store.disk.stamp import stamp
from fsmount.store.index import Inode
from fsmount.store.transfer.differences import decode, difference_in, shows
from fsmount.store.transfer.tree import Item, Summary, same, slices
from fsmount.store.writable_store import WritableStore

# Number of sources that wait to be deleted. Each deletion waits until the encoder is idle.
_AT_ONCE = 256


class SourceDeleter:
    """Deletes the sources that :meth:`add` gets; see the module.

    `archive` makes the pictures of differences; decoding needs :meth:`Archive.running`. `summary`
    lists the sources that stay, and why. `deleted` counts deleted sources. Belongs to one trio
    task.
    """

    def __init__(self, store: WritableStore, archive: Archive, summary: Summary) -> None:
        self._store = store
        self._archive = archive
        self._summary = summary
        self._taken: list[tuple[Item, int]] = []
        # Number of sources in `_taken` that wait for other files of their run.
        self._waiting = 0
        self.deleted = 0

    async def add(self, item: Item, ino: int) -> None:
        """Add a source that the store has as the inode `ino`. Deletes if many sources wait.

        Raises the same errors as :meth:`delete`.
        """
        self._taken.append((item, ino))
        if len(self._taken) >= self._waiting + _AT_ONCE:
            await self.delete(final=False)

    def _run(self, item: Item) -> tuple[Path, bytes] | None:
        """Return the run of differences that a source belongs to: (folder, first name), or None."""
        folder = item.source.parent
        place = self._archive.run_of(folder, os.fsencode(item.source.name))
        return None if place is None else (folder, place[0])

    async def delete(self, *, final: bool) -> None:
        """Delete the sources added so far, once the store has them durably.

        Unless `final`, incomplete runs wait for their other files. Raises OSError, and FsmountError
        if the store is damaged. The summary lists the sources that stay.
        """
        if not self._taken:
            return
        await self._store.drain()
        await self._store.durable()
        taken, self._taken = self._taken, []
        runs: dict[tuple[Path, bytes], list[tuple[Item, int]]] = {}
        for item, ino in taken:
            run = self._run(item)
            if run is None:
                if await self._is_stored(item, ino):
                    self._unlink(item)
            else:
                runs.setdefault(run, []).append((item, ino))
        for (folder, first), parts in runs.items():
            await self._delete_run(folder, first, parts, final=final)
        self._waiting = len(self._taken)

    async def _delete_run(
        self, folder: Path, first: bytes, parts: list[tuple[Item, int]], *, final: bool
    ) -> None:
        """Delete the files of a run if the store has every picture of it."""
        found = self._archive.scan(folder)
        run = found.runs[found.positions[first][0]]
        names = list(_names(run))
        taken = {os.fsencode(item.source.name) for item, _ in parts}
        if left := [name for name in names if name not in taken]:
            if not final:
                self._taken += parts
                return
            why = f"kept, since {os.fsdecode(left[0])} of its run is not in the store"
            self._summary.problems += [(str(item.source), why) for item, _ in parts]
            return
        order = {name: at for at, name in enumerate(names)}
        parts.sort(key=lambda part: order[os.fsencode(part[0].source.name)])
        # Compare all files before the first deletion: making a picture needs the files before it.
        kept = [item for item, ino in parts if not await self._is_stored(item, ino)]
        if not kept:
            kept = await self._not_proved(run, parts)
        # Delete the last file first, and a twin before its PNG.
        sources = [item for item, _ in parts]
        while sources and not kept:
            if not self._unlink(sources[-1]):
                kept = sources[-1:]
            del sources[-1]
        if kept:
            why = f"kept, since {kept[0].source.name} of its run is kept"
            others = [item for item in sources if item not in kept]
            self._summary.problems += [(str(item.source), why) for item in others]

    async def _not_proved(self, run: Run, parts: list[tuple[Item, int]]) -> list[Item]:
        """List and return the first difference that the pictures in the store do not reproduce.

        Returns an empty list if all differences are proved. The caller has checked that the store
        shows the same picture as each file of the run.
        """
        taken = {os.fsencode(item.source.name): (item, ino) for item, ino in parts}
        before = b""
        for step in run:
            item, ino = taken[step.name]
            if self._archive.is_picture(step) or (step.doubt and not step.is_difference):
                continue  # no difference depends on it
            try:
                after = b"".join([part async for part in slices(self._store, ino)])
                alike = not step.is_difference or await self._archive.is_difference_of(
                    before, after, step
                )
                reason = None if alike else "it is not the difference of the pictures in the store"
            except (FsmountError, OSError) as error:
                reason = str(error)
            if reason is not None:
                self._summary.problems.append((str(item.source), f"kept: {reason}"))
                return [item]
            before = after
        return []

    def _unlink(self, item: Item) -> bool:
        """Delete a source unless it changed. Lists a failure in the summary and returns False."""
        try:
            if stamp(item.source.lstat()) != stamp(item.info):
                raise OSError(errno.EBUSY, "kept, since it changed meanwhile")
            item.source.unlink()
        except OSError as error:
            self._summary.problems.append((str(item.source), error.strerror or str(error)))
            return False
        self.deleted += 1
        return True

    async def _is_stored(self, item: Item, ino: int) -> bool:
        """Read a file back from the store and compare it.

        Lists the reason if the source must stay.
        """
        try:
            reason = await self._difference(item, self._store.index.inode(ino))
        except FsmountError as error:
            reason = str(error)
        except OSError as error:
            reason = error.strerror or str(error)
        if reason:
            self._summary.problems.append((str(item.source), f"kept: {reason}"))
        return reason is None

    async def _difference(self, item: Item, inode: Inode) -> str | None:
        """Return the reason why a source must not be deleted, or None.

        Raises FsmountError, OSError.
        """
        if not stat.S_ISREG(item.info.st_mode):
            return None if same(inode, item.source, item.info) else "the store has another"
        if inode.object_id is None:
            return "it is not encoded yet"
        if difference_in(self._archive, item) is not None:
            made = await decode(self._archive, item)
            if made.png is not None:
                shown_there = await shows(self._store, inode, made.png)
                return None if shown_there else "the store has another picture"
            if not made.is_picture:
                return made.reason
        with item.source.open("rb") as file:
            async for data in slices(self._store, inode.ino):
                if file.read(len(data)) != data:
                    return "the store has other bytes"
            return "it is longer than in the store" if file.read(1) else None


def _names(run: Run) -> Iterator[bytes]:
    """Names of the files of a run in order, a twin directly after its PNG."""
    for step in run:
        yield step.name
        if step.twin is not None:
            yield step.twin.name
