"""Stores, sources and mountpoints below paths of any bytes."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fsmount.mount.mountpoint import mounted_at
from tests.e2e.mounts import missing
from tests.support.legacies import convert, save
from tests.support.names import ODD_NAMES
from tests.support.photos import folder as make_photos

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


def fsmount(*arguments: str | Path, code: int = 0, **variables: str) -> bytes:
    """Run a command. Returns its stdout, or its stderr if `code` is not 0."""
    command = [sys.executable, "-m", "fsmount", *arguments]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, capture_output=True, timeout=100, check=False, env=environment)
    assert done.returncode == code, done
    assert b"Traceback" not in done.stderr
    return done.stderr if code else done.stdout


@pytest.fixture(name="folder")
def odd_folder(tmp_path: Path, name: bytes) -> Path:
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    return folder


@pytest.fixture(name="place")
def mountpoint(folder: Path) -> Iterator[Path]:
    # The name of the mountpoint ends in a newline.
    place = folder / "mnt\n"
    place.mkdir()
    yield place
    while mounted_at(place) is not None:
        subprocess.run(["umount", "-l", place], check=True)


LOCALES = itertools.cycle(["C.UTF-8", "C", "POSIX"])


@pytest.mark.parametrize(("name", "locale"), list(zip(ODD_NAMES, LOCALES, strict=False)))
def test_a_store(folder: Path, place: Path, locale: str) -> None:
    root = folder / "store"
    fsmount("init", root, LC_ALL=locale)
    fsmount("mount", root, place, LC_ALL=locale)
    mounted = mounted_at(place)
    assert mounted is not None
    assert mounted.source == str(root)
    # The table that users read.
    lines = Path("/proc/self/mounts").read_bytes().split(b"\n")
    assert any(b"fuse.fsmount" in line and b"/store " in line for line in lines)
    (place / folder.name).write_bytes(b"body")
    assert b"is mounted there already" in fsmount("mount", root, place, code=12, LC_ALL=locale)
    # A command that reads takes the mountpoint for its store; one that changes the store does not.
    assert b"1 file" in fsmount("stats", place, LC_ALL=locale)
    fsmount("check", place, LC_ALL=locale)
    assert b"Copy files through the mount" in fsmount("repack", place, code=10, LC_ALL=locale)
    fsmount("umount", place, LC_ALL=locale)
    assert mounted_at(place) is None
    assert b"nothing is mounted there" in fsmount("umount", place, code=12, LC_ALL=locale)
    fsmount("mount", root, place, LC_ALL=locale)
    assert (place / folder.name).read_bytes() == b"body"
    fsmount("umount", place, LC_ALL=locale)


@pytest.mark.parametrize("name", ODD_NAMES[::2])
def test_a_mount_that_died(folder: Path, place: Path) -> None:
    root = folder / "store"
    fsmount("init", root)
    fsmount("mount", root, place)
    server = os.pidfd_open(int(os.getxattr(place, "user.fsmount.pid")))
    signal.pidfd_send_signal(server, signal.SIGKILL)
    assert b"has died" in fsmount("mount", root, place, code=12)
    fsmount("umount", place)
    assert mounted_at(place) is None
    os.close(server)


@pytest.mark.parametrize("name", ODD_NAMES[:4:3])
def test_a_folder_of_differences(folder: Path, place: Path) -> None:
    legacy = folder / "legacy"
    legacy.mkdir()
    frame = np.zeros((40, 60, 3), np.uint8)
    for minute in range(3):
        frame[minute, :5] = 200
        save(legacy, f"2024-06-06T17:{minute:02d}:00+00:00", frame)
    assert len(convert(legacy)) == 2
    fsmount("mount", legacy, place)
    assert len(list(place.iterdir())) == 3
    mounted = mounted_at(place)
    assert mounted is not None
    assert mounted.source == str(legacy)
    fsmount("umount", place)


@pytest.mark.parametrize("name", ODD_NAMES[:1])
def test_an_album(folder: Path, place: Path) -> None:
    pytest.importorskip("av", reason="needs the extra album")
    if shutil.which("exiftool") is None:
        pytest.skip("needs exiftool")
    photos = make_photos(folder / "photos", 2)
    fsmount("album", "create", photos, "-o", folder / "out", "--box", "128")
    fsmount("mount", folder / "out" / "photos.xml", place)
    assert {path.name for path in place.iterdir()} == {path.name for path in photos.iterdir()}
    fsmount("umount", place)
