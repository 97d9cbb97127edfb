"""The files of an open store: names, attributes and staged files. They need no worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsmount.store.disk.disk import Disk
from fsmount.store.elsewhere import NOWHERE, Elsewhere
from fsmount.store.index import Index
from fsmount.store.layout import Layout
from fsmount.store.packs.staging import Staging
from fsmount.store.statistics import statistics


@dataclass(eq=False)
class StoreFiles:
    """An open store, as far as it needs no worker.

    path : the path by which the store was opened, for people.
    disk : system calls that change the store.
    layout : the paths of its files, through the descriptor of its folder.
    index : names, attributes, objects and packs.
    staging : files that wait to be encoded.
    away : packs that were at a URL only when the store was opened.

    Contract: belongs to the trio task.
    """

    path: Path
    disk: Disk
    layout: Layout
    index: Index
    staging: Staging
    away: Elsewhere = NOWHERE

    def stats(self) -> dict[str, Any]:
        """See :func:`statistics`. Raises OSError."""
        return statistics(self.path, self.layout, self.index)
