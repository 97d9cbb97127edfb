"""The originals of an adopted folder: moved from below the mount, and deleted after a proof."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fsmount.store.read_store import ReadStore
from fsmount.store.transfer.tree import Item, Progress, Summary, find, walk
from fsmount.store.transfer.verifying import StoreCounterpart, Verifier

NOT_ENCODED = "it is not encoded yet"


def move(below: Path, originals: Path) -> None:
    """Move all entries of one folder into another folder of the same filesystem.

    An earlier run may have moved some of them. Then folders of one name are merged. A file whose
    name is taken gets the number 2, or the next, behind its name. Raises OSError.
    """
    originals.mkdir(exist_ok=True)
    for name in os.listdir(below):
        source, target = below / name, originals / name
        if _is_folder(source) and _is_folder(target):
            move(source, target)
            source.rmdir()
            continue
        number = 2
        while os.path.lexists(target):
            target = originals / f"{name}.{number}"
            number += 1
        source.rename(target)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


async def delete(
    originals: Path, store: ReadStore, progress: Progress, force: Callable[[], None]
) -> tuple[int, Summary]:
    """Delete each original that the store has, byte for byte, and the folders that get empty.

    Deletes a file only if it is encoded. The caller runs the store, open for reading beside its
    mount; `force` forces what the mount has written to the disk. Returns the number of deleted
    files; the summary lists those that stay. Raises OSError.
    """
    items = [item for item in walk(originals, b"", Summary()) if item.target]
    verifier = Verifier(StoreCounterpart(store), progress)
    await verifier.verify([(originals, b"")])
    # The verifier lists also what only the store has: newer files, under their paths in it.
    known = {str(item.source) for item in items} | {str(originals)}
    summary = Summary(problems=[found for found in verifier.summary.problems if found[0] in known])
    differing = {path for path, _ in summary.problems}
    files = [
        item
        for item in items
        if not stat.S_ISDIR(item.info.st_mode) and str(item.source) not in differing
    ]
    proved = [item for item in files if _is_encoded(item, store)]
    waiting = [item for item in files if not _is_encoded(item, store)]
    summary.problems += [(str(item.source), NOT_ENCODED) for item in waiting]
    force()
    deleted = 0
    for item in proved:
        if _is_unchanged(item):
            item.source.unlink()
            deleted += 1
        else:
            summary.problems.append((str(item.source), "it changed meanwhile"))
    folders = [item.source for item in items if stat.S_ISDIR(item.info.st_mode)]
    for folder in (*reversed(folders), originals):
        with suppress(OSError):
            folder.rmdir()
    return deleted, summary


def _is_encoded(item: Item, store: ReadStore) -> bool:
    inode = find(store, item.target)
    return inode is not None and (inode.object_id is not None or not stat.S_ISREG(inode.mode))


def _is_unchanged(item: Item) -> bool:
    """Whether a file is as it was when it was compared."""
    before, now = item.info, item.source.lstat()
    if (now.st_ino, now.st_size, now.st_mtime_ns) != (
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
    ):
        return False
    # Programs can set back an mtime, but no ctime. Deleting another name of the file sets it, too.
    return now.st_ctime_ns == before.st_ctime_ns or before.st_nlink > 1
