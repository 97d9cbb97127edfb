"""Bytes of one object that go out evenly: by a proxy to a server, and to a folder."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from urllib.parse import urlsplit

import pytest

from fsmount.errors import RemoteFailed
from fsmount.remote import limits, pacing
from fsmount.remote.limits import limited
from fsmount.remote.pacing import CHUNK, Pace, PacedProxy
from fsmount.remote.transport import Patience, transport_to
from tests.cli.commands import process
from tests.support.backups import WANTED, fill_store, shown
from tests.support.buckets import BUCKET, free_port, use_endpoint
from tests.support.proxy import proxy
from tests.support.remotes import pulled

OBJECT = bytes(range(256)) * 4096  # 1 MiB


class Counted:
    """A pace that notes what it was asked for, and never waits."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, count: int) -> None:
        self.asked.append(count)


def test_a_pace() -> None:
    now = [50.0]
    sent = [(50.0, 0)]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    pace = Pace(1 << 20, lambda: now[0], sleep)
    for _ in range(100 << 6):
        pace(CHUNK)
        sent.append((now[0], sent[-1][1] + CHUNK))
    # 100 MiB at 1 MiB a second: never more than one chunk ahead, and no slower.
    assert all(count <= (at - 50) * (1 << 20) + CHUNK + 1 for at, count in sent)
    assert now[0] == pytest.approx(150, abs=0.1)
    # Time that nobody used is not made up for.
    now[0] += 1000
    pace(1 << 20)
    before = now[0]
    pace(1)
    assert now[0] - before == pytest.approx(1)


@contextmanager
def sink() -> Iterator[tuple[int, Queue[socket.socket]]]:
    """A server that only accepts; gives its port, and its connections."""
    links: Queue[socket.socket] = Queue()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    links.put(listening.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1], links
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            while not links.empty():
                links.get().close()


def tunnel(running: PacedProxy, port: int, password: str | None = None) -> socket.socket:
    """A connection through the proxy, as a client of HTTPS makes it."""
    url = urlsplit(running.url)
    assert url.port is not None
    link = socket.create_connection(("127.0.0.1", url.port), 30)
    word = base64.b64encode(f"fsmount:{password or url.password}".encode()).decode()
    head = f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nProxy-Authorization: Basic {word}\r\n\r\n"
    link.sendall(head.encode())
    return link


def received(link: socket.socket, count: int) -> bytes:
    """What comes until there are so many bytes; more, if more come at once."""
    data = b""
    while len(data) < count:
        data += link.recv(1 << 20)
    return data


def test_an_object_goes_out_only_as_it_is_allowed() -> None:
    """The server gets what the pace has let through, and not a byte more."""
    allowed = threading.Semaphore(0)
    asked: Queue[int] = Queue()

    def pace(count: int) -> None:
        asked.put(count)
        allowed.acquire()

    with sink() as (port, links), PacedProxy(pace) as running:
        client = tunnel(running, port)
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        writer = threading.Thread(target=client.sendall, args=(OBJECT,), daemon=True)
        writer.start()
        server = links.get(timeout=30)
        got = b""
        while len(got) < len(OBJECT):
            count = asked.get(timeout=30)
            assert count <= CHUNK
            allowed.release()
            chunk = received(server, count)
            assert len(chunk) == count
            got += chunk
        assert got == OBJECT
        # Answers are not slowed down.
        server.sendall(OBJECT)
        assert received(client, len(OBJECT)) == OBJECT
        assert asked.empty()
        writer.join()
        client.close()
        server.close()


def test_nobody_else_can_use_the_proxy() -> None:
    with sink() as (port, links), PacedProxy(Counted()) as running:
        with tunnel(running, port, "wrong") as link:
            assert link.recv(100).startswith(b"HTTP/1.1 407")
            assert link.recv(100) == b""
        assert links.empty()


def test_objects_are_made_once_through_the_proxy(
    moto: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy(moto) as between, PacedProxy(counted := Counted()) as running:
        use_endpoint(monkeypatch, between.port)
        remote = transport_to(f"s3://{BUCKET}/{tmp_path.name}", proxy=running.url)
        assert remote.put("packs/a", OBJECT)
        assert not remote.put("packs/a", b"other")
        assert remote.get("packs/a") == OBJECT
        assert remote.size("packs/a") == len(OBJECT)
        assert [name for name, _ in remote.list("packs")] == ["packs/a"]
        remote.delete("packs/a")
        assert remote.size("packs/a") is None
        # All that the server got went through the pace, in small chunks.
        assert sum(size for _, _, size in between.seen) < sum(counted.asked)
        assert max(counted.asked) <= CHUNK
        # The server sees an ordinary request.
        assert all(path.startswith(f"/{BUCKET}") for _, path, _ in between.seen)


def test_https_goes_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy passes on a handshake that it cannot read."""
    with sink() as (port, links), PacedProxy(Counted()) as running:
        use_endpoint(monkeypatch, port)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{port}")
        remote = transport_to(f"s3://{BUCKET}/x", Patience(5, 0.1, 30), proxy=running.url)

        heads: list[bytes] = []

        def refuse() -> None:
            with links.get(timeout=30) as link:
                heads.append(link.recv(5))

        server = threading.Thread(target=refuse, daemon=True)
        server.start()
        with pytest.raises(RemoteFailed):
            remote.get("packs/a")
        server.join()
        assert heads[0][:2] == b"\x16\x03"


def test_a_server_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    with PacedProxy(Counted()) as running:
        use_endpoint(monkeypatch, free_port())
        remote = transport_to(f"s3://{BUCKET}/x", Patience(1, 0.1, 5), proxy=running.url)
        with pytest.raises(RemoteFailed, match="AWS_ENDPOINT_URL and the network"):
            remote.put("packs/a", b"x")


def test_the_end_of_the_proxy_ends_connections() -> None:
    with sink() as (port, _):
        with PacedProxy(Counted()) as running:
            client = tunnel(running, port)
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert client.recv(100) == b""
        client.close()


def test_a_folder_is_written_at_the_pace(tmp_path: Path) -> None:
    counted = Counted()
    remote = transport_to(f"file://{tmp_path}/remote", pace=counted)
    assert remote.put("packs/a", OBJECT)
    assert remote.get("packs/a") == OBJECT
    assert counted.asked == [CHUNK] * (len(OBJECT) // CHUNK)
    assert remote.put("packs/empty", b"")
    assert remote.get("packs/empty") == b""


def test_a_limit_uses_the_proxy_unless_the_user_has_one(
    moto: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Counted()
    monkeypatch.setattr(limits, "Pace", lambda rate: asked)
    for name in pacing._PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    use_endpoint(monkeypatch, moto)
    with limited(f"s3://{BUCKET}/{tmp_path.name}", 1 << 30) as remote:
        assert remote.put("packs/a", OBJECT)
        assert sum(asked.asked) > len(OBJECT)
    asked.asked.clear()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with limited(f"s3://{BUCKET}/{tmp_path.name}", 1 << 30) as remote:
        assert remote.put("packs/b", OBJECT)
        assert asked.asked == []


def test_the_command(
    root: Path, small_limits: None, moto: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_store(root, monkeypatch)
    use_endpoint(monkeypatch, moto)
    url = f"s3://{BUCKET}/{tmp_path.name}"
    done = process("push", str(root), url, "--bandwidth", "1G", "--prune", "--keep-states", "1")
    assert (done.code, "1 state kept" in done.out) == (0, True), done.err
    pulled(url, tmp_path / "back")
    assert shown(tmp_path / "back") == WANTED
