"""A store with workers, for reading: it renders the bodies of files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

from fsmount.errors import FsmountError, WorkerDied
from fsmount.store.files import StoreFiles
from fsmount.store.frames.body_reader import Body, BodyReader
from fsmount.store.frames.changes import Rectangle
from fsmount.store.frames.group import Rendered
from fsmount.store.frames.layer_cache import LayerCache
from fsmount.store.frames.previews import Preview, View
from fsmount.store.packs.supply import Supply
from fsmount.store.pushed import Pushed
from fsmount.work.workers import Workers

_log = logging.getLogger(__name__)


class ReadStore(StoreFiles):
    """A store whose workers can be used. Nothing here changes it.

    workers : render files, and code entries.
    layers : the layers that the workers have decoded.
    supply : brings bytes to the disk, if all of the store lies elsewhere; else None.
    name : its path, or its URL.
    pushed : what the last pushes sent, as far as it was looked at.

    Contract: belongs to the trio task.
    """

    read_only: ClassVar[bool] = True

    def __init__(
        self,
        files: StoreFiles,
        bodies: BodyReader,
        workers: Workers,
        layers: LayerCache,
        supply: Supply | None = None,
        name: str = "",
    ) -> None:
        super().__init__(
            files.path, files.disk, files.layout, files.index, files.staging, files.away
        )
        self.supply = supply
        self.name = name or str(files.path)
        self.pushed: list[Pushed] = []
        self._bodies = bodies
        self.workers = workers
        self.layers = layers

    @property
    def count(self) -> int:
        """Number of background jobs at a time."""
        return self.workers.count

    async def body(self, object_id: int) -> Body:
        """See :meth:`BodyReader.body`. Raises :class:`Damaged`, OSError."""
        return await self._bodies.body(object_id)

    async def render(self, object_ids: Sequence[int], *, with_bytes: bool) -> list[Rendered | None]:
        """See :meth:`BodyReader.render`."""
        return await self._bodies.render(object_ids, with_bytes=with_bytes)

    async def preview(self, object_id: int, view: View, *, urgent: bool) -> Preview:
        """See :meth:`BodyReader.preview`. Raises :class:`Damaged`, OSError."""
        return await self._bodies.preview(object_id, view, urgent=urgent)

    async def signature(self, object_id: int) -> bytes:
        """See :meth:`BodyReader.signature`. Raises :class:`Damaged`, OSError."""
        return await self._bodies.signature(object_id)

    async def changes(self, object_id: int, before: int) -> list[Rectangle]:
        """See :meth:`BodyReader.changes`. Raises :class:`Damaged`, OSError."""
        return await self._bodies.changes(object_id, before)

    async def prefetch(self, ino: int) -> None:
        """Render a file that will be read soon into the cache.

        Logs FsmountError; raises OSError.
        """
        try:
            object_id = self.index.inode(ino).object_id
            if object_id is not None:
                await self._bodies.prefetch(object_id)
        except FsmountError as error:
            _log.info("prefetch of inode %d: %s", ino, error)

    async def warm(self) -> None:
        """Start a worker, so that the first reader does not wait for a process to start."""
        with suppress(WorkerDied):  # the first reader gets the error then
            await self.workers.warm(1)

    def pending(self) -> int:
        """Number of staged files that this process will encode."""
        return 0

    async def durable(self) -> None:
        """Make everything that this process has committed survive a power cut: nothing."""
