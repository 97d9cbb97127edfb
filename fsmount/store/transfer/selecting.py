"""Chooses files by their names, the times when they were taken, and how much of them is new."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fsmount.store.files import StoreFiles
from fsmount.store.frames.novelty import Novelty
from fsmount.store.index import Inode, Object
from fsmount.store.retention.pictures import Walk, is_picture
from fsmount.store.retention.taken import LocalClock
from fsmount.store.transfer.exporting import below
from fsmount.store.transfer.patterns import ALL, Patterns, Rule
from fsmount.store.transfer.tree import find, is_for_desktops


@dataclass(frozen=True, slots=True)
class Criteria:
    """What a file must be, besides matching patterns.

    since_ns, until_ns : it was taken then or later, and before then (`until_ns` not included), in
        ns since 1970. :mod:`fsmount.store.retention.taken` says when a file was taken.
    changed : the share of its pixels that no earlier picture of the store has, at least: 0 to 1.
    """

    since_ns: int | None = None
    until_ns: int | None = None
    changed: float | None = None

    def __bool__(self) -> bool:
        """Whether anything is asked."""
        return self != Criteria()


class Selection(Patterns):
    """Patterns and criteria. Folders are gone through, but not chosen, if there are criteria.

    `store` is needed to know what changed. A file that is no picture, or is not encoded yet, is all
    new. Of several equal files, the one that the store got first is new, and the others are not. If
    that one has another name now, the one that is looked at first counts.
    """

    def __init__(
        self,
        rules: Sequence[Rule] = (),
        criteria: Criteria | None = None,
        store: StoreFiles | None = None,
    ) -> None:
        super().__init__(rules)
        self._given = rules
        self.criteria = criteria or Criteria()
        self._store = store
        self._clock = LocalClock()
        self._novelty = None if store is None else Novelty(store.layout, store.index)
        # For objects that several files show: the path of the first file.
        self._first: dict[int, bytes] = {}

    def __bool__(self) -> bool:
        """Whether any file may be left out."""
        return super().__bool__() or bool(self.criteria)

    def of(self, store: StoreFiles) -> Selection:
        """Return the same selection for the files of a store."""
        return Selection(self._given, self.criteria, store)

    @property
    def shows_folders(self) -> bool:
        """See :attr:`Patterns.shows_folders`."""
        return not self.criteria

    def takes(self, path: bytes, mode: int, mtime_ns: int, object_id: int | None = None) -> bool:
        """See :meth:`Patterns.takes`. Reads the record of a picture if `changed` is asked."""
        if not super().takes(path, mode, mtime_ns, object_id):
            return False
        if stat.S_ISDIR(mode):
            return True
        return self._is_in_time(path, mtime_ns) and self._has_changed(path, object_id)

    def _is_in_time(self, path: bytes, mtime_ns: int) -> bool:
        since, until = self.criteria.since_ns, self.criteria.until_ns
        if since is None and until is None:
            return True
        # A name tells microseconds, as the limits do.
        at_us = self._clock.taken(path.rpartition(b"/")[2], mtime_ns).at_us
        return (since is None or at_us >= since // 1000) and (
            until is None or at_us < -(-until // 1000)
        )

    def _has_changed(self, path: bytes, object_id: int | None) -> bool:
        least = self.criteria.changed
        if least is None or self._store is None or self._novelty is None:
            return True
        if object_id is None:
            inode = find(self._store, path)
            object_id = None if inode is None else inode.object_id
        found = None if object_id is None else self._store.index.known_object(object_id)
        if found is None:
            return True
        if found.uses > 1 and self._first_path(found, path) != path:
            return least <= 0
        return self._novelty.share(found) >= least

    def _first_path(self, found: Object, path: bytes) -> bytes:
        """Return which of the files that show an object is new; `path` is one of them."""
        known = self._first.get(found.id)
        if known is None:
            assert self._store is not None and self._novelty is not None
            known = self._novelty.path(found)
            inode = None if known is None else find(self._store, known)
            if known is None or inode is None or inode.object_id != found.id:
                known = path
            self._first[found.id] = known
        return known


def prunable(
    store: StoreFiles,
    paths: Sequence[bytes] = (b"",),
    chosen: Patterns = ALL,
    *,
    all_files: bool = False,
) -> Walk:
    """Return what yields the files that a prune looks at: pictures, or all regular files.

    Leaves out the trash folders of desktops, and thumbnails beside pictures. Each path counts once,
    also if it lies in another one. The walk raises FsmountError if there is no entry at a path.
    """
    tops = [path for path in dict.fromkeys(paths) if not _is_below_any(path, paths)]

    def walk() -> Iterator[tuple[bytes, int, Inode]]:
        folder, ino = None, 0
        for top in tops:
            for path, inode in below(store, top, chosen):
                if not (stat.S_ISREG(inode.mode) if all_files else is_picture(path, inode)):
                    continue
                where = path.rpartition(b"/")[0]
                if where != folder:
                    found = find(store, where)
                    assert found is not None
                    folder, ino = where, found.ino
                    hidden = any(map(is_for_desktops, where.split(b"/")))
                if not hidden:
                    yield path, ino, inode

    return walk


def _is_below_any(path: bytes, paths: Sequence[bytes]) -> bool:
    """Whether a path lies in another one of `paths`."""
    return any(path != top and (not top or path.startswith(top + b"/")) for top in paths)
