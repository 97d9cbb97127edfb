"""Mounting and unmounting by a program that closed its standard streams."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fsmount.mount.mountpoint import mounted_at
from tests.cli.test_streams import shell
from tests.e2e.commands import well
from tests.e2e.mounts import missing
from tests.support.frames import png, screens
from tests.support.trees import make_pictures

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


@pytest.mark.parametrize(
    "how", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full", "2>/dev/full"]
)
def test_mount_and_umount(root: Path, place: Path, how: str) -> None:
    """Both commands succeed, since they print nothing."""
    assert shell(how, "mount", root, place).returncode == 0
    pid = int(os.getxattr(place, "user.fsmount.pid"))
    targets = [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)]
    assert targets == ["/dev/null", "/dev/null", str(root / "mount.log")]
    pictures = [png(frame) for frame in screens(2)]
    for at, picture in enumerate(pictures):
        (place / f"{at}.png").write_bytes(picture)
    assert shell(how, "umount", place).returncode == 0
    assert mounted_at(place) is None
    well("check", root, "--full")
    assert shell(how, "mount", "-f", root, root).returncode == 12


@pytest.mark.parametrize(
    ("how", "code", "told"),
    [
        ("<&- 2>&-", 0, ""),
        (">/dev/full", 1, "fsmount: standard output: No space left on device\n"),
        ("<&- >&- 2>&-", 1, ""),
    ],
)
def test_adopt(tmp_path: Path, how: str, code: int, told: str) -> None:
    """It does its work in full, also if it cannot print its result."""
    folder = tmp_path / "shots"
    pictures = {path.name: path.read_bytes() for path in make_pictures(folder)}
    done = shell(how, "adopt", "--delete-source", folder)
    try:
        assert (done.returncode, done.stderr) == (code, told)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == pictures
        pid = int(os.getxattr(folder, "user.fsmount.pid"))
        targets = [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)]
        log = tmp_path / "shots.store" / "mount.log"
        assert targets == ["/dev/null", "/dev/null", str(log)]
        # Nothing is left to do.
        assert not (tmp_path / "shots.adopt").exists()
    finally:
        if mounted_at(folder) is not None:
            assert shell(how, "umount", folder).returncode == 0
    assert list(folder.iterdir()) == []
    well("check", tmp_path / "shots.store", "--full")
