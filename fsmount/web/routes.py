"""The addresses of the page, and what answers each of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fsmount import __version__, threads
from fsmount.errors import FsmountError
from fsmount.store.read_store import ReadStore
from fsmount.threads import Kind
from fsmount.web import activity, files, layouts, storage
from fsmount.web.days import Days, Named
from fsmount.web.pictures import Renderer
from fsmount.web.replies import Json, file, routes_of, told
from fsmount.web.requests import day_of, number_of, query_number, view_of, year_of
from fsmount.web.shares import FEW, Shares
from fsmount.web.table import Pictures, Table
from fsmount.web.words import Words

_log = logging.getLogger(__name__)
# The figures of a whole store take long, and change slowly.
_HEALTH_S = 60.0
_LONGEST_QUERY = 200


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """Log an error in the block, and go on."""
    try:
        yield
    except (FsmountError, OSError) as error:
        _log.warning("%s: %s", what, error)


class StorePages:
    """Answers about a store. Belongs to the trio task."""

    def __init__(self, store: ReadStore, caches: Path, *, has_albums: bool) -> None:
        self._store = store
        self._has_albums = has_albums
        self._table = Table(store)
        self._shares = Shares(store, caches)
        self._days = Days(store, self._shares)
        self._renderer = Renderer(store)
        self._words = Words(store)
        # What the calendar was made from, and the calendar.
        self._calendar: tuple[tuple[int, bool], list[list[Any]]] = (-1, False), []
        self._asked = trio.Event()
        self._health: tuple[float, dict[str, Any]] = (-_HEALTH_S, {})
        self._looking = trio.Lock()
        self._layouts: dict[tuple[int | None, int], list[Any]] = {}

    async def read_ahead(self) -> None:
        """Read all names, so that the first page does not wait; then what was new in all pictures.

        It goes on when the calendar is asked for and many are missing. Logs errors. Never returns.
        """
        with _logged("reading all names"):
            await self._store.warm()
            await self._table.pictures()
        while True:
            with _logged("reading what was new"):
                pictures = await self._table.pictures()
                await self._shares.fill(self._shares.missing(pictures.objects))
            self._asked = trio.Event()
            await self._asked.wait()

    def routes(self) -> list[Route]:
        """Return the addresses below ``api`` and ``picture``."""
        found = (
            ("/api/about", self._about),
            ("/api/days", self._all_days),
            ("/api/day/{day}", self._day),
            ("/api/day/{day}/shares", self._shares_of_day),
            ("/api/picture/{id}", self._picture),
            ("/api/picture/{id}/changes", self._changes),
            ("/api/picture/{id}/words", self._of_picture),
            ("/api/search", self._search),
            ("/api/habits", self._habits),
            ("/api/layouts", self._recurring),
            ("/api/storage", self._storage),
            ("/api/health", self._whole_store),
            ("/picture/{id}/view", self._view),
            ("/picture/{id}/exact", self._exact),
        )
        return routes_of(found)

    async def _about(self, _: Request) -> Response:
        return Json(
            {
                "store": Path(self._store.path).absolute().name,
                "path": str(self._store.path),
                "version": __version__,
                "ready": self._table.is_ready,
                "names_read": self._table.names_read,
                "has_store": True,
                "has_albums": self._has_albums,
            }
        )

    async def _all_days(self, _: Request) -> Response:
        pictures = await self._table.pictures()
        missing = self._shares.missing(pictures.objects)
        if missing and len(missing) <= FEW:
            await self._shares.read(missing)
            missing = []
        key = pictures.number, not missing
        if self._calendar[0] != key:
            # While many are missing, the colours of all days would change with each look.
            shares = None if missing else self._shares.of(pictures.object)
            found = await threads.call(Kind.ENTRY, activity.by_day, pictures, shares)
            self._calendar = key, found
        if missing:
            self._asked.set()
        read = 1 - len(missing) / max(1, len(pictures.objects))
        return Json({"days": self._calendar[1], "read": round(read, 4)})

    async def _day(self, request: Request) -> Response:
        day = day_of(request)
        return Json(await self._days.moments(await self._table.pictures(), day))

    async def _shares_of_day(self, request: Request) -> Response:
        day = day_of(request)
        found = await self._days.shares(await self._table.pictures(), day)
        return Json({"shares": found})

    # -- pictures

    def _named(self, request: Request) -> Named:
        found = self._days.named(number_of(request, "id"))
        if found is None:
            raise HTTPException(404, "this picture is not in the store any more")
        return found

    async def _picture(self, request: Request) -> Response:
        picture = self._named(request)
        return Json(await self._renderer.about(picture, await self._table.pictures()))

    async def _changes(self, request: Request) -> Response:
        picture = self._named(request)
        earlier = self._days.named(query_number(request, "before"))
        found = None if earlier is None else await self._renderer.changes(picture, earlier)
        return Json({"rectangles": found})

    async def _view(self, request: Request) -> Response:
        picture, view = self._named(request), view_of(request)
        found = await self._renderer.preview(picture, view)
        size = {"x-width": str(found.width), "x-height": str(found.height)}
        return Response(found.data, media_type="image/jpeg", headers=size)

    async def _exact(self, request: Request) -> Response:
        picture = self._named(request)
        name, inode = picture.path.rpartition(b"/")[2], picture.inode
        size = None if inode.object_id is None else inode.size
        return await file(name, size, self._renderer.exact(inode))

    # -- words

    async def _of_picture(self, request: Request) -> Response:
        return Json(await self._words.of_picture(self._named(request).inode.ino))

    async def _search(self, request: Request) -> Response:
        query = request.query_params.get("q", "")
        if len(query) > _LONGEST_QUERY:
            raise HTTPException(400, "the query is too long")
        return Json(await self._words.search(query))

    # -- figures

    async def _habits(self, request: Request) -> Response:
        year, pictures = year_of(request), await self._table.pictures()
        return Json(await threads.call(Kind.ENTRY, activity.habits, pictures, year))

    async def _recurring(self, request: Request) -> Response:
        year, pictures = year_of(request), await self._table.pictures()
        rows = layouts.samples(pictures, activity.rows_of(pictures, year))
        key = year, hash(tuple(pictures.object[rows].tolist()))
        async with self._looking:
            if key not in self._layouts:
                self._layouts = {key: await self._look(rows, pictures)}
        return Json({"looked_at": len(rows), "layouts": self._layouts[key]})

    async def _look(self, rows: list[int], pictures: Pictures) -> list[Any]:
        """Look at some moments and group those that are alike."""
        found: dict[int, bytes] = {}
        slots = trio.CapacityLimiter(self._store.count)

        async def one(number: int, object_id: int) -> None:
            async with slots:
                try:
                    if self._store.index.object(object_id).has_layer:
                        found[number] = await self._store.signature(object_id)
                except (FsmountError, OSError) as error:
                    _log.info("object %d: %s", object_id, error)

        async with trio.open_nursery() as nursery:
            for number, row in enumerate(rows):
                nursery.start_soon(one, number, int(pictures.object[row]))
        numbers = sorted(found)
        groups = await threads.call(Kind.ENTRY, layouts.grouped, [found[n] for n in numbers])
        return layouts.told(groups, [rows[n] for n in numbers], pictures)

    async def _storage(self, _: Request) -> Response:
        pictures = await self._table.pictures()
        return Json(await threads.call(Kind.ENTRY, storage.by_month, pictures))

    async def _whole_store(self, _: Request) -> Response:
        async with self._looking:
            if time.monotonic() - self._health[0] >= _HEALTH_S:
                found = await threads.call(Kind.ENTRY, storage.health, self._store.path)
                self._health = time.monotonic(), found
        return Json(self._health[1])


class AlbumPages:
    """Answers what the page asks of a store, where there are albums alone."""

    def __init__(self, albums: Path) -> None:
        self._path = albums

    def routes(self) -> list[Route]:
        """Return the addresses that the page asks before it knows what there is."""
        return routes_of([("/api/about", self._about), ("/api/days", self._no_days)])

    async def _no_days(self, _: Request) -> Response:
        return Json({"days": [], "read": 1})

    async def _about(self, _: Request) -> Response:
        return Json(
            {
                "store": self._path.absolute().stem,
                "path": str(self._path),
                "version": __version__,
                "ready": True,
                "has_store": False,
                "has_albums": True,
            }
        )


def application(routes: list[Route]) -> Starlette:
    """Return the application with these routes, the page and its static files."""
    static = files.load()

    async def page(_: Request) -> Response:
        return Response(static["index.html"].data, media_type=static["index.html"].kind)

    async def static_file(request: Request) -> Response:
        found = static.get(request.path_params["name"])
        if found is None:
            raise HTTPException(404, "there is no such file")
        return Response(found.data, media_type=found.kind)

    return Starlette(
        routes=[Route("/", page), *routes, Route("/static/{name}", static_file)],
        exception_handlers={HTTPException: told},
    )


def open_paths() -> list[str]:
    """Return the paths that need no cookie: the static files, the same for everybody."""
    return [f"/static/{name}" for name in files.load()]
