"""Who may ask the server, and what browsers may do with its answers.

A page on 127.0.0.1 can be asked by every program of this machine, and by every page that a browser
shows. So a request must pass all of these:

- Its method is GET. Nothing on the server changes anything.
- ``Host`` is the address of the server. A page of somebody else whose name was made to lead to
  127.0.0.1 (DNS rebinding) names itself there.
- ``Origin`` and ``Sec-Fetch-Site``, if a browser sends them, say that our own page asks.
- The path begins with a random name, so that other servers of this machine never see the cookie:
  cookies do not tell ports apart.
- It has the cookie. A browser gets it for a token, which works once.

Answers forbid everything but our own scripts, styles and pictures.
"""

from __future__ import annotations

import hmac
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

MOST_TARGET_BYTES = 2000
"""Largest size of path and query."""
COOKIE = "fsmount"
_LOCAL = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.ASCII)
_HEADERS: Headers = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
        b" connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        b" require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-embedder-policy", b"require-corp"),
    (b"x-frame-options", b"DENY"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
    # Browsers would keep pictures of the screen on the disk.
    (b"cache-control", b"no-store"),
]
# What needs no cookie is the same for everybody, and has another path in the next run.
_KEPT = (b"cache-control", b"private, max-age=604800, immutable")
_START = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>fsmount</title>
<script src="static/start.js"></script>
<p><a href="./">Open the page</a></p></html>
"""
_NO_COOKIE = (
    "This page belongs to somebody else, or its link was used already. Where `fsmount serve` runs,"
    " it says how to get another link.\n"
)

_log = logging.getLogger(__name__)


class Access:
    """The secrets of one run of the server.

    name : what every path begins with.
    """

    def __init__(self) -> None:
        self.name = secrets.token_hex(8)
        self._token: str | None = secrets.token_urlsafe(24)
        self._session = secrets.token_urlsafe(24)

    def start(self) -> str:
        """Return the path and query that give a browser its cookie, once."""
        return f"/{self.name}/?token={self._token}"

    def renew(self) -> str:
        """Return another link, as :meth:`start`. The one before works no more."""
        self._token = secrets.token_urlsafe(24)
        return self.start()

    def use(self, token: str) -> str | None:
        """Return the header Set-Cookie for a token, if it is right and new."""
        if self._token is None or not _equal(token, self._token):
            return None
        self._token = None
        return f"{COOKIE}={self._session}; Path=/{self.name}/; HttpOnly; SameSite=Strict"

    def has(self, cookies: Iterable[str]) -> bool:
        """Whether some headers Cookie have the cookie."""
        for text in cookies:
            try:
                found = SimpleCookie(text).get(COOKIE)
            except CookieError:
                continue
            if found is not None and _equal(found.value, self._session):
                return True
        return False


class Guard:
    """The outermost part of the application; see the module.

    `host` is what ``Host`` must be, or None on a Unix socket: then any name of this machine, with
    any port, since somebody may have forwarded a port to it. `open_paths` are paths below the name
    that need no cookie, because they hold nothing of a store.
    """

    def __init__(
        self, app: App, access: Access, host: str | None, open_paths: Iterable[str] = ()
    ) -> None:
        self._app = app
        self._access = access
        self._host = host
        self._open = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on, as ASGI says."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        path = scope["path"].removeprefix(f"/{self._access.name}")

        async def send_safely(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                ours = {name for name, _ in _HEADERS}
                own = [pair for pair in message.get("headers", ()) if pair[0].lower() not in ours]
                # A later header of a name takes the place of an earlier one.
                more = [_KEPT] if path in self._open and message["status"] == 200 else []
                headers = dict([*_HEADERS, *more])
                message = {**message, "headers": [*own, *headers.items()]}
            await send(message)

        refused = self._refusal(scope)
        if refused is not None:
            await _say(send_safely, *refused)
            return
        token = parse_qs(scope["query_string"].decode("latin-1")).get("token")
        if path == "/" and token is not None:
            await self._start(scope, token[0], send_safely)
            return
        cookies = [value.decode("latin-1") for value in _values(scope, b"cookie")]
        if path not in self._open and not self._access.has(cookies):
            await _say(send_safely, 401, _NO_COOKIE)
            return
        try:
            inner = {**scope, "path": path, "raw_path": path.encode()}
            await self._app(inner, receive, send_safely)
        except Exception:
            _log.exception("%s", path)
            if started:
                raise
            await _say(send_safely, 500, "fsmount made a mistake; its log says which.\n")

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Why a request gets no answer: status and text; None if it may go on."""
        if scope["method"] != "GET":
            return 405, "Nothing can be changed here.\n"
        target = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if target > MOST_TARGET_BYTES:
            return 414, "The address is too long.\n"
        hosts = [value.decode("latin-1") for value in _values(scope, b"host")]
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return 403, "This server has another name.\n"
        origins = [value.decode("latin-1") for value in _values(scope, b"origin")]
        if any(origin != f"http://{hosts[0]}" for origin in origins):
            return 403, "Another page asks.\n"
        path = scope["path"]
        name = f"/{self._access.name}/"
        sites = {value.decode("latin-1") for value in _values(scope, b"sec-fetch-site")}
        # A link may lead here from anywhere. What it needs is the token.
        known = {"same-origin", "none"} | ({"cross-site", "same-site"} if path == name else set())
        if not sites <= known:
            return 403, "Another page asks.\n"
        if not path.startswith(name):
            return 404, "Open the link that fsmount serve printed.\n"
        return None

    def _is_ours(self, host: str) -> bool:
        if self._host is not None:
            return host == self._host
        return _LOCAL.fullmatch(host) is not None

    async def _start(self, scope: Scope, token: str, send: Send) -> None:
        """Give the cookie for a token.

        The answer is a page that goes on to the real one by itself. After a redirect a browser
        would still take the visit for that of the page with the link, and send no cookie.
        """
        cookie = self._access.use(token)
        known = [value.decode("latin-1") for value in _values(scope, b"cookie")]
        if cookie is None and not self._access.has(known):
            await _say(send, 401, _NO_COOKIE)
            return
        headers = [] if cookie is None else [(b"set-cookie", cookie.encode())]
        await _reply(send, 200, b"text/html; charset=utf-8", _START, headers)


def _equal(one: str, other: str) -> bool:
    """Compare in a time that tells nothing."""
    return hmac.compare_digest(one.encode(), other.encode())


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key.lower() == name]


async def _say(send: Send, status: int, text: str) -> None:
    await _reply(send, status, b"text/plain; charset=utf-8", text.encode())


async def _reply(
    send: Send, status: int, kind: bytes, body: bytes, headers: Headers | None = None
) -> None:
    length = str(len(body)).encode()
    fields = [(b"content-type", kind), (b"content-length", length), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
