"""Reading of bodies: locates the entries of an object, renders its file, and keeps it in a cache.

A repack may move entries while they are read. A repack of this process waits for readers before it
removes a pack. A repack of another process does not know of them, so a read that fails is tried
again if the entries have moved.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from fsmount import threads
from fsmount.errors import Damaged, FsmountError
from fsmount.folder import readable
from fsmount.store.frames import group, jobs, previews, rebuilding
from fsmount.store.frames.changes import Rectangle
from fsmount.store.frames.group import Rendered
from fsmount.store.frames.layer_cache import LayerCache
from fsmount.store.frames.previews import Preview, View
from fsmount.store.frames.rebuilding import Rebuilt
from fsmount.store.index import Object
from fsmount.store.layout import Layout
from fsmount.store.packs.bodies import KeptBody, RenderedBody, load_sums
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack_set import PackSet
from fsmount.store.packs.supply import Local, Supply, ranges_of
from fsmount.threads import Kind
from fsmount.work.cache import Cache
from fsmount.work.workers import Workers

_log = logging.getLogger(__name__)

Body = RenderedBody | KeptBody
T = TypeVar("T")


class BodyReader:
    """Reads the bodies of objects. Rendered files stay in a cache.

    find : returns the row of an object, also if it is not committed yet. Raises :class:`Damaged`.
    workers : render files.
    layers : the layers that the workers have decoded.
    cache_bytes : size of the cache of rendered files in bytes.
    supply : brings entries and large files to the disk, if the store lies elsewhere.

    Contract: belongs to the trio task.
    """

    def __init__(
        self,
        layout: Layout,
        packs: PackSet,
        find: Callable[[int], Object],
        workers: Workers,
        layers: LayerCache,
        cache_bytes: int,
        supply: Supply | None = None,
    ) -> None:
        self._supply = supply or Local()
        self._layout = layout
        self._packs = packs
        self._find = find
        self._workers = workers
        self._layers = layers
        self._rendered: Cache[int, bytes] = Cache(cache_bytes)
        # Damaged packs that were logged.
        self._told: set[str] = set()

    async def body(self, object_id: int) -> Body:
        """Return the body of an object, after a check of its hash.

        A rendered body is checked as a whole here. A kept body is a large raw file, checked as it
        is read. Raises :class:`Damaged`, OSError.
        """
        found = self._find(object_id)
        if found.is_kept:
            return await self._read(found, self._kept)
        return RenderedBody(await self._rendered.get(object_id, lambda: self._render(found)))

    async def prefetch(self, object_id: int) -> None:
        """Render a file into the cache, unless its object is raw.

        Raises :class:`Damaged`, OSError.
        """
        if self._find(object_id).kind != "raw":
            await self.body(object_id)

    async def render(self, object_ids: Sequence[int], *, with_bytes: bool) -> list[Rendered | None]:
        """Render some objects, near to each other, in one job of low urgency.

        No object may be a large raw file. Returns one item for each of the first objects, at least
        one: None if it cannot be rendered so, whatever the reason. :meth:`body` tells the reason.
        Takes no bytes from the cache of rendered files, and leaves none there.
        """
        with self._packs.reading():
            try:
                rows = self._rows(object_ids)
                wanted = [(self._place(rows[i]), rows[i].sha256) for i in object_ids]
                places = [self._place(rows[i]) for i in rows if i not in set(object_ids)]
                every = (*places, *(place for place, _ in wanted))
                async with self._supply.held(ranges_of(every)):
                    # The groups before and behind need most of these layers, too.
                    await self._layers.prepare(self._workers, group.decode_layers, places)
                    return await self._layers.run(
                        self._workers,
                        group.render,
                        wanted,
                        places,
                        with_bytes,
                        places=every,
                        slow=True,
                    )
            # The entries may have moved, and one object may have killed the worker.
            except FsmountError:
                return [None] * len(object_ids)

    async def preview(self, object_id: int, view: View, *, urgent: bool) -> Preview:
        """Return a preview of a frame. `urgent`: whether somebody waits for this one picture.

        Raises :class:`Damaged`, OSError.
        """

        async def read(_: Object, target: Location, places: tuple[Location, ...]) -> Preview:
            return await self._layers.run(
                self._workers,
                previews.preview,
                target,
                places,
                view,
                places=(*places, target),
                urgent=urgent,
            )

        return await self._read(self._find(object_id), read)

    async def signature(self, object_id: int) -> bytes:
        """Return the signature of a frame (:func:`previews.signature`).

        Raises :class:`Damaged`, OSError.
        """

        async def read(_: Object, target: Location, places: tuple[Location, ...]) -> bytes:
            return await self._layers.run(
                self._workers,
                previews.signature,
                target,
                places,
                places=(*places, target),
                slow=True,
            )

        return await self._read(self._find(object_id), read)

    async def changes(self, object_id: int, before: int) -> list[Rectangle]:
        """Return which rectangles of a frame differ from the frame `before`.

        Raises :class:`Damaged`, OSError.
        """

        async def read(
            _: Object, target: Location, places: tuple[Location, ...]
        ) -> list[Rectangle]:
            earlier, *others = self._places(before)
            needed = {place.id: place for place in (*places, *others)}
            for own in (object_id, before):
                needed.pop(own, None)
            return await self._layers.run(
                self._workers,
                previews.changes,
                target,
                earlier,
                tuple(needed.values()),
                places=(*needed.values(), earlier, target),
                urgent=True,
            )

        return await self._read(self._find(object_id), read)

    def _rows(self, object_ids: Sequence[int]) -> dict[int, Object]:
        """Rows of some objects and of all that they need, by id. Raises :class:`Damaged`."""
        rows: dict[int, Object] = {}
        for object_id in object_ids:
            found = rows[object_id] = rows.get(object_id) or self._find(object_id)
            for needed in found.needs:
                if needed not in rows:
                    rows[needed] = self._find(needed)
        return rows

    async def _read(
        self, found: Object, read: Callable[[Object, Location, tuple[Location, ...]], Awaitable[T]]
    ) -> T:
        """Call `read` with an object, the location of its entry, and those of the entries it needs.

        Holds the packs meanwhile. Tries again if the entries moved during the call. Returns the
        result.
        """
        while True:
            with self._packs.reading():
                target, *places = self._places(found.id)
                try:
                    return await self._read_at(found, target, tuple(places), read)
                except Damaged:
                    if self._places(found.id) == [target, *places]:
                        raise
                    # Another process has repacked the entries, and their old packs are gone.

    async def _read_at(
        self,
        found: Object,
        target: Location,
        places: tuple[Location, ...],
        read: Callable[[Object, Location, tuple[Location, ...]], Awaitable[T]],
    ) -> T:
        """Call `read` once the bytes are on the disk, and again if a server gave wrong ones."""
        ranges = ranges_of((target, *places))
        async with self._supply.held(ranges):
            try:
                return await read(found, target, places)
            except Damaged as error:
                if not await self._supply.renew(ranges):
                    raise
                try:
                    return await read(found, target, places)
                except Damaged:
                    raise await self._supply.blame(ranges, error) from None

    def _places(self, object_id: int) -> list[Location]:
        """Locations of the entry of an object, and of the entries that it needs."""
        found = self._find(object_id)
        needs = (self._find(i) for i in found.needs if i != object_id)
        return [self._place(found), *map(self._place, needs)]

    def _place(self, found: Object) -> Location:
        """Return the location of the entry of an object."""
        path = str(self._supply.pack(found.pack) or self._layout.pack(found.pack))
        return Location(found.id, path, found.offset, found.length, found.has_layer)

    async def _render(self, found: Object) -> tuple[bytes, int]:
        """Render an object. Returns (bytes, number of bytes), as the cache expects."""
        try:
            data = await self._read(found, self._render_from)
        except Damaged as error:
            try:
                data = await self._read(found, self._render_rebuilt)
            except Damaged:
                # The first reason says more: most often the pack has no parity for these bytes.
                raise error from None
        if len(data) != found.size:
            raise Damaged(f"object {found.id}", reason=f"{len(data)} bytes, not {found.size}")
        return data, len(data)

    async def _render_from(
        self, found: Object, target: Location, places: tuple[Location, ...]
    ) -> bytes:
        """Render an object from these locations: a raw entry in a thread, others in a worker."""
        if found.kind == "raw":
            done = await threads.call(Kind.ENTRY, jobs.render, target, places, found.sha256)
            return done.result
        return await self._layers.run(
            self._workers,
            jobs.render,
            target,
            places,
            found.sha256,
            places=(*places, target),
            urgent=True,
        )

    async def _render_rebuilt(
        self, found: Object, target: Location, places: tuple[Location, ...]
    ) -> bytes:
        """Render an object from these locations, with the help of the parity of their packs."""
        data, rebuilt = await self._workers.run(
            rebuilding.render, target, places, found.sha256, urgent=True
        )
        self._tell(rebuilt)
        return data

    def _tell(self, rebuilt: Sequence[Rebuilt]) -> None:
        """Log damage that parity has mended for a reader, once for each pack."""
        for each in rebuilt:
            if each.pack not in self._told:
                self._told.add(each.pack)
                _log.warning(
                    "%s: %d bytes at %d are damaged. Parity gives such bytes back to readers;"
                    " `fsmount check --repair` heals the pack",
                    readable(each.pack),
                    each.length,
                    each.offset,
                )

    async def _kept(self, found: Object, place: Location, _: tuple[Location, ...]) -> KeptBody:
        """Return the body of a large file kept verbatim, with the checksums from its entry."""
        entry, rebuilt = await threads.call(Kind.ENTRY, rebuilding.entry, place)
        self._tell(rebuilt)
        path = self._layout.kept(found.id)
        return KeptBody(path, found.size, load_sums(entry.payload), self._supply)
