"""The capture script: a call takes one shot, writes it into the mount, and never waits for it."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsmount.legacy.timestamps import parse_timestamp
from tests.e2e.conftest import SIZE
from tests.e2e.mounts import Mount, missing
from tests.support.paths import CHECKOUT

SCRIPT = CHECKOUT / "fsmount" / "share" / "fsmount-shot"

needs_screen = [
    pytest.mark.mount,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
    pytest.mark.skipif(
        not all(map(shutil.which, ("Xvfb", "maim"))), reason="Xvfb or maim is not installed"
    ),
]


def shoot(
    folder: Path, spool: Path, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", SCRIPT, *arguments, folder],
        env={**os.environ, "FSMOUNT_SPOOL": str(spool), **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def fake_tool(place: Path) -> str:
    """Write a program that takes a picture at once. Returns its path."""
    path = place / "tool"
    path.write_text('#!/bin/sh\nprintf picture > "$1"\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.usefixtures("display")
class TestShots:
    pytestmark = needs_screen

    def test_a_shot_goes_into_the_mount(
        self,
        mount: Mount,
        tmp_path: Path,
        display: dict[str, str],
    ) -> None:
        done = shoot(
            mount.path,
            tmp_path / "spool",
            DISPLAY=display["DISPLAY"],
            WAYLAND_DISPLAY="",
            FSMOUNT_NEED_MOUNT="1",
        )
        assert (done.returncode, done.stderr) == (0, "")
        (name,) = os.listdir(mount.path)
        assert parse_timestamp(name.removesuffix(".png")) is not None
        shown = np.array(Image.open(mount.path / name))
        assert shown.shape[:2] == SIZE[::-1]


def test_what_the_folder_does_not_take_is_kept_and_goes_in_later(tmp_path: Path) -> None:
    folder, spool = tmp_path / "shots", tmp_path / "spool"
    tool = fake_tool(tmp_path)
    start = time.monotonic()
    done = shoot(folder, spool, FSMOUNT_TOOL=tool)
    assert time.monotonic() - start < 1.5
    assert done.returncode == 0
    assert "is kept in" in done.stderr
    (kept,) = os.listdir(spool)
    folder.mkdir()
    done = shoot(folder, spool, FSMOUNT_TOOL=tool, FSMOUNT_NEED_MOUNT="1")
    assert "does not answer" in done.stderr
    assert os.listdir(folder) == []
    time.sleep(1.1)
    assert shoot(folder, spool, FSMOUNT_TOOL=tool).stderr == ""
    assert kept in os.listdir(folder)
    assert len(os.listdir(folder)) >= 2
    assert os.listdir(spool) == []
    assert all((folder / name).read_text() == "picture" for name in os.listdir(folder))


@pytest.mark.parametrize("zone", ["UTC", "<+0545>-5:45", "EST5EDT,M3.2.0,M11.1.0"])
def test_names_with_and_without_colons(tmp_path: Path, zone: str) -> None:
    """Both tell the same time, so import and export put them in the same order."""
    folder, tool = tmp_path / "shots", fake_tool(tmp_path)
    folder.mkdir()
    before = time.time()
    for no_colons in ("", "1"):
        done = shoot(
            folder,
            tmp_path / "spool",
            FSMOUNT_TOOL=tool,
            FSMOUNT_NO_COLONS=no_colons,
            TZ=zone,
        )
        assert (done.returncode, done.stderr) == (0, "")
    after = time.time()
    with_colons, without = sorted(os.listdir(folder), key=lambda name: ":" not in name)
    assert ":" in with_colons
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d[+-]\d{4}\.png", without)
    for name in (with_colons, without):
        told = parse_timestamp(name.removesuffix(".png"))
        assert told is not None
        assert told.zoned
        assert int(before) <= told.us // 10**6 <= after


@pytest.mark.parametrize("folder", ["there", "not there"])
def test_shots_of_one_second_are_all_kept(tmp_path: Path, folder: str) -> None:
    shots, spool, tool = tmp_path / folder, tmp_path / "spool", tmp_path / "tool"
    tool.write_text('#!/bin/sh\nprintf "$$" > "$1"\n')
    tool.chmod(0o755)
    if folder == "there":
        shots.mkdir()
    with ThreadPoolExecutor(3) as threads:
        run = functools.partial(shoot, shots, spool, FSMOUNT_TOOL=str(tool))
        done = [one.result().returncode for one in [threads.submit(run) for _ in range(3)]]
    assert done == [0, 0, 0]
    place = shots if folder == "there" else spool
    assert len({path.read_text() for path in place.iterdir()}) == 3


@pytest.mark.mount
@pytest.mark.skipif(missing() is not None, reason=missing() or "")
def test_a_mount_that_hangs_holds_no_shot_up(mount: Mount, tmp_path: Path) -> None:
    os.kill(mount.pid, 19)
    try:
        start = time.monotonic()
        done = shoot(mount.path, tmp_path / "spool", FSMOUNT_TOOL=fake_tool(tmp_path))
        taken = time.monotonic() - start
        assert "is kept in" in done.stderr
        assert taken < 1.5, "a second, and the programs of the script"
    finally:
        os.kill(mount.pid, 18)
    time.sleep(1.1)
    done = shoot(mount.path, tmp_path / "spool", FSMOUNT_TOOL=fake_tool(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(tmp_path / "spool") == []
    shown = os.listdir(mount.path)
    assert len(shown) == 2
    assert all((mount.path / name).read_text() == "picture" for name in shown)


@pytest.fixture(name="freezable")
def _freezable(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own that fsfreeze can stop."""
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    commands = (["mkfs.ext4", "-q", str(image)], ["mount", "-o", "loop", str(image), str(folder)])
    if os.geteuid() or not shutil.which("fsfreeze") or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root, fsfreeze and mkfs.ext4")
    if any(
        subprocess.run(command, capture_output=True, check=False).returncode for command in commands
    ):
        pytest.skip("no image may be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.mount
@pytest.mark.skipif(missing() is not None, reason=missing() or "")
def test_a_disk_that_hangs_holds_no_shot_up(freezable: Path, tmp_path: Path) -> None:
    """A process that writes to such a disk cannot be killed, so the script must not wait for it."""
    spool, tool = tmp_path / "spool", fake_tool(tmp_path)
    mount = Mount(freezable)
    mount.start()
    try:
        subprocess.run(["fsfreeze", "-f", freezable], check=True)
        try:
            for number in range(2):
                start = time.monotonic()
                done = shoot(mount.path, spool, FSMOUNT_TOOL=tool)
                taken = time.monotonic() - start
                assert "is kept in" in done.stderr
                assert taken < 1.5
                assert len(os.listdir(spool)) == number + 1
        finally:
            subprocess.run(["fsfreeze", "-u", freezable], check=True)
        time.sleep(1.1)
        assert shoot(mount.path, spool, FSMOUNT_TOOL=tool).stderr == ""
        assert os.listdir(spool) == []
        # Writers that the script left behind ended. They left no second name and no partial file.
        assert len(os.listdir(mount.path)) == 3
        assert all((mount.path / name).read_text() == "picture" for name in os.listdir(mount.path))
        mount.stop()
    finally:
        mount.clean()


def test_no_screen_is_said(tmp_path: Path) -> None:
    done = shoot(tmp_path, tmp_path / "spool", DISPLAY="", WAYLAND_DISPLAY="", FSMOUNT_TOOL="")
    assert done.returncode == 1
    assert "no screen here" in done.stderr


def test_all_kept_shots_go_in_when_the_folder_is_back(tmp_path: Path) -> None:
    """The unit of the mount calls this: nobody waits for the next shot."""
    folder, spool = tmp_path / "shots", tmp_path / "spool"
    spool.mkdir()
    names = [f"2024-06-06T17:{minute:02}:00+00:00.png" for minute in range(30)]
    for name in names:
        (spool / name).write_text(name)
    done = shoot(folder, spool, "--kept", DISPLAY="", WAYLAND_DISPLAY="")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(os.listdir(spool)) == names, "the folder is not there"
    folder.mkdir()
    shoot(folder, spool, "--kept", FSMOUNT_NEED_MOUNT="1")
    assert os.listdir(folder) == [], "it is no mount"
    done = shoot(folder, spool, "--kept", DISPLAY="", WAYLAND_DISPLAY="")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(os.listdir(folder)) == names
    assert all((folder / name).read_text() == name for name in names)
    assert os.listdir(spool) == []


def test_two_writers_of_one_shot_make_one_whole_file(tmp_path: Path) -> None:
    folder, spool = tmp_path / "shots", tmp_path / "spool"
    folder.mkdir()
    spool.mkdir()
    text = "x" * (4 << 20)
    (spool / "a.png").write_text(text)
    # A writer that was given up left this.
    (folder / ".a.png.1.part").write_text("half")
    with ThreadPoolExecutor(4) as threads:
        run = functools.partial(shoot, folder, spool, "--kept")
        done = [one.result().returncode for one in [threads.submit(run) for _ in range(4)]]
    assert done == [0, 0, 0, 0]
    assert os.listdir(folder) == ["a.png"]
    assert (folder / "a.png").read_text() == text
    assert os.listdir(spool) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_full_disk_leaves_no_half_shot(tmp_path: Path) -> None:
    """What lies in the spool goes into the folder later: it must be whole."""
    spool, tool = tmp_path / "spool", tmp_path / "tool"
    spool.mkdir()
    tool.write_text('#!/bin/sh\nhead -c 3000000 /dev/zero > "$1"\n')
    tool.chmod(0o755)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", spool], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("nothing may be mounted here")
    try:
        done_shot = shoot(tmp_path / "gone", spool, FSMOUNT_TOOL=str(tool))
        assert done_shot.returncode == 1
        assert "the shot is lost" in done_shot.stderr
        assert os.listdir(spool) == []
    finally:
        subprocess.run(["umount", spool], check=True)
