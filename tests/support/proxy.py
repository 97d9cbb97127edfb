"""A proxy between a client and a server of HTTP, which does to requests what networks do."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

# What happens to a request, by its method and path: nothing (""), no answer before ("cut") or
# after the server did it ("lost"), half the answer ("truncate"), a bit of the answer flipped
# ("corrupt"), late ("delay"), the answer that no object may be removed ("retained"), or a status of
# its own ("503", "412", "403"). "locked" answers as Amazon's buckets with an object lock do if the
# request has no checksum.
Plan = Callable[[str, str], str]

_DELAY_S = 0.3


@dataclass
class Proxy:
    """A running proxy.

    plan : what happens to the next requests.
    seen : method, path and bytes of the body of each request.
    answered : bytes of the bodies of all answers.
    """

    port: int
    plan: Plan
    seen: list[tuple[str, str, int]] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)
    answered: int = 0

    def sent(self) -> list[tuple[str, str, int]]:
        """The requests with a body."""
        return [each for each in self.seen if each[0] in ("PUT", "POST")]


@contextmanager
def proxy(server: int, plan: Plan = lambda method, path: "") -> Iterator[Proxy]:
    """Run a proxy to the port `server` of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with found.lock:
                found.seen.append((self.command, self.path, len(body)))
                action = found.plan(self.command, self.path)
            self.close_connection = True
            if action == "cut":
                return
            if action.isdigit():
                self._answer(int(action), b"<Error><Code>Injected</Code></Error>", {})
                return
            if action == "retained":
                errors = b"".join(
                    b"<Error><Key>%b</Key><Code>AccessDenied</Code><Message>Access Denied because"
                    b" object protected by object lock.</Message></Error>" % key
                    for key in re.findall(rb"<Key>(.*?)</Key>", body)
                )
                self._answer(200, b"<DeleteResult>%b</DeleteResult>" % errors, {})
                return
            if action == "locked" and "x-amz-checksum-sha256" not in self.headers:
                why = (
                    b"Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object"
                    b" requests with Object Lock parameters"
                )
                error = b"<Error><Code>InvalidRequest</Code><Message>%b</Message></Error>" % why
                self._answer(400, error, {})
                return
            if action == "delay":
                time.sleep(_DELAY_S)
            link = http.client.HTTPConnection("127.0.0.1", server, timeout=30)
            try:
                link.request(self.command, self.path, body, dict(self.headers))
                answer = link.getresponse()
                data = answer.read()
            except (OSError, http.client.HTTPException):
                # The server was killed: the client gets no answer.
                return
            finally:
                link.close()
            with found.lock:
                found.answered += len(data)
            if action == "lost":
                return
            headers = dict(answer.getheaders())
            if action == "corrupt" and data:
                middle = len(data) // 2
                data = data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]
            self._answer(answer.status, data, headers, cut=action == "truncate")

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any  # noqa: N815

        def _answer(
            self, status: int, data: bytes, headers: dict[str, str], cut: bool = False
        ) -> None:
            self.send_response_only(status)
            length = headers.get("Content-Length") if self.command == "HEAD" else None
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(data)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if cut else data)

    server_ = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Proxy(server_.server_address[1], plan)
    thread = Thread(target=server_.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server_.shutdown()
        server_.server_close()
        thread.join()
