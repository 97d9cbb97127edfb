"""What an import would copy: the files of some folders that a store does not have yet."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

from fsmount.legacy.archive import Archive
from fsmount.legacy.runs import png_name
from fsmount.store.files import StoreFiles
from fsmount.store.transfer.patterns import ALL, Patterns
from fsmount.store.transfer.tree import Item, Report, Summary, find, ignore, same, walk


class MissingCounter:
    """Counts missing files as an import would, from the index alone.

    `summary.files` and `summary.bytes` count the sources to import, `summary.skipped` those that
    the store has with the same size and time. A difference whose picture the import would have to
    make before it can tell counts as a source to import. `report` is called with the path of each
    file to import.
    """

    def __init__(self, store: StoreFiles, report: Report = ignore) -> None:
        self._store = store
        self._report = report
        self._archive = Archive()
        self.summary = Summary()

    def add(self, source: Path, target: bytes, chosen: Patterns = ALL) -> None:
        """Count `source` (file or folder), which would be imported as `target`."""
        for item in walk(source, target, self.summary, chosen):
            try:
                self._count(item)
            except OSError as error:
                self.summary.problems.append((str(item.source), error.strerror or str(error)))

    def _count(self, item: Item) -> None:
        item, is_there = self._looked_up(item)
        there = find(self._store, item.target)
        folder = stat.S_ISDIR(item.info.st_mode)
        if there is not None and stat.S_ISDIR(there.mode) != folder:
            what = "file" if folder else "folder"
            self.summary.problems.append((str(item.source), f"the store has a {what} of this name"))
        elif folder:
            return
        elif is_there or (there is not None and same(there, item.source, item.info)):
            self.summary.skipped += 1
        else:
            self.summary.files += 1
            self.summary.bytes += item.info.st_size
            self._report(item.target)

    def _looked_up(self, item: Item) -> tuple[Item, bool]:
        """Return the item as the import would name it, and whether its picture is there already."""
        name = os.fsencode(item.source.name)
        if not (name.endswith(b".jxl") and stat.S_ISREG(item.info.st_mode)):
            return item, False
        step = self._archive.difference(item.source.parent, name)
        if step is None:
            return item, False
        if find(self._store, item.target) is not None:
            # It has turned out to be a picture of its own, which is imported as it is.
            return item, False
        item = replace(item, target=png_name(item.target))
        there = find(self._store, item.target)
        known = there is not None and there.mtime_ns == item.info.st_mtime_ns
        return item, known and not step.doubt
