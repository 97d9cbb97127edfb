"""Shared fixtures for tests on a real mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.mount.mountpoint import mounted_at
from fsmount.mount.unmount import unmount
from tests.e2e.commands import well
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


@pytest.fixture(name="root")
def store_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a new store. No variable of fsmount is set."""
    for name in ("FSMOUNT_STORE", "FSMOUNT_CACHE_SIZE", "FSMOUNT_JOBS", "FSMOUNT_LOG"):
        monkeypatch.delenv(name, raising=False)
    well("init", tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture(name="place")
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    """A folder to mount on. Afterwards it is detached, whether its server answers or not."""
    folder = tmp_path / "mnt"
    folder.mkdir()
    yield folder
    while mounted_at(folder) is not None:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def place_of_a_server(tmp_path: Path) -> Iterator[Path]:
    """A folder to mount on. Afterwards it is unmounted, and its server has ended."""
    folder = tmp_path / "mnt"
    folder.mkdir()
    yield folder
    if mounted_at(folder) is not None:
        unmount(folder)


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
