"""Sends slowly also within one request: a pace for bytes, and a proxy that keeps it.

obstore hands a whole object to the network. Its other way, an upload in several requests, has
parts of at least 5 MiB. So with a limit, obstore talks to a proxy that this process runs on this
machine. It passes on what comes from obstore at the pace, and answers at once. An object stays one
request, with its condition. With ``https`` the proxy sees encrypted bytes only. Each connection
needs a password that only this process knows, so nobody else on the machine can use the proxy.
"""

from __future__ import annotations

import base64
import os
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, Thread
from types import TracebackType
from urllib.parse import urlsplit

CHUNK = 16 << 10
_MOST_HEAD = 64 << 10
_CONNECT_S = 10
# A program that has to use a proxy cannot use ours.
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def has_proxy() -> bool:
    """Whether the user has named a proxy for all programs."""
    return any(os.environ.get(each) or os.environ.get(each.upper()) for each in _PROXIES)


class Pace:
    """At most `rate` bytes a second, counted over all who call it."""

    def __init__(
        self,
        rate: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()
        self._turn = Lock()

    def __call__(self, count: int) -> None:
        """Wait until so many bytes may be sent."""
        with self._turn:
            now = self._clock()
            wait = self._free_at - now
            self._free_at = max(now, self._free_at) + count / self._rate
        if wait > 0:
            self._sleep(wait)


class PacedProxy:
    """A proxy for HTTP and HTTPS on this machine. Use it as a context manager.

    url : its address, with the password.

    Parameters
    ----------
    pace : callable
        Gets the number of bytes, at most CHUNK, before they are sent on, and waits.
    """

    def __init__(self, pace: Callable[[int], None]) -> None:
        self._pace = pace
        self._listening = socket.create_server(("127.0.0.1", 0))
        password = secrets.token_hex(16)
        self._allowed = b"basic " + base64.b64encode(f"fsmount:{password}".encode())
        self.url = f"http://fsmount:{password}@127.0.0.1:{self._listening.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._is_closed = False
        self._lock = Lock()

    def __enter__(self) -> PacedProxy:
        Thread(target=self._accept, name="pace", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._is_closed = True
            links = list(self._open)
        for link in (self._listening, *links):
            _end(link)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            Thread(target=self._serve, args=(client,), name="pace", daemon=True).start()

    def _keep(self, link: socket.socket) -> None:
        """Let the end of the proxy end a connection. Raises OSError if that was before."""
        with self._lock:
            if self._is_closed:
                raise ConnectionAbortedError
            self._open.add(link)

    def _serve(self, client: socket.socket) -> None:
        """Serve one connection."""
        server: socket.socket | None = None
        with client, suppress(OSError, ValueError):
            try:
                self._keep(client)
                head, rest = _read_head(client)
                lines = head.split(b"\r\n")
                method, target, _ = lines[0].split(b" ")
                if not self._is_allowed(lines):
                    client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                    return
                host, port, path = _place(method, target)
                server = self._connected(client, host, port)
                if method == b"CONNECT":
                    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                else:
                    rest = _for_server(method, path, lines[1:]) + rest
                self._pass_on(client, server, rest)
            finally:
                with self._lock:
                    self._open -= {client, server}
                if server is not None:
                    server.close()

    def _is_allowed(self, lines: list[bytes]) -> bool:
        found = [line.partition(b":")[2].strip() for line in lines
                 if line.lower().startswith(b"proxy-authorization:")]  # fmt: skip
        given = found[0] if len(found) == 1 else b""
        return secrets.compare_digest(given[:6].lower() + given[6:], self._allowed)

    def _connected(self, client: socket.socket, host: str, port: int) -> socket.socket:
        try:
            server = socket.create_connection((host, port), _CONNECT_S)
        except OSError:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            raise
        server.settimeout(None)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._keep(server)
        return server

    def _pass_on(self, client: socket.socket, server: socket.socket, first: bytes) -> None:
        """Pass bytes on in both directions, until the server has no more."""

        def answers() -> None:
            with suppress(OSError):
                while data := server.recv(CHUNK):
                    client.sendall(data)
            # The client ends its side when it has read the answer.
            with suppress(OSError):
                client.shutdown(socket.SHUT_WR)

        back = Thread(target=answers, name="pace", daemon=True)
        back.start()
        data, is_wanted = first or client.recv(CHUNK), True
        while data:
            if is_wanted:
                try:
                    for at in range(0, len(data), CHUNK):
                        chunk = data[at : at + CHUNK]
                        self._pace(len(chunk))
                        server.sendall(chunk)
                except OSError:
                    # It has answered before the end of the request. Who closed a connection with
                    # unread bytes could take the answer from the client.
                    is_wanted = False
            data = client.recv(CHUNK)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)
        back.join()


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    """The head of a request, and the bytes behind it. Raises OSError, ValueError."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(CHUNK)
        if not more or len(data) > _MOST_HEAD:
            raise ValueError("no head of a request")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _place(method: bytes, target: bytes) -> tuple[str, int, str]:
    """Host, port and path of a request to a proxy. Raises ValueError."""
    url = urlsplit(f"//{target.decode()}" if method == b"CONNECT" else target.decode())
    if url.hostname is None:
        raise ValueError("a request without a host")
    path = url.path + (f"?{url.query}" if url.query else "")
    return url.hostname, url.port or 80, path or "/"


def _for_server(method: bytes, path: str, fields: list[bytes]) -> bytes:
    """The head of a request as its server gets it: one request for each connection."""
    kept = [each for each in fields
            if not each.lower().startswith((b"proxy-", b"connection:"))]  # fmt: skip
    lines = [b"%b %b HTTP/1.1" % (method, path.encode()), *kept, b"Connection: close"]
    return b"\r\n".join([*lines, b"", b""])


def _end(link: socket.socket) -> None:
    """End a connection in both directions, so that who waits for it goes on."""
    with suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)
