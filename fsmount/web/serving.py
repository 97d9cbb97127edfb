"""The server: a socket that only this machine, or only this user, can reach."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypercorn.trio
import trio
from hypercorn.config import Config
from starlette.routing import Route

from fsmount.errors import UsageError
from fsmount.web import routes
from fsmount.web.safety import Access, Guard

_HOST = "127.0.0.1"
# Bytes of the head of a request.
_MOST_HEAD_BYTES = 16 << 10


@dataclass(frozen=True)
class Running:
    """A server that answers.

    url : what a browser is to open, with its token; for a Unix socket, with the name "localhost".
    socket : path of the Unix socket; None for a port.
    new_url : returns a URL for another browser. The last one then works no more.
    """

    url: str
    socket: Path | None
    new_url: Callable[[], str]


@contextmanager
def listening(path: Path | None) -> Iterator[socket.socket]:
    """A listening socket: a free port of 127.0.0.1, or a Unix socket at a path, 0600.

    The Unix socket is removed at the end. Raises OSError, and UsageError if there is a file at its
    path that is no socket, or one that somebody listens on.
    """
    if path is None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
            made.bind((_HOST, 0))
            made.listen()
            yield made
        return
    _free(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        # Nobody may connect between bind and chmod.
        before = os.umask(0o177)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        try:
            made.listen()
            yield made
        finally:
            with suppress(OSError):
                path.unlink()


def _free(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises UsageError, OSError."""
    if not os.path.lexists(path):
        return
    if not path.is_socket():
        raise UsageError(f"{path} exists, and is no socket. Choose another path for --socket.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise UsageError(f"another program listens on {path}. Choose another path for --socket.")


@asynccontextmanager
async def running(found: list[Route], path: Path | None) -> AsyncIterator[Running]:
    """In the block a server answers with these routes. Raises UsageError, OSError."""
    access = Access()
    with listening(path) as made:
        port = None if path is not None else made.getsockname()[1]
        host = None if port is None else f"{_HOST}:{port}"
        here = f"http://{host or 'localhost'}"
        app = Guard(routes.application(found), access, host, routes.open_paths())
        async with trio.open_nursery() as nursery:
            stop = trio.Event()
            nursery.start_soon(_serve, app, _config(made), stop.wait)
            try:
                yield Running(here + access.start(), path, lambda: here + access.renew())
            finally:
                stop.set()


async def _serve(app: Any, config: Config, stopped: Callable[[], Any]) -> None:
    await hypercorn.trio.serve(app, config, shutdown_trigger=stopped, mode="asgi")


def _config(made: socket.socket) -> Config:
    config = Config()
    # The server closes its own descriptor.
    config.bind = [f"fd://{os.dup(made.fileno())}"]
    config.accesslog = config.errorlog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = _MOST_HEAD_BYTES
    config.keep_alive_timeout = 30.0
    config.graceful_timeout = 1.0
    config.shutdown_timeout = 2.0
    return config
