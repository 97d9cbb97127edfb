"""`fsmount copy` from a mount that is in use, and killed."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.commands import fsmount, well
from tests.e2e.mounts import Mount, missing
from tests.support.frames import png, screens

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


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
