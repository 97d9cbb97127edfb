"""Whether rows of the index are missing. Asked before a file is deleted or moved for want of a row.

SQLite's page checksums do not notice a page that stands in the place of another. The rows of the
page that was there are missing then, and rows elsewhere name what is no longer listed.
"""

from __future__ import annotations

from pathlib import Path

from fsmount.errors import Damaged
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index
from fsmount.work.workers import Workers


def contradiction_at(path: str) -> str:
    """:meth:`Index.contradiction` of the index at `path`. Runs in a worker process."""
    index = Index(Path(path), Disk(), read_only=True)
    try:
        return index.contradiction()
    finally:
        index.close()


class Consistency:
    """Goes through all rows once and remembers the answer.

    Once is enough: rows go missing by damage to what was written before, and that is found then.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._contradiction: str | None = None

    async def require(self, workers: Workers) -> None:
        """Raises :class:`Damaged` if rows are missing. A worker reads the rows.

        `check --repair` brings the rows back from the copy and the packs.
        """
        if self._contradiction is None:
            self._contradiction = await workers.run(contradiction_at, str(self._index.file))
        if self._contradiction:
            raise Damaged(self._index.file, reason=self._contradiction)
