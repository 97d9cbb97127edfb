"""Large files: they stay files of their own, in ``raw/``.

A pack has no holes and is rewritten by a repack. So files above 32 MiB that are no PNGs, and
smaller ones with large holes, get a second name in ``raw/`` instead of an entry with their bytes.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from fsmount import threads
from fsmount.codec.png.recipe import MAX_FILE
from fsmount.errors import Damaged
from fsmount.store.disk.disk import Disk
from fsmount.store.disk.holes import hole_bytes
from fsmount.store.packs.bodies import sum_up
from fsmount.threads import Kind

# PNGs above this are tried first; they become large files only if they cannot be re-created.
KEEP_BYTES = 32 << 20
# Smaller files with this many bytes of holes are kept, too.
_HOLES_KEPT = 1 << 20
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Errors of link(2) on filesystems without hard links (EPERM: exFAT, FAT), or with too many.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def may_be_large(size: int) -> bool:
    """Whether a file of `size` bytes may go to ``raw/`` without a look."""
    return size > min(KEEP_BYTES, _HOLES_KEPT)


def is_large(path: Path) -> bool:
    """Whether a staged file goes to ``raw/`` without a look. Reads the disk; raises OSError."""
    size = path.stat().st_size
    if size > MAX_FILE:
        return True
    if not may_be_large(size):
        return False
    with path.open("rb", buffering=0) as file:
        if file.read(len(_PNG_MAGIC)) == _PNG_MAGIC:
            return False
        return size > KEEP_BYTES or hole_bytes(file.fileno(), size) >= _HOLES_KEPT


def name_again(disk: Disk, path: Path, kept: Path, sums: dict[int, bytes]) -> None:
    """Give a staged file a second, durable name in ``raw/``.

    It is a hard link, or a copy if the filesystem has no hard links. Waits for the disk: call it
    in a thread.

    `sums` are the segment hashes of the file (:func:`sum_up`). Raises OSError, and Damaged if the
    copy differs.
    """
    try:
        disk.link(path, kept)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if _copy(disk, path, kept) != sums:
            raise Damaged(kept, reason="the copy has other bytes") from None
    disk.fsync_folder(kept.parent)


async def remove_kept(disk: Disk, kept: Path) -> None:
    """Remove a file from ``raw/`` that no row names. Runs to its end also when cancelled.

    Raises OSError, FsmountError.
    """
    await threads.finish(Kind.WRITE, disk.unlink, kept)


def _copy(disk: Disk, source: Path, target: Path) -> dict[int, bytes]:
    """Copy a file and force the copy to the disk; returns the segment hashes of the copy."""
    reading = disk.open(source, os.O_RDONLY)
    try:
        writing = disk.create(target)
        try:
            disk.copy(reading, writing, os.fstat(reading).st_size)
            disk.fsync(writing)
        finally:
            disk.close(writing)
    finally:
        disk.close(reading)
    return sum_up(target)[0]
