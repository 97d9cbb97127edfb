"""Who gets an answer from the server, and what a browser may do with it."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import trio

from fsmount.errors import UsageError
from fsmount.web import opening, serving
from fsmount.web.safety import Access, Guard, Message, Receive, Scope, Send
from tests.web.support import HOST, Client, Pairs

OURS = [(b"host", HOST.encode())]


async def secret(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that tells a secret."""
    if scope["path"] == "/fails":
        raise RuntimeError("a mistake")
    start: Message = {"type": "http.response.start", "status": 200, "headers": []}
    if scope["path"] == "/cached":
        start["headers"] = [(b"Cache-Control", b"max-age=9"), (b"X-Frame-Options", b"none")]
    await send(start)
    await send({"type": "http.response.body", "body": b"secret " + scope["path"].encode()})


@pytest.fixture(name="asking")
async def a_client() -> Client:
    access = Access()
    return Client(Guard(secret, access, HOST, ["/static/app.js"]), access)


async def test_the_link_works_once_and_gives_a_cookie(asking: Client) -> None:
    assert (await asking.get("/a")).status == 401
    first = await asking.open()
    assert first.status == 200
    assert b"secret" not in first.body
    cookie = first.headers["set-cookie"]
    assert cookie.endswith(f"; Path=/{asking.access.name}/; HttpOnly; SameSite=Strict")
    assert (await asking.get("/a")).body == b"secret /a"
    kept, asking.cookie = asking.cookie, ""
    again = await asking.raw(f"/{asking.access.name}/?token=x", headers=OURS)
    assert again.status == 401
    assert "set-cookie" not in again.headers
    asking.cookie = kept[:-1]
    assert (await asking.get("/a")).status == 401
    asking.cookie = f"other=1; {kept}"
    assert (await asking.get("/a")).status == 200


async def test_another_link_takes_the_place_of_an_unused_one(asking: Client) -> None:
    old = asking.access.start()
    await asking.open()
    kept = asking.cookie
    unused = asking.access.renew()
    new = asking.access.renew()
    for link, status in ((old, 401), (unused, 401), (new, 200), (new, 401)):
        assert (await asking.raw(link, headers=OURS)).status == status
    # The browser that came first goes on.
    asking.cookie = kept
    assert (await asking.get("/a")).status == 200


async def test_a_used_link_opens_the_page_for_its_own_browser_only(asking: Client) -> None:
    link = asking.access.start()
    await asking.open()
    with_cookie = [*OURS, (b"cookie", asking.cookie.encode())]
    assert (await asking.raw(link, headers=with_cookie)).status == 200
    assert (await asking.raw(link, headers=OURS)).status == 401


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{HOST[-4:]}", "localhost:4242", "127.0.0.1", ""]
)
async def test_dns_rebinding(asking: Client, host: str) -> None:
    await asking.open()
    headers = [(b"host", host.encode()), (b"cookie", asking.cookie.encode())]
    found = await asking.raw(f"/{asking.access.name}/a", headers=headers)
    assert found.status == 403
    link = await asking.raw(asking.access.start(), headers=headers[:1])
    assert link.status == 403


async def test_two_hosts_or_none(asking: Client) -> None:
    await asking.open()
    cookie = (b"cookie", asking.cookie.encode())
    for hosts in ([], [*OURS, *OURS]):
        found = await asking.raw(f"/{asking.access.name}/a", headers=[*hosts, cookie])
        assert found.status == 403


@pytest.mark.parametrize(
    "more",
    [
        [(b"origin", b"http://evil.example")],
        [(b"origin", b"null")],
        [(b"origin", b"http://127.0.0.1:9999")],
        [(b"sec-fetch-site", b"cross-site")],
        [(b"sec-fetch-site", b"same-site")],
        [(b"Sec-Fetch-Site", b"cross-site"), (b"origin", f"http://{HOST}".encode())],
    ],
)
async def test_pages_of_others(asking: Client, more: Pairs) -> None:
    await asking.open()
    found = await asking.get("/a", headers=more)
    assert found.status == 403
    assert "access-control-allow-origin" not in found.headers


async def test_our_own_page(asking: Client) -> None:
    await asking.open()
    for site in (b"same-origin", b"none"):
        own = [(b"origin", f"http://{HOST}".encode()), (b"sec-fetch-site", site)]
        assert (await asking.get("/a", headers=own)).status == 200
    # Somebody follows the link in another program.
    link = asking.access.start()
    found = await asking.raw(link, headers=[*OURS, (b"sec-fetch-site", b"cross-site")])
    assert found.status == 401, "the token was used"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"])
async def test_other_methods(asking: Client, method: str) -> None:
    await asking.open()
    assert (await asking.get("/a", method=method)).status == 405


async def test_websockets_are_closed(asking: Client) -> None:
    await asking.open()
    assert (await asking.raw(f"/{asking.access.name}/a", kind="websocket")).status == -1008


async def test_long_addresses_and_other_paths(asking: Client) -> None:
    await asking.open()
    assert (await asking.get("/" + "a" * 2100)).status == 414
    assert (await asking.get("/a?q=" + "a" * 2100)).status == 414
    cookie = (b"cookie", asking.cookie.encode())
    for path in ("/", "/a", f"/{asking.access.name}", f"/{asking.access.name}x/a", "//a"):
        assert (await asking.raw(path, headers=[*OURS, cookie])).status == 404


async def test_each_answer_forbids_what_the_page_does_not_need(asking: Client) -> None:
    found = [await asking.get("/a"), await asking.open(), await asking.get("/cached")]
    found += [await asking.get("/fails"), await asking.get("/a", method="POST")]
    assert [each.status for each in found] == [401, 200, 200, 500, 405]
    for each in found:
        policy = each.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy and "http:" not in policy and "*" not in policy
        assert each.headers["x-content-type-options"] == "nosniff"
        assert each.headers["referrer-policy"] == "no-referrer"
        assert each.headers["cache-control"] == "no-store"
        assert each.headers["x-frame-options"] == "DENY"
        assert each.headers["cross-origin-resource-policy"] == "same-origin"
        assert not any(name.startswith("access-control") for name in each.headers)
    assert b"mistake" in found[3].body and b"RuntimeError" not in found[3].body


async def test_static_files_need_no_cookie(asking: Client) -> None:
    found = await asking.get("/static/app.js")
    assert found.status == 200
    assert "immutable" in found.headers["cache-control"]
    assert "cache-control" in found.headers and found.headers["x-frame-options"] == "DENY"
    assert (await asking.get("/static/app.jsx")).status == 401


async def test_a_forwarded_unix_socket_has_any_port_of_this_machine() -> None:
    access = Access()
    asking = Client(Guard(secret, access, None), access)
    for host, status in (
        ("localhost", 401),
        ("127.0.0.1:8080", 401),
        ("[::1]:8080", 401),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("localhost:8080:9", 403),
        ("127.0.0.1:x", 403),
    ):
        found = await asking.raw(f"/{access.name}/a", headers=[(b"host", host.encode())])
        assert found.status == status, host


# -- sockets and files


def test_a_port_is_on_the_loopback_only() -> None:
    with serving.listening(None) as made:
        assert made.getsockname()[0] == "127.0.0.1"
        assert made.getsockname()[1] > 0


def test_a_unix_socket_is_private(tmp_path: Path) -> None:
    path = tmp_path / "fsmount.sock"
    with serving.listening(path):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        with pytest.raises(UsageError, match="another program listens"), serving.listening(path):
            pass
        assert path.exists()
    assert not path.exists()
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with serving.listening(path):
        pass
    path.write_text("a file of somebody")
    with pytest.raises(UsageError, match="no socket"), serving.listening(path):
        pass
    assert path.read_text() == "a file of somebody"


def test_the_link_lies_in_a_private_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = os.umask(0)
    try:
        with opening.link_file('http://127.0.0.1:1/"><script>') as path:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert "<script>" not in path.read_text()
    finally:
        os.umask(before)
    assert list((tmp_path / "fsmount").iterdir()) == []


async def test_a_real_server(tmp_path: Path) -> None:
    """Requests that no well-behaved client sends."""
    with trio.fail_after(30):
        async with serving.running([], None) as server:
            host, _, path = server.url.removeprefix("http://").partition("/")
            port = int(host.rpartition(":")[2])

            async def ask(text: str) -> bytes:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                async with stream:
                    await stream.send_all(text.encode())
                    return b"".join([part async for part in stream])

            end = "Connection: close\r\n\r\n"
            assert b" 400 " in (await ask(f"GET / HTTP/1.1\r\n{end}")).splitlines()[0]
            rebound = await ask(f"GET /{path} HTTP/1.1\r\nHost: evil.example\r\n{end}")
            assert b" 403 " in rebound.splitlines()[0]
            assert b"server:" not in rebound.lower()
            huge = await ask(f"GET /{'a' * 20_000} HTTP/1.1\r\nHost: {host}\r\n{end}")
            assert b" 4" in huge.splitlines()[0]
            found = await ask(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\n{end}")
            assert b" 200 " in found.splitlines()[0]
            assert b"set-cookie: fsmount=" in found
            traversal = f"GET /{path.partition('/')[0]}/static/../../etc/passwd HTTP/1.1"
            assert b" 401 " in (await ask(f"{traversal}\r\nHost: {host}\r\n{end}")).splitlines()[0]
