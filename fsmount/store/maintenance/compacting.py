"""Makes the index smaller after a repack.

A repack drops rows, and rows of objects that moved grow by a byte or two. So pages of the index
become free, or are split and stay half empty. SQLite uses them again for later rows, but the file
does not get smaller by itself.
"""

from __future__ import annotations

import logging
from pathlib import Path

from fsmount.errors import FsmountError
from fsmount.store.disk.disk import Disk
from fsmount.store.index import Index
from fsmount.work.workers import Workers

_log = logging.getLogger(__name__)

# An index with more bytes of rows keeps its free pages. No task runs while the index is written,
# and memory has a copy of it: this takes a second or two, and some 170,000 files need so many.
_MOST_BYTES = 64 << 20
# This many times the size of the index must be free on the disk.
_FREE = 4


async def compact(index: Index, workers: Workers, free: int) -> None:
    """Write the index anew, without free pages. Logs failures; the index is unchanged then.

    `free` is the number of free bytes on the disk. No-op if the index is too large, the disk too
    full, or if a worker finds damage in the index.
    """
    size = index.bytes()
    if size - index.free_bytes() > _MOST_BYTES or free < _FREE * size:
        return
    try:
        if faults := await workers.run(faults_at, str(index.file)):
            _log.error("%s stays as it is: %s", index.file, faults[0])
            return
        index.compact()
    except (OSError, FsmountError) as error:
        _log.warning("%s does not get smaller: %s", index.file, error)


def faults_at(path: str) -> list[str]:
    """Return :meth:`Index.integrity` of the index at `path`. Runs in a worker process."""
    index = Index(Path(path), Disk(), read_only=True)
    try:
        return index.integrity()
    finally:
        index.close()
