"""Whether the index may be believed, asked before anything goes because it is not in it."""

from __future__ import annotations

from pathlib import Path

from fsmount.codec.workers import Workers
from fsmount.errors import Damaged
from fsmount.store.disk import Disk
from fsmount.store.index import Index


def contradiction_beside(path: str) -> str:
    """:meth:`Index.contradiction`, in another process than the one that has it open at `path`."""
    index = Index(Path(path), Disk(), read_only=True)
    try:
        return index.contradiction()
    finally:
        index.close()


class Soundness:
    """Asks once: what makes rows go missing is damage of what was written before."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._why: str | None = None

    async def ask(self, workers: Workers) -> None:
        """Raises :class:`Damaged` if rows are missing; `check --repair` can bring them back from
        packs that are still there. A worker goes through all rows."""
        if self._why is None:
            self._why = await workers.run(contradiction_beside, str(self._index.file))
        if self._why:
            raise Damaged(self._index.file, reason=self._why)
