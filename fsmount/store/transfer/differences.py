"""Sources of an import that a legacy folder keeps as differences (`fsmount.legacy`)."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

from fsmount import threads
from fsmount.legacy.archive import Archive
from fsmount.legacy.decoding import Decoded
from fsmount.legacy.pictures import same_picture
from fsmount.legacy.runs import RunFile, png_name
from fsmount.store.index import Inode
from fsmount.store.read_store import ReadStore
from fsmount.store.transfer.tree import Item, slices
from fsmount.threads import Kind


def difference_in(archive: Archive, item: Item) -> RunFile | None:
    """Return the difference that a source contains, or None if it is another file."""
    name = os.fsencode(item.source.name)
    if not stat.S_ISREG(item.info.st_mode) or not name.endswith(b".jxl"):
        return None
    return archive.difference(item.source.parent, name)


async def decode(archive: Archive, item: Item) -> Decoded:
    """Make the picture of a difference; see :meth:`Archive.decode`."""
    return await archive.decode(item.source.parent, os.fsencode(item.source.name))


def as_png(item: Item) -> Item:
    """Return the item with the name under which its difference shows its picture."""
    return replace(item, target=png_name(item.target))


async def shows(store: ReadStore, inode: Inode, data: bytes) -> bool:
    """Whether a file of the store has the bytes `data` of a PNG, or the same samples."""
    if not stat.S_ISREG(inode.mode):
        return False
    stored = b"".join([part async for part in slices(store, inode.ino)])
    return stored == data or await threads.call(Kind.STAGED, same_picture, stored, data)
