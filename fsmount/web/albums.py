"""Albums as a gallery."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fsmount.album.tree import AlbumTree
from fsmount.store.frames import previews
from fsmount.store.frames.previews import Preview, View
from fsmount.web.replies import Json, file, routes_of
from fsmount.web.requests import view_of
from fsmount.work.cache import Cache
from fsmount.work.workers import Workers

_CACHE_BYTES = 32 << 20
_SLICE = 1 << 20
_PICTURES = (b".jpg", b".jpeg", b".png", b".webp")


class Albums:
    """Answers about albums. `workers` scale photos. Belongs to the trio task.

    A place in an address is the path of an album or photo, percent-encoded: a name may have any
    bytes.
    """

    def __init__(self, tree: AlbumTree | None, workers: Workers) -> None:
        self._tree = tree
        self._workers = workers
        self._previews: Cache[tuple[bytes, View], Preview] = Cache(_CACHE_BYTES)

    def routes(self) -> list[Route]:
        """Return the addresses of albums."""
        if self._tree is None:
            return []
        found = (
            ("/api/albums", self._listed),
            ("/album/view", self._view),
            ("/album/exact", self._exact),
        )
        return routes_of(found)

    def _path(self, request: Request) -> tuple[AlbumTree, bytes]:
        """Return the place that a request names. Raises FileNotFoundError."""
        assert self._tree is not None
        path = unquote_to_bytes(request.query_params.get("at", ""))
        parts = path.split(b"/") if path else []
        if any(part in (b"", b".", b"..") or part.startswith(b".") for part in parts):
            raise FileNotFoundError
        if b"\0" in path:
            raise FileNotFoundError
        return self._tree, path

    async def _listed(self, request: Request) -> Response:
        """List an album, or a folder of albums: [name, place, kind, bytes]."""
        tree, path = self._path(request)
        rows: list[list[Any]] = []
        for name, node in await tree.children(path):
            place = path + b"/" * bool(path) + name
            kind = "album" if stat.S_ISDIR(node.mode) else "file"
            if kind == "file" and name.lower().endswith(_PICTURES):
                kind = "photo"
            rows.append([name.decode(errors="replace"), quote(place), kind, node.size])
        return Json({"name": path.decode(errors="replace"), "entries": rows})

    async def _view(self, request: Request) -> Response:
        tree, path = self._path(request)
        view = view_of(request)

        async def make() -> tuple[Preview, int]:
            data = b"".join([part async for part in _parts(tree, path)])
            found = await self._workers.run(previews.preview_of_file, data, view)
            return found, len(found.data) + len(path) + 200

        found = await self._previews.get((path, view), make)
        return Response(found.data, media_type="image/jpeg")

    async def _exact(self, request: Request) -> Response:
        tree, path = self._path(request)
        return await file(path.rpartition(b"/")[2], None, _parts(tree, path))


async def _parts(tree: AlbumTree, path: bytes) -> AsyncIterator[bytes]:
    """Yield the bytes of a file of an album. Raises OSError, FsmountError."""
    body = await tree.body(path)
    for offset in range(0, body.size, _SLICE):
        yield await body.pread(offset, _SLICE)
