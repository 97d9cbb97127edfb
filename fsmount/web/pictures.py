"""Pictures for the page: previews, what changed in them, and the exact files.

Previews are kept in memory, by bytes: on a disk they would be copies of what was on the screen
that no rule of a prune and no encryption reaches.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

from fsmount import threads
from fsmount.errors import Damaged, FsmountError
from fsmount.store.disk.disk import Disk
from fsmount.store.frames import previews
from fsmount.store.frames.changes import Rectangle
from fsmount.store.frames.novelty import Novelty
from fsmount.store.frames.previews import Preview, View
from fsmount.store.index import Index, Inode, Object
from fsmount.store.layout import Layout
from fsmount.store.read_store import ReadStore
from fsmount.store.transfer.tree import slices
from fsmount.threads import Kind
from fsmount.web.days import Named
from fsmount.web.table import DAY_US, MINUTE_US, Pictures, day_text
from fsmount.work.cache import Cache

CACHE_BYTES = 64 << 20
"""Memory for previews: those of some 6,000 moments."""
# A larger file is hardly a picture, and it is read into memory.
_MOST_BYTES = 256 << 20
_THUMBNAIL = 480

_Key = tuple[int, View]


class Renderer:
    """Renders pictures. Belongs to the trio task, as the store does."""

    def __init__(self, store: ReadStore) -> None:
        self._store = store
        self._previews: Cache[_Key, Preview] = Cache(CACHE_BYTES)
        self._changes: Cache[tuple[int, int], list[Rectangle]] = Cache(1 << 20)

    async def preview(self, picture: Named, view: View) -> Preview:
        """Return a preview of a picture. Raises FsmountError, OSError."""
        inode = picture.inode
        if inode.object_id is None:
            # It may change, so it is not kept.
            return await self._of_file(inode, view)
        number = inode.object_id

        async def make() -> tuple[Preview, int]:
            if self._store.index.object(number).has_layer:
                # Moments that somebody looks at come before thumbnails.
                urgent = view.width > _THUMBNAIL and view.box is None
                found = await self._store.preview(number, view, urgent=urgent)
            else:
                found = await self._of_file(inode, view)
            return found, len(found.data) + 200

        return await self._previews.get((number, view), make)

    async def _of_file(self, inode: Inode, view: View) -> Preview:
        """Return a preview of a file that is no frame. Raises FsmountError, OSError."""
        if inode.size > _MOST_BYTES:
            raise FsmountError(f"it has more than {_MOST_BYTES >> 20} MiB")
        data = b"".join([part async for part in slices(self._store, inode.ino)])
        return await self._store.workers.run(previews.preview_of_file, data, view, urgent=True)

    def exact(self, inode: Inode) -> AsyncIterator[bytes]:
        """Yield the exact bytes of a file. Raises :class:`Damaged`, OSError."""
        return slices(self._store, inode.ino)

    async def changes(self, picture: Named, before: Named) -> list[Rectangle] | None:
        """Return which parts of a picture differ from the one before.

        None if one of them is no frame. Raises :class:`Damaged`, OSError.
        """
        number, earlier = picture.inode.object_id, before.inode.object_id
        if number is None or earlier is None:
            return None
        if number == earlier:
            return []
        found = self._store.index.objects((number, earlier))
        if not all(each.has_layer for each in found):
            return None

        async def make() -> tuple[list[Rectangle], int]:
            boxes = await self._store.changes(number, earlier)
            return boxes, 100 + 100 * len(boxes)

        return await self._changes.get((number, earlier), make)

    async def about(self, picture: Named, pictures: Pictures) -> dict[str, Any]:
        """Return what the page tells about a picture. Raises :class:`Damaged`, OSError."""
        inode = picture.inode
        row = pictures.row(picture.cookie)
        found = None if inode.object_id is None else self._store.index.object(inode.object_id)
        share = None
        if found is not None and found.has_layer:
            share = await threads.call(Kind.ENTRY, _share, self._store.layout, found)
        wall_us = None if row is None else int(pictures.wall_us[row])
        return {
            "id": picture.cookie,
            "object": inode.object_id or 0,
            "path": os.fsdecode(picture.path),
            "name": os.fsdecode(picture.path.rpartition(b"/")[2]),
            "day": None if wall_us is None else day_text(wall_us // DAY_US),
            "second": None if wall_us is None else wall_us % DAY_US // 10**6,
            "minute": None if wall_us is None else wall_us // MINUTE_US,
            "size": inode.size,
            "stored": None if found is None else found.length,
            "kind": "staged" if found is None else found.kind,
            "share": share,
            "sha256": None if found is None else found.sha256.hex(),
            "before": _before(pictures, row),
        }


def _before(pictures: Pictures, row: int | None) -> int | None:
    """Return the cookie of the picture before a row in the same folder, if there is one nearby."""
    if row is None:
        return None
    for other in range(row - 1, max(-1, row - 1000), -1):
        if pictures.folder[other] == pictures.folder[row]:
            return int(pictures.cookie[other])
    return None


def _share(layout: Layout, found: Object) -> float | None:
    """Return how much of a picture is new. Runs in a thread."""
    index = Index(layout.index, Disk(), read_only=True)
    try:
        return round(Novelty(layout, index).share(found), 4)
    except (Damaged, OSError):
        return None
    finally:
        index.close()
