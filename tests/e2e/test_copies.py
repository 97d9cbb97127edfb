"""`fsmount copy` and `fsmount backup` with mounts, and a copy that is killed."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsmount.mount.mountpoint import mounted_at
from fsmount.mount.unmount import unmount
from tests.e2e.commands import fsmount, well
from tests.e2e.mounts import Mount, missing
from tests.support.frames import png, screens

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


@pytest.fixture(name="second")
def second_mountpoint(tmp_path: Path) -> Iterator[Path]:
    """Another folder to mount on. Afterwards it is unmounted."""
    folder = tmp_path / "second"
    folder.mkdir()
    yield folder
    if mounted_at(folder) is not None:
        unmount(folder)


def test_from_a_mount(mount: Mount, tmp_path: Path) -> None:
    """Also files that the mount has not encoded yet."""
    source = tmp_path / "in"
    source.mkdir()
    for number, frame in enumerate(screens(12)):
        (source / f"{number:02d}.png").write_bytes(png(frame))
    shutil.copytree(source, mount.path / "in")
    well("init", tmp_path / "target")
    well("copy", mount.path, tmp_path / "target")
    assert well("verify", source, tmp_path / "target") == "12/12 identical\n"
    well("check", "--full", tmp_path / "target")
    refused = fsmount("copy", tmp_path / "target", mount.path)
    assert refused.returncode == 10
    mount.stop()


def test_kills_of_a_copy(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number, frame in enumerate(screens(300)):
        (source / f"{number:03d}.png").write_bytes(png(frame, level=1))
    for name in ("store", "target"):
        well("init", tmp_path / name)
    well("import", f"{source}/", tmp_path / "store")
    stores = [str(tmp_path / "store"), str(tmp_path / "target")]
    command = [sys.executable, "-m", "fsmount", "copy", *stores]
    chance = random.Random(3)
    for _ in range(4):
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            running.wait(chance.uniform(0.4, 1.5))
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.wait()
        well("check", tmp_path / "target")
    well("copy", tmp_path / "store", tmp_path / "target")
    assert well("verify", f"{source}/", tmp_path / "target") == "300/300 identical\n"
    well("check", "--full", tmp_path / "target")


def test_a_backup_is_mounted(mount: Mount, tmp_path: Path, second: Path) -> None:
    """Read-only, also while the next backup is made; it shows that one when it is mounted again."""
    pictures = [png(frame) for frame in screens(8)]
    for number, data in enumerate(pictures[:5]):
        (mount.path / f"{number}.png").write_bytes(data)
    dest, place = tmp_path / "backup", second
    well("backup", mount.path, dest)
    well("mount", "-o", "ro", dest, place)
    assert [(place / f"{n}.png").read_bytes() for n in range(5)] == pictures[:5]
    for number, data in enumerate(pictures[5:], start=5):
        (mount.path / f"{number}.png").write_bytes(data)
    well("backup", mount.path, dest)
    assert (place / "3.png").read_bytes() == pictures[3]
    well("umount", place)
    well("mount", "-o", "ro", dest, place)
    assert [(place / f"{n}.png").read_bytes() for n in range(8)] == pictures
    well("umount", place)
    well("backup", mount.path, dest)
    # A mount that may write makes the folder a store of its own.
    well("mount", dest, place)
    assert "in use" in fsmount("backup", mount.path, dest).stderr
    well("umount", place)
    assert "opened for writing" in fsmount("backup", mount.path, dest).stderr
    mount.stop()
