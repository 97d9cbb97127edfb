"""Tells whether rows of the index are missing, before a file without a row is deleted or moved.

The page checksums of SQLite do not notice a page that replaced another page. Then the rows of the
lost page are missing, and other rows refer to rows that do not exist.
"""

from __future__ import annotations

from pathlib import Path

from fsmount.errors import Damaged
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index
from fsmount.work.workers import Workers


def contradiction_at(path: str) -> str:
    """Return :meth:`Index.contradiction` of the index at `path`. Runs in a worker process."""
    index = Index(Path(path), Disk(), read_only=True)
    try:
        return index.contradiction()
    finally:
        index.close()


class Consistency:
    """Reads all rows once and remembers the answer.

    Once is enough: rows go missing by damage to pages that were written before, and the first look
    finds it.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._contradiction: str | None = None

    async def require(self, workers: Workers) -> None:
        """Raise :class:`Damaged` if rows are missing. A worker reads the rows.

        `check --repair` brings the rows back from the copy and the packs.
        """
        if self._contradiction is None:
            self._contradiction = await workers.run(contradiction_at, str(self._index.file))
        if self._contradiction:
            raise Damaged(self._index.file, reason=self._contradiction)
