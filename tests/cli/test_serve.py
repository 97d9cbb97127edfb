"""The command `fsmount serve`: what it prints, how it ends, and who can reach it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fsmount.store import config
from fsmount.store.disk.disk import Disk
from tests.cli.commands import process


class OverSocket(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


@pytest.fixture(name="root")
def a_store(tmp_path: Path) -> Path:
    config.make(tmp_path / "store", Disk())
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


@contextmanager
def serving(*arguments: object, **variables: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-P", "-m", "fsmount", "serve", *map(str, arguments)]
    environment = {**os.environ, **variables}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as run:
        yield run
        if run.poll() is None:
            run.terminate()
            assert run.wait(30) == 0


def line(run: subprocess.Popen[str]) -> str:
    assert run.stdout is not None
    return run.stdout.readline().strip()


def answered(connection: http.client.HTTPConnection, url: str) -> tuple[int, str]:
    """Ask for the path of a URL; return status and cookie."""
    parts = urlsplit(url)
    connection.request("GET", f"{parts.path}?{parts.query}" if parts.query else parts.path)
    answer = connection.getresponse()
    answer.read()
    return answer.status, (answer.headers.get("set-cookie") or "").partition(";")[0]


def test_a_link_and_a_clean_end(root: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with serving(root) as run:
            url = line(run)
            host = urlsplit(url).netloc
            assert host.startswith("127.0.0.1:")
            told = line(run)
            assert told.startswith("The link works once. Ctrl-C ends the server.")
            assert f"kill -USR1 {run.pid};" in told
            status, cookie = answered(http.client.HTTPConnection(host, timeout=30), url)
            assert (status, cookie[:8]) == (200, "fsmount=")
            status, cookie = answered(http.client.HTTPConnection(host, timeout=30), url)
            assert (status, cookie) == (401, "")
            run.send_signal(number)
            assert run.wait(30) == 0


@pytest.mark.parametrize("as_json", [False, True])
def test_another_link_for_another_browser(root: Path, as_json: bool) -> None:
    def link() -> str:
        said = line(run)
        return str(json.loads(said)["url"]) if as_json else said

    with serving(root, *(["--json"] if as_json else [])) as run:
        first = link()
        if not as_json:
            line(run)
        host = urlsplit(first).netloc
        seen = [first]
        for _ in range(2):
            run.send_signal(signal.SIGUSR1)
            seen.append(link())
        assert len(set(seen)) == 3
        # Each link takes the place of the one before, and works once.
        answers = [
            answered(http.client.HTTPConnection(host, timeout=30), url)[0]
            for url in (*seen, seen[-1])
        ]
        assert answers == [401, 401, 200, 401]
        # A browser that has the cookie keeps it.
        run.send_signal(signal.SIGUSR1)
        status, cookie = answered(http.client.HTTPConnection(host, timeout=30), link())
        assert (status, cookie[:8]) == (200, "fsmount=")


def test_a_unix_socket(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving(root, "--socket", path, "--json") as run:
        told = json.loads(line(run))
        assert told["socket"] == str(path)
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert answered(OverSocket(str(path)), told["url"])[0] == 200
        second = process("serve", root, "--socket", path)
        assert second.code == 2
        assert "another program listens" in second.sentence()
    assert not path.exists()


def test_the_browser_gets_no_token_as_an_argument(root: Path, tmp_path: Path) -> None:
    browser, told = tmp_path / "browser", tmp_path / "told"
    browser.write_text(
        f'#!/bin/sh\necho "$@" > {told}.new\ncat "${{1#file://}}" >> {told}.new\n'
        f"mv {told}.new {told}\n"
    )
    browser.chmod(0o755)
    home = {"BROWSER": str(browser), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with serving(root, "--open", "--json", **home) as run:
        url = json.loads(line(run))["url"]
        token = urlsplit(url).query.removeprefix("token=")
        while not told.exists():
            time.sleep(0.02)
        argument, page = told.read_text().split("\n", 1)
        assert token not in argument
        assert url in page
        file = Path(argument.removeprefix("file://"))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not file.exists()


def test_mistakes(root: Path, tmp_path: Path) -> None:
    both = process("serve", root, "--open", "--socket", tmp_path / "s")
    assert (both.code, "leave out" in both.sentence()) == (2, True)
    missing = process("serve", tmp_path / "none")
    assert missing.code == 10
    many = process("serve", root, tmp_path)
    assert (many.code, "fsmount serve SOURCE" in many.sentence()) == (2, True)
    file = tmp_path / "file"
    file.write_text("of somebody")
    taken = process("serve", root, "--socket", file)
    assert (taken.code, file.read_text()) == (2, "of somebody")


def test_without_the_extra(root: Path, tmp_path: Path) -> None:
    (tmp_path / "missing" / "starlette").mkdir(parents=True)
    (tmp_path / "missing" / "starlette" / "__init__.py").write_text(
        "raise ModuleNotFoundError('No module', name='starlette')"
    )
    # An empty entry would be the folder that the process starts in.
    paths = [str(tmp_path / "missing"), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = process("serve", root, PYTHONPATH=os.pathsep.join(paths))
    assert done.code == 1
    assert "needs starlette" in done.sentence()
    assert "fsmount[web]" in done.sentence()
