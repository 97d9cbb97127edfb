"""A server in the tests: its pages asked for without a socket, as a browser would."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from fsmount.web import routes
from fsmount.web.safety import Access, Guard
from fsmount.web.session import Source, pages

HOST = "127.0.0.1:4242"
Pairs = Sequence[tuple[bytes, bytes]]


@dataclass
class Answer:
    """The answer to a request."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks an application; has the cookie once it has opened the link."""

    def __init__(self, guard: Guard, access: Access) -> None:
        self.guard = guard
        self.access = access
        self.cookie = ""

    async def raw(
        self, target: str, *, method: str = "GET", headers: Pairs = (), kind: str = "http"
    ) -> Answer:
        """Ask for a path and query, with these headers alone."""
        path, _, query = target.partition("?")
        found = Answer()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                found.status = message["status"]
                pairs = ((k.decode().lower(), v.decode()) for k, v in message["headers"])
                found.headers = dict(pairs)
            elif message["type"] == "http.response.body":
                found.body += message.get("body", b"")
            else:
                found.status = -message["code"]

        asked = False

        async def receive() -> Any:
            nonlocal asked
            if asked:
                # Nobody hangs up.
                await trio.sleep_forever()
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": kind,
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": list(headers),
            "server": ("127.0.0.1", 4242),
            "client": ("127.0.0.1", 9),
        }
        await self.guard(scope, receive, send)
        return found

    async def get(self, path: str, *, headers: Pairs = (), method: str = "GET") -> Answer:
        """Ask for a path below the name of the server, as its page does."""
        own = [(b"host", HOST.encode()), (b"cookie", self.cookie.encode()), *headers]
        return await self.raw(f"/{self.access.name}{path}", method=method, headers=own)

    async def open(self) -> Answer:
        """Open the link, and keep the cookie."""
        target = self.access.start()
        found = await self.raw(target, headers=[(b"host", HOST.encode())])
        self.cookie = found.headers.get("set-cookie", "").partition(";")[0]
        return found


@asynccontextmanager
async def client(store: Path | None, albums: Path | None = None) -> AsyncIterator[Client]:
    """In the block a store is shown to somebody who has opened the link.

    The folder for caches stands beside the store, or beside the albums.
    """
    shown = store or albums
    assert shown is not None
    async with pages(Source(store, albums, 32 << 20, shown.parent / "caches")) as found:
        access = Access()
        guard = Guard(routes.application(found), access, HOST, routes.open_paths())
        asking = Client(guard, access)
        await asking.open()
        yield asking
