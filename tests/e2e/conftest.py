"""Shared fixtures for tests on a real mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mounts import Mount

# Width and height of the virtual screen.
SIZE = (640, 400)


@pytest.fixture(name="mount")
def started_mount(tmp_path: Path) -> Iterator[Mount]:
    """A new store, mounted."""
    made = Mount(tmp_path)
    made.start()
    yield made
    made.clean()


@pytest.fixture
def display() -> Iterator[dict[str, str]]:
    """An environment with a virtual screen of SIZE."""
    receiver, sender = os.pipe()
    screen = f"{SIZE[0]}x{SIZE[1]}x24"
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(sender), "-screen", "0", screen, "-nolisten", "tcp"],
        pass_fds=[sender],
        stderr=subprocess.DEVNULL,
    )
    os.close(sender)
    with open(receiver) as pipe:
        number = pipe.readline().strip()
    yield {**os.environ, "DISPLAY": f":{number}"}
    server.terminate()
    server.wait(10)
